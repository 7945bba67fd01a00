//! Blocked prefixes: how the lists of `[block]` and the table of bans are asked.
//!
//! Both are hashes of prefixes; an address is looked up once for each prefix length in use. Unlike in a trie the cost does not
//! grow with the number of prefixes. Bans come and go one by one, in a hash of the kernel's; a list is made as a whole, and laid
//! out in pages.

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

/// A page of a list of blocked prefixes, which lies in an array of them: the sieve, if the list is long; the index; the keys.
///
/// A list never changes: another one is made beside it, in the time that a fiftieth of it would need to enter a hash of the
/// kernel's. A key falls into a bucket by its hash. The index has a word for each bucket, and the keys of a bucket lie beside
/// each other, in half a cache line each. So a prefix that is not listed costs a look or two.
pub type Page = [u32; PAGE as usize];

/// Words of a page.
pub const PAGE: u32 = 1024;
/// Words that a key takes.
pub const KEY_ROOM: u32 = 8;
/// Pages of the sieve, one half for each family: what has no bit in it is not listed, so most addresses are looked up once and
/// not once for each length. A bit stands for a /24 of IPv4, or for some of the /32 of IPv6.
pub const SIEVE_PAGES: u32 = 1024;
/// Keys that a bucket may have.
pub const BUCKET: u32 = 15;

/// Where a list has what in its pages. Made with them, so it is no part of a compiled policy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// First page of the index: those before it are the sieve. 0: there is none.
    pub index: u32,
    /// First page of the keys.
    pub keys: u32,
    /// Buckets, a power of two, less one.
    pub mask: u32,
    /// What [`hash`] begins with: one with which no bucket is too full.
    pub seed: u32,
}

shared! { Layout { index, keys, mask, seed } }

/// The bit of the addresses that begin with these 32 bits (in the order of numbers): page, word in it and bit of the sieve.
#[inline(always)]
pub fn sieve_bit(v6: bool, first: u32) -> (u32, u32, u32) {
    // Knuth's multiplicative hashing (The Art of Computer Programming 3, section 6.4).
    let bit = if v6 { 1 << 24 | first.wrapping_mul(0x9e37_79b1) >> 8 } else { first >> 8 };
    (bit >> 15, bit >> 5 & (PAGE - 1), bit & 31)
}

/// Whether the sieve lets through the addresses that begin with these 32 bits.
#[inline(always)]
pub fn passes<'p>(layout: &Layout, v6: bool, first: u32, page: impl Fn(u32) -> Option<&'p Page>) -> bool {
    let (number, word, bit) = sieve_bit(v6, first);
    layout.index == 0 || word_of(page(number), word) >> bit & 1 == 1
}

/// Whether the list has this key.
#[inline(always)]
pub fn lists<'p>(layout: &Layout, key: &Key, page: impl Fn(u32) -> Option<&'p Page>) -> bool {
    let bucket = hash(key, layout.seed) & layout.mask;
    let (first, count) = keys_of(word_of(page(layout.index + bucket / PAGE), bucket));
    for nth in 0..BUCKET {
        if nth >= count {
            break;
        }
        let at = (first + nth) * KEY_ROOM;
        if let Some(page) = page(layout.keys + at / PAGE)
            && differences(page, at, key) == 0
        {
            return true;
        }
    }
    false
}

/// The word of the index for a bucket: its first key, counted over the whole list, and how many there are.
pub fn index_word(first: u32, count: u32) -> u32 {
    first << 4 | count & BUCKET
}

/// The reverse.
#[inline(always)]
pub fn keys_of(word: u32) -> (u32, u32) {
    (word >> 4, word & BUCKET)
}

/// The word at `at`, counted over all pages; 0 where there is no page.
#[inline(always)]
fn word_of(page: Option<&Page>, at: u32) -> u32 {
    page.and_then(|page| page.get((at % PAGE) as usize)).copied().unwrap_or(0)
}

/// Bits in which the key at `at` is another one.
#[inline(always)]
fn differences(page: &Page, at: u32, key: &Key) -> u32 {
    let [a, b, c, d, e] = *key;
    let place = at % PAGE / KEY_ROOM * KEY_ROOM;
    let word = |nth: u32| word_of(Some(page), place + nth);
    (word(0) ^ a) | (word(1) ^ b) | (word(2) ^ c) | (word(3) ^ d) | (word(4) ^ e)
}

/// A key's hash: each word is mixed in by an exclusive or, a multiplication and a shift, as in MurmurHash.
#[inline(always)]
pub fn hash(key: &Key, seed: u32) -> u32 {
    let mut hash = seed;
    for word in key {
        hash = (hash ^ word).wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 15;
    }
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
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
