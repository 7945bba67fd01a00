//! Stage 2: the flow the packet belongs to, if it still lives.

use netfw_common::{
    family::Family,
    flow::Flow,
    tcp::{Side, State},
    tick::Tick,
    timeout,
    tuple::Tuple,
    wire::{TCP_ACK, TCP_SYN},
};

use super::{
    kernel::{Kernel, Table},
    work::{self, Work},
};

/// Looks the flow up; sets [`Work::table`].
#[inline(always)]
pub fn flow<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Option<K::Entry> {
    if let Some(entry) = look(kernel, work)
        && !is_doubtful(kernel, work, &entry)
    {
        return Some(entry);
    }
    // Another core may move it to the proven flows meanwhile.
    if kernel.find(work) { look(kernel, work) } else { None }
}

/// Whether the packet is known to have no flow. Packets come in trains, of strangers too: after one the filter is asked first, which costs
/// packets of flows more than it brings.
#[inline(always)]
pub fn is_stranger<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    kernel.follows_stranger(work) && !kernel.may_have_flow(work)
}

/// Asks first where the packet before this one was found: packets come in trains.
#[inline(always)]
fn look<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Option<K::Entry> {
    if work.table != Table::Proven
        && let Some(entry) = kernel.flow(work.table, &work.tuple)
    {
        return Some(entry);
    }
    work.table = Table::Proven;
    kernel.flow(Table::Proven, &work.tuple)
}

/// Whether it takes more than a look at the entry to know that it lives.
#[inline(always)]
fn is_doubtful<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, entry: &Flow<F::Addr>) -> bool {
    // Most packets of a busy flow come within a tick of each other, and spare the look at the timeouts.
    (entry.last_seen != work.now.0 && is_late(kernel, work, entry))
        || needs_peer(work, entry)
        || reopens(work)
}

/// Finds the flow in whatever table, if it lives; sets [`Work::table`], [`Work::peer_key`] and, to what it was then, [`Work::original`].
#[inline(always)]
pub fn anywhere<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    work.strangers = 1;
    if !kernel.may_have_flow(work) {
        return false;
    }
    let Some(mut entry) = look_up(kernel, work) else { return false };
    work.peer_key = entry.peer_key();
    if needs_peer(work, &entry) && orphaned(kernel, work, &entry) {
        // Another core may just have moved both halves to the proven flows.
        let Some(proven) = kernel.flow(Table::Proven, &work.tuple) else {
            forget(kernel, work.table, &work.tuple, &work.peer_key, entry.id);
            return false;
        };
        work.table = Table::Proven;
        work.peer_key = proven.peer_key();
        entry = proven;
    }
    if ended(kernel, work, &entry) {
        forget(kernel, work.table, &work.tuple, &work.peer_key, entry.id);
        return false;
    }
    work.original = *entry;
    true
}

/// log2 of the ticks, together an eighth of a second, in which one look at the other half is enough.
const LOOK: u32 = 3;

/// The LRU evicts the two directions one at a time: an unproven flow without its other half is none. A packet of a
/// proven flow needs no such look, and of those that follow each other closely only the first does, unless they may
/// prove a TCP connection: the look is another cache miss, a fifth of what a packet costs among many flows.
#[inline(always)]
fn needs_peer<F: Family>(work: &Work<F>, entry: &Flow<F::Addr>) -> bool {
    work.table != Table::Proven && (work.kind == work::TCP || entry.last_seen >> LOOK != work.now.0 >> LOOK)
}

/// Whether the other half, [`Work::peer_key`], is gone; else sets [`Work::peer`].
#[inline(always)]
fn orphaned<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, entry: &Flow<F::Addr>) -> bool {
    match kernel.flow(work.table, &work.peer_key) {
        Some(peer) if peer.id == entry.id => {
            work.peer = peer.side();
            false
        }
        _ => true,
    }
}

/// A flow that proves itself is inserted into the hash before it leaves the LRU, so the hash is asked after the LRU missed.
#[inline(always)]
fn look_up<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Option<K::Entry> {
    for table in [Table::Outside, Table::Inside, Table::Proven] {
        work.table = table;
        let entry = kernel.flow(table, &work.tuple);
        if entry.is_some() {
            return entry;
        }
    }
    None
}

/// Whether the packet begins a connection.
#[inline(always)]
fn reopens<F: Family>(work: &Work<F>) -> bool {
    work.kind == work::TCP && work.tcp_flags as u8 & (TCP_SYN | TCP_ACK) == TCP_SYN
}

/// Whether the flow was silent for longer than a flow may be in some state.
#[inline(always)]
fn is_late<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, entry: &Flow<F::Addr>) -> bool {
    let idle = work.now.since(Tick(entry.last_seen));
    idle > shortest(kernel, work.tuple.protocol, entry.idle_timeout)
}

