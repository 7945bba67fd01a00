//! The lists of blocked prefixes that slots lead to, and the sieves before them.

use anyhow::Result;
use aya_obj::generated::bpf_map_type;
use netfw_common::{
    block::{self, Key, SIEVE_PARTS, SievePart},
    image::SLOTS,
};

use super::{
    install::{INNER_MAP, NO_PREALLOC, set_inner, write},
    maps::{Array, Maps},
    table::{ANY, Table},
};
use crate::image::Image;

/// How many prefixes one call carries.
const AT_ONCE: usize = 65_536;
/// From so many prefixes on a list has a sieve; a shorter one lies in the processor's cache.
const WORTH_A_SIEVE: usize = 256;

impl Maps {
    /// The kernel's number of the map that holds a slot's blocked prefixes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn block_list(&self, slot: u32) -> Result<Option<u32>> {
        Ok(self.blocks.get(&slot)?)
    }

    /// A list of a million prefixes takes a hundred megabytes and a second: slots share one that is the same.
    pub(super) fn fill_blocks(&self, slot: u32, image: &Image) -> Result<()> {
        for other in 0..SLOTS {
            let policy = self.policies.get(&other)?.unwrap_or_default();
            if policy.block_digest == image.policy.block_digest
                && let (Some(list), Some(sieve)) = (self.block_list(other)?, self.sieves.get(&other)?)
            {
                set_inner(&self.sieves, slot, &Array::<SievePart>::numbered(sieve)?)?;
                return Ok(set_inner(&self.blocks, slot, &Table::<Key, u32>::numbered(list)?)?);
            }
        }
        self.put_blocks(slot, &image.blocks)
    }

    /// An idle slot gives its list up, unless it is the one that is wanted. First its digest: whoever is killed in between
    /// leaves no slot whose list is taken for another.
    pub(super) fn forget_unequal_blocks(&self, slot: u32, wanted: &[u32; 8]) -> Result<()> {
        let mut policy = self.policies.get(&slot)?.unwrap_or_default();
        if policy.block_digest != *wanted {
            policy.block_digest = [0; 8];
            self.policies.set(&slot, policy, ANY)?;
            self.put_blocks(slot, &[])?;
        }
        Ok(())
    }

    fn put_blocks(&self, slot: u32, keys: &[Key]) -> Result<()> {
        let parts = sieve(keys);
        let sieve = Table::create(bpf_map_type::BPF_MAP_TYPE_ARRAY, "sieve", parts.len() as u32, INNER_MAP)?;
        write(&sieve, 0, &parts)?;
        set_inner(&self.sieves, slot, &sieve)?;
        Ok(set_inner(&self.blocks, slot, &list(keys)?)?)
    }
}

fn list(keys: &[Key]) -> Result<Table<Key, u32>> {
    let entries = keys.len().max(1) as u32;
    let list = Table::create(bpf_map_type::BPF_MAP_TYPE_HASH, "blocks", entries, NO_PREALLOC)?;
    for keys in keys.chunks(AT_ONCE) {
        list.set_all(keys, &vec![1; keys.len()])?;
    }
    Ok(list)
}

/// Everything that these prefixes hold has its bit in it.
fn sieve(keys: &[Key]) -> Vec<SievePart> {
    if keys.len() < WORTH_A_SIEVE {
        return vec![[u32::MAX; 128]];
    }
    let mut parts = vec![[0; 128]; SIEVE_PARTS as usize];
    for key in keys {
        let ([first, ..], length, v6) = block::prefix(key);
        let first = u32::from_be(first);
        if v6 && length < 32 {
            // Its addresses are everywhere.
            parts[SIEVE_PARTS as usize / 2..].fill([u32::MAX; 128]);
            continue;
        }
        let networks = if v6 { 1 } else { 1 << 24_u32.saturating_sub(length) };
        for network in 0..networks {
            let (part, word, bit) = block::sieve_bit(v6, first.wrapping_add(network << 8));
            parts[part as usize][word] |= 1 << bit;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::image::block_keys;

    fn passes(parts: &[SievePart], v6: bool, first: u32) -> bool {
        let (part, word, bit) = block::sieve_bit(v6, first);
        parts.get(part as usize).is_none_or(|part| part[word] >> bit & 1 == 1)
    }

    fn of(prefixes: &[&str], fill: u32) -> Vec<SievePart> {
        let prefix = |text: &&str| text.parse::<IpNet>().expect("a prefix");
        let more =
            (0..fill).map(|number| IpNet::V4(ipnet::Ipv4Net::new(number.into(), 32).expect("a length")));
        let prefixes: Vec<IpNet> = prefixes.iter().map(prefix).chain(more).collect();
        sieve(&prefixes.iter().flat_map(block_keys).collect::<Vec<_>>())
    }

    #[test]
    fn whatever_is_listed_passes() {
        let parts =
            of(&["198.51.100.128/25", "172.16.0.0/12", "0.0.0.0/0", "2001:db8::/32", "2001:db9:7::/48"], 256);
        let of_v4 = |text: &str| u32::from(text.parse::<std::net::Ipv4Addr>().expect("an address"));
        for inside in ["198.51.100.200", "172.16.0.0", "172.31.255.255", "1.2.3.4", "255.255.255.255"] {
            assert!(passes(&parts, false, of_v4(inside)), "{inside}");
        }
        for first in [0x2001_0db8, 0x2001_0db9] {
            assert!(passes(&parts, true, first), "{first:x}");
        }
    }

    #[test]
    fn most_others_do_not() {
        let parts = of(&["172.16.0.0/12", "2001:db8::/32"], 256);
        let passed = (0x2001_0000..0x2001_ffff).filter(|first| passes(&parts, true, *first)).count();
        assert_eq!(passed, 1, "hashing scatters neighbours");
        for outside in [0xac0f_ffff, 0xac20_0000, 0x0000_0100, 0xffff_ffff] {
            assert!(!passes(&parts, false, outside), "{outside:x}");
        }
        assert!(passes(&of(&["2001::/16"], 256), true, 0x2a00_0000), "a short prefix lets all through");
        assert!(
            passes(&of(&[], 1), false, 0x0101_0101) && passes(&of(&[], 1), false, 7),
            "a short list, too"
        );
    }
}
