//! Everything the stages know and plan about one packet. Lies in a per-CPU map: it doesn't fit the 512-byte stack.

use netfw_common::{
    changes,
    event::Event,
    family::Family,
    flow::{Flow, Hop},
    image::Policy,
    interface::{EXTERNAL, Interface, origin},
    reason::Reason,
    tcp::{Segment, Side},
    tick::Tick,
    tuple::Tuple,
};

use super::{
    Step, Verdict,
    context::{ANSWER_HALVES, Quote},
    judge::Subject,
    kernel::{Kernel, Table, Way},
    mapping::NOT_WANTED,
    related::Quoted,
};

/// Kinds of transport, as far as translation is concerned: [`Work::kind`].
pub const OTHER: u32 = 0;
/// TCP.
pub const TCP: u32 = 1;
/// UDP.
pub const UDP: u32 = 2;
/// ICMP echo, a flow by identifier (RFC 5508 §3).
pub const ECHO: u32 = 3;
/// An ICMP error, which belongs to the flow it quotes.
pub const ICMP_ERROR: u32 = 4;
/// SCTP: ports are seen, but cannot be changed (its CRC covers the packet).
pub const SCTP: u32 = 5;

/// A fragment's part in its packet: [`Work::fragment`].
pub const WHOLE: u32 = 0;
/// The first fragment: has the transport header.
pub const FIRST: u32 = 1;
/// A later fragment: has no ports.
pub const LATER: u32 = 2;

/// What the sender is told: [`Work::answer`].
pub const NOTHING: u32 = 0;
/// A TCP reset.
pub const RESET: u32 = 1;
/// ICMP: prohibited, or port unreachable on reject.
pub const PROHIBITED: u32 = 2;
/// ICMP: TTL exceeded.
pub const TTL_EXCEEDED: u32 = 3;
/// ICMP: fragmentation needed, or packet too big.
pub const TOO_BIG: u32 = 4;
/// ICMP: no route to the destination.
pub const UNREACHABLE: u32 = 5;
/// TCP: an acknowledgment of what was never sent ([`super::challenge`]).
pub const CHALLENGE: u32 = 6;

/// Number that stands for "none" where a list index is expected.
pub const NONE: u32 = u32::MAX;

/// See the module.
#[repr(C)]
pub struct Work<F: Family> {
    /// As the packet arrived.
    pub tuple: Tuple<F::Addr>,
    /// As it will leave.
    pub leaving: Tuple<F::Addr>,
    /// The way out.
    pub way: Way<F::Addr>,
    /// Key of the answering direction, while it is being entered.
    pub reply_key: Tuple<F::Addr>,
    /// Key of a flow that may have to give way ([`super::find::lives`]).
    pub rival: Tuple<F::Addr>,
    /// Key of the other direction of a flow that was looked for.
    pub peer_key: Tuple<F::Addr>,
    /// A new entry for the packet's own direction.
    pub original: Flow<F::Addr>,
    /// A new entry for the answering direction.
    pub reply: Flow<F::Addr>,
    /// What is judged.
    pub subject: Subject<F::Addr>,
    /// Of an ICMP error: the packet that it quotes.
    pub inner: Quoted,

    /// Name of the flow with the key [`Work::rival`].
    pub rival_id: u32,
    /// Slot of the policy image that held when the packet came.
    pub slot: u32,
    /// When the packet came.
    pub now: Tick,
    /// Arriving (ingress) or leaving (egress) interface, kernel index.
    pub ifindex: u32,
    /// Its slot.
    pub interface: u32,
    /// [`EXTERNAL`] and so on, of that interface.
    pub interface_flags: u32,
    /// [`netfw_common::interface::origin`] of that interface.
    pub origin: u16,
    /// The same of the interface by which the answers to a new flow will come in; 0: not known.
    pub answers: u16,
    /// Came in elsewhere than its flow, so its source has to be checked.
    pub astray: u32,
    /// A SYN whose source has yet to prove that it is there: it opens no flow ([`super::challenge`]).
    pub unproved: u32,
    /// Somebody else has entered a flow with one of the tuples of that which was to be entered for a target's word.
    pub overtaken: u32,
    /// Interface by which the source of a new flow is reached without a router, as the routing table has it; 0: none.
    pub beside: u32,
    /// While a source port is looked for: that of a closed connection counts as taken.
    pub spares_closed: u32,
    /// TC ingress: came in a broadcast or multicast frame.
    pub group_frame: u32,
    /// Egress: the interface that the packet arrived on was not ours, but it did arrive (it is routed).
    pub routed: u32,

    /// Offset of the transport header in the frame.
    pub transport: u32,
    /// Length of the IP packet.
    pub length: u32,
    /// Length of the largest wire packet in it.
    pub wire_length: u32,
    /// Wire packets in it.
    pub segments: u32,
    /// Bytes of them all, with a header each.
    pub bytes: u32,
    /// [`TCP`] and so on.
    pub kind: u32,
    /// Destination port, ICMP type, or 0.
    pub detail: u32,
    /// TCP flags.
    pub tcp_flags: u32,
    /// TCP: sequence number.
    pub sequence: u32,
    /// TCP: acknowledgment number.
    pub acknowledged: u32,
    /// TCP: bytes of data.
    pub data: u32,
    /// TTL or hop limit.
    pub ttl: u32,
    /// TOS or traffic class.
    pub tos: u32,
    /// The word of the header that holds TTL or hop limit, in memory order.
    pub ttl_half: u32,
    /// IPv4 header checksum, memory order.
    pub header_checksum: u32,
    /// [`WHOLE`], [`FIRST`] or [`LATER`].
    pub fragment: u32,
    /// Identification of the fragmented packet.
    pub identification: u32,
    /// Place at which the fragment is held, plus 1.
    pub place: u32,
    /// The packet came back from the place with this number less 1; 0: it has just come in.
    pub reassembled: u32,
    /// IPv4: may not be fragmented. IPv6: always.
    pub keep_whole: u32,
    /// The neighbour should be resolved by the kernel for this packet.
    pub resolve: u32,
    /// Doesn't fit the way out.
    pub too_big: u32,
    /// What the other direction of an unproven flow has seen.
    pub peer: Side,
    /// Has options that a router would have to look at.
    pub options: u32,

