//! Neighbours that the kernel itself has lately sent to.
//!
//! Only what the kernel sends makes it age and probe a neighbour (RFC 4861 §7.3; its ARP does the same); whoever looks one up believes
//! its last link address for ever. So a way out that has expired is looked up again without the kernel's sending the packet only where it has just
//! sent another one there: XDP then need not leave the packet to TC.

use crate::{
    family::{Addr6, Address},
    shared::shared,
};

/// Places for them: of two that share one, each makes the other forgotten.
pub const NEIGHBOURS: u32 = 4096;

/// A neighbour. Two cores that write a place at once may mix two that both are good.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Neighbour {
    /// Its address, in the form of both families.
    pub address: Addr6,
    /// Kernel index of the interface by which it is reached.
    pub ifindex: u32,
    /// The tick at which it was sent one.
    pub sent: u32,
}

shared! { Neighbour { address, ifindex, sent } }

/// The place of a neighbour.
#[inline(always)]
pub fn place<A: Address>(address: A, ifindex: u32) -> u32 {
    const FIBONACCI: u32 = 0x9e37_79b9;
    (address.fold() ^ ifindex << 16).wrapping_mul(FIBONACCI) >> (u32::BITS - NEIGHBOURS.ilog2())
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::family::addr4;

    #[test]
    fn neighbours_in_a_network_have_places_of_their_own() {
        let mut taken = [false; NEIGHBOURS as usize];
        let places = (1..=250).map(|host| place(addr4(Ipv4Addr::new(192, 168, 80, host)), 3));
        let shared = places.filter(|&place| core::mem::replace(&mut taken[place as usize], true)).count();
        assert!(shared <= 20, "{shared} of 250 share a place");
    }
}
