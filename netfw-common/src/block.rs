//! Blocked prefixes: how the tables of `[block]` and of bans are asked.
//!
//! Each prefix is an entry of a hash; an address is looked up once for each prefix length in use. Unlike in a trie the cost
//! does not grow with the number of prefixes, and one entry can come or go while packets are being looked up.

use crate::{
    family::{Address, Family},
    shared::shared,
};

/// Key of a prefix: its length, plus [`V6`] for IPv6, and its address, widened, zero beyond the length.
pub type Key = [u32; 5];

/// Prefixes that can be banned at once.
pub const MAX_BANS: u32 = 262_144;

/// Set in the first word of the [`Key`] of an IPv6 prefix.
const V6: u32 = 0x100;

/// Prefix lengths in use: bit `n` of word `w` stands for length `32 * w + n + 1`. There is no length 0: it is held as its
/// two halves. May name a length that no prefix has any more.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lengths {
    /// Of IPv4 prefixes.
    pub v4: u32,
    /// Of IPv6 prefixes.
    pub v6: [u32; 4],
}

/// What holds of all bans.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bans {
    /// Grows with every change of what is blocked: a flow that was let through under another version is asked again.
    pub version: u32,
    /// Lengths of the banned prefixes.
    pub lengths: Lengths,
}

shared! {
    Lengths { v4, v6 }
    Bans { version, lengths }
}

/// A part of the sieve before a long list: 4096 bits. What has no bit in it is not listed, so most addresses are looked up once
/// and not once for each length. A bit stands for a /24 of IPv4, or for some of the /32 of IPv6.
pub type SievePart = [u32; 128];

/// Parts of a whole sieve: one half for each family. A shorter one lets through whatever lies beyond its end.
pub const SIEVE_PARTS: u32 = 8192;

/// The bit of the addresses that begin with these 32 bits (in the order of numbers), as a number of [`SievePart`] and, in it,
/// of word and bit.
#[inline(always)]
pub fn sieve_bit(v6: bool, first: u32) -> (u32, usize, u32) {
    // Knuth's multiplicative hashing (The Art of Computer Programming 3, section 6.4).
    let bit = if v6 { 1 << 24 | first.wrapping_mul(0x9e37_79b1) >> 8 } else { first >> 8 };
    (bit >> 12, (bit >> 5 & 127) as usize, bit & 31)
}

impl Lengths {
    /// Adds the length of a prefix.
    pub fn insert(&mut self, v6: bool, length: u32) {
        let bit = length.saturating_sub(1);
        if !v6 {
            self.v4 |= 1 << (bit % 32);
        } else if let Some(word) = self.v6.get_mut(bit as usize / 32) {
            *word |= 1 << (bit % 32);
        }
    }

    /// Those of a family: bit `n` of word `w` stands for length `64 * w + n + 1`.
    #[inline(always)]
    pub fn of<F: Family>(&self) -> [u64; 2] {
        let [a, b, c, d] = if F::V6 { self.v6.map(u64::from) } else { [self.v4.into(), 0, 0, 0] };
        [a | b << 32, c | d << 32]
    }
}

/// The key of the prefix of this length, from 1, around `address`.
#[inline(always)]
pub fn key<F: Family>(address: F::Addr, length: u32) -> Key {
    let [a, b, c, d] = address.widen();
    let family = if F::V6 { V6 } else { 0 };
    [
        length | family,
        a & mask(length),
        b & mask(length.saturating_sub(32)),
        c & mask(length.saturating_sub(64)),
        d & mask(length.saturating_sub(96)),
    ]
}

/// The first `bits` bits of a word in memory order; all from 32 on.
#[inline(always)]
fn mask(bits: u32) -> u32 {
    if bits == 0 {
        return 0;
    }
    let rest = 32_u32.saturating_sub(bits);
    (u32::MAX << (rest & 31)).to_be()
}

/// Address, widened, and length of a prefix, and whether it is IPv6: the reverse of [`key`].
pub fn prefix(key: &Key) -> ([u32; 4], u32, bool) {
    let [first, a, b, c, d] = *key;
    ([a, b, c, d], first & !V6, first & V6 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{Ipv4, Ipv6, addr4, addr6};

    #[test]
    fn a_key_holds_the_prefix_alone() {
        let address = addr4([203, 0, 113, 77].into());
        assert_eq!(prefix(&key::<Ipv4>(address, 24)), (addr4([203, 0, 113, 0].into()).widen(), 24, false));
        assert_eq!(prefix(&key::<Ipv4>(address, 32)).0, address.widen());
        assert_eq!(prefix(&key::<Ipv4>(address, 1)).0, addr4([128, 0, 0, 0].into()).widen());
        let address = addr6([0x2001, 0xdb8, 1, 2, 3, 4, 5, 6].into());
        let wide = addr6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0].into());
        assert_eq!(prefix(&key::<Ipv6>(address, 48)), (wide, 48, true));
        assert_eq!(prefix(&key::<Ipv6>(address, 128)).0, address);
    }

    #[test]
    fn lengths_are_bits() {
        let mut lengths = Lengths::default();
        for length in [1, 32] {
            lengths.insert(false, length);
        }
        for length in [1, 64, 65, 128] {
            lengths.insert(true, length);
        }
        assert_eq!(lengths, Lengths { v4: 1 | 1 << 31, v6: [1, 1 << 31, 1, 1 << 31] });
    }
}
