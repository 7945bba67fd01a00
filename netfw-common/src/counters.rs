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

/// Who finished a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finisher {
    /// XDP.
    Xdp,
    /// TC, which sent it out itself.
    Tc,
    /// The kernel's own stack: TC left it the delivery to the master, or the routing.
    Stack,
}

/// Packets by who finished them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shares {
    /// [`Finisher::Xdp`].
    pub xdp: Count,
    /// [`Finisher::Tc`].
    pub tc: Count,
    /// [`Finisher::Stack`].
    pub stack: Count,
}

impl Shares {
    /// The share of one of them.
    #[inline(always)]
    pub fn of(&mut self, finisher: Finisher) -> &mut Count {
        match finisher {
            Finisher::Xdp => &mut self.xdp,
            Finisher::Tc => &mut self.tc,
            Finisher::Stack => &mut self.stack,
        }
    }

    /// All packets.
    pub fn total(&self) -> Count {
        let mut total = self.xdp;
        total.add(self.tc.packets, self.tc.bytes);
        total.add(self.stack.packets, self.stack.bytes);
        total
    }
}

/// Of a port-forward or of the masquerade.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TranslationCount {
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets in the direction that opened the flow, after translation.
    pub forth: Shares,
    /// Answers, after translation.
    pub back: Shares,
}

shared! {
    Count { packets, bytes }
    InterfaceCount { forwarded, accepted, dropped }
    Shares { xdp, tc, stack }
    TranslationCount { flows_opened, forth, back }
}

/// Entry of the translation counters that belongs to all `[masquerade]`s together; port-forward `id` has `id + 1`.
pub const MASQUERADE_COUNTER: u32 = 0;
/// How many stable ids rules and port-forwards may have over the life of an instance, each.
pub const MAX_COUNTERS: u32 = 16_384;
