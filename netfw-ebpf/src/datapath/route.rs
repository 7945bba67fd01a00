//! Stage 4: is it for us, and if not, which way out? XDP leaves a packet to TC here or not at all.

use netfw_common::{
    changes::{self, FRESH},
    explain::{NOWHERE, Note},
    family::{Address, Family},
    flow::{Hop, LOCAL},
    image::{FORWARD, INPUT, SPOOF_LOOSE, SPOOF_OFF},
    interface::{self, EXTERNAL},
    reason::Reason,
};

use super::{
    Step, Verdict,
    context::Hook,
    kernel::{Kernel, Query, Route, Way},
    work::Work,
};

/// Drops packets whose source should have come in elsewhere (RFC 3704); sets [`Work::beside`].
#[inline(always)]
pub fn not_spoofed<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    let mode = kernel.policy().map_or(SPOOF_OFF, |policy| policy.anti_spoof);
    // Link-local addresses exist on every link; no route can tell them apart.
    if work.tuple.source.is_link_local() {
        return Ok(());
    }
    let route = kernel.route(&back(work, 0), &mut work.way);
    kernel.note(Note::Back, if route == Route::None { NOWHERE } else { work.way.hop.ifindex });
    if route != Route::None && work.way.gateway == work.tuple.source {
        work.beside = work.way.hop.ifindex;
    }
    if mode == SPOOF_OFF {
        return Ok(());
    }
    if route == Route::None {
        return work.drop(Reason::Spoofed);
    }
    let slot = kernel.slot_of(work.way.hop.ifindex);
    let flags = kernel.interface(slot).map_or(0, |interface| interface.flags);
    let agrees =
        work.way.hop.ifindex == work.ifindex || (slot != 0 && flags & work.interface_flags & EXTERNAL != 0);
    if agrees || mode == SPOOF_LOOSE { Ok(()) } else { work.drop(Reason::Spoofed) }
}

/// The question for the way back to the sender.
#[inline(always)]
pub fn back<F: Family>(work: &Work<F>, length: u32) -> Query<F::Addr> {
    Query {
        source: work.tuple.destination,
        destination: work.tuple.source,
        ifindex: work.ifindex,
        length,
        tos: 0,
    }
}

/// Where packets come in that come by an interface, by its slot.
#[inline(always)]
pub fn origin<F: Family, K: Kernel<F>>(kernel: &K, slot: u32) -> u16 {
    kernel.interface(slot).map_or(0, |interface| interface::origin(slot, interface.flags))
}

/// Decides between the master and a way out for a new flow; sets the chain.
#[inline(always)]
pub fn decide<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, hook: Hook) -> Step {
    work.chain = INPUT;
    let destination = work.leaving.destination;
    if kernel.local(destination) != 0 || destination.is_group() {
        work.flags |= LOCAL;
        return Ok(());
    }
    match ask(kernel, work) {
        Route::None => {
            // An address of ours that the daemon has not told us of yet, or nothing at all: the stack knows.
            work.flags |= LOCAL;
            Ok(())
        }
        Route::NoNeighbour | Route::TooBig | Route::Encapsulated if hook == Hook::Xdp => Err(Verdict::Punt),
        Route::TooBig | Route::Found | Route::NoNeighbour | Route::Encapsulated => {
            work.chain = FORWARD;
            Ok(())
        }
    }
}

/// The question for the way to the planned destination.
#[inline(always)]
pub fn out<F: Family>(work: &Work<F>, length: u32) -> Query<F::Addr> {
    Query {
        source: work.tuple.source,
        destination: work.leaving.destination,
        ifindex: work.ifindex,
        length,
        tos: work.tos,
    }
}

/// Asks for the way to the planned destination; the answer lasts ([`changes`]) if the neighbour is known.
#[inline(always)]
pub fn ask<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Route {
    let query = out(work, work.wire_length);
    let route = kernel.route(&query, &mut work.way);
    work.way.hop.found = if route == Route::Found { work.now.0 } else { changes::long_ago(work.now) };
    work.too_big = u32::from(route == Route::TooBig);
    kernel.note(Note::Route, route as u32);
    route
}

/// Whether the kernel, which alone ages and probes the neighbour, was lately given another packet for it; then the way that was just found
/// lasts as long as that one's: the next packet for the neighbour comes no later.
#[inline(always)]
pub fn shares_probe<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    let Way { hop, gateway } = &mut work.way;
    // Without an address the neighbour is one of the other family.
    if *gateway == F::Addr::default() {
        return false;
    }
    let sent =
        kernel.probed_at(*gateway, hop.ifindex).filter(|&sent| changes::is_within(FRESH, sent, work.now));
    hop.found = sent.unwrap_or(hop.found);
    sent.is_some()
}

/// Whether the target would answer past the master: the packet goes back where it came from, or its sender is the target's
/// neighbour (whatever interface it came in on).
#[inline(always)]
pub fn bypassed<F: Family>(work: &Work<F>) -> bool {
    let out = work.way.hop.ifindex;
    let on_link = work.way.gateway == work.leaving.destination;
    out == work.ifindex || (out != 0 && out == work.beside && on_link)
}

/// Whether a cached way out still serves this packet.
#[inline(always)]
pub fn lasts<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, hop: &Hop) -> bool {
    let now = work.now;
    hop.ifindex != 0
        && work.wire_length <= hop.mtu
        && (changes::is_within(FRESH, hop.found, now) || kernel.changes().spare(hop.found, now))
}
