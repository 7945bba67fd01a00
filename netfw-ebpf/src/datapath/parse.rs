//! Stage 1: from bytes to a [`Work`]: tuple, lengths, what kind of packet it is, and whether it can be true at all.

use netfw_common::{
    checksum::Sum,
    family::{Address, Family},
    icmp,
    reason::Reason,
    tcp,
    tuple::Tuple,
    wire::{self, ETHERNET},
};

use super::{
    Step, Verdict,
    context::{Context, Hook, View},
    work::{self, Work},
};

/// IPv6 extension headers that are walked over (RFC 8200 §4.1 lists each at most once, destination options twice).
pub(super) const MAX_EXTENSIONS: u32 = 5;
const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
/// The fragment header (RFC 8200 §4.5).
pub(super) const FRAGMENT: u32 = 44;
const DESTINATION_OPTIONS: u32 = 60;

/// Fills in everything that the bytes say, and refuses what cannot be true.
#[inline(always)]
pub fn packet<F: Family, C: Context>(ctx: &C, work: &mut Work<F>) -> Step {
    read(ctx, work)?;
    if C::HOOK == Hook::Egress { Ok(()) } else { sanity(work) }
}

#[inline(always)]
fn read<F: Family, C: Context>(ctx: &C, work: &mut Work<F>) -> Step {
    work.bytes = ctx.length().saturating_sub(ETHERNET);
    work.fragment = work::WHOLE;
    work.options = 0;
    work.kind = work::OTHER;
    work.detail = 0;
    work.tcp_flags = 0;
    work.tuple.source_port = 0;
    work.tuple.destination_port = 0;
    if F::V6 {
        ipv6(ctx, work)?;
    } else {
        ipv4(ctx, work)?;
    }
    if work.transport > work.length + ETHERNET {
        return work.drop(Reason::Malformed);
    }
    let header = work.transport - ETHERNET;
    let transport = if work.headless() { 0 } else { transport(ctx, work)? };
    sizes(work, header + transport);
    Ok(())
}

/// `network`: what all the segments of a merged packet repeat.
#[inline(always)]
fn sizes<F: Family>(work: &mut Work<F>, repeated: u32) {
    work.bytes = work.length;
    work.wire_length = work.length;
    if work.segments > 1 {
        let payload = work.length.saturating_sub(repeated);
        work.bytes = work.length + (work.segments - 1) * repeated;
        work.wire_length = repeated + payload.div_ceil(work.segments);
    }
}

/// Stops where the frame doesn't hold the packet that its header announces.
#[inline(always)]
fn fits<F: Family, C: Context>(ctx: &C, work: &mut Work<F>, announced: u32) -> Step {
    let held = ctx.length().wrapping_sub(ETHERNET);
    // A merged packet over 64 KiB ("BIG TCP", Linux 5.19) announces 0.
    work.length = if announced == 0 && work.segments > 1 { held } else { announced };
    if work.length > held || work.length == 0 {
        // XDP sees only the first buffer of a large frame.
        return if C::HOOK == Hook::Xdp { Err(Verdict::Punt) } else { work.drop(Reason::Malformed) };
    }
    work.bytes = work.length;
    Ok(())
}

/// Loads an address at `at`, which the view covers.
#[inline(always)]
pub(super) fn address<F: Family>(view: &impl View, at: u32) -> F::Addr {
    F::Addr::from_words(|word| view.word(at + 4 * word))
}

