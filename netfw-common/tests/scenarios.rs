//! What a gateway must survive is numbered, and each number stands in the comment of the tests that show it. Here: that each
//! scenario of address translation (1 to 17) is shown both without a network and in the lab.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const SCENARIOS: std::ops::RangeInclusive<u32> = 1..=17;

/// Tests on byte buffers and of the arithmetic.
const HOST: [&str; 4] =
    ["netfw-common/tests", "netfw/tests", "tests/src/packet/stories", "tests/suites/datapath"];
const LAB: &str = "tests/suites";
/// What lies in the lab's directory and isn't of the lab.
const NO_LAB: [&str; 3] = ["datapath", "kernel", "memory"];

#[test]
fn each_scenario_is_shown_in_two_rings() {
    let host: BTreeSet<u32> = HOST.iter().flat_map(|dir| named(&root().join(dir), &[])).collect();
    let lab = named(&root().join(LAB), &NO_LAB);
    for (ring, found) in [("host", host), ("lab", lab)] {
        let missing: Vec<u32> = SCENARIOS.filter(|number| !found.contains(number)).collect();
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The scenarios that comments in a directory name.
fn named(dir: &Path, without: &[&str]) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).expect("a directory of tests") {
        let path = entry.expect("an entry").path();
        let left_out = path.file_name().is_some_and(|name| without.iter().any(|word| name == *word));
        if path.is_dir() && !left_out {
            found.extend(named(&path, without));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            found.extend(text.lines().flat_map(numbers));
        }
    }
    found
}

/// The numbers behind "Scenario" or "Scenarios" in a line that is a comment on a test or on a file of tests.
fn numbers(line: &str) -> impl Iterator<Item = u32> {
    let comment = line.trim_start().strip_prefix("//").unwrap_or_default();
    let list = comment.split_once("cenario").map_or("", |(_, behind)| behind.trim_start_matches('s'));
    let end = list.find([':', '.']).unwrap_or(list.len());
    list[..end].split([' ', ',']).filter_map(|word| word.parse().ok())
}
