//! Which source port (or echo identifier) a translated flow may get.
//!
//! The packet's own is kept where it is free and allowed. Else one is drawn by chance (RFC 6056 §3.3.1), from the
//! masquerade's `ports`, or from the half of the ports that its own lies in (RFC 4787 REQ-3). Its parity is not kept
//! (RFC 7857 §5 permits that): half of a range would be out of reach.

use netfw_common::{family::Family, image::service_index, interface::LOCAL_EXTERNAL, tuple::Tuple, wire};

use super::{
    judge,
    kernel::Kernel,
    work::{self, Work},
};

/// Ports looked at for one flow. While a tenth of a range is free, 128 random ones miss in 1.4 of a million cases.
pub const TRIES: u32 = 128;
/// No more ports can be drawn: [`Work::drawn`].
pub const SPENT: u32 = u32::MAX;

/// Where privileged ports are drawn from: the lower half belongs to services.
const PRIVILEGED: Range = Range { first: 512, last: 1023 };
/// Where all others are.
const UNPRIVILEGED: Range = Range { first: 1024, last: 65_535 };

#[derive(Clone, Copy)]
struct Range {
    first: u32,
    last: u32,
}

/// What `ports` says.
#[inline(always)]
fn written<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> Option<Range> {
    let masquerade = judge::masquerade(kernel, work.masquerade).filter(|masquerade| masquerade.first != 0)?;
    Some(Range { first: u32::from(masquerade.first), last: u32::from(masquerade.last) })
}

/// Whether the flow may leave with the source port that is planned.
#[inline(always)]
pub fn in_range<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    let port = u32::from(work.leaving.source_port);
    !changeable(work) || written(kernel, work).is_none_or(|range| range.first <= port && port <= range.last)
}

/// Plans another source port, or says in [`Work::drawn`] that there is none: the packet has no port that can be changed, or
/// all have been tried. Small ranges are tried in order, from a random place, so that none is missed.
#[inline(always)]
pub fn draw<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let privileged = has_ports(work.tuple.protocol) && work.tuple.source_port <= PRIVILEGED.last as u16;
    let usual = if privileged { PRIVILEGED } else { UNPRIVILEGED };
    let Range { first, last } = written(kernel, work).unwrap_or(usual);
    let size = last.wrapping_sub(first).wrapping_add(1);
    if !changeable(work) || (size < TRIES && work.drawn >= size) {
        work.drawn = SPENT;
        return;
    }
    let next = u32::from(work.leaving.source_port).wrapping_sub(first).wrapping_add(1);
    let offset = if work.drawn != 0 && size < TRIES { next } else { kernel.random() };
    work.leaving.source_port = first.wrapping_add(offset.checked_rem(size).unwrap_or(0)) as u16;
    work.drawn += 1;
}

/// Whether another source port may be planned: the kind has ports that can be changed.
#[inline(always)]
pub fn changeable<F: Family>(work: &Work<F>) -> bool {
    !work.headless() && matches!(work.kind, work::TCP | work::UDP | work::ECHO)
}

/// Whether the planned source is another than that of the packet.
#[inline(always)]
pub fn is_translated<F: Family>(work: &Work<F>) -> bool {
    work.leaving.source != work.tuple.source || work.leaving.source_port != work.tuple.source_port
}

/// Whether answers to this source would meet a port-forward or the fail-safe door (port shadowing).
#[inline(always)]
pub fn is_forwarded<F: Family, K: Kernel<F>>(kernel: &K, leaving: &Tuple<F::Addr>) -> bool {
    let (protocol, port) = (leaving.protocol, leaving.source_port);
    if protocol == u32::from(wire::TCP) && is_door(kernel, port) {
        return true;
    }
    let forwards = kernel.service(service_index(protocol, port)).forwards;
    has_ports(protocol) && forwards != 0 && kernel.local(leaving.source) == LOCAL_EXTERNAL
}

/// Answers to the port of the fail-safe door would not come back to a LAN host.
#[inline(always)]
fn is_door<F: Family, K: Kernel<F>>(kernel: &K, port: u16) -> bool {
    kernel.policy().is_some_and(|policy| policy.failsafe_port == u32::from(port))
}

/// Whether the protocol has ports that sockets are bound to.
#[inline(always)]
pub fn has_ports(protocol: u32) -> bool {
    protocol == u32::from(wire::TCP) || protocol == u32::from(wire::UDP)
}
