//! What the pipeline asks of its surroundings: the policy, routes, time, chance, and what earlier packets have left there
//! ([`super::traces`]).
//!
//! The kernel implements it over BPF maps and helpers, the tests over plain collections with a fake clock.

pub use netfw_common::slots::Inserted;
use netfw_common::{
    block::{Bans, Key},
    changes::Changes,
    event::Watch,
    family::Family,
    flow::Hop,
    fragment::{Held, Ports},
    image::{AddressClass, Forward, Policy, Rule, Service, Target},
    interface::Interface,
    tick::Tick,
    tuple::Tuple,
};

use super::{
    Step, block, challenge, commit, event, find, judge, limit, mapping, pick_up, port, promote,
    repeat::Repeat, target, traces::Traces, work::Work,
};

/// The policy image in force.
pub trait Tables<F: Family>: Repeat {
    /// Its head.
    fn policy(&self) -> Option<&Policy>;
    /// Generation of the image to which this one, still unconfirmed, would fall back; 0: it is confirmed.
    fn fallback(&self) -> u32 {
        0
    }
    /// What the longest prefix of an address says.
    fn address(&self, address: F::Addr) -> AddressClass;
    /// Entry of `SERVICES`.
    fn service(&self, index: u32) -> Service;
    /// The same of several: the map of their prefixes is asked for once.
    fn addresses<const N: usize>(&self, addresses: [F::Addr; N]) -> [AddressClass; N] {
        addresses.map(|address| self.address(address))
    }
    /// Number of the lowest bit from `from` on that the vectors with these numbers have in common ([`super::classify::lowest`]).
    fn lowest<const N: usize>(&self, vectors: [u16; N], from: u32) -> u32;
    /// A rule.
    fn rule(&self, number: u32) -> Option<&Rule>;
    /// A port-forward entry.
    fn forward(&self, number: u32) -> Option<&Forward>;
    /// A target.
    fn target(&self, number: u32) -> Option<&Target>;
    /// Whether `[block]` lists a prefix around an address.
    fn listed(&self, address: F::Addr) -> bool;
}

/// Parts of the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Table {
    /// Flows whose originator has answered the reply: cannot be pushed out.
    Proven,
    /// Flows opened from outside that have not proved themselves.
    Outside,
    /// Flows opened from inside that have not proved themselves.
    Inside,
}

/// A question to the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Query<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Arriving interface (kernel index).
    pub ifindex: u32,
    /// Length of the largest IP packet to be sent, bytes; 0: not checked.
    pub length: u32,
    /// IPv4 TOS, or IPv6 traffic class.
    pub tos: u32,
}

/// What the routing table answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[must_use]
pub enum Route {
    /// A way out with both MAC addresses.
    Found,
    /// A way out, but the neighbour's MAC is not known (yet).
    NoNeighbour,
    /// A way out that is too narrow; [`Hop::mtu`] tells.
    TooBig,
    /// A way out that wraps the packet in another (a tunnel, segment routing, MPLS): only the stack can take it. The
    /// interface is not told.
    Encapsulated,
    /// Not forwarded: local, or nowhere.
    None,
}

/// Whose tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct BucketKey<A> {
    /// One for each source, or one for the rule.
    pub per_source: bool,
    /// Stable id of the rule.
    pub rule: u32,
    /// The source.
    pub source: A,
}

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// To `netfw watch`.
    Watched,
    /// To the log.
    Logged,
}

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Way<A> {
    /// Interface and MACs.
    pub hop: Hop,
    /// The neighbour: the gateway, or the destination itself.
    pub gateway: A,
}

