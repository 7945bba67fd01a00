//! Endpoint-independent mapping and filtering (RFC 4787 REQ-1, REQ-8).
//!
//! A mapping is made by the first flow of an inside end, and the end's later flows get the same outside port. Outbound
//! packets keep it alive (REQ-6). Where the masquerade's `filtering` is endpoint-independent too, anyone may open a flow to
//! the outside port: it is judged by chain forward, on its way to the inside end, and admitted unless a rule says otherwise.
//!
//! The mapping decides about new flows only; each flow keeps its own translation in the flow table. The table of mappings
//! is an LRU, so a LAN host that fills it pushes out the oldest, which the next outbound packet puts back.

use netfw_common::{
    family::Family,
    flow::{Flow, MAPPED, MASQUERADED, REPLY, UNASKED},
    image::MAPPINGS,
    mapping::Mapping,
    tcp::{Seen, Side, State},
    tick::Tick,
    timeout,
    tuple::Tuple,
    wire::{TCP_FIN, TCP_RST},
};

use super::{
    judge,
    kernel::{Inserted, Kernel},
    port,
    work::{self, Work},
};

/// The flow needs none: [`Work::mapping`].
pub const NOT_WANTED: u32 = 0;
/// The inside end must have one.
pub const WANTED: u32 = 1;
/// It had one already, whose port was planned.
pub const FOUND: u32 = 2;
/// It was made for this flow.
pub const ENTERED: u32 = 3;

/// Key of the inside half of the mapping that the packet's source has, or gets.
#[inline(always)]
fn inside<F: Family>(work: &Work<F>) -> Tuple<F::Addr> {
    let tuple = &work.tuple;
    Mapping::inside_key(tuple.source, tuple.source_port, work.leaving.source, tuple.protocol)
}

/// Key of its outside half.
#[inline(always)]
fn outside<F: Family>(work: &Work<F>) -> Tuple<F::Addr> {
    Mapping::outside_key(work.leaving.source, work.leaving.source_port, work.tuple.protocol)
}

/// Whether any masquerade maps endpoint-independently.
#[inline(always)]
fn in_use<F: Family, K: Kernel<F>>(kernel: &K) -> bool {
    kernel.policy().is_some_and(|policy| policy.flags & MAPPINGS != 0)
}

/// Plans the port of the mapping that the packet's source has, if it has one that it may keep.
#[inline(always)]
pub fn find<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let Some(mut mapping) = kernel.mapping(&inside(work)) else {
        return;
    };
    work.leaving.source_port = mapping.port;
    let whole = kernel
        .mapping(&outside(work))
        .is_some_and(|back| back.names(work.tuple.source, work.tuple.source_port));
    if whole && port::in_range(kernel, work) && !port::is_forwarded(kernel, &work.leaving) {
        mapping.expires = until(kernel, work, State::Opening);
        work.mapping = FOUND;
        return;
    }
    if whole {
        kernel.remove_mapping(&outside(work));
    }
    kernel.remove_mapping(&inside(work));
    work.leaving.source_port = work.tuple.source_port;
}

/// Whether the planned source belongs to the living mapping of another inside end.
#[inline(always)]
pub fn is_anothers<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    if !in_use(kernel) || !port::changeable(work) {
        return false;
    }
    let Some(holder) = kernel.mapping(&outside(work)) else {
        return false;
    };
    !holder.names(work.tuple.source, work.tuple.source_port) && lives(kernel, work, &holder)
}

/// Whether the inside half that belongs to `holder` is there and lives, or is just being made.
#[inline(always)]
fn lives<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, holder: &Mapping<F::Addr>) -> bool {
    let leaving = &work.leaving;
    let key = Mapping::inside_key(holder.address, holder.port, leaving.source, work.tuple.protocol);
    match kernel.mapping(&key) {
        Some(inside) => inside.names(leaving.source, leaving.source_port) && inside.lives(work.now),
        None => work.now.since(Tick(holder.expires)) <= 1,
    }
}

/// Enters the outside half for the planned source; false where that is another's.
#[inline(always)]
fn take<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    let (address, port, expires) = (work.tuple.source, work.tuple.source_port, work.now.0);
    let half = Mapping { address, port, reserved: 0, expires };
    for _ in 0..2 {
        if kernel.insert_mapping(&outside(work), &half) == Inserted::Done {
            return true;
        }
        let Some(holder) = kernel.mapping(&outside(work)) else { continue };
        if holder.names(address, port) {
            return true;
        }
        if lives(kernel, work, &holder) {
            return false;
        }
        kernel.remove_mapping(&outside(work));
    }
    false
}

