//! Events: what the datapath tells those who watch, about packets it drops and flows it admits.
//!
//! Two rings carry them: one for `netfw watch`, as long as it asks for events, and one for the log of the daemon, for
//! flows that a rule with `log` decided about. Each kind of event has a channel with a limit of its own, so that a flood
//! of one kind hides no other; what is left out is counted.

use crate::{
    counters::MAX_COUNTERS,
    family::Addr6,
    limit::Limit,
    reason::{MAX_REASONS, Reason},
    shared::shared,
    tick::Tick,
    tuple::Tuple,
};

/// A packet was dropped: [`Event::kind`].
pub const DROPPED: u32 = 0;
/// A flow was admitted.
pub const OPENED: u32 = 1;

/// Something that happened to a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// [`DROPPED`] or [`OPENED`].
    pub kind: u32,
    /// Why it was dropped ([`Reason`]).
    pub reason: u32,
    /// Generation of the rules that decided.
    pub generation: u32,
    /// Slot of the interface.
    pub interface: u32,
    /// Bits: [`V6`], [`LEAVING`], [`TRANSLATED`].
    pub flags: u32,
    /// Stable id of the rule that decided, plus 1; 0: none did.
    pub rule: u32,
    /// Stable id of the port-forward that translates it, plus 1; 0: none does.
    pub forward: u32,
    /// Packets.
    pub packets: u32,
    /// Bytes.
    pub bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// The packet as it arrived (or as the master sent it). All zero where it was too short to tell.
    pub arriving: Tuple<Addr6>,
    /// As it leaves; without [`TRANSLATED`], of some other packet.
    pub leaving: Tuple<Addr6>,
}

/// The addresses are IPv6.
pub const V6: u32 = 1;
/// The packet was on its way out of the interface.
pub const LEAVING: u32 = 2;
/// [`Event::leaving`] holds something.
pub const TRANSLATED: u32 = 4;

/// A prefix of addresses of either family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Prefix {
    /// Its address, in memory order.
    pub address: Addr6,
    /// The bits that count.
    pub mask: Addr6,
}

impl Prefix {
    /// Whether an address is in it.
    #[inline(always)]
    pub fn contains(&self, address: Addr6) -> bool {
        let differs = |word: usize| (address[word] ^ self.address[word]) & self.mask[word];
        differs(0) | differs(1) | differs(2) | differs(3) == 0
    }
}

/// What a watcher wants to be told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watch {
    /// Until when ([`Tick`]), unless the watcher asks again; 0: nobody watches.
    pub until: u32,
    /// Bit n: events of kind n.
    pub kinds: u32,
    /// Bit n: drops for reason n.
    pub reasons: u64,
    /// Of this IP protocol, or [`ANY_PROTOCOL`].
    pub protocol: u32,
    /// Bit 0: of IPv4; bit 1: of IPv6.
    pub families: u32,
    /// From here.
    pub from: Prefix,
    /// To here, before or after translation.
    pub to: Prefix,
}

/// See [`Watch::protocol`].
pub const ANY_PROTOCOL: u32 = 256;
/// Watchers of both families: [`Watch::families`].
pub const BOTH_FAMILIES: u32 = 3;

shared! {
    Event {
        at, kind, reason, generation, interface, flags, rule, forward, packets, bytes, reserved, arriving, leaving
    }
    Prefix { address, mask }
    Watch { until, kinds, reasons, protocol, families, from, to }
}

impl Watch {
    /// Whether it has not run out.
    #[inline(always)]
    pub fn holds(&self, now: Tick) -> bool {
        Tick(self.until).since(now) > 0
    }

    /// Whether this event is among them.
    #[inline(always)]
    pub fn wants(&self, event: &Event) -> bool {
        let tuple = &event.arriving;
        self.kinds >> (event.kind & 31) & 1 == 1
            && (event.kind != DROPPED || self.reasons >> (event.reason & 63) & 1 == 1)
            && (self.protocol == ANY_PROTOCOL || self.protocol == tuple.protocol)
            && self.families >> (event.flags & V6) & 1 == 1
            && self.from.contains(tuple.source)
            && (self.to.contains(tuple.destination)
                || (event.flags & TRANSLATED != 0 && self.to.contains(event.leaving.destination)))
    }
}

/// Channel of admitted flows. Those below it are of drops, by [`Reason`].
pub const FLOWS: u32 = MAX_REASONS;
/// First channel of the log, that of the rule with the stable id 0.
pub const LOGS: u32 = FLOWS + 1;
/// How many there are.
pub const CHANNELS: u32 = LOGS + MAX_COUNTERS;

/// Events of a channel that a watcher is told: more than anyone reads, and less than a core notices.
pub const WATCHED: Limit = Limit::new(200, 1_000_000_000, 500);
/// Events of a rule that are logged: all that a busy hour brings, while a flood fills no disk and leaves room in the ring.
pub const LOGGED: Limit = Limit::new(100, 1_000_000_000, 1000);

/// The channel of an event for watchers.
pub const fn channel(kind: u32, reason: Reason) -> u32 {
    if kind == DROPPED { reason as u32 } else { FLOWS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_wants_what_fits_everything() {
        let event = Event {
            arriving: Tuple {
                source: [1, 2, 3, 4],
                destination: [5, 6, 7, 8],
                protocol: 6,
                ..Tuple::default()
            },
            leaving: Tuple { destination: [9, 0, 0, 0], ..Tuple::default() },
            reason: Reason::Spoofed as u32,
            ..Event::default()
        };
        let all = Watch {
            kinds: 1 << DROPPED,
            reasons: u64::MAX,
            protocol: ANY_PROTOCOL,
            families: BOTH_FAMILIES,
            ..Watch::default()
        };
        let host = |address| Prefix { address, mask: [u32::MAX; 4] };
        assert!(all.wants(&event));
        assert!(Watch { protocol: 6, from: host([1, 2, 3, 4]), to: host([5, 6, 7, 8]), ..all }.wants(&event));
        let moved = Watch { to: host([9, 0, 0, 0]), ..all };
        assert!(!moved.wants(&event) && moved.wants(&Event { flags: TRANSLATED, ..event }));
        for other in [
            Watch { kinds: 1 << OPENED, ..all },
            Watch { reasons: !(1 << Reason::Spoofed as u32), ..all },
            Watch { protocol: 17, ..all },
            Watch { families: 2, ..all },
            Watch { from: host([1, 2, 3, 5]), ..all },
        ] {
            assert!(!other.wants(&event), "{other:?}");
        }
    }

    #[test]
    fn a_watch_runs_out() {
        let watch = Watch { until: 2, ..Watch::default() };
        assert!(watch.holds(Tick(1)) && watch.holds(Tick(u32::MAX)));
        assert!(!watch.holds(Tick(2)) && !watch.holds(Tick(100)));
    }
}
