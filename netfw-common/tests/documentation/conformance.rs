//! The page on the RFCs cannot lie: it names every requirement, and tests that exist.

use crate::{
    page::{self, rows},
    sources,
};

const PAGE: &str = include_str!("../../../docs/rfc-conformance.md");

/// The requirements of each RFC; a letter is a part of the number before it.
const REQUIREMENTS: [(&str, &str); 5] = [
    ("RFC 4787", "1 2 3 a 4 5 a b c 6 a 7 8 a 9 a 10 a 11 12 a b 13 a 14 a"),
    ("RFC 5382", "1 2 a 3 a b 4 a 5 a 6 7 8 a 9 10"),
    ("RFC 5508", "1 a 2 a 3 a b c d 4 a b c 5 a b c 6 7 a 8 9 10a 10b 10c 10d 10e 10f 11"),
    ("RFC 7857", "2 2.1 2.2 3 4 5 6 7 7.1 8 9 10 11 12"),
    ("RFC 6056", "3.1 3.2 3.3 3.4 3.5 4"),
];

/// A line of a table.
struct Line {
    rfc: String,
    requirement: String,
    state: String,
    tests: Vec<String>,
}

fn lines() -> Vec<Line> {
    let line = |row: page::Row<'_>| Line {
        rfc: row.section.split(':').next().expect("there is a first part").to_owned(),
        requirement: row.cells[0].trim_start_matches("REQ-").to_owned(),
        state: row.cells[1].to_owned(),
        tests: page::tests(row.cells[3]),
    };
    rows(PAGE, 4).into_iter().map(line).collect()
}

fn numbers(list: &str) -> Vec<String> {
    let mut last = "";
    let mut all = Vec::new();
    for word in list.split(' ') {
        if word.starts_with(|first: char| first.is_ascii_digit()) {
            last = word;
            all.push(word.to_owned());
        } else {
            all.push(format!("{last}{word}"));
        }
    }
    all
}

#[test]
fn every_requirement_has_one_line() {
    for (rfc, wanted) in REQUIREMENTS {
        let found: Vec<String> =
            lines().into_iter().filter(|line| line.rfc == rfc).map(|line| line.requirement).collect();
        assert_eq!(found, numbers(wanted), "{rfc}");
    }
    let all: usize = REQUIREMENTS.iter().map(|(_, wanted)| numbers(wanted).len()).sum();
    assert_eq!(lines().len(), all, "lines of other RFCs");
}

#[test]
fn what_is_met_is_tested() {
    let tests = sources::tests(&[&sources::HOST[..], &sources::LAB].concat());
    assert!(tests.len() > 200, "{} tests found", tests.len());
    for Line { rfc, requirement, state, tests: named } in lines() {
        let place = format!("{rfc}, {requirement}");
        let claims = match state.as_str() {
            "met" | "by option" => true,
            "not met" | "open" | "none" => false,
            other => panic!("{place}: no such state: {other}"),
        };
        assert_eq!(!named.is_empty(), claims, "{place}: {state}, but {} tests", named.len());
        for test in named {
            assert!(tests.contains(&test), "{place}: there is no test {test}");
        }
    }
}
