//! Stage 8: writes the planned tuple into the packet. Checksums change by the difference (RFC 1624).

use netfw_common::{
    checksum::Sum,
    family::{Address, Family},
    reason::Reason,
    wire::ETHERNET,
};

use super::{
    Step,
    context::Context,
    work::{self, Work},
};

/// Makes the packet what [`Work::leaving`] says; `forwarded`: and one hop older (what the stack routes further, it
/// ages itself, and the reassembly already has).
#[inline(always)]
pub fn packet<F: Family, C: Context>(ctx: &mut C, work: &mut Work<F>, forwarded: bool) -> Step {
    let same = work.leaving == work.tuple;
    let ages = forwarded && work.reassembled == 0;
    if same && !ages {
        return Ok(());
    }
    let done = network(ctx, work, ages, same) && (same || transport(ctx, work));
    if done { Ok(()) } else { work.drop(Reason::NotWritable) }
}

/// The 16 bits that hold TTL or hop limit, one lower.
#[inline(always)]
fn older<F: Family>(half: u16) -> u16 {
    let value = u16::from_be(half);
    // IPv4: TTL is the high byte; IPv6: the hop limit is the low one.
    (if F::V6 { value.wrapping_sub(1) } else { value.wrapping_sub(0x100) }).to_be()
}

#[inline(always)]
fn network<F: Family, C: Context>(ctx: &mut C, work: &Work<F>, ages: bool, same: bool) -> bool {
    let old = work.ttl_half as u16;
    let ttl = if ages { older::<F>(old) } else { old };
    let (source, destination) = (work.leaving.source, work.leaving.destination);
    if F::V6 {
        if same {
            return ctx.store(ETHERNET + 6, &[ttl]);
        }
        let mut halves = [0; 17];
        halves[0] = ttl;
        for n in 0..8 {
            halves[1 + n] = source.half(n);
            halves[9 + n] = destination.half(n);
        }
        return ctx.store(ETHERNET + 6, &halves);
    }
    let addresses = work.leaving.address_sum() - work.tuple.address_sum();
    let delta = addresses + (Sum::of_half(ttl) - Sum::of_half(old));
    let checksum = delta.update(work.header_checksum as u16);
    let halves = [ttl, checksum, source.half(0), source.half(1), destination.half(0), destination.half(1)];
    ctx.store(ETHERNET + 8, &halves)
}

#[inline(always)]
fn transport<F: Family, C: Context>(ctx: &mut C, work: &Work<F>) -> bool {
    let at = work.transport;
    if work.headless() {
        return true;
    }
    let pseudo = work.leaving.address_sum() - work.tuple.address_sum();
    let plain = work.leaving.port_sum() - work.tuple.port_sum();
    let ports = [work.leaving.source_port.to_be(), work.leaving.destination_port.to_be()];
    match work.kind {
        work::TCP => ctx.fix_checksum(at + 16, pseudo, plain, false) && ctx.store(at, &ports),
        work::UDP => ctx.fix_checksum(at + 6, pseudo, plain, true) && ctx.store(at, &ports),
        work::ECHO => {
            // Request or reply: one of the two holds the identifier, the other is 0.
            let identifier = [ports[0] | ports[1]];
            // RFC 792 has no pseudo header, RFC 4443 has.
            let pseudo = if F::V6 { pseudo } else { Sum::default() };
            ctx.fix_checksum(at + 2, pseudo, plain, false) && ctx.store(at + 4, &identifier)
        }
        _ => true,
    }
}
