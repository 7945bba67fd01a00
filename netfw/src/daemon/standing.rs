//! Which images hold, and on what terms.
//!
//! The datapath's own word ([`netfw_common::image::Active`]) is the truth. This is what must be known beside it, written
//! down before that word is changed; whoever was killed in between left something that
//! [`super::controller::Controller::settle`] can finish.

use std::time::{Duration, SystemTime};

use netfw_common::image::boot_time;
use serde::{Deserialize, Serialize};

/// An image in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// Where it lies.
    pub slot: u32,
    /// Its number.
    pub generation: u32,
}

/// Rules that were applied for good, but just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// Their image.
    pub held: Held,
    /// When, as a [`boot_time`].
    pub since: u64,
}

/// Rules that wait for confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Their image.
    pub held: Held,
    /// The last confirmed one, which comes back.
    pub fallback: Held,
    /// When it does, as a [`boot_time`].
    pub deadline: u64,
    /// Whether they are not the rules file's yet, but become it.
    pub candidate: bool,
    /// The port to which a new SSH connection confirms them.
    pub ssh_port: Option<u16>,
    /// When they came, as a tick of the datapath.
    pub began: u32,
}

impl Trial {
    /// What is said when its time is over.
    pub fn expiry(&self) -> String {
        format!(
            "generation {} was not confirmed in time: the rules of generation {} hold again",
            self.held.generation, self.fallback.generation
        )
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// The last confirmed rules.
    pub confirmed: Held,
    /// What holds now, if it is not confirmed yet.
    pub fresh: Option<Fresh>,
    /// What holds now, if it may be taken back.
    pub trial: Option<Trial>,
}

/// So long after a change without `--confirm` it counts as confirmed.
const GRACE: Duration = Duration::from_secs(10);

/// A time as a difference of two [`boot_time`]s.
pub fn steps(time: Duration) -> u64 {
    boot_time(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// The calendar's time of a [`boot_time`].
pub fn calendar(then: u64, now: u64) -> SystemTime {
    let time = |steps: u64| Duration::from_nanos(steps.saturating_mul(1 << 20));
    let today = SystemTime::now();
    if then >= now { today + time(then - now) } else { today - time(now - then) }
}

impl Standing {
    /// Rules hold from now on, for good. The very first ones have nothing to go back to.
    pub fn put(&mut self, held: Held, now: u64, first: bool) {
        self.age(now);
        self.trial = None;
        self.fresh = (!first).then_some(Fresh { held, since: now });
        if first {
            self.confirmed = held;
        }
    }

    /// These rules are the last confirmed ones.
    pub fn confirm(&mut self, held: Held) {
        *self = Self { confirmed: held, fresh: None, trial: None };
    }

    /// Rules that nobody took back in time are confirmed.
    pub fn age(&mut self, now: u64) {
        if let Some(fresh) = self.fresh.filter(|fresh| now.saturating_sub(fresh.since) >= steps(GRACE)) {
            self.confirmed = fresh.held;
            self.fresh = None;
        }
    }

    /// What waits for confirmation, unless its time is over.
    pub fn pending(&self, now: u64) -> Option<&Trial> {
        self.trial.as_ref().filter(|trial| now < trial.deadline)
    }

    /// Number of the image that holds.
    pub fn generation(&self, now: u64) -> u32 {
        match (&self.trial, &self.fresh) {
            (Some(trial), _) if now < trial.deadline => trial.held.generation,
            (Some(trial), _) => trial.fallback.generation,
            (None, Some(fresh)) => fresh.held.generation,
            (None, None) => self.confirmed.generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Held = Held { slot: 0, generation: 7 };
    const NEW: Held = Held { slot: 1, generation: 8 };

    #[test]
    fn a_change_counts_as_confirmed_after_a_while() {
        let mut standing = Standing { confirmed: OLD, ..Standing::default() };
        standing.put(NEW, 1000, false);
        standing.age(1000 + steps(GRACE) - 1);
        assert_eq!((standing.confirmed, standing.generation(1000)), (OLD, 8));
        standing.age(1000 + steps(GRACE));
        assert_eq!((standing.confirmed, standing.fresh), (NEW, None));
    }

    #[test]
    fn the_fallback_holds_when_the_time_is_over() {
        let trial =
            Trial { held: NEW, fallback: OLD, deadline: 50, candidate: false, ssh_port: None, began: 0 };
        let standing = Standing { confirmed: OLD, fresh: None, trial: Some(trial) };
        assert!(standing.pending(49).is_some() && standing.generation(49) == 8);
        assert!(standing.pending(50).is_none() && standing.generation(50) == 7);
    }
}