#[inline(always)]
fn ipv4<F: Family, C: Context>(ctx: &C, work: &mut Work<F>) -> Step {
    let Some(view) = ctx.view::<20>(ETHERNET) else {
        work.tuple = Tuple::default();
        return work.drop(Reason::Malformed);
    };
    let first = u32::from(view.byte(0));
    let header = (first & 0x0f) * 4;
    let length = u32::from(u16::from_be(view.half(2)));
    let fragment = u32::from(u16::from_be(view.half(6)));
    work.tos = u32::from(view.byte(1));
    work.identification = u32::from(view.half(4));
    work.ttl_half = u32::from(view.half(8));
    work.ttl = u32::from(view.byte(8));
    work.tuple.protocol = u32::from(view.byte(9));
    work.header_checksum = u32::from(view.half(10));
    work.tuple.source = address::<F>(&view, 12);
    work.tuple.destination = address::<F>(&view, 16);
    let sum = Sum::of_word(view.word(0))
        + Sum::of_word(view.word(4))
        + Sum::of_word(view.word(8))
        + Sum::of_word(view.word(12))
        + Sum::of_word(view.word(16));
    if first >> 4 != 4 || header < 20 || (length < header && !(length == 0 && work.segments > 1)) {
        return work.drop(Reason::Malformed);
    }
    fits(ctx, work, length)?;
    work.options = header - 20;
    if C::HOOK != Hook::Egress && header == 20 && sum.fold() != 0xffff {
        return work.drop(Reason::BadChecksum);
    }
    work.transport = ETHERNET + header;
    work.keep_whole = fragment & 0x4000;
    let offset = fragment & 0x1fff;
    if offset != 0 {
        work.fragment = work::LATER;
        // RFC 791: at most 65,535 bytes in all; the overlong ones are the "ping of death".
        if offset * 8 + length - header > 65_535 - header {
            return work.drop(Reason::Malformed);
        }
    } else if fragment & 0x2000 != 0 {
        work.fragment = work::FIRST;
    }
    Ok(())
}

#[inline(always)]
fn ipv6<F: Family, C: Context>(ctx: &C, work: &mut Work<F>) -> Step {
    let Some(view) = ctx.view::<40>(ETHERNET) else {
        work.tuple = Tuple::default();
        return work.drop(Reason::Malformed);
    };
    let first = u32::from_be(view.word(0));
    let payload = u32::from(u16::from_be(view.half(4)));
    work.tos = first >> 20 & 0xff;
    work.ttl_half = u32::from(view.half(6));
    work.ttl = u32::from(view.byte(7));
    work.tuple.protocol = u32::from(view.byte(6));
    work.tuple.source = address::<F>(&view, 8);
    work.tuple.destination = address::<F>(&view, 24);
    work.keep_whole = 1;
    if first >> 28 != 6 {
        return work.drop(Reason::Malformed);
    }
    let announced = if payload == 0 && work.segments > 1 { 0 } else { payload + 40 };
    fits(ctx, work, announced)?;
    work.transport = ETHERNET + 40;
    extensions(ctx, work)
}

/// Whether another header follows the one of this number.
#[inline(always)]
pub(super) fn is_extension(protocol: u32) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Walks over the extension headers to the transport header.
#[inline(always)]
fn extensions<F: Family, C: Context>(ctx: &C, work: &mut Work<F>) -> Step {
    let mut offset = work.transport;
    let mut protocol = work.tuple.protocol;
    for _ in 0..=MAX_EXTENSIONS {
        if !is_extension(protocol) {
            work.transport = offset;
            work.tuple.protocol = protocol;
            return Ok(());
        }
        let Some(view) = (offset < 200).then(|| ctx.view::<8>(offset)).flatten() else {
            return work.drop(Reason::Malformed);
        };
        let kind = protocol;
        protocol = u32::from(view.byte(0));
        if kind == FRAGMENT {
            let fragment = u32::from(u16::from_be(view.half(2)));
            work.identification = view.word(4);
            offset += 8;
            if fragment >> 3 != 0 {
                work.fragment = work::LATER;
                work.transport = offset;
                work.tuple.protocol = protocol;
                return Ok(());
            }
            if fragment & 1 != 0 {
                work.fragment = work::FIRST;
            }
        } else {
            if kind != DESTINATION_OPTIONS {
                work.options = 1;
            }
            offset += 8 + 8 * u32::from(view.byte(1));
        }
    }
    work.drop(Reason::Malformed)
}

/// Fills in ports, identifier or type; returns the length of the transport header.
#[inline(always)]
fn transport<F: Family, C: Context>(ctx: &C, work: &mut Work<F>) -> Result<u32, Verdict> {
    const TCP: u32 = wire::TCP as u32;
    const UDP: u32 = wire::UDP as u32;
    const SCTP: u32 = wire::SCTP as u32;
    let payload = (work.length + ETHERNET).saturating_sub(work.transport);
    let protocol = work.tuple.protocol;
    if protocol == TCP {
        return tcp(ctx, work, payload);
    }
    if protocol == UDP {
        return udp(ctx, work, payload);
    }
    if protocol == u32::from(F::ICMP) {
        return icmp(ctx, work, payload);
    }
    if protocol == SCTP {
        return sctp(ctx, work, payload);
    }
    Ok(0)
}