/// Everything around the pipeline.
pub trait Kernel<F: Family>: Tables<F> + Traces<F> + Sized {
    /// Now.
    fn now(&self) -> Tick;
    /// Now, in nanoseconds: costs more.
    fn nanos(&self) -> u64;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// A managed interface by its slot.
    fn interface(&self, slot: u32) -> Option<&Interface>;
    /// What holds of all bans.
    fn bans(&self) -> Option<&Bans>;
    /// Whether a prefix is banned, and still is.
    fn banned(&self, prefix: &Key) -> bool;
    /// Slot of an interface; 0: not managed.
    fn slot_of(&self, ifindex: u32) -> u32;
    /// Whose the address is: `LOCAL_EXTERNAL`, `LOCAL_OTHER`, or 0 for not the master's.
    fn local(&self, address: F::Addr) -> u32;
    /// Asks the routing table.
    fn route(&self, query: &Query<F::Addr>, way: &mut Way<F::Addr>) -> Route;
    /// What user space has heard of changes to ways.
    fn changes(&self) -> Changes;
    /// The tick at which the kernel was given a packet for a neighbour, as far as TC has said so ([`netfw_common::neighbour`]).
    fn probed_at(&self, gateway: F::Addr, ifindex: u32) -> Option<u32>;
    /// Whether XDP can send out of an interface.
    fn can_transmit(&self, ifindex: u32) -> bool;
    /// Whether a socket of the master would take a packet with this tuple.
    fn socket(&self, tuple: &Tuple<F::Addr>) -> bool;
    /// Whether the packet may have a flow: false only where it has none ([`netfw_common::bloom`]).
    fn may_have_flow(&self, work: &mut Work<F>) -> bool;
    /// The same of [`Work::rival`].
    fn may_have_rival(&self, work: &mut Work<F>) -> bool;
    /// Key of the flow that holds a place, if one does.
    fn place(&self, place: u32) -> Option<Tuple<F::Addr>>;
    /// Recalls the ports of a fragmented packet, by its addresses, protocol and identification.
    fn recall_ports(&self, key: &Tuple<F::Addr>, identification: u32) -> Option<Ports>;
    /// Kernel index of the interface behind which the kernel reassembles for us; 0: there is none.
    fn reassembler(&self) -> u32;
    /// Fragments that are there, by place.
    fn held(&self, place: u32) -> Option<Held>;
    /// Flows that a port-forward (by its stable id) has opened: whose turn it is.
    fn turn(&self, forward: u32) -> u32;

    /// Until when too many connections are being opened from outside ([`netfw_common::pressure`]).
    fn pressed_until(&self) -> u32;
    /// When a source has last proved to be there.
    fn vouched(&self, source: F::Addr) -> Option<Tick>;
    /// A SYN cookie for the tuple of the packet; 0: there is none.
    fn cookie(&self, work: &mut Work<F>) -> u32;
    /// Whether it was one for this tuple, lately.
    fn is_cookie(&self, tuple: &Tuple<F::Addr>, cookie: u32) -> bool;

