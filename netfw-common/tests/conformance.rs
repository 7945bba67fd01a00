//! The page on the RFCs cannot lie: it names every requirement, and tests that exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = include_str!("../../docs/rfc-conformance.md");

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
    let mut rfc = String::new();
    let mut lines = Vec::new();
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            rfc = title.split(':').next().expect("there is a first part").to_owned();
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [requirement, state, _, tests] = cells[..]
            && !requirement.starts_with("--")
            && requirement != "requirement"
        {
            let tests = tests.split(", ").filter(|test| !test.is_empty());
            lines.push(Line {
                rfc: rfc.clone(),
                requirement: requirement.trim_start_matches("REQ-").to_owned(),
                state: state.to_owned(),
                tests: tests.map(|test| test.trim_matches('`').to_owned()).collect(),
            });
        }
    }
    lines
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
    let tests = tests();
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

/// Every test of the workspace, as `file::test`; a `main.rs` counts as its directory.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for dir in
        ["netfw-common/src", "netfw-common/tests", "netfw/src", "netfw/tests", "tests/src", "tests/suites"]
    {
        collect(&root.join(dir), &mut files);
    }
    let stories =
        fs::read_to_string(root.join("tests/src/packet/stories/mod.rs")).expect("the list of stories");
    files.iter().flat_map(|file| tests_of(file, &stories)).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn tests_of(file: &Path, stories: &str) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a source");
    let stem = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let module = match stem(file).as_str() {
        "main" => stem(file.parent().expect("a directory")),
        name => name.to_owned(),
    };
    let mut found = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        let name = |line: &str| line.split(['(', '<', ',']).next().unwrap_or_default().to_owned();
        if line == "#[test]" {
            marked = true;
        } else if let Some(rest) = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("fn ") {
            let test = format!("{module}::{}", name(rest));
            let told = stories.contains(&format!("            {test},"));
            if marked || told {
                found.push(test);
            }
            marked = false;
        }
    }
    found
}
