//! The IPv4 part ([`netfw_common::block::v4`]).

use ipnet::Ipv4Net;
use netfw_common::block::{
    PAGE, Page,
    v4::{LINE, LINES, NEVER, Part, ROOT_PAGES, TURNS},
};

/// Turns of each line that has another one behind it: an even number, so that the next one begins as the first one did.
const FULL: usize = TURNS - 1;
/// Turns that an index can lead to.
const INDEXED: usize = (TURNS + 1) * FULL;
/// Words of a map.
const MAP: u32 = 1 << 16 >> u32::BITS.ilog2();

/// Lays out sorted prefixes, none of which lies in another.
pub(super) fn lay_out(prefixes: &[Ipv4Net]) -> Vec<Page> {
    if prefixes.is_empty() {
        return Vec::new();
    }
    let (mut listed, turns) = turns(prefixes);
    let mut table = Table { pages: vec![[0; PAGE as usize]; ROOT_PAGES as usize], next: 0, left: 0 };
    let mut rest = turns.as_slice();
    for network in 0..1 << 16 {
        let here = rest.partition_point(|turn| turn >> 16 == network);
        let (turns, others) = rest.split_at(here);
        let part = table.part(listed, turns);
        table.pages[..ROOT_PAGES as usize].as_flattened_mut()[network as usize] = part.word();
        listed ^= turns.len() % 2 == 1;
        rest = others;
    }
    table.pages
}

/// Whether the first of all addresses is listed, and each address after which that changes.
fn turns(prefixes: &[Ipv4Net]) -> (bool, Vec<u32>) {
    let (mut listed, mut turns) = (false, Vec::with_capacity(2 * prefixes.len()));
    for prefix in prefixes {
        match prefix.network().to_bits().checked_sub(1) {
            None => listed = true,
            // Where it follows upon the one before, nothing changes.
            before if turns.last().copied() == before => _ = turns.pop(),
            Some(before) => turns.push(before),
        }
        turns.push(prefix.broadcast().to_bits());
    }
    (listed, turns)
}

struct Table {
    pages: Vec<Page>,
    /// Number of the next line.
    next: u32,
    /// Lines from there to the end of its page.
    left: u32,
}

impl Table {
    /// A /16 with these turns, whose first address is listed or not.
    fn part(&mut self, listed: bool, turns: &[u32]) -> Part {
        let turns: Vec<_> = turns.iter().map(|&turn| turn as u16).filter(|&turn| turn != NEVER).collect();
        match turns.len() {
            0 => Part::Whole(listed),
            count if count <= TURNS => Part::Line(listed, self.lines(&[&turns])),
            count if count <= INDEXED => {
                let lines: Vec<_> = turns.chunks(FULL).collect();
                let index: Vec<_> = lines[..lines.len() - 1].iter().map(|line| line[FULL - 1]).collect();
                Part::Lines(listed, self.lines(&[&[index.as_slice()], lines.as_slice()].concat()))
            }
            _ => Part::Map(self.map(listed, &turns)),
        }
    }

    /// Adds lines, all in one page; the number of the first one.
    fn lines(&mut self, lines: &[&[u16]]) -> u32 {
        let count = lines.len() as u32;
        if self.left < count {
            self.next = self.pages.len() as u32 * LINES;
            self.left = LINES;
            self.pages.push([0; PAGE as usize]);
        }
        let first = self.next;
        for line in lines {
            let words = &mut self.pages.as_flattened_mut()[(self.next * LINE) as usize..][..LINE as usize];
            for (n, word) in words.iter_mut().enumerate() {
                let [low, high] = [2 * n, 2 * n + 1].map(|at| u32::from(*line.get(at).unwrap_or(&NEVER)));
                *word = low | high << 16;
            }
            self.next += 1;
        }
        self.left -= count;
        first
    }

    /// Adds a map; the number of its first page.
    fn map(&mut self, mut listed: bool, turns: &[u16]) -> u32 {
        let first = super::append(&mut self.pages, MAP);
        let words = self.pages[first as usize..].as_flattened_mut();
        let mut turns = turns.iter().peekable();
        for host in 0..=u16::MAX {
            words[usize::from(host) / 32] |= u32::from(listed) << (host % 32);
            listed ^= turns.next_if_eq(&&host).is_some();
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        let prefixes =
            ["192.0.2.1/32", "192.0.2.2/31", "192.0.2.5/32"].map(|text| text.parse().expect("a prefix"));
        assert_eq!(turns(&prefixes), (false, vec![0xc000_0200, 0xc000_0203, 0xc000_0204, 0xc000_0205]));
    }
}