#[inline(always)]
fn ports<F: Family>(work: &mut Work<F>, view: &impl View) {
    work.tuple.source_port = u16::from_be(view.half(0));
    work.tuple.destination_port = u16::from_be(view.half(2));
    work.detail = u32::from(work.tuple.destination_port);
}

#[inline(always)]
fn malformed<F: Family>(work: &mut Work<F>) -> Result<u32, Verdict> {
    work.reason = Reason::Malformed;
    Err(Verdict::Drop)
}

#[inline(always)]
fn tcp<F: Family, C: Context>(ctx: &C, work: &mut Work<F>, payload: u32) -> Result<u32, Verdict> {
    let Some(view) = (payload >= 20).then(|| ctx.view::<20>(work.transport)).flatten() else {
        return malformed(work);
    };
    work.kind = work::TCP;
    ports(work, &view);
    let header = u32::from(view.byte(12) >> 4) * 4;
    work.tcp_flags = u32::from(view.byte(13));
    if header < 20 || header > payload {
        return malformed(work);
    }
    work.sequence = u32::from_be(view.word(4));
    work.acknowledged = u32::from_be(view.word(8));
    work.data = payload - header;
    if !tcp::flags_are_sane(work.tcp_flags as u8) {
        work.reason = Reason::BadTcpFlags;
        return Err(Verdict::Drop);
    }
    Ok(header)
}

#[inline(always)]
fn udp<F: Family, C: Context>(ctx: &C, work: &mut Work<F>, payload: u32) -> Result<u32, Verdict> {
    let Some(view) = (payload >= 8).then(|| ctx.view::<8>(work.transport)).flatten() else {
        return malformed(work);
    };
    work.kind = work::UDP;
    ports(work, &view);
    let length = u32::from(u16::from_be(view.half(4)));
    let checksum = view.half(6);
    let whole = work.fragment == work::WHOLE && work.segments == 1;
    if length < 8 || (whole && length > payload) {
        return malformed(work);
    }
    // RFC 8200 §8.1: over IPv6 the checksum is not optional.
    if F::V6 && checksum == 0 {
        work.reason = Reason::BadChecksum;
        return Err(Verdict::Drop);
    }
    Ok(8)
}

#[inline(always)]
fn sctp<F: Family, C: Context>(ctx: &C, work: &mut Work<F>, payload: u32) -> Result<u32, Verdict> {
    let Some(view) = (payload >= 12).then(|| ctx.view::<12>(work.transport)).flatten() else {
        return malformed(work);
    };
    work.kind = work::SCTP;
    ports(work, &view);
    Ok(12)
}

#[inline(always)]
fn icmp<F: Family, C: Context>(ctx: &C, work: &mut Work<F>, payload: u32) -> Result<u32, Verdict> {
    let Some(view) = (payload >= 8).then(|| ctx.view::<8>(work.transport)).flatten() else {
        return malformed(work);
    };
    let kind = view.byte(0);
    let identifier = u16::from_be(view.half(4));
    work.detail = u32::from(kind);
    if is_error::<F>(kind) {
        work.kind = work::ICMP_ERROR;
        return Ok(8);
    }
    if icmp::echoes(F::V6).contains(&kind) {
        work.kind = work::ECHO;
    }
    [work.tuple.source_port, work.tuple.destination_port] = icmp::ports(F::V6, kind, identifier);
    Ok(8)
}

/// Errors quote the packet they are about (RFC 792: types 3, 4, 11, 12; RFC 4443: types 1 to 4).
#[inline(always)]
fn is_error<F: Family>(kind: u8) -> bool {
    if F::V6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 4 | 11 | 12) }
}

/// Refuses packets that nobody can have sent to us (RFC 1122 §3.2.1.3, RFC 1812 §5.3.7, RFC 4291 §2.7).
#[inline(always)]
fn sanity<F: Family>(work: &mut Work<F>) -> Step {
    let land = work.tuple.source == work.tuple.destination;
    if land || !work.tuple.source.can_send() {
        return work.drop(Reason::Martian);
    }
    if work.tuple.destination.is_loopback() {
        return work.drop(Reason::Martian);
    }
    Ok(())
}
