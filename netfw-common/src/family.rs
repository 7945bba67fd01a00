//! The two IP families, as one type parameter.

use core::fmt::Debug;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{checksum::Sum, shared::Shared};

/// An address as it lies in the packet: 32-bit words in memory order, so that copying needs no byte swap.
pub trait Address: Shared + Copy + Eq + Default + Debug {
    /// Sum of its 16-bit words, for checksum deltas (RFC 1624).
    fn sum(self) -> Sum;
    /// For reports.
    fn to_ip(self) -> IpAddr;
    /// A well mixed word, for source hashing; not a defence against collisions.
    fn fold(self) -> u32;
}

/// An IPv4 address in memory order.
pub type Addr4 = u32;
/// An IPv6 address in memory order.
pub type Addr6 = [u32; 4];

impl Address for Addr4 {
    fn sum(self) -> Sum {
        Sum::of_word(self)
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.to_ne_bytes()))
    }

    fn fold(self) -> u32 {
        self
    }
}

impl Address for Addr6 {
    fn sum(self) -> Sum {
        Sum::of_word(self[0]) + Sum::of_word(self[1]) + Sum::of_word(self[2]) + Sum::of_word(self[3])
    }

    fn to_ip(self) -> IpAddr {
        let words = self.map(u32::from_be);
        IpAddr::V6(Ipv6Addr::from_bits(words.iter().fold(0, |bits, &word| bits << 32 | u128::from(word))))
    }

    fn fold(self) -> u32 {
        self[0] ^ self[1].rotate_left(7) ^ self[2].rotate_left(13) ^ self[3]
    }
}

/// IPv4 address in memory order.
pub const fn addr4(address: Ipv4Addr) -> Addr4 {
    u32::from_ne_bytes(address.octets())
}

/// IPv6 address in memory order.
pub const fn addr6(address: Ipv6Addr) -> Addr6 {
    let bits = address.to_bits();
    [
        ((bits >> 96) as u32).to_be(),
        ((bits >> 64) as u32).to_be(),
        ((bits >> 32) as u32).to_be(),
        (bits as u32).to_be(),
    ]
}

/// An IP family: the address type and the few numbers in which the families differ.
pub trait Family: Copy + 'static {
    /// Its address type.
    type Addr: Address;
    /// EtherType, host byte order.
    const ETHERTYPE: u16;
    /// Length of the fixed header, in bytes.
    const HEADER: u32;
    /// The family's ICMP protocol number.
    const ICMP: u8;
    /// Whether this is IPv6 (constant, so that a branch on it costs nothing).
    const V6: bool;
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4;

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6;

impl Family for Ipv4 {
    type Addr = Addr4;
    const ETHERTYPE: u16 = 0x0800;
    const HEADER: u32 = 20;
    const ICMP: u8 = crate::wire::ICMP;
    const V6: bool = false;
}

impl Family for Ipv6 {
    type Addr = Addr6;
    const ETHERTYPE: u16 = 0x86dd;
    const HEADER: u32 = 40;
    const ICMP: u8 = crate::wire::ICMPV6;
    const V6: bool = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        let v4 = Ipv4Addr::new(192, 168, 80, 3);
        assert_eq!(addr4(v4).to_ip(), IpAddr::V4(v4));
        assert_eq!(addr4(v4).to_ne_bytes(), [192, 168, 80, 3]);
        let v6: Ipv6Addr = "2001:db8:1:2:3:4:5:6789".parse().expect("an address");
        assert_eq!(addr6(v6).to_ip(), IpAddr::V6(v6));
    }
}