/// Whether the flow has timed out, or a new connection reuses the tuple of one that is closed (RFC 9293 §3.6.1).
#[inline(always)]
fn ended<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, entry: &Flow<F::Addr>) -> bool {
    let reopens = reopens(work);
    if !reopens && !is_late(kernel, work, entry) {
        return false;
    }
    let idle = work.now.since(Tick(entry.last_seen));
    let (peer_side, peer_idle) = peer(kernel, work, work.table, entry);
    let state = entry.state(peer_side);
    let half = peer_idle == u32::MAX;
    (reopens && (half || state == State::Closed))
        || idle.min(peer_idle) > limit(kernel, work.tuple.protocol, state, entry)
}

/// What the other direction, [`Work::peer_key`], has seen, and for how long it has been silent.
#[inline(always)]
fn peer<F: Family, K: Kernel<F>>(
    kernel: &K,
    work: &Work<F>,
    table: Table,
    entry: &Flow<F::Addr>,
) -> (Side, u32) {
    match kernel.flow(table, &work.peer_key) {
        Some(peer) if peer.id == entry.id => (peer.side(), work.now.since(Tick(peer.last_seen))),
        _ => (Side::default(), u32::MAX),
    }
}

/// Idle time up to which a flow lives in whatever state: spares the look at the other direction.
#[inline(always)]
fn shortest<F: Family, K: Kernel<F>>(kernel: &K, protocol: u32, own: u32) -> u32 {
    let Some(policy) = kernel.policy() else { return u32::MAX };
    let of = |state| work::timeout(policy, timeout::kind(protocol, state));
    let shortest = of(State::Opening).min(of(State::Established)).min(of(State::Closed));
    if own == 0 { shortest } else { shortest.min(own) }
}

/// Idle time after which a flow is dead.
#[inline(always)]
fn limit<F: Family, K: Kernel<F>>(kernel: &K, protocol: u32, state: State, entry: &Flow<F::Addr>) -> u32 {
    let Some(policy) = kernel.policy() else { return u32::MAX };
    timeout::limit(&policy.timeouts, protocol, state, entry.idle_timeout)
}

/// Whether a living flow in this table has the key [`Work::rival`]; a dead one is forgotten.
#[inline(always)]
pub fn lives<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, table: Table) -> bool {
    let found = kernel.rival(work, table);
    if found == Rival::Expendable {
        kernel.forget_rival(work, table);
    }
    found == Rival::Lives
}

/// What a table has under the key [`Work::rival`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Rival {
    /// Nothing.
    None,
    /// A flow that lives.
    Lives,
    /// One that may give way.
    Expendable,
}

/// Looks for it; sets [`Work::peer_key`] and [`Work::rival_id`].
#[inline(always)]
pub fn rival<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, table: Table) -> Rival {
    let Some(entry) = kernel.flow(table, &work.rival) else { return Rival::None };
    work.peer_key = entry.peer_key();
    work.rival_id = entry.id;
    if expendable(kernel, work, table, &entry) { Rival::Expendable } else { Rival::Lives }
}

/// Removes what was found, both directions, unless it is there no more.
#[inline(always)]
pub fn forget_rival<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, table: Table) {
    remove(kernel, table, &work.peer_key, work.rival_id);
    remove(kernel, table, &work.rival, work.rival_id);
}

/// Whether a flow, that of [`Work::rival`], may give way to another: closed, timed out, or only half there.
#[inline(always)]
fn expendable<F: Family, K: Kernel<F>>(
    kernel: &K,
    work: &Work<F>,
    table: Table,
    entry: &Flow<F::Addr>,
) -> bool {
    let now = work.now;
    let (peer_side, peer_idle) = peer(kernel, work, table, entry);
    let state = entry.state(peer_side);
    let idle = now.since(Tick(entry.last_seen)).min(peer_idle);
    // A half that was entered just now is not alone: another core is about to enter the other one.
    let fresh = now.since(Tick(entry.created)) <= 1;
    let orphan = table != Table::Proven && peer_idle == u32::MAX && !fresh;
    let closed = state == State::Closed && work.spares_closed == 0;
    orphan || closed || idle > limit(kernel, entry.leaving.protocol, state, entry)
}

/// Removes both directions of a flow. The other one may belong to a later flow by now, which keeps it.
#[inline(always)]
pub fn forget<F: Family, K: Kernel<F>>(
    kernel: &K,
    table: Table,
    key: &Tuple<F::Addr>,
    peer_key: &Tuple<F::Addr>,
    id: u32,
) {
    remove(kernel, table, peer_key, id);
    kernel.remove(table, key);
}

/// Removes a direction of the flow with this name.
#[inline(always)]
fn remove<F: Family, K: Kernel<F>>(kernel: &K, table: Table, key: &Tuple<F::Addr>, id: u32) {
    if kernel.flow(table, key).is_some_and(|entry| entry.id == id) {
        kernel.remove(table, key);
    }
}
