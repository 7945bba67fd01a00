//! How many ICMP errors a core may send (RFC 1812 §4.3.2.8, RFC 4443 §2.4f): a token bucket.

use crate::{shared::shared, tick::Tick};

/// Errors that may follow each other at once: a traceroute of many probes at a time, or as many flows that learn the
/// width of a new way.
pub const BURST: u32 = 64;
/// Errors a tick (17 ms) beyond that: some 480 a second.
pub const REFILL: u32 = 8;

/// The bucket of a core. All zeros: full.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Errors that were due but not sent.
    pub suppressed: u64,
    /// Tokens that are gone.
    spent: u32,
    /// When that was true ([`Tick`]).
    since: u32,
}

shared! { Bucket { suppressed, spent, since } }

impl Bucket {
    /// Takes a token if there is one.
    pub fn take(&mut self, now: Tick) -> bool {
        let refilled = now.since(Tick(self.since)).saturating_mul(REFILL);
        self.spent = self.spent.saturating_sub(refilled);
        self.since = now.0;
        if self.spent >= BURST {
            self.suppressed += 1;
            return false;
        }
        self.spent += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut Bucket, now: u32) -> u32 {
        (0..1000).map(|_| u32::from(bucket.take(Tick(now)))).sum()
    }

    #[test]
    fn a_burst_then_the_rate() {
        // The clock wraps meanwhile.
        for start in [0, 5, u32::MAX - 2] {
            let mut bucket = Bucket::default();
            assert_eq!(taken(&mut bucket, start), BURST);
            assert_eq!(taken(&mut bucket, start.wrapping_add(1)), REFILL);
            assert_eq!(taken(&mut bucket, start.wrapping_add(4)), 3 * REFILL);
            assert_eq!(taken(&mut bucket, start.wrapping_add(1000)), BURST);
            assert_eq!(bucket.suppressed, 4000 - u64::from(2 * BURST + 4 * REFILL));
        }
    }
}
