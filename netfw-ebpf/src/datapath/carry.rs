//! A packet of a live flow: the short way through the pipeline.

use netfw_common::{
    counters::Count,
    family::Family,
    flow::{Flow, LOCAL, MASQUERADED, REPLY},
    image::KEEP_REFUSED,
    reason::Reason,
    tcp::Seen,
    wire::{TCP_ACK, TCP_RST, TCP_SYN},
};

use super::{
    Step, Verdict,
    context::{Context, Hook},
    find, fragment,
    kernel::{Kernel, Route, Table},
    open, rewrite, route,
    work::{self, Work},
};

/// Carries the packet on if it has a flow.
#[inline(always)]
pub fn packet<F: Family, C: Context, K: Kernel<F>>(ctx: &mut C, kernel: &K, work: &mut Work<F>) -> Step {
    fragment::ports::<F, C, K>(kernel, work)?;
    let Some(mut entry) = find::flow(kernel, work) else {
        return Ok(());
    };
    work.leaving = entry.leaving;
    if entry.generation != work.generation {
        readmit::<F, C, K>(kernel, work, &entry)?;
    }
    let forwarded = C::HOOK != Hook::Egress && entry.flags & LOCAL == 0;
    if forwarded {
        way_out::<F, C, K>(kernel, work, &mut entry)?;
    } else if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    touch(work, &mut entry);
    account(kernel, work, &entry);
    if work.table != Table::Proven && has_proved_itself(work, &entry) {
        work.original = *entry;
        kernel.promote(work);
    }
    fragment::remember(kernel, work);
    rewrite::packet(ctx, work, forwarded && work.way.hop.ifindex != 0)?;
    Err(if forwarded { Verdict::Forward } else { Verdict::Accept })
}

/// The policy has changed since the flow was admitted: judges it once as if it were new. A refused TCP peer gets a
/// reset; each direction is forgotten when its own side has been told.
#[inline(always)]
fn readmit<F: Family, C: Context, K: Kernel<F>>(
    kernel: &K,
    work: &mut Work<F>,
    entry: &Flow<F::Addr>,
) -> Step {
    work.original = *entry;
    let keep = kernel.policy().is_some_and(|policy| policy.flags & KEEP_REFUSED != 0);
    if keep || kernel.readmit(work) {
        return Ok(());
    }
    if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    kernel.remove(work.table, &work.tuple);
    if work.kind == work::TCP {
        work.answer(Reason::FlowCut, work::RESET)
    } else {
        work.drop(Reason::FlowCut)
    }
}

/// Takes the cached way out, or looks it up again. XDP leaves that to TC, where the kernel ages and probes the
/// neighbour; a look-up alone would believe a stale MAC for ever.
#[inline(always)]
fn way_out<F: Family, C: Context, K: Kernel<F>>(
    kernel: &K,
    work: &mut Work<F>,
    entry: &mut Flow<F::Addr>,
) -> Step {
    if C::HOOK == Hook::Xdp && (work.ttl <= 1 || work.options != 0) {
        return Err(Verdict::Punt);
    }
    if route::fresh(work, &entry.hop) {
        work.way.hop = entry.hop;
        if C::HOOK == Hook::Xdp && !kernel.can_transmit(entry.hop.ifindex) {
            return Err(Verdict::Punt);
        }
        return open::forwardable(work);
    }
    if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    let route = route::ask(kernel, work);
    if route == Route::None {
        return work.answer(Reason::NoRoute, work::UNREACHABLE);
    }
    open::forwardable(work)?;
    if route != Route::TooBig {
        entry.hop = work.way.hop;
        work.resolve = 1;
    }
    Ok(())
}

/// Records the packet in its own direction's entry.
#[inline(always)]
fn touch<F: Family>(work: &Work<F>, entry: &mut Flow<F::Addr>) {
    let seen = Seen(entry.seen);
    let seen = if work.kind == work::TCP { seen.tcp(work.tcp_flags as u8) } else { seen.packet() };
    if seen.0 != entry.seen {
        entry.seen = seen.0;
    }
    entry.generation = work.generation;
    entry.last_seen = work.now.0;
    entry.packets += u64::from(work.segments);
    entry.bytes += u64::from(work.bytes);
}

#[inline(always)]
fn account<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, entry: &Flow<F::Addr>) {
    let size = Count { packets: u64::from(work.segments), bytes: u64::from(work.bytes) };
    let counter = if entry.flags & MASQUERADED != 0 { 0 } else { u32::from(entry.forward) };
    if counter == 0 && entry.flags & MASQUERADED == 0 {
        return;
    }
    let back = entry.flags & REPLY != 0;
    kernel.count_translation(counter, |count| {
        let direction = if back { &mut count.back } else { &mut count.forth };
        direction.add(size.packets, size.bytes);
    });
}

/// Netfilter's "assured": the originator has answered the reply.
#[inline(always)]
fn has_proved_itself<F: Family>(work: &Work<F>, entry: &Flow<F::Addr>) -> bool {
    let answers = work.kind != work::TCP || work.tcp_flags as u8 & (TCP_ACK | TCP_SYN | TCP_RST) == TCP_ACK;
    entry.flags & REPLY == 0 && work.peer_seen != 0 && answers
}
