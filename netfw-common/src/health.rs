//! Whether targets of port-forwards take new flows. Live data: no image holds it, so a change is one store.

/// Size of the table of health words: an image has no more targets than this.
pub const MAX_HEALTH: u32 = crate::image::MAX_TARGETS;

/// Number of a target that nobody checks: it takes flows always.
pub const UNCHECKED: u16 = 0;
/// Number of a target that drains: it takes no new flows, whatever its health.
pub const DRAINS: u16 = u16::MAX;

/// Not enough answers yet to know: taken for healthy.
pub const UNKNOWN: u32 = 0;
/// Takes no new flows.
pub const DOWN: u32 = 1;
/// Takes new flows.
pub const UP: u32 = 2;

/// How much of the new flows a target takes: 1 or 0. Without a branch, which in a loop multiplies the verifier's paths.
pub const fn share(state: u32) -> u32 {
    state & 1 ^ 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_down_gets_nothing() {
        assert_eq!([UNKNOWN, DOWN, UP].map(share), [1, 0, 1]);
    }
}
