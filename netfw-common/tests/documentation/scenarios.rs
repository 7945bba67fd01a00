//! What a gateway must survive is numbered. The page on it cannot lie: it has every number, and names tests that exist. Each number
//! stands in the comments of tests, too: those of address translation (1 to 17) both without a network and in the lab.

use std::{collections::BTreeSet, fs, ops::RangeInclusive};

use crate::{
    page::{self, rows},
    sources::{self, HOST, LAB},
};

const PAGE: &str = include_str!("../../../docs/scenarios.md");
const ALL: RangeInclusive<u32> = 1..=32;
const TRANSLATION: RangeInclusive<u32> = 1..=17;
/// What stands in place of tests where a ring has none.
const NONE: &str = "none";

/// A line of the page.
struct Line {
    number: u32,
    host: Vec<String>,
    lab: Vec<String>,
}

fn lines() -> Vec<Line> {
    let tests = |cell: &str| page::tests(cell).into_iter().filter(|name| name != NONE).collect();
    let line = |row: page::Row<'_>| Line {
        number: row.cells[0].parse().expect("a line begins with its number"),
        host: tests(row.cells[3]),
        lab: tests(row.cells[4]),
    };
    rows(PAGE, 5).into_iter().map(line).collect()
}

#[test]
fn every_scenario_has_its_lines() {
    let mut numbers: Vec<u32> = lines().iter().map(|line| line.number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    numbers.dedup();
    assert!(numbers.into_iter().eq(ALL));
}

#[test]
fn every_line_is_tested() {
    let (host, lab) = (sources::tests(&HOST), sources::tests(&LAB));
    for line in lines() {
        let number = line.number;
        for (ring, named, tests) in [("host", line.host, &host), ("lab", line.lab, &lab)] {
            let may_be_none = !TRANSLATION.contains(&number);
            assert!(!named.is_empty() || may_be_none, "scenario {number}: no test of the {ring} ring");
            for test in named {
                assert!(tests.contains(&test), "scenario {number}: the {ring} ring has no test {test}");
            }
        }
    }
}

#[test]
fn comments_name_each_scenario_of_translation() {
    for (ring, dirs) in [("host", &HOST[..]), ("lab", &LAB)] {
        let found = named(dirs);
        let missing: Vec<u32> = TRANSLATION.filter(|number| !found.contains(number)).collect();
        assert!(missing.is_empty(), "no test of the {ring} ring names scenario {missing:?}");
    }
}

#[test]
fn numbers_are_read() {
    let numbers = |comment| numbers(comment).collect::<Vec<_>>();
    assert_eq!(numbers("/// Both. (Scenario 15.)"), [15]);
    assert_eq!(numbers("//! Scenarios 9 and 11: the way."), [9, 11]);
    assert_eq!(numbers("/// Nobody. (Scenarios 15, 16.) After 4 minutes."), [15, 16]);
    assert_eq!(numbers("/// Scenario 13: 4 KB."), [13]);
    assert!(numbers("let word = \"Scenario 3\";").is_empty());
}

/// The scenarios that comments in some directories name.
fn named(dirs: &[&str]) -> BTreeSet<u32> {
    let text = |file| fs::read_to_string(file).expect("a source");
    sources::files(dirs)
        .iter()
        .flat_map(|file| text(file).lines().flat_map(numbers).collect::<Vec<_>>())
        .collect()
}

/// The numbers behind "Scenario" or "Scenarios" in a line that is a comment on a test or on a file of tests.
fn numbers(line: &str) -> impl Iterator<Item = u32> {
    let comment = line.trim_start().strip_prefix("//").unwrap_or_default();
    let list = comment.split_once("cenario").map_or("", |(_, behind)| behind.trim_start_matches('s'));
    let end = list.find([':', '.']).unwrap_or(list.len());
    list[..end].split([' ', ',']).filter_map(|word| word.parse().ok())
}
