//! Managed interfaces and local addresses: live data, the same for every policy.

use crate::{family::Addr6, shared::shared};

/// How many interfaces one instance can manage; index 0 stands for "not managed".
pub const MAX_INTERFACES: usize = 64;
/// Interface indexes are looked up in an array; higher ones cannot be managed.
pub const MAX_IFINDEX: u32 = 65_536;

/// Towards the outside.
pub const EXTERNAL: u32 = 1;
/// Towards the LAN.
pub const INTERNAL: u32 = 2;
/// Its driver transmits XDP frames, so it is in the device map, which is what the datapath asks.
pub const XDP_TRANSMIT: u32 = 4;
/// It has one IPv4 address, one IPv6 address that is not link-local: by family. Nobody can have called it by another.
pub const ONE_ADDRESS: [u32; 2] = [8, 16];

/// Where packets come in, as far as anti-spoofing tells interfaces apart: all external ones are one.
pub const OUTSIDE: u16 = MAX_INTERFACES as u16;

/// [`OUTSIDE`], or the slot of an internal interface; 0 for one that isn't managed.
#[inline(always)]
pub const fn origin(slot: u32, flags: u32) -> u16 {
    if flags & EXTERNAL != 0 { OUTSIDE } else { slot as u16 }
}

/// A managed interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Interface {
    /// Kernel index.
    pub ifindex: u32,
    /// [`EXTERNAL`] or [`INTERNAL`], and other bits.
    pub flags: u32,
    /// MAC address, first four bytes, memory order.
    pub mac_high: u32,
    /// MAC address, last two bytes, memory order.
    pub mac_low: u16,
    /// MTU in bytes.
    pub mtu: u16,
    /// Its first global IPv4 address: what masquerade puts into packets. 0: none.
    pub address4: u32,
    /// Its first global IPv6 address. Zero: none.
    pub address6: Addr6,
}

impl Interface {
    /// Whether XDP can send frames out of it.
    #[inline(always)]
    pub const fn transmits(&self) -> bool {
        self.flags & XDP_TRANSMIT != 0
    }
}

shared! { Interface { ifindex, flags, mac_high, mac_low, mtu, address4, address6 } }

/// Value in the map of local addresses: the address belongs to an external interface.
pub const LOCAL_EXTERNAL: u32 = 1;
/// Value in the map of local addresses: the address belongs to another interface.
pub const LOCAL_OTHER: u32 = 2;
