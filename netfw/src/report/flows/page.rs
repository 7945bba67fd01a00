//! A part of a long list, in order, without holding the whole of it.

use std::{cmp::Ordering, collections::BinaryHeap};

use netfw_common::tick::Tick;

use super::filter::{Rank, Sort};
use crate::kernel::Pair;

/// Which part of the list is wanted, in which order.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The order.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// How many flows to leave out at first.
    pub offset: usize,
    /// How many to show at most.
    pub limit: usize,
}

/// Keeps the flows that stand on the page, and counts all.
pub struct Page {
    wanted: Wanted,
    now: Tick,
    /// The last one on the page is on top.
    kept: BinaryHeap<Ranked>,
    total: usize,
}

struct Ranked {
    rank: Rank,
    pair: Pair,
}

impl Page {
    /// An empty page.
    pub fn new(wanted: Wanted, now: Tick) -> Self {
        Self { wanted, now, kept: BinaryHeap::new(), total: 0 }
    }

    /// Takes one more flow into account.
    pub fn add(&mut self, pair: &Pair) {
        self.total += 1;
        let room = self.wanted.offset.saturating_add(self.wanted.limit);
        let rank = self.wanted.sort.rank(pair, self.now, self.wanted.reverse);
        if self.kept.len() < room {
            self.kept.push(Ranked { rank, pair: *pair });
        } else if let Some(mut last) = self.kept.peek_mut()
            && rank < last.rank
        {
            *last = Ranked { rank, pair: *pair };
        }
    }

    /// How many were added.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The page.
    pub fn into_flows(self) -> Vec<Pair> {
        let all = self.kept.into_sorted_vec().into_iter().map(|ranked| ranked.pair);
        all.skip(self.wanted.offset).collect()
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

#[cfg(test)]
mod tests {
    use netfw_common::{flow::Flow, tuple::Tuple};
    use proptest::prelude::*;

    use super::*;

    fn pair(bytes: u64, port: u16) -> Pair {
        let key = Tuple { source_port: port, ..Tuple::default() };
        Pair::for_test(false, key, Flow { bytes, ..Flow::default() })
    }

    proptest! {
        /// A page is the same part of the list as one would cut out of all flows, sorted.
        #[test]
        fn a_page_is_cut_out_of_the_sorted_list(
            bytes in proptest::collection::vec(0_u64..50, 0..60),
            offset in 0_usize..70,
            limit in 0_usize..70,
            reverse: bool,
        ) {
            let mut page = Page::new(Wanted { sort: Sort::Bytes, reverse, offset, limit }, Tick(0));
            let mut all: Vec<(u64, u16)> = bytes.into_iter().zip(1..).collect();
            all.iter().for_each(|&(bytes, port)| page.add(&pair(bytes, port)));
            prop_assert_eq!(page.total(), all.len());
            all.sort_by_key(|&(bytes, port)| (u64::MAX - bytes, port));
            if reverse {
                all.reverse();
            }
            let shown = page.into_flows();
            let shown: Vec<_> = shown.iter().map(|pair| (pair.original.bytes, pair.key.source_port)).collect();
            let expected: Vec<_> = all.into_iter().skip(offset).take(limit).collect();
            prop_assert_eq!(shown, expected);
        }
    }
}
