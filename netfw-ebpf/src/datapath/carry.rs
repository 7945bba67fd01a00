//! A packet of a live flow: the short way through the pipeline.

use netfw_common::{
    changes,
    counters::{Count, Finisher},
    explain::Note,
    family::Family,
    flow::{ADMITTED_BEFORE, Flow, Hop, LOCAL, MASQUERADED, REPLY, TURNED, UNASKED},
    reason::Reason,
    tcp::{Seen, State},
};

use super::{
    Step, Verdict, block,
    context::{Context, Hook},
    count, fragment, judge,
    kernel::{Kernel, Route, Table},
    mapping, open, rewrite, route,
    work::{self, Work},
};

/// Carries the packet on with its flow.
#[inline(always)]
pub fn packet<F: Family, C: Context, K: Kernel<F>>(
    ctx: &mut C,
    kernel: &K,
    work: &mut Work<F>,
    entry: &mut Flow<F::Addr>,
) -> Step {
    kernel.note(Note::Flow, 1);
    work.strangers = 0;
    // Its source may be false; only the routing table can tell.
    if C::HOOK != Hook::Egress && entry.origin != work.origin && work.astray == 0 {
        work.astray = 1;
        return if C::HOOK == Hook::Xdp { Err(Verdict::Punt) } else { Ok(()) };
    }
    work.leaving = entry.leaving;
    if entry.generation != work.generation || entry.blocks != work.blocks {
        readmit::<F, C, K>(kernel, work, entry)?;
    }
    let forwarded = C::HOOK != Hook::Egress && entry.flags & LOCAL == 0;
    if forwarded {
        way_out::<F, C, K>(kernel, work, entry)?;
    } else if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    let refreshes = mapping::is_concerned(work, entry);
    touch(work, entry);
    account(kernel, work, entry, count::finisher::<F, C>(work, forwarded));
    if refreshes {
        work.original = *entry;
        kernel.refresh_mapping(work);
    }
    if work.table != Table::Proven && has_proved_itself(work, entry) {
        work.original = *entry;
        kernel.promote(work);
    }
    fragment::remember(kernel, work);
    rewrite::packet(ctx, work, forwarded && work.way.hop.ifindex != 0)?;
    Err(if forwarded { Verdict::Forward } else { Verdict::Accept })
}

/// The policy has changed since the flow was admitted, or what is blocked: judges it once as if it were new. A refused TCP
/// peer gets a reset, unless it is blocked; each direction is forgotten when its own side has been told ([`turn`]). While the
/// policy waits for confirmation, a flow that it refuses is only suspended: nothing of it changes.
#[inline(always)]
fn readmit<F: Family, C: Context, K: Kernel<F>>(
    kernel: &K,
    work: &mut Work<F>,
    entry: &Flow<F::Addr>,
) -> Step {
    work.original = *entry;
    let (reason, suspends) = match kernel.blocked_flow(work) {
        block::LISTED => (Reason::Blocked, Reason::Blocked),
        block::BANNED => (Reason::Banned, Reason::Banned),
        _ if judge::live_flow(kernel, work) => {
            kernel.note(Note::Readmitted, 1);
            return Ok(());
        }
        _ => (Reason::FlowCut, Reason::Suspended),
    };
    if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    // Generation 0 is what `netfw flows cut` leaves.
    if work.fallback != 0 && entry.generation != 0 && reason != Reason::Banned {
        return work.drop(suspends);
    }
    turn(kernel, work, entry);
    kernel.remove(work.table, &work.tuple);
    let from_inside = C::HOOK == Hook::Egress || !work.external();
    if work.kind == work::TCP && (from_inside || reason == Reason::FlowCut) {
        work.answer(reason, work::RESET)
    } else {
        work.drop(reason)
    }
}

