//! Packets that come in fragments.

use crate::{counters::Count, shared::shared, tick::Tick};

/// How long the kernel waits for the missing fragments of a packet, seconds. Fragments that overtake each other are
/// milliseconds apart; a long wait only serves those who send fragments without a first.
pub const REASSEMBLY_TIME: u64 = 5;
/// How long the ports of a first fragment are believed: as long as hosts wait for the others. IPv4 names packets by 16
/// bits, which come round in no time (RFC 4963).
const PORTS_TIME: u32 = Tick::ticks(30);
/// Packets that can be in the kernel's reassembly at once.
pub const HELD_PACKETS: u32 = 1024;
/// How long the rest of a packet that comes back may take: no time at all.
const REST_TIME: u32 = Tick::ticks(1);

/// What the first fragment of a packet says to the later ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// When the first fragment came ([`Tick`]).
    pub since: u32,
}

impl Ports {
    /// Whether later fragments may still believe it.
    pub fn hold(&self, now: Tick) -> bool {
        now.since(Tick(self.since)) <= PORTS_TIME
    }
}

/// Fragments of one packet that are with the kernel's reassembly: they are not counted until they come back, or never
/// will.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Held {
    /// Hash of what names the packet; 0: it came back.
    pub packet: u64,
    /// Fragments that have not come back.
    pub fragments: Count,
    /// When the first of them came, or came back ([`Tick`]).
    pub since: u32,
    /// Slot of the interface that they came in on.
    pub interface: u32,
}

impl Held {
    /// Whether the kernel has given up the packet, or what is left of it: counted as dropped.
    pub fn is_lost(&self, now: Tick) -> bool {
        let patience = if self.packet == 0 { REST_TIME } else { const { Tick::ticks(REASSEMBLY_TIME + 1) } };
        self.fragments.packets != 0 && now.since(Tick(self.since)) > patience
    }

    /// Takes off what came back.
    pub fn release(&mut self, packets: u64, bytes: u64, now: Tick) {
        if self.packet != 0 {
            self.packet = 0;
            self.since = now.0;
        }
        self.fragments.packets = self.fragments.packets.saturating_sub(packets);
        self.fragments.bytes = self.fragments.bytes.saturating_sub(bytes);
    }
}

shared! {
    Ports { source, destination, since }
    Held { packet, fragments, since, interface }
}
