//! The IPv4 part ([`netfw_common::block::v4`]).

use std::{collections::BTreeSet, net::Ipv4Addr, sync::atomic::AtomicU32};

use ipnet::{IpNet, Ipv4Net};
use netfw_common::block::{
    PAGE, Page,
    v4::{CUT, LINE, LINES, NEVER, Part, ROOT_PAGES, TURNS},
};

use super::{
    append,
    patch::{Room, load, store},
};

/// Networks of 16 bits, for each of which the root has a word.
const NETWORKS: u32 = ROOT_PAGES * PAGE;
/// Turns that an index can lead to.
const INDEXED: usize = (TURNS + 1) * TURNS;
/// How many times the lines that an index would take those of equal parts may be: a wait for memory is worth that.
const WORTH: usize = 4;
/// Words of a map.
const MAP: u32 = 1 << 16 >> u32::BITS.ilog2();

/// Adds the pages of sorted prefixes, none of which lies in another; the first one of the root, 0 without prefixes.
pub(super) fn lay_out(prefixes: &[Ipv4Net], pages: &mut Vec<Page>) -> u32 {
    if prefixes.is_empty() {
        return 0;
    }
    let root = append(pages, NETWORKS);
    let mut parts = Parts { first: 0, pages, next: 0, left: 0, turns: Vec::new() };
    let mut rest = prefixes;
    let mut part = |network| {
        let here = rest.iter().take_while(|prefix| prefix.network().to_bits() >> 16 <= network).count();
        let goes_on = |prefix: &&Ipv4Net| prefix.broadcast().to_bits() >> 16 > network;
        let part = parts.part(network, &rest[..here]);
        rest = &rest[here - rest[..here].last().filter(goes_on).map_or(0, |_| 1)..];
        part.word()
    };
    let words: Vec<u32> = (0..NETWORKS).map(&mut part).collect();
    pages[root as usize..].as_flattened_mut()[..words.len()].copy_from_slice(&words);
    root
}

/// Writes the root of a list that differs in these prefixes, at `place`, and what it does not share with the one at `root`.
pub(super) fn patch(
    pages: &[AtomicU32],
    room: &mut Room,
    [root, place]: [u32; 2],
    list: &[IpNet],
    differences: &[Ipv4Net],
) -> Option<u32> {
    if differences.is_empty() {
        return Some(root);
    }
    if root == 0 {
        return None;
    }
    let networks = |prefix: &Ipv4Net| prefix.network().to_bits() >> 16..=prefix.broadcast().to_bits() >> 16;
    let changed: BTreeSet<u32> = differences.iter().flat_map(networks).collect();
    let mut new = Vec::new();
    let mut parts = Parts { first: room.next, pages: &mut new, next: 0, left: 0, turns: Vec::new() };
    let changed = changed.into_iter().map(|network| (network, parts.part(network, &around(list, network))));
    let changed: Vec<_> = changed.collect();
    let first = room.take(new.len() as u32)?;
    for (at, word) in (first * PAGE..).zip(new.as_flattened()) {
        store(pages, at, *word)?;
    }
    for network in 0..NETWORKS {
        store(pages, place * PAGE + network, load(pages, root * PAGE + network)?)?;
    }
    for (network, part) in changed {
        store(pages, place * PAGE + network, part.word())?;
    }
    Some(place)
}

/// The prefixes of a list that lie in a /16, or it in them.
fn around(list: &[IpNet], network: u32) -> Vec<Ipv4Net> {
    let [first, last] = [network << 16, network << 16 | 0xffff].map(Ipv4Addr::from_bits);
    let from = list.partition_point(|prefix| prefix.broadcast() < first);
    let until = list.partition_point(|prefix| prefix.network() <= last);
    let is_v4 = |prefix: &IpNet| if let IpNet::V4(prefix) = prefix { Some(*prefix) } else { None };
    list[from..until].iter().filter_map(is_v4).collect()
}

