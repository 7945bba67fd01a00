//! How `[flows] capacity` is shared out.

use netfw_common::{bloom, slots};

/// LRU maps below this size evict early: each core keeps a free list of its own.
const LEAST_LRU: u32 = 4096;

/// Sizes of the flow tables, in entries unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Proven flows, in pairs: places of the ring.
    pub(super) places: u32,
    /// Halves of proven flows of IPv6.
    pub(super) proven: u32,
    /// Slots for halves of proven flows of IPv4.
    pub(super) slots: u32,
    /// Halves of unproven flows from outside, each family.
    pub(super) outside: u32,
    /// Halves of unproven flows from inside, each family.
    pub(super) inside: u32,
    /// Halves of endpoint-independent mappings, each family.
    pub(super) mappings: u32,
    /// Words of both halves of the filter over all keys.
    pub(super) bloom: u32,
}

impl Sizes {
    /// For `capacity` flows. Three quarters are for flows that have proved themselves.
    pub(super) fn for_flows(capacity: u32) -> Self {
        let places = (capacity - capacity / 4).max(1);
        let unproven = (capacity / 4).max(LEAST_LRU);
        Self {
            places,
            proven: places.saturating_mul(2),
            slots: slots::slots(slots::homes(places.saturating_mul(2))),
            outside: unproven,
            inside: unproven,
            mappings: unproven,
            bloom: bloom::words(capacity).saturating_mul(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_capacity_is_shared_out_whole() {
        let sizes = Sizes::for_flows(262_144);
        assert_eq!(sizes.proven / 2 + sizes.outside / 2 + sizes.inside / 2, 262_144);
    }

    #[test]
    fn a_small_table_still_has_room_for_beginners() {
        assert_eq!(Sizes::for_flows(1).places, 1);
        assert_eq!(Sizes::for_flows(16).outside, LEAST_LRU);
    }
}