    /// The part of the table in which the packet's flow was found.
    pub table: Table,
    /// Whether the last packet had no flow, as far as is known.
    pub strangers: u32,
    /// Generation of the policy in force.
    pub generation: u32,
    /// Prefix length with which [`super::block`] asks for a ban.
    pub asked_length: u32,
    /// [`netfw_common::block::Bans::version`].
    pub blocks: u32,
    /// Its [`Policy::failsafe_port`].
    pub door: u32,
    /// Generation of the policy to which the one in force, still unconfirmed, would fall back; 0: it is confirmed.
    pub fallback: u32,
    /// The chain that judges.
    pub chain: u32,
    /// Port-forward entry that translates the destination, or [`NONE`].
    pub forward: u32,
    /// Stable id of that port-forward plus 1, or 0.
    pub forward_id: u32,
    /// Its idle timeout.
    pub idle_timeout: u32,
    /// None of the port-forward's targets takes new flows.
    pub refused: u32,
    /// `[[masquerade]]` that translates the source, or [`NONE`].
    pub masquerade: u32,
    /// Whether the source needs an endpoint-independent mapping, and has one ([`super::mapping`]).
    pub mapping: u32,
    /// How many source ports were drawn, or [`super::port::SPENT`].
    pub drawn: u32,
    /// Flags of the flow to be entered ([`netfw_common::flow`]).
    pub flags: u16,
    /// Rule that decided, or [`NONE`].
    pub rule: u32,
    /// Why it was dropped.
    pub reason: Reason,
    /// [`RESET`] and so on.
    pub answer: u32,
    /// What is told about it.
    pub event: Event,
    /// The answer, as a frame; of an error the headers.
    pub frame: [u16; ANSWER_HALVES],
    /// What the error quotes.
    pub quote: Quote,
}

impl<F: Family> Work<F> {
    /// Sets up for a packet on the interface `ifindex`; passes where that isn't managed.
    #[inline(always)]
    pub fn begin<'k, K: Kernel<F>>(
        &mut self,
        kernel: &'k K,
        ifindex: u32,
        segments: u32,
    ) -> Result<&'k Interface, Verdict> {
        let slot = kernel.slot_of(ifindex);
        let Some(interface) = kernel.interface(slot).filter(|_| slot != 0) else {
            return Err(Verdict::Pass);
        };
        self.interface_flags = interface.flags;
        self.origin = origin(slot, interface.flags);
        let Some(policy) = kernel.policy().filter(|policy| policy.manages(slot)) else {
            return Err(Verdict::Pass);
        };
        self.ifindex = ifindex;
        self.interface = slot;
        self.generation = policy.generation;
        self.door = policy.failsafe_port;
        self.fallback = kernel.fallback();
        self.blocks = kernel.bans().map_or(0, |bans| bans.version);
        self.now = kernel.now();
        self.segments = segments;
        self.answers = 0;
        self.astray = 0;
        self.unproved = 0;
        self.overtaken = 0;
        self.beside = 0;
        self.spares_closed = 0;
        self.group_frame = 0;
        self.routed = 0;
        self.forward = NONE;
        self.forward_id = 0;
        self.refused = 0;
        self.masquerade = NONE;
        self.mapping = NOT_WANTED;
        self.idle_timeout = 0;
        self.rule = NONE;
        self.answer = NOTHING;
        self.reassembled = 0;
        self.resolve = 0;
        self.too_big = 0;
        self.peer = Side::default();
        self.flags = 0;
        Ok(interface)
    }

    /// Whether the way that was just asked for names the neighbour's link address.
    #[inline(always)]
    pub fn knows_neighbour(&self) -> bool {
        self.way.hop.found != changes::long_ago(self.now)
    }

    /// The way out.
    #[inline(always)]
    pub fn hop(&self) -> &Hop {
        &self.way.hop
    }

    /// Whether the packet came in from (or goes out to) the outside.
    #[inline(always)]
    pub fn external(&self) -> bool {
        self.interface_flags & EXTERNAL != 0
    }

    /// Stops with a drop.
    #[inline(always)]
    pub fn drop(&mut self, reason: Reason) -> Step {
        self.reason = reason;
        Err(Verdict::Drop)
    }

    /// Stops with a drop that the sender is told about.
    #[inline(always)]
    pub fn answer(&mut self, reason: Reason, answer: u32) -> Step {
        self.reason = reason;
        self.answer = answer;
        Err(Verdict::Answer)
    }

    /// The TCP segment.
    #[inline(always)]
    pub fn segment(&self) -> Segment {
        Segment {
            flags: self.tcp_flags as u8,
            sequence: self.sequence,
            acknowledged: self.acknowledged,
            length: self.data,
        }
    }

    /// Whether the packet is a later fragment: it has no transport header.
    #[inline(always)]
    pub fn headless(&self) -> bool {
        self.fragment == LATER
    }
}

/// The idle timeout of this kind that is in force, ticks.
#[inline(always)]
pub fn timeout(policy: &Policy, which: netfw_common::timeout::Timeout) -> u32 {
    policy.timeouts.get(which as usize).copied().unwrap_or(0)
}
