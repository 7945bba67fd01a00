//! The IPv4 part of a list: an exact table of addresses. Whatever lengths are listed, and however many prefixes, an address
//! costs two or three steps from the root.
//!
//! As in DIR-24-8 (Gupta, Lin and McKeown 1998) a /24 is found by index, and what is longer lies behind it. As in Poptrie (Asai
//! and Ohara 2015) what there is beside it is not stored: how many bits are set before its own says where it lies.
//!
//! - The *root* has a word for each /11: the page of its nodes.
//! - A *node* stands for 32 /24s: a bit for each that is listed as a whole, a bit for each of which a part is, and the number of
//!   the first one's leaf.
//! - A *leaf* is the part of a /24 that is listed, as most often, from one address to another; or the number of its map. So a
//!   million prefixes that lie far apart take four megabytes, and have a chance to stay in the processor's cache.
//! - A *map* has a bit for each address of a /24.

use super::{Layout, PAGE, Page, word_of};

/// Pages of the root, which come first.
pub const ROOT_PAGES: u32 = 2;
/// The page of nodes where nothing is listed.
pub const NOTHING: u32 = ROOT_PAGES;
/// The page of nodes where everything is.
pub const EVERYTHING: u32 = ROOT_PAGES + 1;
/// The first page of other nodes.
pub const NODES: u32 = ROOT_PAGES + 2;

/// Words of a node: bits of the whole /24s, bits of the others, the first leaf, and one to fill it up.
pub const NODE: u32 = 4;
/// Words of a map.
pub const MAP: u32 = 8;
/// Set in a leaf that is the number of a map.
const MAPPED: u32 = 1 << 31;

/// Place of an address's group in the root.
#[inline(always)]
pub fn group(address: u32) -> u32 {
    address >> 21
}

/// Place in its page of the first word of an address's node, and the bit of its /24 there.
#[inline(always)]
pub fn node(address: u32) -> (u32, u32) {
    ((address >> 13) * NODE % PAGE, address >> 8 & 31)
}

/// Which of the leaves of a node is that of the /24 with this bit.
#[inline(always)]
fn rank(partly: u32, bit: u32) -> u32 {
    (partly & ((1 << bit) - 1)).count_ones()
}

/// What a leaf says of a /24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is listed from this address to that one, the last bytes of both.
    Range(u32, u32),
    /// Its map has this number.
    Map(u32),
}

impl Part {
    /// As a leaf.
    pub fn leaf(self) -> u32 {
        match self {
            Self::Range(first, last) => first | last << 8,
            Self::Map(number) => number | MAPPED,
        }
    }

    /// The reverse.
    #[inline(always)]
    pub fn of(leaf: u32) -> Self {
        if leaf & MAPPED == 0 { Self::Range(leaf & 0xff, leaf >> 8) } else { Self::Map(leaf & !MAPPED) }
    }
}

/// Whether the list has a prefix around the address, a number.
#[inline(always)]
pub fn lists<'p>(layout: &Layout, address: u32, page: impl Fn(u32) -> Option<&'p Page>) -> bool {
    if layout.leaves == 0 {
        return false;
    }
    let group = group(address);
    let nodes = page(word_of(page(group / PAGE), group));
    let (place, bit) = node(address);
    if word_of(nodes, place) >> bit & 1 == 1 {
        return true;
    }
    let partly = word_of(nodes, place + 1);
    if partly >> bit & 1 == 0 {
        return false;
    }
    let leaf = word_of(nodes, place + 2) + rank(partly, bit);
    let host = address & 0xff;
    match Part::of(word_of(page(layout.leaves + leaf / PAGE), leaf)) {
        Part::Range(first, last) => first <= host && host <= last,
        Part::Map(number) => {
            let word = number * MAP + host / 32;
            word_of(page(layout.maps + word / PAGE), word) >> (host & 31) & 1 == 1
        }
    }
}
