//! Whether so many connections are being opened from outside that honest ones are pushed out before they are answered
//! (`syn-proxy`).

use crate::{shared::shared, tick::Tick};

/// SYNs from outside that one core has seen in the present window: those that open a flow and those that are challenged instead,
/// so that challenging does not look like calm. All zeros: none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Number of the window.
    window: u32,
    /// SYNs in it.
    syns: u32,
}

shared! { Pressure { window, syns } }

/// log2 of the ticks in a window: about a second.
const WINDOW: u32 = 6;
/// How long a pressure is taken to go on, ticks: longer than a window, in which it may show late.
const HOLD: u32 = Tick::ticks(2);

impl Pressure {
    /// Counts a SYN; says whether there are more than are [`bearable`].
    pub fn count(&mut self, now: Tick, bearable: u32) -> bool {
        let window = now.0 >> WINDOW;
        if self.window != window {
            *self = Self { window, syns: 0 };
        }
        self.syns += 1;
        self.syns > bearable
    }
}

/// SYNs that a core may see in a window, where `halves` of flows from outside that have not proved themselves find room. A quarter of
/// those flows a second renews the table in four: time enough for the answer to a SYN, also to one that was lost and repeated after a
/// second (RFC 6298 §2.1). Each core counts for itself, as if all had the same share.
pub const fn bearable(halves: u32, cores: u32) -> u32 {
    let share = halves / 2 / 4 / if cores == 0 { 1 } else { cores };
    if share == 0 { 1 } else { share }
}

/// Until when a pressure that shows now is taken to go on: a tick, never 0.
pub fn until(now: Tick) -> u32 {
    now.0.wrapping_add(HOLD).max(1)
}

/// Whether that time has not come yet; 0: there was no pressure. One from long ago lies ahead again when the clock has wrapped; one
/// that was set by a clock which runs ahead a little lies beyond [`HOLD`].
pub fn holds(until: u32, now: Tick) -> bool {
    until != 0 && until.wrapping_sub(now.0).wrapping_sub(1) < 2 * HOLD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excess(pressure: &mut Pressure, now: u32, syns: u32) -> u32 {
        (0..syns).map(|_| u32::from(pressure.count(Tick(now), 100))).sum()
    }

    #[test]
    fn each_window_counts_anew() {
        // The clock wraps meanwhile.
        for start in [0, 1 << WINDOW, u32::MAX << WINDOW] {
            let mut pressure = Pressure::default();
            assert_eq!(excess(&mut pressure, start, 100), 0);
            assert_eq!(excess(&mut pressure, start + ((1 << WINDOW) - 1), 5), 5);
            assert_eq!(excess(&mut pressure, start.wrapping_add(1 << WINDOW), 100), 0);
        }
    }

    #[test]
    fn it_holds_for_two_seconds() {
        for now in [0, 1, u32::MAX - HOLD, u32::MAX - 5, u32::MAX] {
            let until = until(Tick(now));
            assert!(holds(until, Tick(now.wrapping_sub(1))), "another clock");
            assert!((0..HOLD).all(|passed| holds(until, Tick(now.wrapping_add(passed)))), "{now}");
            assert!(!holds(until, Tick(now.wrapping_add(HOLD + 1))), "{now}");
            assert!(!holds(0, Tick(now)), "{now}");
        }
    }

    #[test]
    fn every_core_has_a_share() {
        assert_eq!(bearable(65_536, 2), 4096);
        assert_eq!(bearable(8, 64), 1);
        assert_eq!(bearable(8, 0), 1);
    }
}