/// Lines and maps in pages, of which the first one has the number `first`.
struct Parts<'p> {
    first: u32,
    pages: &'p mut Vec<Page>,
    /// The next line of the last page.
    next: u32,
    /// Lines from there to the end of its page.
    left: u32,
    /// Room for those of a /16.
    turns: Vec<u16>,
}

impl Parts<'_> {
    /// A /16 with these prefixes, in their order; of the first and the last a part may lie outside.
    fn part(&mut self, network: u32, prefixes: &[Ipv4Net]) -> Part {
        let mut turns = std::mem::take(&mut self.turns);
        let listed = fill(&mut turns, network, prefixes);
        let part = self.place(listed, &turns);
        self.turns = turns;
        part
    }

    /// A /16 with these turns, whose first address is listed or not.
    fn place(&mut self, listed: bool, turns: &[u16]) -> Part {
        if turns.is_empty() {
            return Part::Whole(listed);
        }
        let most = WORTH * turns.len().div_ceil(TURNS);
        let cuts = (0..=CUT).take_while(|cut| 1 << cut <= most);
        if let Some((cut, parts)) =
            cuts.map(|cut| (cut, equal_parts(turns, cut))).find(|(_, parts)| fit(parts))
        {
            return Part::Cut(self.lines(&sequence(listed, parts)), cut);
        }
        if turns.len() > INDEXED {
            return Part::Map(self.map(listed, turns));
        }
        let lines = sequence(listed, turns.chunks(TURNS).collect());
        let ends = lines.iter().filter_map(|line| line.turns.last().copied());
        let index: Vec<_> = ends.take(lines.len() - 1).collect();
        Part::Lines(self.lines(&[vec![Line { listed: false, turns: &index }], lines].concat()))
    }

    /// Adds lines, all in one page; the number of the first one.
    fn lines(&mut self, lines: &[Line]) -> u32 {
        let count = lines.len() as u32;
        if self.left < count {
            self.next = self.pages.len() as u32 * LINES;
            self.left = LINES;
            self.pages.push([0; PAGE as usize]);
        }
        let first = self.next;
        for line in lines {
            let words = &mut self.pages.as_flattened_mut()[(self.next * LINE) as usize..][..LINE as usize];
            line.write(words);
            self.next += 1;
        }
        self.left -= count;
        self.first * LINES + first
    }

    /// Adds a map; the number of its first page.
    fn map(&mut self, mut listed: bool, turns: &[u16]) -> u32 {
        let first = append(self.pages, MAP);
        let words = self.pages[first as usize..].as_flattened_mut();
        let mut turns = turns.iter().peekable();
        for host in 0..=u16::MAX {
            words[usize::from(host) / 32] |= u32::from(listed) << (host % 32);
            listed ^= turns.next_if_eq(&&host).is_some();
        }
        self.first + first
    }
}

/// What a line says of its addresses.
#[derive(Clone, Copy)]
struct Line<'t> {
    /// Whether the first one is listed.
    listed: bool,
    turns: &'t [u16],
}

impl Line<'_> {
    fn write(&self, words: &mut [u32]) {
        let half = |at: usize| match at {
            TURNS => self.listed.into(),
            _ => u32::from(*self.turns.get(at).unwrap_or(&NEVER)),
        };
        for (n, word) in words.iter_mut().enumerate() {
            *word = half(2 * n) | half(2 * n + 1) << 16;
        }
    }
}

/// Lines of which each goes on where the one before ends.
fn sequence<'t>(first: bool, turns: Vec<&'t [u16]>) -> Vec<Line<'t>> {
    let lines = turns.into_iter().scan(first, |listed, turns| {
        let line = Line { listed: *listed, turns };
        *listed ^= turns.len() % 2 == 1;
        Some(line)
    });
    lines.collect()
}

