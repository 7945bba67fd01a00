//! What the link itself needs, whatever the policy says; and what it must not be used for.

use netfw_common::{
    family::Family,
    reason::Reason,
    tuple::Tuple,
    wire::{self, ETHERNET},
};

use super::{
    Step, Verdict,
    context::Context,
    kernel::Kernel,
    parse,
    work::{self, Work},
};

/// Broadcast and multicast frames are not ours to judge; but the stack takes a datagram for the master's own address out
/// of them too, which would be a way around all rules for whoever is on the link (RFC 1122 §3.3.6).
#[inline(always)]
pub fn group_frame<F: Family, C: Context, K: Kernel<F>>(ctx: &C, kernel: &K, work: &mut Work<F>) -> Step {
    let Some(source) = address::<F, C>(ctx, if F::V6 { 8 } else { 12 }) else { return Err(Verdict::Pass) };
    let Some(destination) = address::<F, C>(ctx, if F::V6 { 24 } else { 16 }) else {
        return Err(Verdict::Pass);
    };
    if kernel.local(destination) == 0 {
        return Err(Verdict::Pass);
    }
    work.tuple = Tuple { source, destination, ..Tuple::default() };
    work.bytes = ctx.length().saturating_sub(ETHERNET);
    work.drop(Reason::GroupFrame)
}

/// The address at this offset of the IP header.
#[inline(always)]
fn address<F: Family, C: Context>(ctx: &C, at: u32) -> Option<F::Addr> {
    if F::V6 {
        let view = ctx.view::<16>(ETHERNET + at)?;
        return Some(parse::address::<F>(&view, 0));
    }
    let view = ctx.view::<4>(ETHERNET + at)?;
    Some(parse::address::<F>(&view, 0))
}

/// Whether the packet is neighbour or router discovery (RFC 4861: hop limit 255 only, so that no router forwards
/// it), multicast listener discovery, IGMP, or a DHCP answer to (or question of) the master's own client.
#[inline(always)]
pub fn needs<F: Family>(work: &Work<F>) -> bool {
    let protocol = work.tuple.protocol;
    if work.kind == work::UDP {
        return dhcp::<F>(work.tuple.source_port, work.tuple.destination_port);
    }
    if F::V6 {
        return protocol == u32::from(wire::ICMPV6) && discovery(work.detail, work.ttl);
    }
    protocol == u32::from(wire::IGMP)
}

#[inline(always)]
fn discovery(kind: u32, hop_limit: u32) -> bool {
    let neighbour = (133..=137).contains(&kind) && hop_limit == 255;
    let listener = matches!(kind, 130..=132 | 143) && hop_limit == 1;
    neighbour || listener
}

/// Server to client or client to server (RFC 2131 §4.1, RFC 8415 §7.2).
#[inline(always)]
fn dhcp<F: Family>(source: u16, destination: u16) -> bool {
    let (client, server) = if F::V6 { (546, 547) } else { (68, 67) };
    (source == server && destination == client) || (source == client && destination == server)
}
