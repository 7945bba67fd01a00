//! The two IP families, as one type parameter.

use core::fmt::Debug;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{checksum::Sum, shared::Shared};

/// An address as it lies in the packet: 32-bit words in memory order, so that copying needs no byte swap.
pub trait Address: Shared + Copy + Eq + Default + Debug {
    /// Puts it together from its 32-bit words; `word(n)` gives the n-th.
    fn from_words(word: impl Fn(u32) -> u32) -> Self;
    /// Its `n`-th 16 bits in memory order.
    fn half(self, n: usize) -> u16;
    /// Widened to 16 bytes: IPv4 uses the first word.
    fn widen(self) -> Addr6;
    /// The reverse of [`widen`](Self::widen).
    fn narrow(wide: Addr6) -> Self;
    /// Sum of its 16-bit words, for checksum deltas (RFC 1624).
    fn sum(self) -> Sum;
    /// Whether a packet may have it as source: not multicast, unspecified, loopback or reserved.
    fn can_send(self) -> bool;
    /// Whether it never leaves a host.
    fn is_loopback(self) -> bool;
    /// Whether it is good on its link only (fe80::/10, 169.254.0.0/16) and must not be forwarded.
    fn is_link_local(self) -> bool;
    /// Whether it names many receivers (multicast, or IPv4's limited broadcast).
    fn is_group(self) -> bool;
    /// For reports.
    fn to_ip(self) -> IpAddr;
    /// A well mixed word, for source hashing; not a defence against collisions.
    fn fold(self) -> u32;
}

/// An IPv4 address in memory order.
pub type Addr4 = u32;
/// An IPv6 address in memory order.
pub type Addr6 = [u32; 4];

/// The two 16-bit halves of a word, in memory order.
const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

impl Address for Addr4 {
    fn half(self, n: usize) -> u16 {
        halves(self)[n & 1]
    }

    fn is_link_local(self) -> bool {
        u32::from_be(self) >> 16 == 0xa9fe
    }

    fn from_words(word: impl Fn(u32) -> u32) -> Self {
        word(0)
    }

    fn widen(self) -> Addr6 {
        [self, 0, 0, 0]
    }

    fn narrow(wide: Addr6) -> Self {
        wide[0]
    }

    fn can_send(self) -> bool {
        let first = u32::from_be(self) >> 24;
        first != 0 && first != 127 && first < 224
    }

    fn is_loopback(self) -> bool {
        u32::from_be(self) >> 24 == 127
    }

    fn is_group(self) -> bool {
        let bits = u32::from_be(self);
        bits >> 28 == 0xe || bits == u32::MAX
    }

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
    fn half(self, n: usize) -> u16 {
        halves(self[(n / 2) & 3])[n & 1]
    }

    fn is_link_local(self) -> bool {
        u32::from_be(self[0]) >> 22 == 0x3fa
    }

    fn from_words(word: impl Fn(u32) -> u32) -> Self {
        [word(0), word(1), word(2), word(3)]
    }

    fn widen(self) -> Addr6 {
        self
    }

    fn narrow(wide: Addr6) -> Self {
        wide
    }

    fn can_send(self) -> bool {
        // ::/96 holds the unspecified address, ::1 and the deprecated IPv4-compatible ones; ::ffff:0:0/96 must
        // not appear on the wire (RFC 4291 §2.5.5, RFC 6890).
        let mapped = self[2] == 0 || self[2] == 0xffff_u32.to_be();
        !(self.is_group() || self[0] == 0 && self[1] == 0 && mapped)
    }

    fn is_loopback(self) -> bool {
        self == [0, 0, 0, 1_u32.to_be()]
    }

    fn is_group(self) -> bool {
        u32::from_be(self[0]) >> 24 == 0xff
    }

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
