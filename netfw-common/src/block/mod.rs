//! Blocked prefixes: how the lists of `[block]` and the table of bans are asked.
//!
//! Bans come and go one by one, in a hash of the kernel's that is asked once for each prefix length in use. A list is made as a
//! whole, and laid out in pages: a table of IPv4 addresses ([`v4`]), and a hash of IPv6 prefixes behind a sieve that knows
//! which lengths are worth a look ([`v6`]).

pub mod v4;
pub mod v6;

use core::hint::black_box;

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

/// A page of a list of blocked prefixes, which lies in an array of them: the head, the part of IPv4, that of IPv6, and room.
///
/// A list never changes. One that differs little may lie in the same pages and share with it what they have in common
/// (Driscoll, Sarnak, Sleator and Tarjan 1989): of IPv4 it has a root of its own, of IPv6 a version.
pub type Page = [u32; PAGE as usize];

/// Words of a page.
pub const PAGE: u32 = 1024;

/// Where a list has what in its pages. Made with them, so it is no part of a compiled policy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// IPv4: the first page of its root. 0, the head, of which no packet knows: no prefix is listed.
    pub root: u32,
    /// IPv6.
    pub v6: v6::Layout,
}

shared! {
    Lengths { v4, v6 }
    Bans { version, lengths }
    Layout { root, v6 }
}

/// The word at `at`, counted over all pages; 0 where there is no page. The compiler must not know what `at` is made of: it would
/// put it together from parts that are bounded each, and the verifier of Linux 6.1 does not see that the whole is.
#[inline(always)]
fn word_of(page: Option<&Page>, at: u32) -> u32 {
    page.and_then(|page| page.get((black_box(at) % PAGE) as usize)).copied().unwrap_or(0)
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

    /// Those of a family.
    #[inline(always)]
    pub fn of<F: Family>(&self) -> [u64; 2] {
        if F::V6 { halves(self.v6) } else { [self.v4.into(), 0] }
    }
}

/// Four words of lengths as two: bit `n` of half `h` stands for length `64 * h + n + 1`.
#[inline(always)]
fn halves(words: [u32; 4]) -> [u64; 2] {
    let [a, b, c, d] = words.map(u64::from);
    [a | b << 32, c | d << 32]
}

/// Whether one of the lengths in half `half` is wanted; they are asked for in turn.
#[inline(always)]
pub fn any_of(half: u32, lengths: u64, mut wanted: impl FnMut(u32) -> bool) -> bool {
    let mut left = lengths;
    for _ in 0..64 {
        if left == 0 {
            break;
        }
        if wanted(64 * half + 1 + (black_box(left.trailing_zeros()) & 63)) {
            return true;
        }
        left &= left.wrapping_sub(1);
    }
    false
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

    #[test]
    fn lengths_are_asked_for_in_turn() {
        let mut lengths = Lengths::default();
        for length in [1, 48, 64, 65, 128] {
            lengths.insert(true, length);
        }
        let [first, second] = lengths.of::<Ipv6>();
        let mut asked = [0_u32; 6];
        let mut number = 0;
        for (half, lengths) in [(0, first), (1, second)] {
            let found = any_of(half, lengths, |length| {
                asked[number] = length;
                number += 1;
                length == 128
            });
            assert_eq!(found, half == 1);
        }
        assert_eq!(asked, [1, 48, 64, 65, 128, 0]);
    }
}
