//! A packet without a flow: decide, judge, and only then enter the flow.

use netfw_common::{
    counters::{Count, Finisher},
    explain::Note,
    family::{Address, Family},
    flow::{INSIDE, LOCAL, MASQUERADED, UNASKED},
    icmp,
    image::{ACCEPT, FORWARD, INPUT, OUTPUT, REJECT},
    reason::Reason,
};

use super::{
    Step, Verdict, challenge, commit,
    context::{Context, Hook},
    count, event, fragment, judge,
    kernel::Kernel,
    link, plan, rewrite, route,
    work::{self, NONE, Work},
};

/// Opens a flow for the packet, or refuses it; goes on where another core has opened the same flow meanwhile. Of a packet that has
/// one, and came in elsewhere, only the source is checked.
#[inline(always)]
pub fn flow<F: Family, C: Context, K: Kernel<F>>(ctx: &mut C, kernel: &K, work: &mut Work<F>) -> Step {
    if work.astray != 0 {
        return route::not_spoofed(kernel, work);
    }
    if link::needs(work) {
        kernel.note(Note::Link, 1);
        return Err(if C::HOOK == Hook::Xdp { Verdict::Punt } else { Verdict::Accept });
    }
    if is_unasked(work) {
        return if C::HOOK == Hook::Egress { Err(Verdict::Pass) } else { work.drop(Reason::IcmpUnrelated) };
    }
    if C::HOOK == Hook::Egress {
        outgoing(kernel, work)?;
    } else {
        route::not_spoofed(kernel, work)?;
        incoming(kernel, work, C::HOOK)?;
    }
    admitted::<F, C, K>(kernel, work)?;
    let forwarded = C::HOOK != Hook::Egress && work.flags & LOCAL == 0;
    if forwarded {
        forwardable(work)?;
        work.resolve = 1;
    }
    let challenged = work.unproved != 0;
    let out = if challenged { work.ifindex } else { work.way.hop.ifindex };
    if C::HOOK == Hook::Xdp && !((forwarded || challenged) && kernel.can_transmit(out)) {
        return Err(Verdict::Punt);
    }
    kernel.note_opening(work);
    if challenged {
        // Without a token: those are for who proves to be there.
        return work.answer(Reason::SynChallenged, work::CHALLENGE);
    }
    if work.kind == work::OTHER && work.tuple.destination.is_group() {
        paid(kernel, work)?;
        return Err(Verdict::Accept);
    }
    if !commit::flow(kernel, work)? {
        // What was planned and judged for this packet is void.
        work.resolve = 0;
        work.rule = NONE;
        return Ok(());
    }
    fragment::remember(kernel, work);
    account(kernel, work, count::finisher::<F, C>(work, forwarded));
    event::opened::<F, C, K>(kernel, work);
    rewrite::packet(ctx, work, forwarded && work.way.hop.ifindex != 0)?;
    Err(if forwarded { Verdict::Forward } else { Verdict::Accept })
}

/// An ICMP answer, such as an echo reply, belongs to a request; without its flow it opens none.
#[inline(always)]
fn is_unasked<F: Family>(work: &Work<F>) -> bool {
    work.tuple.protocol == u32::from(F::ICMP) && icmp::is_answer(F::V6, work.detail as u8)
}

/// Plans for what arrives.
#[inline(always)]
fn incoming<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, hook: Hook) -> Step {
    plan::destination(kernel, work)?;
    if work.unproved != 0 {
        challenge::chain(kernel, work);
        return Ok(());
    }
    plan::unasked(kernel, work);
    route::decide(kernel, work, hook)?;
    if !work.external() {
        work.flags |= INSIDE;
    }
    if work.chain == FORWARD {
        let out = kernel.slot_of(work.way.hop.ifindex);
        work.answers = route::origin(kernel, out);
        let bypassed = route::bypassed(work);
        plan::source(kernel, work, out, bypassed)?;
    }
    Ok(())
}

/// Plans for what the stack sends: of its own, or routed from an interface that isn't managed.
#[inline(always)]
fn outgoing<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    work.leaving = work.tuple;
    work.answers = work.origin;
    work.flags |= INSIDE;
    work.chain = OUTPUT;
    // What others have translated to an address of the master (Docker's masquerade) speaks for the master.
    if work.routed != 0 && kernel.local(work.tuple.source) == 0 {
        work.chain = FORWARD;
        plan::source(kernel, work, work.interface, false)?;
    }
    Ok(())
}

#[inline(always)]
pub(super) fn admitted<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    let action = judge::new_flow(kernel, work);
    kernel.note(Note::Judged, action);
    if !kernel.has_token(work) {
        return work.drop(Reason::RateLimited);
    }
    let answer = if work.kind == work::TCP { work::RESET } else { work::PROHIBITED };
    if action == ACCEPT {
        // Only who would be let in learns how the targets are.
        return if work.refused == 0 { Ok(()) } else { work.answer(Reason::NoTargetUp, answer) };
    }
    if action == REJECT {
        // The answer is what the token pays for, and only TC can give it.
        if C::HOOK == Hook::Xdp {
            return Err(Verdict::Punt);
        }
        paid(kernel, work)?;
        return work.answer(Reason::Rejected, answer);
    }
    let reason = match work.chain {
        _ if work.rule != NONE => Reason::Rule,
        INPUT => Reason::Input,
        FORWARD => Reason::Forward,
        _ => Reason::Output,
    };
    work.drop(reason)
}

/// Spends a token where no flow is entered.
#[inline(always)]
fn paid<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    if kernel.spend(work) { Ok(()) } else { work.drop(Reason::RateLimited) }
}

/// What only a router must look at.
#[inline(always)]
pub fn forwardable<F: Family>(work: &mut Work<F>) -> Step {
    if work.options != 0 {
        return work.drop(Reason::IpOptions);
    }
    if work.tuple.source.is_link_local() || work.leaving.destination.is_link_local() {
        return work.drop(Reason::Martian);
    }
    if work.ttl <= 1 {
        return work.answer(Reason::TtlExceeded, work::TTL_EXCEEDED);
    }
    if work.too_big != 0 {
        if work.keep_whole != 0 {
            return work.answer(Reason::TooBig, work::TOO_BIG);
        }
        // No way out of our own: the stack routes and fragments the translated packet.
        work.way.hop.ifindex = 0;
    }
    Ok(())
}

#[inline(always)]
fn account<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, finisher: Finisher) {
    let size = Count { packets: u64::from(work.segments), bytes: u64::from(work.bytes) };
    if work.forward_id != 0 {
        kernel.count_translation(work.forward_id, |count| {
            count.flows_opened += 1;
            count.forth.of(finisher).add(size.packets, size.bytes);
        });
    }
    if work.flags & (MASQUERADED | UNASKED) != 0 {
        kernel.count_translation(0, |count| {
            count.flows_opened += 1;
            let inbound = work.flags & MASQUERADED == 0;
            let direction = if inbound { &mut count.back } else { &mut count.forth };
            direction.of(finisher).add(size.packets, size.bytes);
        });
    }
}
