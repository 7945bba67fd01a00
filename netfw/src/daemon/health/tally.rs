//! From single tests to a state: only several alike in a row change it.

use netfw_common::health::{DOWN, UP};

/// Counts tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    state: u32,
    rise: u32,
    fall: u32,
    /// Tests in a row that contradict the state.
    against: u32,
    /// How the last one ended.
    last: bool,
}

impl Tally {
    /// From a state that was known before.
    pub(super) fn new(state: u32, rise: u32, fall: u32) -> Self {
        Self { state, rise, fall, against: 0, last: false }
    }

    /// Takes a test into account; the new state if this one changed it.
    pub(super) fn note(&mut self, good: bool) -> Option<u32> {
        let (wanted, needed) = if good { (UP, self.rise) } else { (DOWN, self.fall) };
        if self.against > 0 && self.last != good {
            self.against = 0;
        }
        self.last = good;
        if self.state == wanted {
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.state = wanted;
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use netfw_common::health::UNKNOWN;

    use super::*;

    /// Feeds `tests` (`+` good, `-` bad) to a tally with rise 2 and fall 3; what became of each.
    fn states(state: u32, tests: &str) -> Vec<Option<u32>> {
        let mut tally = Tally::new(state, 2, 3);
        tests.chars().map(|test| tally.note(test == '+')).collect()
    }

    #[test]
    fn only_several_in_a_row_change_the_state() {
        assert_eq!(states(UP, "--+--+"), [None; 6]);
        assert_eq!(states(UP, "---"), [None, None, Some(DOWN)]);
        assert_eq!(states(DOWN, "+-+-"), [None; 4]);
        assert_eq!(states(DOWN, "++---"), [None, Some(UP), None, None, Some(DOWN)]);
    }

    #[test]
    fn what_is_not_known_becomes_one_or_the_other() {
        assert_eq!(states(UNKNOWN, "++"), [None, Some(UP)]);
        assert_eq!(states(UNKNOWN, "+---"), [None, None, None, Some(DOWN)]);
        assert_eq!(states(UNKNOWN, "-+-+-+"), [None; 6]);
    }
}
