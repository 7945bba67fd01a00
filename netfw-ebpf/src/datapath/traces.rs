//! What packets leave behind: flows, mappings, fragments, spent tokens, turns, events, counters. All that the pipeline changes, so
//! a dry run is the same pipeline over [`Traces`] that keep nothing.

use core::ops::DerefMut;

use netfw_common::{
    counters::{Count, InterfaceCount, TranslationCount},
    event::Event,
    explain::Note,
    family::Family,
    flow::Flow,
    fragment::{Held, Ports},
    mapping::Mapping,
    reason::Reason,
    tick::Tick,
    tuple::Tuple,
};

use super::{
    Verdict,
    kernel::{BucketKey, Inserted, Ring, Table},
    work::Work,
};

/// See the module.
pub trait Traces<F: Family> {
    /// A flow table entry that can be changed in place.
    type Entry: DerefMut<Target = Flow<F::Addr>>;
    /// Half of a mapping that can be changed in place.
    type Half: DerefMut<Target = Mapping<F::Addr>>;

    /// Looks a flow up.
    fn flow(&self, table: Table, key: &Tuple<F::Addr>) -> Option<Self::Entry>;
    /// Inserts an entry whose key must not exist, and makes it known before ([`super::kernel::Kernel::may_have_flow`]).
    fn insert(&self, table: Table, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>) -> Inserted;
    /// Removes an entry if it is there.
    fn remove(&self, table: Table, key: &Tuple<F::Addr>);

    /// Whether the packet before this one had no flow.
    #[inline(always)]
    fn follows_stranger(&self, work: &Work<F>) -> bool {
        work.strangers != 0
    }

    /// Looks half of a mapping up.
    fn mapping(&self, key: &Tuple<F::Addr>) -> Option<Self::Half>;
    /// Inserts half of a mapping whose key must not exist.
    fn insert_mapping(&self, key: &Tuple<F::Addr>, half: &Mapping<F::Addr>) -> Inserted;
    /// Removes half of a mapping if it is there.
    fn remove_mapping(&self, key: &Tuple<F::Addr>);

    /// Advances the hand over the ring of proven flows: the next place to look at.
    fn next_place(&self) -> u32;
    /// Gives a place to a flow.
    fn take_place(&self, place: u32, key: &Tuple<F::Addr>);

    /// Remembers the ports of a fragmented packet, under its addresses, protocol and identification.
    fn remember_ports(&self, key: &Tuple<F::Addr>, identification: u32, ports: Ports);
    /// Changes what is known of the fragments at a place.
    fn hold(&self, place: u32, held: &Held);
    /// A port-forward (by its stable id) has opened a flow.
    fn take_turn(&self, forward: u32);
    /// A SYN from outside opens a flow, or would.
    fn count_opening(&self, now: Tick);
    /// A source has proved to be there.
    fn vouch(&self, source: F::Addr, now: Tick);
    /// Changes a bucket from `old` to `new`, unless another core was quicker.
    fn exchange_bucket(&self, key: &BucketKey<F::Addr>, old: u64, new: u64) -> bool;

    /// The SSH server has answered a client through the door, who will acknowledge that with `expected`.
    fn begin_handshake(&self, client_port: u32, expected: u32);
    /// A client has acknowledged something through the door: maybe that.
    fn complete_handshake(&self, client_port: u32, acknowledged: u32, generation: u32);

    /// Whether this core may send an ICMP error now ([`netfw_common::bucket`]).
    fn may_tell(&self, now: Tick) -> bool;
    /// The watcher is gone.
    fn end_watch(&self);
    /// Changes the bucket of a channel of events from `old` to `new`, unless another core was quicker.
    fn exchange_channel(&self, number: u32, old: u64, new: u64) -> bool;
    /// Puts an event into a ring; says whether there was room.
    fn emit(&self, ring: Ring, event: &Event) -> bool;

    /// Counts an event that was left out.
    fn count_left_out(&self, channel: u32);
    /// Adds to a counter of an interface.
    fn count_interface(&self, slot: u32, which: impl FnOnce(&mut InterfaceCount) -> &mut Count, size: Count);
    /// Adds to the drops.
    fn count_drop(&self, reason: Reason, size: Count);
    /// Adds to a rule.
    fn count_rule(&self, counter: u32, size: Count);
    /// Changes the counters of a port-forward (`id + 1`) or of the masquerade (0).
    fn count_translation(&self, counter: u32, change: impl FnOnce(&mut TranslationCount));

    /// Notes a decision for whoever asks for an explanation: nobody, but in a dry run.
    #[inline(always)]
    fn note(&self, _note: Note, _value: u32) {}

    /// Tells that one what became of the packet.
    #[inline(always)]
    fn conclude(&self, _work: &Work<F>, _verdict: Verdict) {}
}