    /// [`challenge::packet`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn challenge(&self, work: &mut Work<F>) -> Step {
        challenge::packet(self, work)
    }

    /// [`challenge::note_opening`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn note_opening(&self, work: &mut Work<F>) {
        challenge::note_opening(self, work);
    }

    /// A rule's bucket, or that of a source under it ([`netfw_common::limit`]).
    fn bucket(&self, key: &BucketKey<F::Addr>) -> u64;

    /// [`block::packet`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn blocked(&self, work: &mut Work<F>) -> u32 {
        block::packet(self, work)
    }

    /// [`block::live_flow`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn blocked_flow(&self, work: &mut Work<F>) -> u32 {
        block::live_flow(self, work)
    }

    /// [`block::asked`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn asked(&self, work: &mut Work<F>) -> bool {
        block::asked(self, work)
    }

    /// State of a target by the number of its word ([`netfw_common::health`]).
    fn health(&self, number: u32) -> u32;

    /// [`target::share`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn share(&self, number: u32) -> u32 {
        target::share(self, number)
    }

    /// [`target::takers`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn takers(&self, first: u32, end: u32) -> u32 {
        target::takers(self, first, end)
    }

    /// [`target::taker`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn taker(&self, first: u32, end: u32, nth: u32) -> u32 {
        target::taker(self, first, end, nth)
    }

    /// [`target::choose`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn choose(&self, work: &mut Work<F>) -> u32 {
        target::choose(self, work)
    }

    /// [`judge::subject`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn decide(&self, work: &mut Work<F>) -> u32 {
        judge::subject(self, work)
    }

    /// [`limit::has_token`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn has_token(&self, work: &mut Work<F>) -> bool {
        limit::has_token(self, work)
    }

    /// [`limit::spend`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn spend(&self, work: &mut Work<F>) -> bool {
        limit::spend(self, work)
    }

    /// [`judge::translation`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn still_translated(&self, work: &mut Work<F>) -> bool {
        judge::translation(self, work)
    }

    /// [`commit::search`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn search(&self, work: &mut Work<F>) -> Inserted {
        commit::search(self, work)
    }

    /// [`commit::attempt`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn attempt(&self, work: &mut Work<F>) -> Inserted {
        commit::attempt(self, work)
    }

    /// [`find::anywhere`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn find(&self, work: &mut Work<F>) -> bool {
        find::anywhere(self, work)
    }

    /// [`find::rival`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn rival(&self, work: &mut Work<F>, table: Table) -> find::Rival {
        find::rival(self, work, table)
    }

    /// [`find::forget_rival`], likewise: not below the last one, whose stack it would add to.
    #[inline(always)]
    fn forget_rival(&self, work: &mut Work<F>, table: Table) {
        find::forget_rival(self, work, table);
    }

    /// [`commit::withdraw`], likewise.
    #[inline(always)]
    fn withdraw(&self, work: &mut Work<F>) {
        commit::withdraw(self, work);
    }

    /// [`commit::entries`], likewise.
    #[inline(always)]
    fn entries(&self, work: &mut Work<F>) {
        commit::entries(self, work);
    }

    /// [`port::draw`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn draw(&self, work: &mut Work<F>) {
        port::draw(self, work);
    }

    /// [`mapping::find`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn find_mapping(&self, work: &mut Work<F>) {
        mapping::find(self, work);
    }

    /// [`mapping::enter`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn enter_mapping(&self, work: &mut Work<F>) -> bool {
        mapping::enter(self, work)
    }

    /// [`mapping::refresh`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn refresh_mapping(&self, work: &mut Work<F>) {
        mapping::refresh(self, work);
    }

    /// [`mapping::reach`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn reach(&self, work: &mut Work<F>) -> bool {
        mapping::reach(self, work)
    }

    /// [`pick_up::leading`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn leading(&self, work: &mut Work<F>) -> u32 {
        pick_up::leading(self, work)
    }

    /// [`pick_up::outside_port`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn outside_port(&self, work: &mut Work<F>) -> u32 {
        pick_up::outside_port(self, work)
    }

    /// [`pick_up::called`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn called(&self, work: &mut Work<F>, port: u32) -> u32 {
        pick_up::called(self, work, port)
    }

    /// [`pick_up::client`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn client(&self, work: &mut Work<F>) -> u32 {
        pick_up::client(self, work)
    }

    /// [`pick_up::turn`]; behind a call, the compiler does not keep both tuples on the stack.
    #[inline(always)]
    fn turn_round(&self, work: &mut Work<F>) {
        pick_up::turn(work);
    }

    /// [`promote::flow`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn promote(&self, work: &mut Work<F>) {
        promote::flow(self, work);
    }

    /// What the watcher wants, if there ever was one.
    fn watch(&self) -> Option<&Watch>;
    /// The bucket of a channel of events ([`netfw_common::event`]).
    fn channel(&self, number: u32) -> u64;

    /// [`event::tell`], which the verifier checks as a function of its own.
    #[inline(always)]
    fn tell(&self, work: &mut Work<F>) {
        event::tell(self, work);
    }
}
