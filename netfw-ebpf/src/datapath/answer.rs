//! What the sender of a refused packet is told: a TCP segment or an ICMP error, built in place of the packet.

use netfw_common::{
    checksum::Sum,
    family::{Address, Family},
    wire::{self, ETHERNET, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

use super::{
    Verdict, challenge,
    context::{ANSWER_HALVES, Context, Hook, QUOTE, Quote, View},
    kernel::Kernel,
    work::{self, Work},
};

type Frame = [u16; ANSWER_HALVES];

/// Of an answer, bytes.
struct Lengths {
    /// In [`Work::frame`].
    headers: u32,
    /// In [`Work::quote`].
    quoted: u32,
}

/// Turns the packet into its [`Work::answer`]; where that cannot be, it is dropped in silence.
#[inline(always)]
pub fn tell<F: Family, C: Context, K: Kernel<F>>(ctx: &mut C, kernel: &K, work: &mut Work<F>) -> Verdict {
    let challenges = work.answer == work::CHALLENGE;
    if C::HOOK == Hook::Xdp && !challenges {
        return Verdict::Punt;
    }
    let built = if challenges || work.answer == work::RESET {
        // Nobody is challenged on the way out.
        let says = if C::HOOK != Hook::Egress && challenges { challenge(kernel, work) } else { reset(work) };
        says.and_then(|says| segment(ctx, work, says))
    } else {
        error(ctx, kernel, work)
    };
    match built {
        Some(Lengths { headers, quoted }) if ctx.replace(&work.frame, headers, &work.quote, quoted) => {
            Verdict::Answer
        }
        _ => Verdict::Drop,
    }
}

/// Offset of the IP header in the frame, in 16-bit words.
const NETWORK: usize = ETHERNET as usize / 2;

/// Where the transport header of an answer begins, in 16-bit words.
const fn transport<F: Family>() -> usize {
    NETWORK + F::HEADER as usize / 2
}

#[inline(always)]
fn put(frame: &mut Frame, at: usize, value: u16) {
    if let Some(half) = frame.get_mut(at) {
        *half = value;
    }
}

#[inline(always)]
fn put_word(frame: &mut Frame, at: usize, value: u32) {
    put(frame, at, ((value >> 16) as u16).to_be());
    put(frame, at + 1, (value as u16).to_be());
}

/// Sum of `N` 16-bit words from `at`.
#[inline(always)]
fn sum<const N: usize>(frame: &Frame, at: usize) -> Sum {
    (0..N).fold(Sum::default(), |sum, n| sum + Sum::of_half(frame.get(at + n).copied().unwrap_or(0)))
}

/// Ethernet and IP header of a packet back to the sender, with `payload` bytes of `protocol` behind them.
#[inline(always)]
fn headers<F: Family, C: Context>(
    ctx: &C,
    work: &mut Work<F>,
    from: F::Addr,
    protocol: u8,
    payload: u16,
) -> bool {
    let Some(view) = ctx.view::<14>(0) else { return false };
    let frame = &mut work.frame;
    for n in 0..3 {
        put(frame, n, view.half(6 + 2 * n as u32));
        put(frame, 3 + n, view.half(2 * n as u32));
    }
    put(frame, 6, F::ETHERTYPE.to_be());
    let to = work.tuple.source;
    if F::V6 {
        put(frame, NETWORK, 0x6000_u16.to_be());
        put(frame, NETWORK + 1, 0);
        put(frame, NETWORK + 2, payload.to_be());
        put(frame, NETWORK + 3, (u16::from(protocol) << 8 | 64).to_be());
        for n in 0..8 {
            put(frame, NETWORK + 4 + n, from.half(n));
            put(frame, NETWORK + 12 + n, to.half(n));
        }
        return true;
    }
    put(frame, NETWORK, 0x4500_u16.to_be());
    put(frame, NETWORK + 1, (payload + 20).to_be());
    put(frame, NETWORK + 2, 0);
    put(frame, NETWORK + 3, 0x4000_u16.to_be());
    put(frame, NETWORK + 4, (64 << 8 | u16::from(protocol)).to_be());
    put(frame, NETWORK + 5, 0);
    for n in 0..2 {
        put(frame, NETWORK + 6 + n, from.half(n));
        put(frame, NETWORK + 8 + n, to.half(n));
    }
    let checksum = sum::<10>(frame, NETWORK).finish();
    put(frame, NETWORK + 5, checksum);
    true
}

/// A reset that the sender must believe (RFC 9293 §3.10.7.1); never in answer to a reset.
#[inline(always)]
fn reset<F: Family>(work: &Work<F>) -> Option<Says> {
    let flags = work.tcp_flags as u8;
    if work.kind != work::TCP || work.headless() || flags & TCP_RST != 0 {
        return None;
    }
    let length = work.data + u32::from(flags & TCP_SYN != 0) + u32::from(flags & TCP_FIN != 0);
    Some(if flags & TCP_ACK != 0 {
        Says { sequence: work.acknowledged, acknowledges: 0, flags: TCP_RST }
    } else {
        Says { sequence: 0, acknowledges: work.sequence.wrapping_add(length), flags: TCP_RST | TCP_ACK }
    })
}

/// An acknowledgment that provokes a reset ([`mod@challenge`]). Its own number is as good as any that nobody can foresee.
#[inline(always)]
fn challenge<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Option<Says> {
    let number = challenge::number(kernel, work)?;
    Some(Says { sequence: number, acknowledges: number, flags: TCP_ACK })
}

/// What a TCP segment says.
#[derive(Clone, Copy)]
struct Says {
    sequence: u32,
    acknowledges: u32,
    flags: u8,
}

/// A TCP segment without data and options back to the sender.
#[inline(always)]
fn segment<F: Family, C: Context>(ctx: &C, work: &mut Work<F>, says: Says) -> Option<Lengths> {
    let from = work.tuple.destination;
    if !headers(ctx, work, from, wire::TCP, 20) {
        return None;
    }
    let pseudo = work.tuple.address_sum() + Sum::of_value(u16::from(wire::TCP)) + Sum::of_value(20);
    let at = transport::<F>();
    let ports = [work.tuple.destination_port, work.tuple.source_port];
    let frame = &mut work.frame;
    put(frame, at, ports[0].to_be());
    put(frame, at + 1, ports[1].to_be());
    put_word(frame, at + 2, says.sequence);
    put_word(frame, at + 4, says.acknowledges);
    put(frame, at + 6, (0x5000 | u16::from(says.flags)).to_be());
    put(frame, at + 7, 0);
    put(frame, at + 8, 0);
    put(frame, at + 9, 0);
    let checksum = (pseudo + sum::<10>(frame, at)).finish();
    put(frame, at + 8, checksum);
    Some(Lengths { headers: ETHERNET + F::HEADER + 20, quoted: 0 })
}

/// Type, code and the second word of an ICMP error.
#[inline(always)]
fn message<F: Family>(work: &Work<F>) -> (u16, u32) {
    let (v4, v6) = match work.answer {
        work::TTL_EXCEEDED => (0x0b00, 0x0300),
        work::TOO_BIG => (0x0304, 0x0200),
        work::UNREACHABLE => (0x0300, 0x0100),
        _ => (0x0303, 0x0104),
    };
    let mtu = if work.answer == work::TOO_BIG { work.way.hop.mtu } else { 0 };
    (if F::V6 { v6 } else { v4 }, mtu)
}

/// An ICMP error that quotes the packet, as long as not too many were sent.
#[inline(always)]
fn error<F: Family, C: Context, K: Kernel<F>>(ctx: &C, kernel: &K, work: &mut Work<F>) -> Option<Lengths> {
    let from = speaker::<F, C, K>(kernel, work);
    if !deserves_error(work) || from == F::Addr::default() || !kernel.may_tell(work.now) {
        return None;
    }
    let quoted = work.length.min(QUOTE);
    work.quote = [0; QUOTE as usize / 4];
    if !ctx.quote(quoted, &mut work.quote) || !headers(ctx, work, from, F::ICMP, 8 + quoted as u16) {
        return None;
    }
    let pseudo = from.sum()
        + work.tuple.source.sum()
        + Sum::of_value(u16::from(F::ICMP))
        + Sum::of_value(8 + quoted as u16);
    let at = transport::<F>();
    let (kind, detail) = message(work);
    let frame = &mut work.frame;
    put(frame, at, kind.to_be());
    put(frame, at + 1, 0);
    put_word(frame, at + 2, detail);
    let body = sum::<4>(frame, at) + sum_of_quote(&work.quote);
    let checksum = if F::V6 { pseudo + body } else { body }.finish();
    put(frame, at + 1, checksum);
    Some(Lengths { headers: ETHERNET + F::HEADER + 8, quoted })
}

#[inline(always)]
fn sum_of_quote(quote: &Quote) -> Sum {
    let mut sum = Sum::default();
    for word in quote {
        sum = sum + Sum::of_word(*word);
    }
    sum
}

/// Never about another error or a redirect, a later fragment, or what went to many (RFC 1812 §4.3.2.7, RFC 4443
/// §2.4e). Who cannot be a sender, and frames to many, don't get this far.
#[inline(always)]
fn deserves_error<F: Family>(work: &Work<F>) -> bool {
    let redirect = work.tuple.protocol == u32::from(F::ICMP)
        && work.kind == work::OTHER
        && work.detail == if F::V6 { 137 } else { 5 };
    !(redirect || work.kind == work::ICMP_ERROR || work.headless() || work.tuple.destination.is_group())
}

/// Who reports: the address the packet was sent to if that is the master's, else the master's on this interface. To
/// its own stack (egress) the master speaks as the far end: an own address arriving from outside would be a martian.
#[inline(always)]
fn speaker<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> F::Addr {
    let destination = work.tuple.destination;
    if C::HOOK == Hook::Egress || kernel.local(destination) != 0 {
        return destination;
    }
    let wide = kernel
        .interface(work.interface)
        .map_or([0; 4], |interface| if F::V6 { interface.address6 } else { [interface.address4, 0, 0, 0] });
    F::Addr::narrow(wide)
}
