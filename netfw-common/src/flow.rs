//! Flow table entries.

use crate::{
    family::{Addr4, Addr6, Address},
    shared::shared,
    tcp::{self, Seen, Side, State},
    tuple::Tuple,
    wire,
};

/// One direction of a flow, found by the tuple with which its packets arrive.
///
/// Both directions of a flow have such an entry, with the same `id`. An entry is written only by packets of its
/// own direction, so that two cores never share its cache lines; whoever needs the state of the flow reads both.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flow<A> {
    /// Packets of this direction. Not atomic: two cores that carry the same direction at once may lose some.
    pub packets: u64,
    /// Bytes of this direction.
    pub bytes: u64,
    /// What the packet looks like when it leaves.
    pub leaving: Tuple<A>,
    /// Generation of the policy that admitted it.
    pub generation: u32,
    /// [`crate::block::Bans::version`] under which it was last let through.
    pub blocks: u32,
    /// When this direction last carried a packet ([`crate::tick::Tick`]).
    pub last_seen: u32,
    /// When the flow began.
    pub created: u32,
    /// Idle timeout of its own, in ticks; 0: that of the policy.
    pub idle_timeout: u32,
    /// Random name of the flow, the same in both directions: tells a peer from a later flow with the same tuple.
    pub id: u32,
    /// Where packets of this direction go.
    pub hop: Hop,
    /// Stable id of the port-forward that translates it, plus 1; 0: none.
    pub forward: u16,
    /// Where packets of this direction come in ([`crate::interface::origin`]); 0: not known yet. Says nothing where they
    /// come from the master.
    pub origin: u16,
    /// Bits: [`REPLY`], [`LOCAL`], [`ADMITTED_BEFORE`], [`MASQUERADED`], [`INSIDE`], [`SOURCE_NAT`], [`MAPPED`],
    /// [`UNASKED`], [`TURNED`], and the chain of [`judged_by`].
    pub flags: u16,
    /// Which slot of [`crate::interface::Interface`] the first packet came in on (or leaves by, for output).
    pub interface: u8,
    /// What packets of this direction were seen to be ([`Seen`]).
    pub seen: u8,
    /// TCP: [`Side::end`].
    pub end: u32,
    /// TCP: [`Side::acknowledged`].
    pub acknowledged: u32,
}

/// This entry is the answering direction.
pub const REPLY: u16 = 1;
/// Packets of this direction end on the master.
pub const LOCAL: u16 = 2;
/// The source is translated by a `[masquerade]`.
pub const MASQUERADED: u16 = 8;
/// Opened from inside: has its own quota of unproven flows.
pub const INSIDE: u16 = 16;
/// The source is translated because of a port-forward's `source-nat`.
pub const SOURCE_NAT: u16 = 32;
/// An inside end of the flow has an endpoint-independent mapping ([`crate::mapping`]).
pub const MAPPED: u16 = 64;
/// The destination is translated by such a mapping: nobody inside has asked for the flow.
pub const UNASKED: u16 = 128;
/// The other direction was refused and is gone; [`Flow::hop`] leads to where packets of this one come from.
pub const TURNED: u16 = 1024;
/// The policy to which the admitting one, still unconfirmed, would fall back had admitted it too.
pub const ADMITTED_BEFORE: u16 = 4;
/// The two bits from here hold the chain that judged the flow.
const CHAIN_SHIFT: u32 = 8;

/// The flags that say so; the chain is [`crate::image::INPUT`] and so on.
#[inline(always)]
pub const fn judged_by(chain: u32) -> u16 {
    (chain as u16) << CHAIN_SHIFT
}

/// A cached way out. How long it is good: [`crate::changes`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hop {
    /// Out-interface; 0: none known.
    pub ifindex: u32,
    /// Tick at which it was found, or the kernel was given a packet for its neighbour; [`crate::changes::long_ago`]: look it up again.
    pub found: u32,
    /// Largest IP packet that fits, bytes.
    pub mtu: u32,
    /// Destination and source MAC, as they stand at the start of the frame.
    pub macs: [u32; 3],
}

shared! {
    Hop { ifindex, found, mtu, macs }
    Flow<Addr4> {
        packets, bytes, leaving, generation, blocks, last_seen, created, idle_timeout, id, hop, forward, origin, flags, interface,
        seen, end, acknowledged
    }
    Flow<Addr6> {
        packets, bytes, leaving, generation, blocks, last_seen, created, idle_timeout, id, hop, forward, origin, flags, interface,
        seen, end, acknowledged
    }
}

impl Hop {
    /// Both MACs as the first six 16-bit words of a frame, memory order.
    #[inline(always)]
    pub const fn mac_halves(&self) -> [u16; 6] {
        let [a, b, c] = self.macs;
        [a as u16, (a >> 16) as u16, b as u16, (b >> 16) as u16, c as u16, (c >> 16) as u16]
    }
}

impl<A: Address> Flow<A> {
    /// Key of the entry for the other direction: the answer to what leaves.
    pub fn peer_key(&self) -> Tuple<A> {
        self.leaving.reversed()
    }

    /// Whether the policy of `generation` had admitted it before an unconfirmed one did, to which it is the fallback.
    #[inline(always)]
    pub const fn was_admitted_by(&self, generation: u32) -> bool {
        // Generations only count up: a later one cannot have admitted it without leaving its own number.
        let later = self.generation.wrapping_sub(generation) as i32 > 0;
        self.generation == generation || (self.flags & ADMITTED_BEFORE != 0 && later)
    }

    /// The chain that judged the flow.
    pub fn chain(&self) -> u32 {
        (self.flags >> CHAIN_SHIFT & 3) as u32
    }

    /// Whether this is the answering direction.
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    /// What packets of this direction were seen to be.
    #[inline(always)]
    pub fn side(&self) -> Side {
        Side { seen: Seen(self.seen), end: self.end, acknowledged: self.acknowledged }
    }

    /// Records it.
    #[inline(always)]
    pub fn set_side(&mut self, side: Side) {
        self.seen = side.seen.0;
        self.end = side.end;
        self.acknowledged = side.acknowledged;
    }

    /// State of the flow; `peer` is what the other direction has seen.
    #[inline(always)]
    pub fn state(&self, peer: Side) -> State {
        let own = self.side();
        let (originator, responder) = if self.is_reply() { (peer, own) } else { (own, peer) };
        if self.leaving.protocol == u32::from(wire::TCP) {
            return tcp::state(originator, responder);
        }
        if responder.seen.has(Seen::PACKET) { State::Established } else { State::Opening }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generation 5 holds for a trial, 3 is what it falls back to.
    #[test]
    fn an_earlier_admission_survives_a_trial() {
        let flow = |generation, flags| Flow::<Addr4> { generation, flags, ..Flow::default() };
        assert!(flow(3, 0).was_admitted_by(3));
        assert!(flow(5, ADMITTED_BEFORE).was_admitted_by(3));
        assert!(!flow(5, 0).was_admitted_by(3));
        // The mark of an earlier trial says nothing about a later one.
        assert!(!flow(2, ADMITTED_BEFORE).was_admitted_by(3));
        assert!(flow(1, ADMITTED_BEFORE).was_admitted_by(u32::MAX));
    }
}
