//! Rate limits: a token bucket in one word.
//!
//! The word is the time at which the bucket will be full again; taking a token moves it on by the time in which a token
//! grows (the generic cell rate algorithm, ITU-T I.371 annex A). So a token is taken by one compare-and-swap, and two
//! cores never take the same one. The word of a bucket that was never touched, 0, says full.

use crate::shared::shared;

/// Most tokens that a bucket can hold: with the slowest rate it then takes 274 years to fill, which 64 bits of
/// nanoseconds can still tell.
pub const MAX_BURST: u32 = 100_000;
/// Most tokens in any unit of time: the nanoseconds between them are still exact to a thousandth.
pub const MAX_RATE: u32 = 1_000_000;

/// A rate, and how many tokens may be taken at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Limit {
    /// Nanoseconds in which a token grows; 0: no limit.
    pub interval: u64,
    /// Nanoseconds in which an empty bucket fills.
    pub depth: u64,
}

shared! {
    Limit { interval, depth }
}

/// No bucket is that far from full: its word dates from another limit.
const FOREIGN: u64 = 1_000_000_000;

impl Limit {
    /// `tokens` (not 0) in `nanos`, and `burst` at once.
    pub const fn new(tokens: u32, nanos: u64, burst: u32) -> Self {
        let tokens = tokens as u64;
        let interval = (nanos + tokens / 2) / tokens;
        Self { interval, depth: interval * burst as u64 }
    }

    /// Whether this is no limit.
    pub const fn is_none(&self) -> bool {
        self.interval == 0
    }

    /// The bucket `full_at` after a token is taken at `now`; `None`: it holds none.
    ///
    /// `full_at` must be read before the clock: then no core sees the bucket further from full than it can be, and one
    /// that is was filled under a slower limit of the same rule, which must not shut it for hours; it starts full.
    #[inline(always)]
    pub const fn take(&self, full_at: u64, now: u64) -> Option<u64> {
        let missing = full_at.saturating_sub(now);
        let missing = if missing > self.depth + FOREIGN { 0 } else { missing };
        if missing + self.interval > self.depth { None } else { Some(now + missing + self.interval) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many tokens can be taken at `now`.
    fn drain(limit: Limit, bucket: &mut u64, now: u64) -> u32 {
        let mut taken = 0;
        while let Some(next) = limit.take(*bucket, now) {
            *bucket = next;
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let limit = Limit::new(10, 60 * SECOND, 20);
        let mut bucket = 0;
        assert_eq!(drain(limit, &mut bucket, SECOND), 20);
        assert_eq!(drain(limit, &mut bucket, 6 * SECOND), 0);
        assert_eq!(drain(limit, &mut bucket, 7 * SECOND), 1);
        assert_eq!(drain(limit, &mut bucket, 37 * SECOND), 5);
        assert_eq!(drain(limit, &mut bucket, 3600 * SECOND), 20);
    }

    #[test]
    fn the_largest_limits_do_not_overflow() {
        let day = 86_400 * SECOND;
        let slow = Limit::new(1, day, MAX_BURST);
        let mut bucket = 0;
        assert_eq!(drain(slow, &mut bucket, 100 * 365 * day), MAX_BURST);
        let fast = Limit::new(MAX_RATE, SECOND, MAX_BURST);
        let mut bucket = 0;
        assert_eq!(drain(fast, &mut bucket, day), MAX_BURST);
        assert_eq!(drain(fast, &mut bucket, day + SECOND / 100), MAX_RATE / 100);
    }

    #[test]
    fn a_slower_limit_of_before_does_not_shut_a_faster_one() {
        let mut bucket = 0;
        drain(Limit::new(1, 3600 * SECOND, 5), &mut bucket, SECOND);
        assert_eq!(drain(Limit::new(10, SECOND, 5), &mut bucket, SECOND), 5);
    }

    /// A bucket as one would explain it: so many tokens, growing as time passes.
    struct Naive {
        tokens: f64,
        seen: u64,
    }

    impl Naive {
        fn take(&mut self, tokens: u32, nanos: u64, burst: u32, now: u64) -> bool {
            let grown = (now - self.seen) as f64 * f64::from(tokens) / nanos as f64;
            self.tokens = (self.tokens + grown).min(f64::from(burst));
            self.seen = now;
            let enough = self.tokens >= 1.0;
            if enough {
                self.tokens -= 1.0;
            }
            enough
        }
    }

    proptest! {
        /// Over any times the same packets get a token as from a naive bucket. (Scenario 22.)
        #[test]
        fn like_a_naive_bucket(
            tokens in 1..2000_u32,
            unit in prop_oneof![Just(1), Just(60), Just(3600), Just(86_400)],
            burst in 1..100_u32,
            waits in vec(prop_oneof![Just(0.0), 0.0..0.3, 0.0..3.0, 0.0..200.0], 1..300),
        ) {
            let nanos = unit * SECOND;
            let limit = Limit::new(tokens, nanos, burst);
            let (mut bucket, mut naive) = (0, Naive { tokens: burst.into(), seen: 0 });
            let (mut now, mut taken, mut expected) = (SECOND, 0_i64, 0_i64);
            for wait in waits {
                now += (wait * limit.interval as f64) as u64;
                if let Some(next) = limit.take(bucket, now) {
                    bucket = next;
                    taken += 1;
                }
                expected += i64::from(naive.take(tokens, nanos, burst, now));
                // The last bits of a fraction decide at the very edge.
                prop_assert!((taken - expected).abs() <= 1, "{} taken, {} expected", taken, expected);
            }
        }
    }
}
