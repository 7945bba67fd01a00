//! A gateway as one would explain it: what it does with a packet of a new flow under a rules file, what a change of the rules means for
//! flows that live, and random packets to ask that about. Nothing here knows of images or tables.

use std::collections::BTreeSet;

use proptest::test_runner::TestError;

pub(crate) mod arrival;
pub(crate) mod life;
pub(crate) mod verdict;

/// Fails unless random cases, all together, have met what a test is about.
pub(crate) fn all_seen<'kinds>(
    seen: &BTreeSet<String>,
    wanted: impl IntoIterator<Item = &'kinds str>,
) -> Result<(), String> {
    let missing: Vec<_> = wanted.into_iter().filter(|kind| !seen.contains(*kind)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("never seen: {missing:?}")) }
}

/// What has failed; the packet and the rules are named there.
pub(crate) fn reason<T>(error: TestError<T>) -> String {
    match error {
        TestError::Fail(reason, _) | TestError::Abort(reason) => reason.to_string(),
    }
}