/// The turns in each of `2^cut` equal parts of a /16.
fn equal_parts(turns: &[u16], cut: u32) -> Vec<&[u16]> {
    let before = |part: usize| turns.partition_point(|turn| usize::from(*turn) >> (16 - cut) < part);
    (0..1 << cut).map(|part| &turns[before(part)..before(part + 1)]).collect()
}

fn fit(parts: &[&[u16]]) -> bool {
    parts.iter().all(|part| part.len() <= TURNS)
}

/// The turns of a /16 with these prefixes; whether its first address is listed.
fn fill(turns: &mut Vec<u16>, network: u32, prefixes: &[Ipv4Net]) -> bool {
    let start = network << 16;
    let mut listed = false;
    turns.clear();
    for prefix in prefixes {
        let first = prefix.network().to_bits().saturating_sub(start) as u16;
        match first.checked_sub(1) {
            None => listed = true,
            // Where it follows upon the one before, nothing changes.
            before if turns.last().copied() == before => _ = turns.pop(),
            Some(before) => turns.push(before),
        }
        let last = prefix.broadcast().to_bits().min(start | 0xffff) as u16;
        turns.extend((last != NEVER).then_some(last));
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(network: u32, prefixes: &[&str]) -> (bool, Vec<u16>) {
        let prefixes: Vec<_> = prefixes.iter().map(|text| text.parse().expect("a prefix")).collect();
        let mut turns = vec![7];
        (fill(&mut turns, network, &prefixes), turns)
    }

    #[test]
    fn neighbours_are_one_range() {
        let prefixes = ["192.0.2.1/32", "192.0.2.2/31", "192.0.2.5/32"];
        assert_eq!(turns(0xc000, &prefixes), (false, vec![0x200, 0x203, 0x204, 0x205]));
    }

    fn placed(turns: &[u16]) -> (Part, Vec<Page>) {
        let mut pages = vec![[0; PAGE as usize]];
        let part =
            Parts { first: 0, pages: &mut pages, next: 0, left: 0, turns: Vec::new() }.place(true, turns);
        (part, pages)
    }

    #[test]
    fn turns_are_laid_out_as_they_are_spread() {
        let every =
            |step: usize, count: usize| -> Vec<u16> { (0..count).map(|nth| (nth * step) as u16).collect() };
        assert_eq!(placed(&[]).0, Part::Whole(true));
        assert_eq!(placed(&every(1, TURNS)).0, Part::Cut(LINES, 0));
        assert_eq!(placed(&every(128, 512)).0, Part::Cut(LINES, 5));
        assert_eq!(placed(&every(1, TURNS + 1)).0, Part::Lines(LINES));
        assert_eq!(placed(&every(1, INDEXED)).0, Part::Lines(LINES));
        assert_eq!(placed(&every(1, INDEXED + 1)).0, Part::Map(1));
        assert_eq!(placed(&every(32, 2048)).0, Part::Map(1));
    }

    #[test]
    fn a_line_says_what_holds_of_its_first_address() {
        let (part, pages) = placed(&[5, 0x8000, 0x8001]);
        assert_eq!(part, Part::Cut(LINES, 0));
        assert_eq!(pages[1][LINE as usize - 1], 1 << 16 | u32::from(NEVER));
        let parts = equal_parts(&[5, 0x7fff, 0x8000, 0x8001], 1);
        assert_eq!(parts, [&[5, 0x7fff][..], &[0x8000, 0x8001]]);
        let listed: Vec<_> =
            sequence(true, vec![&[5], &[9, 10], &[]]).iter().map(|line| line.listed).collect();
        assert_eq!(listed, [true, false, false]);
    }

    #[test]
    fn what_lies_outside_does_not_turn() {
        assert_eq!(turns(0xc000, &["192.0.0.0/15"]), (true, vec![]));
        assert_eq!(turns(0xc001, &["192.0.0.0/15", "192.2.0.0/16"][..1]), (true, vec![]));
        assert_eq!(turns(0xc000, &["192.0.0.0/31", "192.0.255.255/32"]), (true, vec![1, 0xfffe]));
    }
}
