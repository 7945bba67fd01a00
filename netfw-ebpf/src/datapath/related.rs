//! ICMP errors: they belong to the flow of the packet they quote, and follow it (RFC 5508 §4).
//!
//! The quoted packet is one that we sent: what left on one direction of a flow. Its reversed tuple is the key of the
//! other direction, which is the way the error itself travels.

use netfw_common::{
    checksum::Sum,
    family::{Address, Family},
    flow::LOCAL,
    icmp,
    reason::Reason,
    tuple::Tuple,
    wire::{self, ETHERNET},
};

use super::{
    Step, Verdict,
    context::{Context, Hook, View},
    failsafe,
    kernel::{Kernel, Route},
    open, parse, rewrite, route,
    work::Work,
};

/// What must be known of the quoted packet to change it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quoted {
    /// Offset of its IP header.
    header: u32,
    /// Offset of its transport header.
    transport: u32,
    /// Its IPv4 header checksum.
    header_checksum: u16,
    /// The checksum behind that; 0: none, or not quoted.
    checksum: u16,
    /// Its offset.
    checksum_at: u32,
    /// It is ICMP.
    icmp: bool,
    /// It is an echo request or reply.
    echo: bool,
}

/// Goes on with an error that quotes a live flow; drops the others.
#[inline(always)]
pub fn find<F: Family, C: Context, K: Kernel<F>>(ctx: &mut C, kernel: &K, work: &mut Work<F>) -> Step {
    if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    // Nothing is judged here: that room holds the tuple of the error itself, which is too much for the stack.
    work.subject.arriving = work.tuple;
    let Some(quote) = read(ctx, work) else {
        return unrelated::<F, C>(work);
    };
    work.inner = quote;
    if !kernel.find(work) {
        let door = C::HOOK != Hook::Egress
            && work.tuple.protocol == u32::from(wire::TCP)
            && work.tuple.destination == work.subject.arriving.destination
            && failsafe::leads_through(kernel, work.door, &work.tuple);
        return if door { Err(Verdict::Accept) } else { unrelated::<F, C>(work) };
    }
    if work.tuple.destination != work.subject.arriving.destination {
        return unrelated::<F, C>(work);
    }
    work.reply_key = work.original.leaving.reversed();
    work.leaving = work.subject.arriving;
    if work.original.leaving.source != work.tuple.source {
        work.leaving.source = work.original.leaving.source;
    }
    work.leaving.destination = work.original.leaving.destination;
    work.flags = work.original.flags;
    if is_forwarded::<F, C>(work) {
        if route::lasts(kernel, work, &work.original.hop) {
            work.way.hop = work.original.hop;
        } else {
            if route::ask(kernel, work) == Route::None {
                return work.drop(Reason::NoRoute);
            }
            work.resolve = 1;
        }
        open::forwardable(work)?;
    }
    work.reply.leaving = work.tuple.reversed();
    work.tuple = work.subject.arriving;
    Ok(())
}

/// Whether the error leaves the master, as the packets of its flow do.
#[inline(always)]
fn is_forwarded<F: Family, C: Context>(work: &Work<F>) -> bool {
    C::HOOK != Hook::Egress && work.flags & LOCAL == 0
}

/// Makes the error what its receiver understands: outside, and in the packet that it quotes.
#[inline(always)]
pub fn translate<F: Family, C: Context>(ctx: &mut C, work: &mut Work<F>) -> Step {
    let quote = work.inner;
    if !quoted(ctx, work, &quote) {
        return work.drop(Reason::NotWritable);
    }
    let forwarded = is_forwarded::<F, C>(work);
    rewrite::packet(ctx, work, forwarded && work.way.hop.ifindex != 0)?;
    Err(if forwarded { Verdict::Forward } else { Verdict::Accept })
}

/// What the master's own stack says about packets without a flow goes out; the rest is nobody's business here.
#[inline(always)]
fn unrelated<F: Family, C: Context>(work: &mut Work<F>) -> Step {
    if C::HOOK == Hook::Egress { Err(Verdict::Pass) } else { work.drop(Reason::IcmpUnrelated) }
}

/// Reads the quoted packet; leaves the key of the flow's other direction in [`Work::tuple`].
#[inline(always)]
fn read<F: Family, C: Context>(ctx: &C, work: &mut Work<F>) -> Option<Quoted> {
    let end = work.length + ETHERNET;
    let mut quote = Quoted { header: work.transport + 8, ..Quoted::default() };
    let mut left = Tuple::default();
    network::<F, C>(ctx, &mut quote, &mut left)?;
    if quote.transport > end {
        return None;
    }
    transport::<F, C>(ctx, &mut quote, &mut left, end)?;
    work.tuple = left.reversed();
    Some(quote)
}

/// Reads its IP header.
#[inline(always)]
fn network<F: Family, C: Context>(ctx: &C, quote: &mut Quoted, left: &mut Tuple<F::Addr>) -> Option<()> {
    let header = quote.header;
    if F::V6 {
        let view = ctx.view::<40>(header)?;
        left.protocol = u32::from(view.byte(6));
        left.source = parse::address::<F>(&view, 8);
        left.destination = parse::address::<F>(&view, 24);
        quote.transport = behind_extensions(ctx, &mut left.protocol, header + 40)?;
        return Some(());
    }
    let view = ctx.view::<20>(header)?;
    let length = u32::from(view.byte(0) & 0x0f) * 4;
    if length < 20 || u16::from_be(view.half(6)) & 0x1fff != 0 {
        return None;
    }
    left.protocol = u32::from(view.byte(9));
    left.source = parse::address::<F>(&view, 12);
    left.destination = parse::address::<F>(&view, 16);
    quote.header_checksum = view.half(10);
    quote.transport = header + length;
    Some(())
}

