//! Stages 3 and 5: which translation a new flow gets. Nothing is reserved or changed yet.

use netfw_common::{
    family::{Address, Family},
    flow::{MAPPED, MASQUERADED, SOURCE_NAT, UNASKED},
    image::{MAPS_ENDPOINT_INDEPENDENTLY, SOURCE_NAT_ALWAYS, SOURCE_NAT_AUTO},
    interface::{EXTERNAL, LOCAL_EXTERNAL},
    reason::Reason,
};

use super::{
    Step, judge,
    kernel::Kernel,
    mapping, port, target,
    work::{NONE, Work},
};

/// Plans the destination: a port-forward's target, or what the packet says.
#[inline(always)]
pub fn destination<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    work.leaving = work.tuple;
    if work.forward == NONE {
        work.forward = port_forward(kernel, work);
    }
    let Some(forward) = kernel.forward(work.forward).filter(|_| work.forward != NONE) else {
        return Ok(());
    };
    let offset = u32::from(work.tuple.destination_port.wrapping_sub(forward.first_port));
    let chosen = kernel.choose(work);
    let Some(target) = kernel.target(chosen).filter(|_| chosen != NONE) else {
        return work.drop(Reason::NoTarget);
    };
    work.leaving.destination = F::Addr::narrow(target.address);
    work.leaving.destination_port = judge::target_port(forward, target.port, offset);
    work.detail = u32::from(work.leaving.destination_port);
    work.forward_id = u32::from(forward.id) + 1;
    work.idle_timeout = forward.idle_timeout;
    Ok(())
}

/// Number of the port-forward entry for the packet, or [`NONE`].
#[inline(always)]
pub(super) fn port_forward<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> u32 {
    if work.headless() || kernel.local(work.tuple.destination) != LOCAL_EXTERNAL {
        return NONE;
    }
    judge::forward(kernel, &work.tuple)
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

/// Plans the source of a forwarded flow; `out` is the slot of the interface by which it leaves, `bypassed` as
/// [`super::route::bypassed`] has it.
#[inline(always)]
pub fn source<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, out: u32, bypassed: bool) -> Step {
    let flag = if work.forward != NONE {
        let mode = kernel.forward(work.forward).map_or(SOURCE_NAT_AUTO, |forward| forward.source_nat);
        let hides = mode == SOURCE_NAT_ALWAYS || (mode == SOURCE_NAT_AUTO && bypassed);
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
fn masquerade<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, out: u32) -> u16 {
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
    let nth = target::scramble(work.tuple.source.fold()).checked_rem(masquerade.addresses[family])?;
    let target = kernel.target(masquerade.first_address[family].wrapping_add(nth))?;
    Some(F::Addr::narrow(target.address))
}

/// The address that hides others on an interface.
#[inline(always)]
pub(super) fn address_of<F: Family, K: Kernel<F>>(kernel: &K, slot: u32) -> Option<F::Addr> {
    let interface = kernel.interface(slot).filter(|_| slot != 0)?;
    let wide = if F::V6 { interface.address6 } else { [interface.address4, 0, 0, 0] };
    let address = F::Addr::narrow(wide);
    (address != F::Addr::default()).then_some(address)
}
