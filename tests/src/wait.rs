//! Waiting for something to become true, instead of sleeping and hoping.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Far beyond what anything in a lab takes, so that only a real failure reaches it; also on an emulated processor, whose
/// verifier takes a minute for the programs.
pub const GENEROUS: Duration = Duration::from_secs(300);

const POLL: Duration = Duration::from_millis(20);

/// Asks `attempt` until it has an answer; fails with `what` after [`GENEROUS`].
pub fn until<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> Result<T> {
    within(GENEROUS, what, attempt)
}

/// Asks `attempt` until it has an answer; fails with `what` after `limit`.
pub fn within<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = attempt() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited {limit:?} in vain for: {what}");
        }
        thread::sleep(POLL);
    }
}
