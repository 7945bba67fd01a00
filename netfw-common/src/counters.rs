//! Counters. All of them are per CPU; user space adds them up.

use crate::shared::shared;

/// Packets and bytes (of the IP packet, without padding; a GSO packet counts as its segments).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    /// Adds.
    pub fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }
}

/// What became of the packets that arrived on an interface; `received` is their sum.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct InterfaceCount {
    /// Sent on.
    pub forwarded: Count,
    /// For the master itself.
    pub accepted: Count,
    /// Dropped, rejected or answered by netfw.
    pub dropped: Count,
}

/// Of a port-forward or of the masquerade.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TranslationCount {
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets in the direction that opened the flow, after translation.
    pub forth: Count,
    /// Answers, after translation.
    pub back: Count,
}

shared! {
    Count { packets, bytes }
    InterfaceCount { forwarded, accepted, dropped }
    TranslationCount { flows_opened, forth, back }
}

/// Entry of the translation counters that belongs to all `[masquerade]`s together; port-forward `id` has `id + 1`.
pub const MASQUERADE_COUNTER: u32 = 0;
/// How many stable ids rules and port-forwards may have over the life of an instance, each.
pub const MAX_COUNTERS: u32 = 16_384;
