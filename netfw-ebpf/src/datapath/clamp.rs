//! The maximum segment size that both ends announce must fit the narrower side of the master, in both directions:
//! path-MTU discovery alone fails wherever ICMP is filtered (RFC 2923 §2.1).

use core::ops::ControlFlow;

use netfw_common::{checksum::Sum, family::Family, image::MSS_CLAMP, wire::TCP_SYN};

use super::{
    context::{Context, View},
    kernel::{Kernel, Query, Route, Way},
    route,
    work::{self, Work},
};

/// TCP options that are walked over: there is room for 40 bytes.
const MAX_OPTIONS: u32 = 12;
const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;

/// Whether the packet, which leaves by [`Work::hop`], may announce a segment size.
#[inline(always)]
pub fn concerns<F: Family>(work: &Work<F>) -> bool {
    work.kind == work::TCP && work.tcp_flags as u8 & TCP_SYN != 0 && work.fragment == work::WHOLE
}

/// Lowers the announced segment size where it is too large. A packet that cannot be changed goes on as it is.
#[inline(always)]
pub fn packet<F: Family, C: Context, K: Kernel<F>>(ctx: &mut C, kernel: &K, work: &mut Work<F>) {
    let wanted = kernel.policy().is_some_and(|policy| policy.flags & MSS_CLAMP != 0);
    let mtu = narrower(kernel, work);
    let Some(at) = option(ctx, kernel, work).filter(|_| wanted && mtu != 0) else {
        return;
    };
    let limit = mtu.saturating_sub(F::HEADER + 20).min(0xffff) as u16;
    let Some(announced) = ctx.view::<2>(at).map(|view| u16::from_be(view.half(0))) else {
        return;
    };
    if announced <= limit {
        return;
    }
    let (old, new) = (Sum::of_value(announced), Sum::of_value(limit));
    // An option at an odd offset lies across two words of the sum: swapped in both (RFC 1071 §2).
    let odd = (at ^ work.transport) & 1 != 0;
    let delta = if odd { swapped(limit) - swapped(announced) } else { new - old };
    if ctx.fix_checksum(work.transport + 16, Sum::default(), delta, false) {
        ctx.store(at, &[limit.to_be()]);
    }
}

#[inline(always)]
fn swapped(value: u16) -> Sum {
    Sum::of_value(value.swap_bytes())
}

/// The smallest MTU of the way out, the way back and both interfaces; 0: not known.
#[inline(always)]
fn narrower<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> u32 {
    let known = |mtu: u32| if mtu == 0 { u32::MAX } else { mtu };
    let of = |slot: u32| kernel.interface(slot).map_or(0, |interface| u32::from(interface.mtu));
    let interfaces = known(of(kernel.slot_of(work.way.hop.ifindex))).min(known(of(work.interface)));
    let out = match work.way.hop.mtu {
        0 => width(kernel, &route::out(work, WIDEST)),
        mtu => mtu,
    };
    let back = width(kernel, &route::back(work, WIDEST));
    let smallest = known(out).min(known(back)).min(interfaces);
    if smallest == u32::MAX { 0 } else { smallest }
}

/// No route is as wide: so the kernel tells its MTU even where it doesn't know the neighbour.
const WIDEST: u32 = u16::MAX as u32;

/// MTU of a route, which may be narrower than the interface; 0: not known.
#[inline(always)]
fn width<F: Family, K: Kernel<F>>(kernel: &K, query: &Query<F::Addr>) -> u32 {
    let mut way = Way::default();
    match kernel.route(query, &mut way) {
        Route::TooBig => way.hop.mtu,
        _ => 0,
    }
}

/// Offset of the announced segment size, if there is one.
#[inline(always)]
fn option<F: Family, C: Context, K: Kernel<F>>(ctx: &C, kernel: &K, work: &Work<F>) -> Option<u32> {
    let header = u32::from(ctx.view::<20>(work.transport)?.byte(12) >> 4) * 4;
    let end = work.transport + header;
    let (mut at, mut found) = (work.transport + 20, None);
    kernel.repeat(MAX_OPTIONS, |_| {
        let Some(view) = ctx.view::<4>(at).filter(|_| at + 4 <= end) else {
            return ControlFlow::Break(());
        };
        let length = match view.byte(0) {
            END => return ControlFlow::Break(()),
            NOTHING => 1,
            MSS => {
                found = (view.byte(1) == 4).then_some(at + 2);
                return ControlFlow::Break(());
            }
            _ => u32::from(view.byte(1)).max(2),
        };
        at += length;
        ControlFlow::Continue(())
    });
    found
}
