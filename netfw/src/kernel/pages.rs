//! How a list of blocked prefixes is laid out for the datapath to look things up in ([`netfw_common::block::Page`]).

use anyhow::{Context as _, Result};
use netfw_common::block::{self, BUCKET, KEY_ROOM, Key, Layout, PAGE, Page, SIEVE_PAGES};

/// From so many prefixes on a list has a sieve; a shorter one lies in the processor's cache.
const WORTH_A_SIEVE: usize = 256;
/// Hashes that are tried. With a million keys the first one fails in one of ten million cases.
const SEEDS: u32 = 64;

/// Lays a list out; no key may be in it twice.
///
/// # Errors
/// No hash spreads these keys.
pub(super) fn lay_out(keys: &[Key]) -> Result<(Layout, Vec<Page>)> {
    let mask = keys.len().next_power_of_two() as u32 - 1;
    let (seed, index) = (0..SEEDS)
        .find_map(|seed| Some((seed, index(keys, mask, seed)?)))
        .context("the addresses of [block] cannot be told apart by a hash")?;
    let sieve_pages = if keys.len() < WORTH_A_SIEVE { 0 } else { SIEVE_PAGES };
    let key_pages = sieve_pages + pages_for(index.len());
    let layout = Layout { index: sieve_pages, keys: key_pages, mask, seed };
    let mut pages =
        vec![[0; PAGE as usize]; (key_pages + pages_for(keys.len() * KEY_ROOM as usize)) as usize];
    if sieve_pages > 0 {
        sieve(keys, &mut pages);
    }
    let (_, words) = pages.as_flattened_mut().split_at_mut((sieve_pages * PAGE) as usize);
    words[..index.len()].copy_from_slice(&index);
    place(keys, &layout, index, &mut words[((key_pages - sieve_pages) * PAGE) as usize..]);
    Ok((layout, pages))
}

fn pages_for(words: usize) -> u32 {
    words.div_ceil(PAGE as usize) as u32
}

/// The words of the index; none where a bucket would be too full.
fn index(keys: &[Key], mask: u32, seed: u32) -> Option<Vec<u32>> {
    let mut words = vec![0_u32; mask as usize + 1];
    for key in keys {
        words[(block::hash(key, seed) & mask) as usize] += 1;
    }
    let mut first = 0;
    for word in &mut words {
        let count = *word;
        if count > BUCKET {
            return None;
        }
        *word = block::index_word(first, count);
        first += count;
    }
    Some(words)
}

/// Puts each key into its bucket; `next` is the index, in which the free places are counted.
fn place(keys: &[Key], layout: &Layout, mut next: Vec<u32>, words: &mut [u32]) {
    for key in keys {
        let bucket = &mut next[(block::hash(key, layout.seed) & layout.mask) as usize];
        let (first, _) = block::keys_of(*bucket);
        *bucket = block::index_word(first + 1, 0);
        let place = (first * KEY_ROOM) as usize;
        words[place..place + key.len()].copy_from_slice(key);
    }
}

/// Everything that these prefixes hold has its bit in it.
fn sieve(keys: &[Key], pages: &mut [Page]) {
    for key in keys {
        let ([first, ..], length, v6) = block::prefix(key);
        let first = u32::from_be(first);
        if v6 && length < 32 {
            // Its addresses are everywhere.
            pages[SIEVE_PAGES as usize / 2..SIEVE_PAGES as usize].fill([u32::MAX; PAGE as usize]);
            continue;
        }
        let networks = if v6 { 1 } else { 1 << 24_u32.saturating_sub(length) };
        for network in 0..networks {
            let (page, word, bit) = block::sieve_bit(v6, first.wrapping_add(network << 8));
            pages[page as usize][word as usize] |= 1 << bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::image::block_keys;

    /// A list as the datapath asks it.
    struct List(Layout, Vec<Page>);

    impl List {
        fn of(keys: &[Key]) -> Self {
            let (layout, pages) = lay_out(keys).expect("a list");
            Self(layout, pages)
        }

        fn passes(&self, v6: bool, first: u32) -> bool {
            block::passes(&self.0, v6, first, |page| self.1.get(page as usize))
        }

        fn lists(&self, key: &Key) -> bool {
            block::lists(&self.0, key, |page| self.1.get(page as usize))
        }
    }

    fn keys(prefixes: &[&str], more: u32) -> Vec<Key> {
        let prefix = |text: &&str| text.parse::<IpNet>().expect("a prefix");
        let more =
            (0..more).map(|number| IpNet::V4(ipnet::Ipv4Net::new(number.into(), 32).expect("a length")));
        let prefixes: Vec<IpNet> = prefixes.iter().map(prefix).chain(more).collect();
        prefixes.iter().flat_map(block_keys).collect()
    }

    #[test]
    fn the_sieve_passes_whatever_is_listed() {
        let prefixes =
            ["198.51.100.128/25", "172.16.0.0/12", "0.0.0.0/0", "2001:db8::/32", "2001:db9:7::/48"];
        let list = List::of(&keys(&prefixes, 256));
        let of_v4 = |text: &str| u32::from(text.parse::<std::net::Ipv4Addr>().expect("an address"));
        for inside in ["198.51.100.200", "172.16.0.0", "172.31.255.255", "1.2.3.4", "255.255.255.255"] {
            assert!(list.passes(false, of_v4(inside)), "{inside}");
        }
        for first in [0x2001_0db8, 0x2001_0db9] {
            assert!(list.passes(true, first), "{first:x}");
        }
    }

    #[test]
    fn the_sieve_stops_most_others() {
        let list = List::of(&keys(&["172.16.0.0/12", "2001:db8::/32"], 256));
        let passed = (0x2001_0000..0x2001_ffff).filter(|first| list.passes(true, *first)).count();
        assert_eq!(passed, 1, "hashing scatters neighbours");
        for outside in [0xac0f_ffff, 0xac20_0000, 0x0000_0100, 0xffff_ffff] {
            assert!(!list.passes(false, outside), "{outside:x}");
        }
        let short_prefix = List::of(&keys(&["2001::/16"], 256));
        assert!(short_prefix.passes(true, 0x2a00_0000), "a short prefix lets all through");
        let short = List::of(&keys(&[], 1));
        assert!(short.passes(false, 0x0101_0101) && short.passes(false, 7), "a short list, too");
    }

    #[test]
    fn an_empty_list_lists_nothing() {
        let list = List::of(&[]);
        assert!(keys(&["192.0.2.0/24", "2001:db8::/32"], 9).iter().all(|key| !list.lists(key)));
    }

    #[test]
    fn a_long_list_lists_its_keys_and_no_others() {
        let (listed, others) = keys(&[], 100_000).into_iter().partition::<Vec<_>, _>(|key| {
            let ([first, ..], ..) = block::prefix(key);
            u32::from_be(first).is_multiple_of(3)
        });
        let list = List::of(&listed);
        assert!(listed.iter().all(|key| list.lists(key)));
        assert!(!others.iter().any(|key| list.lists(key)));
    }

    proptest! {
        #[test]
        fn a_list_is_the_set_of_its_keys(keys: Vec<Key>, others: Vec<Key>) {
            let keys: std::collections::BTreeSet<Key> = keys.into_iter().collect();
            let list = List::of(&keys.iter().copied().collect::<Vec<_>>());
            prop_assert!(keys.iter().all(|key| list.lists(key)));
            for other in others {
                prop_assert_eq!(list.lists(&other), keys.contains(&other));
            }
        }
    }
}
