//! Stages 3 and 5: which translation a new flow gets. Nothing is reserved or changed yet.

use netfw_common::{
    family::{Address, Family},
    flow::{MAPPED, MASQUERADED, SOURCE_NAT, UNASKED},
    image::{
        MAPS_ENDPOINT_INDEPENDENTLY, ONE_TO_ONE, ROUND_ROBIN, SOURCE_HASH, SOURCE_NAT_ALWAYS, SOURCE_NAT_AUTO,
    },
    interface::{EXTERNAL, LOCAL_EXTERNAL},
    reason::Reason,
};

use super::{
    Step, judge,
    kernel::Kernel,
    mapping, port,
    work::{NONE, Work},
};

/// Plans the destination: a port-forward's target, or what the packet says.
#[inline(always)]
pub fn destination<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    work.leaving = work.tuple;
    if work.headless() || kernel.local(work.tuple.destination) != LOCAL_EXTERNAL {
        return Ok(());
    }
    let number = judge::forward(kernel, &work.tuple);
    if number == NONE {
        return Ok(());
    }
    let Some(forward) = kernel.forward(number) else { return Ok(()) };
    let offset = u32::from(work.tuple.destination_port.wrapping_sub(forward.first_port));
    let turn = match forward.spread {
        ONE_TO_ONE => offset,
        ROUND_ROBIN => kernel.turn(u32::from(forward.id)),
        SOURCE_HASH => scramble(work.tuple.source.fold()),
        _ => kernel.random(),
    };
    let Some(nth) = turn.checked_rem(forward.targets) else {
        return work.drop(Reason::NoTarget);
    };
    let Some(target) = kernel.target(forward.first_target.wrapping_add(nth)) else {
        return work.drop(Reason::NoTarget);
    };
    work.leaving.destination = F::Addr::narrow(target.address);
    work.leaving.destination_port = judge::target_port(forward, target.port, offset);
    work.detail = u32::from(work.leaving.destination_port);
    work.forward = number;
    work.forward_id = u32::from(forward.id) + 1;
    work.idle_timeout = forward.idle_timeout;
    Ok(())
}

/// Plans the destination of what nobody has asked for: the inside end that is mapped to it, unless a program of the master
/// wants it.
#[inline(always)]
pub fn unasked<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    if work.forward != NONE || !kernel.reach(work) {
        return;
    }
    if kernel.socket(&work.tuple) {
        work.leaving = work.tuple;
        return;
    }
    work.detail = u32::from(work.leaving.destination_port);
    work.flags |= MAPPED | UNASKED;
}

/// Spreads neighbouring addresses over all targets (the finaliser of MurmurHash3).
#[inline(always)]
fn scramble(word: u32) -> u32 {
    let word = (word ^ word >> 16).wrapping_mul(0x85eb_ca6b);
    let word = (word ^ word >> 13).wrapping_mul(0xc2b2_ae35);
    word ^ word >> 16
}

/// Plans the source of a forwarded flow; `out` is the slot of the interface by which it leaves.
#[inline(always)]
pub fn source<F: Family, K: Kernel<F>>(
    kernel: &K,
    work: &mut Work<F>,
    out: u32,
    same_interface: bool,
) -> Step {
    let flag = if work.forward != NONE {
        let mode = kernel.forward(work.forward).map_or(SOURCE_NAT_AUTO, |forward| forward.source_nat);
        let hides = mode == SOURCE_NAT_ALWAYS || (mode == SOURCE_NAT_AUTO && same_interface);
        if hides { SOURCE_NAT } else { 0 }
    } else {
        masquerade(kernel, work, out)
    };
    if flag == 0 {
        return Ok(());
    }
    let Some(address) =
        listed(kernel, work).or_else(|| hairpin(work)).or_else(|| address_of::<F, K>(kernel, out))
    else {
        return work.drop(Reason::NoAddress);
    };
    work.leaving.source = address;
    work.flags |= flag;
    Ok(())
}

#[inline(always)]
fn masquerade<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, out: u32) -> u32 {
    let outside = kernel.interface(out).is_some_and(|interface| interface.flags & EXTERNAL != 0);
    let class = kernel.address(work.tuple.source);
    // What reaches an inside end by its outside port comes from an outside one too (RFC 4787 REQ-9).
    let leaves = (outside && out != 0) || work.flags & UNASKED != 0;
    if !leaves || class.masquerade == 0 {
        return 0;
    }
    work.masquerade = u32::from(class.masquerade) - 1;
    let flags = judge::masquerade(kernel, work.masquerade).map_or(0, |masquerade| masquerade.flags);
    if flags & MAPS_ENDPOINT_INDEPENDENTLY != 0 && port::changeable(work) {
        work.mapping = mapping::WANTED;
        work.flags |= MAPPED;
    }
    MASQUERADED
}

/// The outside address that a LAN host uses to reach another, or itself.
#[inline(always)]
fn hairpin<F: Family>(work: &Work<F>) -> Option<F::Addr> {
    (work.masquerade != NONE && work.flags & UNASKED != 0).then_some(work.tuple.destination)
}

/// The one of the masquerade's own addresses that belongs to this source: always the same (RFC 4787 REQ-2, "paired").
#[inline(always)]
fn listed<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> Option<F::Addr> {
    let masquerade = judge::masquerade(kernel, work.masquerade)?;
    let family = usize::from(F::V6);
    let nth = scramble(work.tuple.source.fold()).checked_rem(masquerade.addresses[family])?;
    let target = kernel.target(masquerade.first_address[family].wrapping_add(nth))?;
    Some(F::Addr::narrow(target.address))
}

/// The address that hides others on an interface.
#[inline(always)]
fn address_of<F: Family, K: Kernel<F>>(kernel: &K, slot: u32) -> Option<F::Addr> {
    let interface = kernel.interface(slot).filter(|_| slot != 0)?;
    let wide = if F::V6 { interface.address6 } else { [interface.address4, 0, 0, 0] };
    let address = F::Addr::narrow(wide);
    (address != F::Addr::default()).then_some(address)
}