/// Leaves to the other direction of a connection the way to its sender, who may have nothing to say for hours: user space makes
/// him speak.
#[inline(always)]
fn turn<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, entry: &Flow<F::Addr>) {
    if work.kind == work::TCP
        && entry.hop.ifindex != 0
        && let Some(mut peer) = kernel.flow(work.table, &entry.peer_key())
        && peer.id == entry.id
    {
        peer.hop = Hop { found: changes::long_ago(work.now), ..entry.hop };
        peer.flags |= TURNED;
    }
}

/// Takes the cached way out, or looks it up again.
#[inline(always)]
fn way_out<F: Family, C: Context, K: Kernel<F>>(
    kernel: &K,
    work: &mut Work<F>,
    entry: &mut Flow<F::Addr>,
) -> Step {
    if C::HOOK == Hook::Xdp && (work.ttl <= 1 || work.options != 0) {
        return Err(Verdict::Punt);
    }
    let is_new = !route::lasts(kernel, work, &entry.hop);
    if is_new {
        new_way::<F, C, K>(kernel, work)?;
    } else {
        work.way.hop = entry.hop;
    }
    if C::HOOK == Hook::Xdp && !kernel.can_transmit(work.way.hop.ifindex) {
        return Err(Verdict::Punt);
    }
    open::forwardable(work)?;
    if is_new && work.too_big == 0 {
        entry.hop = work.way.hop;
        entry.flags &= !TURNED;
    }
    Ok(())
}

/// Looks the way out up. So that the neighbour is aged and probed, the kernel sends the packet, unless it has just sent another one there.
#[inline(always)]
fn new_way<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    let route = route::ask(kernel, work);
    work.resolve = u32::from(route != Route::Found || !route::shares_probe(kernel, work));
    if C::HOOK == Hook::Xdp && work.resolve != 0 {
        return Err(Verdict::Punt);
    }
    if route == Route::None { work.answer(Reason::NoRoute, work::UNREACHABLE) } else { Ok(()) }
}

/// Records the packet in its own direction's entry.
#[inline(always)]
fn touch<F: Family>(work: &Work<F>, entry: &mut Flow<F::Addr>) {
    if work.kind == work::TCP {
        let side = entry.side().record(work.segment(), work.peer);
        entry.set_side(side);
    } else if entry.seen & Seen::PACKET == 0 {
        entry.seen |= Seen::PACKET;
    }
    if entry.generation != work.generation {
        stamp(work, entry);
    }
    if work.astray != 0 {
        entry.origin = work.origin;
    }
    entry.blocks = work.blocks;
    entry.last_seen = work.now.0;
    entry.packets += u64::from(work.segments);
    entry.bytes += u64::from(work.bytes);
}

/// Notes who admits the flow now, and whether the policy that may come back does so too.
#[inline(always)]
fn stamp<F: Family>(work: &Work<F>, entry: &mut Flow<F::Addr>) {
    let before = work.fallback != 0 && entry.was_admitted_by(work.fallback);
    entry.flags = entry.flags & !ADMITTED_BEFORE | if before { ADMITTED_BEFORE } else { 0 };
    entry.generation = work.generation;
}

#[inline(always)]
fn account<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, entry: &Flow<F::Addr>, finisher: Finisher) {
    let size = Count { packets: u64::from(work.segments), bytes: u64::from(work.bytes) };
    let hidden = entry.flags & (MASQUERADED | UNASKED);
    let counter = if hidden != 0 { 0 } else { u32::from(entry.forward) };
    if counter == 0 && hidden == 0 {
        return;
    }
    // A flow that came through a mapping runs the other way round.
    let back = (entry.flags & REPLY != 0) != (hidden == UNASKED);
    kernel.count_translation(counter, |count| {
        let direction = if back { &mut count.back } else { &mut count.forth };
        direction.of(finisher).add(size.packets, size.bytes);
    });
}

/// Netfilter's "assured": the originator has answered the reply.
#[inline(always)]
fn has_proved_itself<F: Family>(work: &Work<F>, entry: &Flow<F::Addr>) -> bool {
    entry.flags & REPLY == 0 && matches!(entry.state(work.peer), State::Established | State::Closing)
}
