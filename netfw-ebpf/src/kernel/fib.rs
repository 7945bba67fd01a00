//! The kernel's routing and neighbour tables.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_fib_lookup;
use netfw_common::{family::Address, flow::Hop};

use super::maps::Maps;
use crate::datapath::kernel::{Query, Route, Way};

/// `struct bpf_fib_lookup` of the UAPI, laid out here because aya 0.14's binding names its unions by number.
#[repr(C)]
struct FibParams {
    family: u8,
    l4_protocol: u8,
    sport: u16,
    dport: u16,
    /// In: length to check; out: MTU of the route.
    length_or_mtu: u16,
    ifindex: u32,
    /// IPv4: TOS; IPv6: flow information; out: metric.
    tos_or_metric: u32,
    source: [u32; 4],
    /// Out: the next hop.
    destination: [u32; 4],
    vlan: u32,
    source_mac: [u16; 3],
    destination_mac: [u16; 3],
}

const _: () = assert!(size_of::<FibParams>() == 64);

const FIB_SUCCESS: i64 = 0;
const FIB_ENCAPSULATED: i64 = 6;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_FRAGMENTATION_NEEDED: i64 = 8;

impl FibParams {
    #[inline(always)]
    fn new<F: Maps>(query: &Query<F::Addr>) -> Self {
        Self {
            family: F::AF,
            l4_protocol: 0,
            sport: 0,
            dport: 0,
            length_or_mtu: query.length as u16,
            ifindex: query.ifindex,
            tos_or_metric: if F::V6 { 0 } else { query.tos },
            source: query.source.widen(),
            destination: query.destination.widen(),
            vlan: 0,
            source_mac: [0; 3],
            destination_mac: [0; 3],
        }
    }

    #[inline(always)]
    fn hop(&self) -> Hop {
        let word = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let (to, from) = (&self.destination_mac, &self.source_mac);
        Hop {
            ifindex: self.ifindex,
            found: 0,
            mtu: u32::from(self.length_or_mtu),
            macs: [word(to[0], to[1]), word(to[2], from[0]), word(from[1], from[2])],
        }
    }
}

/// Asks for a way out.
#[inline(always)]
pub fn route<F: Maps>(ctx: *mut c_void, query: &Query<F::Addr>, way: &mut Way<F::Addr>) -> Route {
    const FOUND: u32 = Route::Found as u32;
    const NO_NEIGHBOUR: u32 = Route::NoNeighbour as u32;
    const TOO_BIG: u32 = Route::TooBig as u32;
    const ENCAPSULATED: u32 = Route::Encapsulated as u32;
    match ask::<F>(ctx, query, way) {
        FOUND => Route::Found,
        NO_NEIGHBOUR => Route::NoNeighbour,
        TOO_BIG => Route::TooBig,
        ENCAPSULATED => Route::Encapsulated,
        _ => Route::None,
    }
}

/// The same, as a number. A function of its own: its stack is not that of the stages.
#[inline(never)]
fn ask<F: Maps>(ctx: *mut c_void, query: &Query<F::Addr>, way: &mut Way<F::Addr>) -> u32 {
    let mut params = FibParams::new::<F>(query);
    let mut result = look_up(ctx, &mut params);
    way.hop = params.hop();
    if result == FIB_FRAGMENTATION_NEEDED {
        // The kernel stops before it tells the interface: ask again without a length.
        params = FibParams::new::<F>(&Query { length: 0, ..*query });
        if look_up(ctx, &mut params) == FIB_ENCAPSULATED {
            result = FIB_ENCAPSULATED;
        }
        way.hop = Hop { mtu: way.hop.mtu, ..params.hop() };
    } else if result == FIB_NO_NEIGHBOUR {
        // The kernel has not come to the MTU then; the field still holds our length.
        way.hop.mtu = 0;
    }
    // An IPv4 route may lead through an IPv6 neighbour; then the kernel finds the way itself.
    way.gateway =
        if params.family == F::AF { F::Addr::narrow(params.destination) } else { F::Addr::default() };
    if result == FIB_ENCAPSULATED {
        way.hop = Hop::default();
    }
    let route = match result {
        FIB_ENCAPSULATED => Route::Encapsulated,
        FIB_SUCCESS if params.vlan == 0 => Route::Found,
        FIB_SUCCESS | FIB_NO_NEIGHBOUR => Route::NoNeighbour,
        FIB_FRAGMENTATION_NEEDED => Route::TooBig,
        _ => Route::None,
    };
    route as u32
}

#[inline(always)]
fn look_up(ctx: *mut c_void, params: &mut FibParams) -> i64 {
    // SAFETY: the context is the hook's own, and the parameters are 64 bytes long as announced.
    unsafe { bpf_fib_lookup(ctx, ptr::from_mut(params).cast(), 64, 0) }
}