/// Makes a mapping of the planned source. False when that source is another's, or when another core has made a mapping for
/// the same end: then that one's port is planned.
#[inline(always)]
pub fn enter<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    if !take(kernel, work) {
        return false;
    }
    let (address, port) = (work.leaving.source, work.leaving.source_port);
    let half = Mapping { address, port, reserved: 0, expires: until(kernel, work, State::Opening) };
    work.mapping = ENTERED;
    if kernel.insert_mapping(&inside(work), &half) == Inserted::Done {
        return true;
    }
    let first = kernel.mapping(&inside(work)).map_or(port, |first| first.port);
    if first == port {
        return true;
    }
    kernel.remove_mapping(&outside(work));
    work.leaving.source_port = first;
    work.mapping = FOUND;
    false
}

/// Takes back what [`enter`] has made.
#[inline(always)]
pub fn forget<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    if matches!(work.mapping, ENTERED | FOUND) {
        kernel.remove_mapping(&inside(work));
        kernel.remove_mapping(&outside(work));
        work.mapping = WANTED;
    }
}

/// Leads a packet that nobody asked for to the inside end whose mapping it meets, where that is let in.
#[inline(always)]
pub fn reach<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    let tuple = &work.tuple;
    if !in_use(kernel) || work.headless() || !port::has_ports(tuple.protocol) {
        return false;
    }
    let key = Mapping::outside_key(tuple.destination, tuple.destination_port, tuple.protocol);
    let Some(end) = kernel.mapping(&key).map(|end| *end) else {
        return false;
    };
    let key = Mapping::inside_key(end.address, end.port, tuple.destination, tuple.protocol);
    let whole = kernel.mapping(&key).is_some_and(|inside| {
        inside.names(tuple.destination, tuple.destination_port) && inside.lives(work.now)
    });
    if !whole || !judge::lets_in(kernel, end.address) {
        return false;
    }
    work.leaving.destination = end.address;
    work.leaving.destination_port = end.port;
    true
}

/// Whether the packet of a flow with these flags leaves the LAN.
#[inline(always)]
fn is_outbound(flags: u16) -> bool {
    let unasked = flags & UNASKED != 0;
    if flags & REPLY != 0 { unasked } else { !unasked || flags & MASQUERADED != 0 }
}

/// Whether the packet may change how long its flow's mapping lives: it leaves the LAN and is the first in an eighth of a
/// second, or it has to do with the end of a connection.
#[inline(always)]
pub fn is_concerned<F: Family>(work: &Work<F>, entry: &Flow<F::Addr>) -> bool {
    let first = entry.last_seen >> 3 != work.now.0 >> 3;
    let ends = entry.seen & Seen::FIN != 0 || work.tcp_flags as u8 & (TCP_FIN | TCP_RST) != 0;
    let tcp = work.kind == work::TCP;
    entry.flags & MAPPED != 0 && (first && is_outbound(entry.flags) || tcp && ends)
}

/// Keeps the mapping of the flow in [`Work::original`] alive, or puts it back.
#[inline(always)]
pub fn refresh<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let peer = match kernel.flow(work.table, &work.original.peer_key()) {
        Some(peer) if peer.id == work.original.id => peer.side(),
        _ => Side::default(),
    };
    let state = work.original.state(peer);
    let expires = until(kernel, work, state);
    if is_outbound(work.original.flags) {
        prolong(kernel, work, expires);
    } else if state == State::Closed {
        let (tuple, leaving) = (&work.tuple, &work.leaving);
        let (end, port) = (leaving.destination, leaving.destination_port);
        let key = Mapping::inside_key(end, port, tuple.destination, tuple.protocol);
        if let Some(mut mapping) = kernel.mapping(&key) {
            mapping.expires = expires;
        }
    }
}

/// The look at the outside half also keeps that from being pushed out.
#[inline(always)]
fn prolong<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, expires: u32) {
    let (address, port) = (work.leaving.source, work.leaving.source_port);
    if let Some(mut mapping) = kernel.mapping(&inside(work)) {
        if mapping.port == port {
            mapping.expires = expires;
            take(kernel, work);
        }
    } else if take(kernel, work) {
        let half = Mapping { address, port, reserved: 0, expires };
        // Another core may have been quicker.
        let _ = kernel.insert_mapping(&inside(work), &half);
    }
}

/// When a mapping dies that is not used again: with a connection of its protocol in this state. What is no TCP connection
/// counts as answered.
#[inline(always)]
fn until<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, state: State) -> u32 {
    let state = if work.kind == work::TCP { state } else { State::Established };
    let kind = timeout::kind(work.tuple.protocol, state);
    work.now.0.wrapping_add(kernel.policy().map_or(0, |policy| work::timeout(policy, kind)))
}
