//! The IPv4 part of a list: where in each /16 the list begins and ends to hold. Whatever lengths are listed, and however many
//! prefixes, an address costs one look at a root that stays in the processor's cache, and most often one cache line.
//!
//! Ranges instead of prefixes, found by the first bits and then by halving, are those of DXR (Zec, Rizzo and Mikuc 2012).
//!
//! - The *root* has a word for each /16 ([`Part`]).
//! - A *line*, as long as a cache line, has the *turns* of some addresses in their order: the last addresses before what is said of
//!   them turns into its opposite. Its last half word tells whether the first of them is listed.
//! - A /16 of more turns is cut into equal parts, with a line each.
//! - One whose turns are too unequally spread for that has a line that tells which of the lines behind it has those around an
//!   address: another wait for memory.
//! - A /16 of still more has a *map*, with a bit for each of its addresses.

use super::{Layout, PAGE, Page, word_of};

/// Pages of the root.
pub const ROOT_PAGES: u32 = 1 << 16 >> PAGE.ilog2();

/// Words of a line.
pub const LINE: u32 = 16;
/// Lines of a page.
pub const LINES: u32 = PAGE / LINE;
/// Turns that a line can have: as far as the search counts.
pub const TURNS: usize = 2 * LINE as usize - 1;
/// What fills a line up: no address of a /16 comes after its last one.
pub const NEVER: u16 = u16::MAX;

/// What the list says of a /16, as a word of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Whether it is listed as a whole.
    Whole(bool),
    /// The number of the first of its lines, all in one page, and log2 of how many equal parts have one, at most [`CUT`].
    Cut(u32, u32),
    /// The number of the line that tells, by how many of its turns come before an address, which of those behind it, in the same page,
    /// has the turns there.
    Lines(u32),
    /// The number of the first page of its map.
    Map(u32),
}

/// log2 of the most parts that a /16 is cut into: as many as a page has lines.
pub const CUT: u32 = LINES.ilog2();

/// Set where the whole is listed.
const LISTED: u32 = 1 << 31;
/// Set where lines lie behind the line.
const LINES_BEHIND: u32 = 1 << 30;
/// Set where the number is that of a map.
const MAPPED: u32 = 1 << 29;
/// Where log2 of the parts stands, in three bits.
const CUT_SHIFT: u32 = 26;
/// The bits of the number; 0, where the head lies, stands for none.
const NUMBER: u32 = (1 << CUT_SHIFT) - 1;

impl Part {
    /// As a word.
    pub fn word(self) -> u32 {
        match self {
            Self::Whole(false) => 0,
            Self::Whole(true) => LISTED,
            Self::Cut(line, parts) => parts << CUT_SHIFT | line,
            Self::Lines(index) => LINES_BEHIND | index,
            Self::Map(page) => MAPPED | page,
        }
    }
}

/// Whether the list has a prefix around the address, a number.
#[inline(always)]
pub fn lists<'p>(layout: &Layout, address: u32, page: impl Fn(u32) -> Option<&'p Page>) -> bool {
    if layout.root == 0 {
        return false;
    }
    let (network, host) = (address >> 16, address & 0xffff);
    let part = word_of(page(layout.root + network / PAGE), network);
    let number = part & NUMBER;
    if number == 0 {
        return part == LISTED;
    }
    if part & MAPPED != 0 {
        let word = host / 32;
        return word_of(page(number + word / PAGE), word) >> (host & 31) & 1 == 1;
    }
    let lines = page(number / LINES);
    let mut line = number % LINES + (host >> (16 - (part >> CUT_SHIFT & 7)));
    if part & LINES_BEHIND != 0 {
        line += 1 + turns_before(lines, line, host);
    }
    let first = word_of(lines, line * LINE + LINE - 1) >> 16;
    (first + turns_before(lines, line, host)) & 1 == 1
}

/// How many turns of a line come before an address of the /16. Without a branch, which the processor would guess wrong, and the
/// verifier follow both ways.
#[inline(always)]
fn turns_before(page: Option<&Page>, line: u32, host: u32) -> u32 {
    let mut before = 0;
    for step in [16, 8, 4, 2, 1] {
        let at = before + step - 1;
        let turn = word_of(page, line * LINE + at / 2) >> (16 * (at & 1)) & 0xffff;
        before += step * (turn.wrapping_sub(host) >> 31);
    }
    before
}
