//! The IPv6 part ([`netfw_common::block::v6`]).

mod patch;

use anyhow::{Context as _, Result};
use ipnet::Ipv6Net;
use netfw_common::{
    block::{
        self, Key, Lengths, Page,
        v6::{self, BUCKET, KEY_ROOM, Layout, NEVER},
    },
    family::Addr6,
};

pub(super) use self::patch::patch;
use super::append;
use crate::image::block_keys;

/// Hashes that are tried. With a million keys the first one fails in one of ten million cases.
const SEEDS: u32 = 64;
/// Cells of the sieve for each key: with four an address meets a length of somebody else's in one of five cases.
const CELLS: usize = 4;

/// Adds the pages of these prefixes.
///
/// # Errors
/// No hash spreads them.
pub(super) fn lay_out(prefixes: &[Ipv6Net], pages: &mut Vec<Page>) -> Result<Layout> {
    let keys: Vec<Key> = prefixes.iter().flat_map(|&prefix| block_keys(&prefix.into())).collect();
    if keys.is_empty() {
        return Ok(Layout::default());
    }
    let mask = keys.len().next_power_of_two() as u32 - 1;
    let mut layout = Layout { lengths: lengths(&keys).v6, mask, ..Layout::default() };
    layout.cells = (CELLS * keys.len()) as u32;
    [layout.sieve, layout.index, layout.keys] =
        [layout.cells, mask + 1, keys.len() as u32 * KEY_ROOM].map(|words| append(pages, words));
    let [_, sieve, index, places] =
        parts(pages, [layout.sieve, layout.index, layout.keys].map(|page| page as usize));
    layout.seed = (0..SEEDS)
        .find(|seed| fill_index(index, &keys, mask, *seed))
        .context("the addresses of [block] cannot be told apart by a hash")?;
    fill_sieve(sieve, &keys, &layout);
    fill_places(places, &keys, &layout, index);
    Ok(layout)
}

/// The words of all pages, parted where these begin.
fn parts(pages: &mut [Page], [one, two, three]: [usize; 3]) -> [&mut [u32]; 4] {
    let (first, rest) = pages.split_at_mut(one);
    let (second, rest) = rest.split_at_mut(two - one);
    let (third, fourth) = rest.split_at_mut(three - two);
    [first, second, third, fourth].map(<[Page]>::as_flattened_mut)
}

fn lengths(keys: &[Key]) -> Lengths {
    let mut lengths = Lengths::default();
    for key in keys {
        let (_, length, v6) = block::prefix(key);
        lengths.insert(v6, length);
    }
    lengths
}

/// Says of each bucket where its keys begin and how many they are; `false` where one would be too full.
fn fill_index(words: &mut [u32], keys: &[Key], mask: u32, seed: u32) -> bool {
    words.fill(0);
    for key in keys {
        words[(v6::hash(key, seed) & mask) as usize] += 1;
    }
    let mut first = 0;
    for word in words {
        let count = *word;
        if count > BUCKET {
            return false;
        }
        *word = v6::index_word(first, count);
        first += count;
    }
    true
}

/// Puts each key into its bucket.
fn fill_places(words: &mut [u32], keys: &[Key], layout: &Layout, index: &[u32]) {
    // The places that are free yet.
    let mut next = index.to_vec();
    for key in keys {
        let bucket = &mut next[(v6::hash(key, layout.seed) & layout.mask) as usize];
        let (first, _) = v6::keys_of(*bucket);
        *bucket = v6::index_word(first + 1, 0);
        let place = (first * KEY_ROOM) as usize;
        words[place..place + KEY_ROOM as usize].copy_from_slice(&entry(key, 0));
    }
}

/// What a key's room holds when a version has it for the first time.
fn entry(key: &Key, since: u32) -> Entry {
    let [a, b, c, d, e] = *key;
    [a, b, c, d, e, since, NEVER, 0]
}

type Entry = [u32; KEY_ROOM as usize];

/// Notes each length where its prefixes are; one whose /32s would fill all cells anyway, in all of them.
fn fill_sieve(cells: &mut [u32], keys: &[Key], layout: &Layout) {
    let room = layout.cells as usize;
    let mut short = [0_usize; 32];
    for key in keys {
        let (_, length, _) = block::prefix(key);
        short.get_mut(length as usize).into_iter().for_each(|count| *count += 1);
    }
    let fills = |length: u32| short.get(length as usize).is_some_and(|count| count << (32 - length) >= room);
    for length in (1..32).filter(|&length| fills(length)) {
        cells.iter_mut().for_each(|cell| *cell |= 1 << v6::bit(length));
    }
    for key in keys {
        let (address, length, _) = block::prefix(key);
        if !fills(length) {
            each_cell(layout, address, length, |cell| cells[cell as usize] |= 1 << v6::bit(length));
        }
    }
}

/// The cells of the /32s in a prefix, or of the network in which it lies.
fn each_cell(layout: &Layout, address: Addr6, length: u32, mut note: impl FnMut(u32)) {
    let [first, second, ..] = address;
    for number in 0..1 << 32_u32.saturating_sub(length) {
        let first = (u32::from_be(first) | number).to_be();
        note(v6::cell(layout, &[first, second, 0, 0], (length - 1) / 64));
    }
}
