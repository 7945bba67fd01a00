//! A Bloom filter over the keys of all flows, with one hash function (Bloom 1970): a packet that has no flow need not look for it in
//! three hash tables, each of them in memory that nobody has touched lately.
//!
//! Whoever enters a flow notes its key before, so a key that is not noted has no flow. Nothing is ever taken out, because an LRU
//! evicts without telling: where too many keys of flows that are gone have gathered, user space makes the filter anew in its other half
//! ([`Halves`]).

use crate::{family::Address, shared::shared, tuple::Tuple};

/// Which halves of the filter are in use; each is named by its first word.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Halves {
    /// The one that tells which keys were noted.
    pub asked: u32,
    /// Those in which keys are noted: twice the same, but while the other half is made anew.
    pub noted: [u32; 2],
}

shared! { Halves { asked, noted } }

/// Words of a half for `capacity` flows: at least eight bits a flow, and a power of two. A full table, two keys a flow, sets a fifth.
pub const fn words(capacity: u32) -> u32 {
    let words = (capacity / u64::BITS).saturating_mul(8);
    if words < LEAST { LEAST } else { words.next_power_of_two() }
}

/// So much lies in the cache at any rate, and two halves are a page of memory.
const LEAST: u32 = 256;

/// The hash of a key, of which the upper half is good. Whoever picks keys that share a bit makes packets slower, and nothing else.
#[inline(always)]
pub fn hash<A: Address>(key: &Tuple<A>) -> u64 {
    let addresses = u64::from(key.source.fold()) << 32 | u64::from(key.destination.fold());
    let ports = u64::from(key.source_port) << 16 | u64::from(key.destination_port);
    let product = addresses.wrapping_mul(GOLDEN);
    (product ^ product >> 32 ^ ports ^ u64::from(key.protocol) << 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Fibonacci hashing: each bit of the product depends on all bits below it.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where the key with this hash is noted, in a half of so many words (a power of two): the number of the word, and the bit in it.
#[inline(always)]
pub fn place(hash: u64, words: u32) -> (u32, u64) {
    ((hash >> 38) as u32 & words.wrapping_sub(1), 1 << (hash >> 32 & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: u32 = 1 << 10;

    fn set<'a>(keys: impl Iterator<Item = Tuple<u32>> + 'a) -> usize {
        let mut half = [0_u64; WORDS as usize];
        for key in keys {
            let (word, bit) = place(hash(&key), WORDS);
            half[word as usize] |= bit;
        }
        half.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Of 65,536 bits, 8,192 random ones would set 7,700.
    #[test]
    fn keys_that_differ_little_are_noted_apart() {
        let key = Tuple {
            source: 0x0150_a8c0,
            destination: 0x0201_a8c0,
            source_port: 40_000,
            destination_port: 22,
            protocol: 6,
        };
        let hosts = (0..8192_u32).map(|n| Tuple { source: n.to_be(), ..key });
        let targets = (0..8192_u32).map(|n| Tuple { destination: n.to_be(), ..key });
        let ports = (0..8192).map(|n| Tuple { source_port: n, ..key });
        let services = (0..8192).map(|n| Tuple { destination_port: n, ..key });
        for set in [set(hosts), set(targets), set(ports), set(services)] {
            assert!(set > 7_500, "{set}");
        }
    }

    #[test]
    fn a_full_table_leaves_most_bits_clear() {
        for capacity in [0, 1, 2048, 262_144, 300_000, u32::MAX] {
            let words = words(capacity);
            assert!(words.is_power_of_two() && u64::from(words) * 64 >= u64::from(capacity / 64) * 512);
        }
        assert_eq!(words(262_144), 32_768);
    }
}
