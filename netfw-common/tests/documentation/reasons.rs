//! The page on drop reasons has the words and sentences of the code.

use std::fmt::Write as _;

use netfw_common::reason::Reason;

const PAGE: &str = include_str!("../../../docs/drop-reasons.md");

#[test]
fn every_drop_reason_is_documented() {
    let mut table = String::from("| reason | meaning |\n|---|---|\n");
    for reason in Reason::ALL {
        writeln!(table, "| `{}` | {} |", reason.word(), reason.sentence()).expect("a string grows");
    }
    assert!(PAGE.contains(&table), "docs/drop-reasons.md must hold this table:\n{table}");
}
