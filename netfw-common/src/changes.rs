//! How long a way out that was looked up is believed.
//!
//! Routes, links and neighbours change at any time, and no packet tells. User space hears of it (rtnetlink(7)) and notes it here; while it
//! listens, a way lasts until something has changed. Not for ever: the kernel tells nobody of path MTUs that it has learned, and must be
//! given a packet for each neighbour now and then ([`crate::neighbour`]). With nobody listening, each way is looked up again every second.

use crate::{shared::shared, tick::Tick};

/// How long a way is believed, whatever has changed: about a second.
pub const FRESH: u32 = Tick::ticks(1);
/// How long it is believed at most.
pub const LASTING: u32 = Tick::ticks(8);

/// What user space has heard. It writes one of the two at a time, so that a reader on another core who sees half of a change sees a state that was.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Changes {
    /// Tick of the last change: ways that were found by then may lead elsewhere now. Never further back than [`LASTING`] while somebody listens.
    pub last: u32,
    /// Tick until which somebody listens.
    pub heard_until: u32,
}

shared! { Changes { last, heard_until } }

impl Changes {
    /// Whether a way that was found at a tick still leads where it did, as far as anybody knows.
    #[inline(always)]
    pub const fn spare(self, found: u32, now: Tick) -> bool {
        let after_the_last = found.wrapping_sub(self.last) as i32 > 0;
        after_the_last && (self.heard_until.wrapping_sub(now.0) as i32) > 0 && is_within(LASTING, found, now)
    }
}

/// Whether a tick is now or was, less than `ticks` ago; what lies ahead is a remnant from before the ticks began anew.
#[inline(always)]
pub const fn is_within(ticks: u32, tick: u32, now: Tick) -> bool {
    now.0.wrapping_sub(tick) < ticks
}

/// The tick of what is good for this packet only.
#[inline(always)]
pub const fn long_ago(now: Tick) -> u32 {
    now.0.wrapping_sub(LASTING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: u32 = u32::MAX - 100;

    fn after(ticks: u32) -> Tick {
        Tick(FOUND.wrapping_add(ticks))
    }

    #[test]
    fn a_way_lasts_until_something_changes() {
        let changes = Changes { last: FOUND - 1, heard_until: after(1000).0 };
        assert!(changes.spare(FOUND, after(0)) && changes.spare(FOUND, after(LASTING - 1)));
        assert!(!changes.spare(FOUND, after(LASTING)), "whoever hears nothing of path MTUs looks again");
        // In the tick in which it was found, the change may have come after.
        assert!(!Changes { last: FOUND, ..changes }.spare(FOUND, after(1)));
    }

    #[test]
    fn with_nobody_listening_no_way_lasts() {
        let until = after(60);
        let changes = Changes { last: FOUND - 1, heard_until: until.0 };
        assert!(changes.spare(FOUND, Tick(until.0 - 1)) && !changes.spare(FOUND, until));
        assert!(!Changes::default().spare(5, Tick(5)));
    }

    #[test]
    fn what_is_good_for_one_packet_is_not_for_the_next() {
        let now = Tick(3);
        let changes = Changes { last: now.0.wrapping_sub(2 * LASTING), heard_until: 1000 };
        assert!(!changes.spare(long_ago(now), now) && !is_within(FRESH, long_ago(now), now));
    }
}
