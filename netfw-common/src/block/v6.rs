//! The IPv6 part of a list: a hash of prefixes, asked for each length that the sieve has near an address.
//!
//! - The *sieve* has cells, found by a hash of an address's /32, for lengths up to 64, and of its /64, for longer ones. A cell
//!   says which lengths the prefixes have that begin there: so an address costs two looks, and then one for each of those
//!   lengths, however many others are in use.
//! - The *index* has a word for each bucket into which keys fall by their hash.
//! - The *keys* of a bucket lie beside each other, in half a cache line each, and say in which *versions* of the list they are:
//!   from one on, and before another one.

use super::{Key, PAGE, Page, any_of, halves, word_of};
use crate::{family::Addr6, shared::shared};

/// Words that a key takes.
pub const KEY_ROOM: u32 = 8;
/// Word of a key's room: the first version that has it.
pub const SINCE: u32 = 5;
/// Word of a key's room: the first version that has it no more.
pub const UNTIL: u32 = 6;
/// No version: what is there until then is there to stay.
pub const NEVER: u32 = u32::MAX;
/// Keys that a bucket may have.
pub const BUCKET: u32 = 15;

/// Where what lies, counted over all pages of the list, and how much of it there is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// Lengths in use, as in [`super::Lengths`]; none: no prefix is listed.
    pub lengths: [u32; 4],
    /// First page of the sieve.
    pub sieve: u32,
    /// Its cells.
    pub cells: u32,
    /// First page of the index.
    pub index: u32,
    /// First page of the keys.
    pub keys: u32,
    /// Buckets, a power of two, less one.
    pub mask: u32,
    /// What the hash of a key begins with: one with which no bucket is too full.
    pub seed: u32,
    /// Which version of the list it is.
    pub version: u32,
}

shared! { Layout { lengths, sieve, cells, index, keys, mask, seed, version } }

/// Whether the list has a prefix around the address; `listed` says it for one length.
#[inline(always)]
pub fn lists<'p>(
    layout: &Layout,
    address: &Addr6,
    page: impl Fn(u32) -> Option<&'p Page>,
    listed: impl Fn(u32) -> bool,
) -> bool {
    let [short, long] = halves(layout.lengths);
    let near = |half| lengths(word_of_list(&page, layout.sieve, cell(layout, address, half)));
    short != 0 && any_of(0, short & near(0), &listed) || long != 0 && any_of(1, long & near(1), &listed)
}

/// Whether the list has this key.
#[inline(always)]
pub fn has<'p>(layout: &Layout, key: &Key, page: impl Fn(u32) -> Option<&'p Page>) -> bool {
    let bucket = hash(key, layout.seed) & layout.mask;
    let (first, count) = keys_of(word_of_list(&page, layout.index, bucket));
    for nth in 0..BUCKET {
        if nth >= count {
            break;
        }
        let at = (first + nth) * KEY_ROOM;
        if let Some(page) = page(layout.keys + at / PAGE)
            && differences(page, at, key) == 0
            && is_in(page, at, layout.version)
        {
            return true;
        }
    }
    false
}

/// The word at `at`, counted from page `first`.
#[inline(always)]
fn word_of_list<'p>(page: impl Fn(u32) -> Option<&'p Page>, first: u32, at: u32) -> u32 {
    word_of(page(first + at / PAGE), at)
}

/// The cell of an address for lengths up to 64 (half 0), or for longer ones.
#[inline(always)]
pub fn cell(layout: &Layout, address: &Addr6, half: u32) -> u32 {
    let [a, b, ..] = *address;
    let hash = if half == 0 { hash(&[a], 0) } else { hash(&[a, b], 0) };
    ((u64::from(hash) * u64::from(layout.cells)) >> 32) as u32
}

/// The bit of a cell that stands for a length of its half, and for one 32 away that is hardly ever used beside it: were they
/// not turned against each other, /32 and /64 would have one.
pub fn bit(length: u32) -> u32 {
    let bit = length.wrapping_sub(1);
    if bit % 64 < 32 { bit % 32 } else { bit.wrapping_sub(TURN) % 32 }
}

/// By how much.
const TURN: u32 = 21;

/// The lengths that a cell stands for: bit `n` is the `n + 1`th of its half.
#[inline(always)]
fn lengths(cell: u32) -> u64 {
    u64::from(cell) | u64::from(cell.rotate_left(TURN)) << 32
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

/// The `nth` word of the room of the key at `at`.
#[inline(always)]
fn word_of_key(page: &Page, at: u32, nth: u32) -> u32 {
    word_of(Some(page), at % PAGE / KEY_ROOM * KEY_ROOM + nth)
}

/// Whether the key at `at` is in that version.
#[inline(always)]
fn is_in(page: &Page, at: u32, version: u32) -> bool {
    let [since, until] = [SINCE, UNTIL].map(|nth| word_of_key(page, at, nth));
    version.wrapping_sub(since) < until.wrapping_sub(since)
}

/// Bits in which the key at `at` is another one.
#[inline(always)]
fn differences(page: &Page, at: u32, key: &Key) -> u32 {
    let [a, b, c, d, e] = *key;
    let word = |nth: u32| word_of_key(page, at, nth);
    (word(0) ^ a) | (word(1) ^ b) | (word(2) ^ c) | (word(3) ^ d) | (word(4) ^ e)
}

/// A hash of some words: each is mixed in by an exclusive or, a multiplication and a shift, as in MurmurHash.
#[inline(always)]
pub fn hash<const N: usize>(words: &[u32; N], seed: u32) -> u32 {
    let mut hash = seed;
    for word in words {
        hash = (hash ^ word).wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 15;
    }
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_is_among_those_of_its_bit() {
        for length in 1..=128 {
            assert_eq!(lengths(1 << bit(length)) >> ((length - 1) % 64) & 1, 1, "{length}");
        }
    }

    #[test]
    fn lengths_that_lists_use_have_bits_of_their_own() {
        let mut bits = [29, 30, 31, 32, 36, 40, 44, 48, 56, 60, 64].map(bit);
        bits.sort_unstable();
        assert!(bits.windows(2).all(|pair| pair[0] != pair[1]), "{bits:?}");
    }
}