/// Reads what a flow is found by behind it, up to the end of the error: of some protocols nothing.
#[inline(always)]
fn transport<F: Family, C: Context>(
    ctx: &C,
    quote: &mut Quoted,
    left: &mut Tuple<F::Addr>,
    end: u32,
) -> Option<()> {
    let (protocol, at) = (left.protocol, quote.transport);
    quote.icmp = protocol == u32::from(F::ICMP);
    if !begins_with_ports(protocol) && !quote.icmp {
        return Some(());
    }
    let view = (at + 8 <= end).then(|| ctx.view::<8>(at)).flatten()?;
    if quote.icmp {
        (quote.checksum, quote.checksum_at) = (view.half(2), at + 2);
        let (kind, identifier) = (view.byte(0), u16::from_be(view.half(4)));
        quote.echo = icmp::echoes(F::V6).contains(&kind);
        [left.source_port, left.destination_port] = icmp::ports(F::V6, kind, identifier);
        return Some(());
    }
    left.source_port = u16::from_be(view.half(0));
    left.destination_port = u16::from_be(view.half(2));
    if protocol == u32::from(wire::UDP) {
        (quote.checksum, quote.checksum_at) = (view.half(6), at + 6);
    } else if protocol == u32::from(wire::TCP) && at + 18 <= end {
        quote.checksum_at = at + 16;
        quote.checksum = ctx.view::<2>(at + 16).map_or(0, |view| view.half(0));
    }
    Some(())
}

/// Whether flows of this protocol are told apart by the ports that its header begins with.
#[inline(always)]
fn begins_with_ports(protocol: u32) -> bool {
    [wire::TCP, wire::UDP, wire::SCTP].iter().any(|&known| protocol == u32::from(known))
}

/// Walks over the extension headers of the quoted IPv6 packet to its transport header, which a later fragment has not.
#[inline(always)]
fn behind_extensions<C: Context>(ctx: &C, protocol: &mut u32, mut offset: u32) -> Option<u32> {
    for _ in 0..=parse::MAX_EXTENSIONS {
        if !parse::is_extension(*protocol) {
            return Some(offset);
        }
        let view = (offset < 300).then(|| ctx.view::<8>(offset)).flatten()?;
        let is_fragment = *protocol == parse::FRAGMENT;
        if is_fragment && u16::from_be(view.half(2)) >> 3 != 0 {
            return None;
        }
        *protocol = u32::from(view.byte(0));
        offset += if is_fragment { 8 } else { 8 + 8 * u32::from(view.byte(1)) };
    }
    None
}

/// Turns the quoted packet (which left as [`Work::reply`] says) into what its sender knows ([`Work::reply_key`]), and mends the
/// checksum of the error, which covers it.
#[inline(always)]
fn quoted<F: Family, C: Context>(ctx: &mut C, work: &Work<F>, quote: &Quoted) -> bool {
    let (inner, left) = (&work.reply_key, &work.reply.leaving);
    let addresses = inner.address_sum() - left.address_sum();
    let ports = inner.port_sum() - left.port_sum();
    let outer = work.leaving.address_sum() - work.tuple.address_sum();
    if inner == left && work.leaving == work.tuple {
        return true;
    }
    let mut plain = ports;
    if F::V6 {
        plain = plain + addresses;
    }
    // Of ICMP, only IPv6 covers the addresses (RFC 4443 §2.3).
    let covered = if quote.icmp && !F::V6 { ports } else { addresses + ports };
    // 0 and 0xffff are the same number, and UDP's rule harms nobody else.
    let checksum = covered.update_udp(quote.checksum);
    plain = plain + (Sum::of_half(checksum) - Sum::of_half(quote.checksum));
    let pseudo = if F::V6 { outer } else { Sum::default() };
    ctx.fix_checksum(work.transport + 2, pseudo, plain, false)
        && quoted_addresses::<F, C>(ctx, quote, inner, addresses)
        && quoted_ports(ctx, quote, inner)
        && (quote.checksum == 0 || ctx.store(quote.checksum_at, &[checksum]))
}

#[inline(always)]
fn quoted_addresses<F: Family, C: Context>(
    ctx: &mut C,
    quote: &Quoted,
    inner: &Tuple<F::Addr>,
    addresses: Sum,
) -> bool {
    let (source, destination) = (inner.source, inner.destination);
    if F::V6 {
        let mut halves = [0; 16];
        for n in 0..8 {
            halves[n] = source.half(n);
            halves[8 + n] = destination.half(n);
        }
        return ctx.store(quote.header + 8, &halves);
    }
    // The quoted header keeps its sum: the error's own checksum doesn't notice this change.
    let checksum = addresses.update(quote.header_checksum);
    let halves = [checksum, source.half(0), source.half(1), destination.half(0), destination.half(1)];
    ctx.store(quote.header + 10, &halves)
}

#[inline(always)]
fn quoted_ports<A: Address, C: Context>(ctx: &mut C, quote: &Quoted, inner: &Tuple<A>) -> bool {
    let ports = [inner.source_port.to_be(), inner.destination_port.to_be()];
    if quote.echo {
        return ctx.store(quote.transport + 4, &[ports[0] | ports[1]]);
    }
    !begins_with_ports(inner.protocol) || ctx.store(quote.transport, &ports)
}
