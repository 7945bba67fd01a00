//! A list that differs little from one that lies in pages, made in the same pages while packets read them.

use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use netfw_common::block::{Layout, PAGE, v4::ROOT_PAGES};

use super::{NEXT, ROOTS, SPARE, VERSION, families, v4, v6};

/// Differences up to which it is the quicker way.
const MOST: usize = 1 << 14;

/// Pages that nothing lies in yet.
pub(super) struct Room {
    /// The first one.
    pub(super) next: u32,
    end: u32,
}

impl Room {
    /// Takes as many pages; the number of the first one.
    pub(super) fn take(&mut self, pages: u32) -> Option<u32> {
        let first = self.next;
        self.next = first.checked_add(pages).filter(|next| *next <= self.end)?;
        Some(first)
    }
}

/// The word at `at`, counted over all pages.
pub(super) fn load(pages: &[AtomicU32], at: u32) -> Option<u32> {
    Some(pages.get(at as usize)?.load(Ordering::Relaxed))
}

/// Writes a word: whoever reads it sees also what was written before.
pub(super) fn store(pages: &[AtomicU32], at: u32, word: u32) -> Option<()> {
    pages.get(at as usize)?.store(word, Ordering::Release);
    Some(())
}

/// Makes of the list `old`, which lies in these pages, the list `new`. All that are `kept` in the pages stay as they are. `None`:
/// the new one has to be laid out anew.
pub(in crate::kernel) fn patch(
    pages: &[AtomicU32],
    layout: Layout,
    kept: &[Layout],
    [old, new]: [&[IpNet]; 2],
) -> Option<Layout> {
    let (next, version, spare) = (load(pages, NEXT)?, load(pages, VERSION)?, load(pages, SPARE)?);
    let mut room = Room { next, end: pages.len() as u32 / PAGE };
    // Where another one has followed upon it, what that one has changed must not come back.
    if room.next > room.end || version != layout.v6.version {
        return None;
    }
    let differences = differences(old, new)?;
    // First of all: whoever is killed on the way leaves pages that are never changed again.
    store(pages, VERSION, version + 1)?;
    let [(gone4, gone6), (come4, come6)] = differences.map(|networks| families(&networks));
    let mut places = (0..ROOTS).map(|nth| spare + nth * ROOT_PAGES).chain([1]);
    let place = places.find(|place| kept.iter().all(|list| list.root != *place))?;
    let root = v4::patch(pages, &mut room, [layout.root, place], new, &[gone4, come4].concat())?;
    let oldest = kept.iter().map(|list| list.v6.version).min().unwrap_or(version);
    let v6 = v6::patch(pages, &mut room, layout.v6, oldest, [&gone6, &come6])?;
    store(pages, NEXT, room.next)?;
    Some(Layout { root, v6 })
}

/// What only the one and only the other of two sorted lists has, if that is not too much.
fn differences(mut old: &[IpNet], mut new: &[IpNet]) -> Option<[Vec<IpNet>; 2]> {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    while gone.len() + come.len() <= MOST {
        let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        (old, new) = (&old[same..], &new[same..]);
        match (old, new) {
            ([], []) => return Some([gone, come]),
            ([one, rest @ ..], other) if other.first().is_none_or(|other| one < other) => {
                gone.push(*one);
                old = rest;
            }
            (_, [other, rest @ ..]) => {
                come.push(*other);
                new = rest;
            }
            (_, []) => unreachable!("whatever is left of the old ones comes before nothing"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use netfw_common::{block::Page, image::SLOTS};
    use proptest::prelude::*;

    use super::{
        super::{
            Pages, lay_out,
            tests::{List, check, edges, joined, some_prefix},
        },
        *,
    };

    /// Lists that lie in the same pages, the newest one last: as many as there are slots.
    struct Lists {
        pages: Vec<AtomicU32>,
        lists: Vec<(Layout, Vec<IpNet>)>,
    }

    impl Lists {
        fn of(prefixes: &[IpNet], room: u32) -> Self {
            let prefixes = joined(prefixes);
            let Pages { layout, mut pages, .. } = lay_out(&prefixes).expect("a list");
            let length = pages.len() + (ROOTS * ROOT_PAGES + room) as usize;
            pages.resize(length, [0; PAGE as usize]);
            let pages = pages.as_flattened().iter().map(|word| AtomicU32::new(*word)).collect();
            Self { pages, lists: vec![(layout, prefixes)] }
        }

        /// Makes the next list of the newest one.
        fn change(&mut self, prefixes: &[IpNet]) -> Option<()> {
            let prefixes = joined(prefixes);
            let (layout, newest) = self.lists.last()?;
            let oldest = self.lists.len().saturating_sub(SLOTS as usize - 1);
            let kept: Vec<Layout> = self.lists[oldest..].iter().map(|(layout, _)| *layout).collect();
            let layout = patch(&self.pages, *layout, &kept, [newest, &prefixes])?;
            self.lists.drain(..oldest);
            self.lists.push((layout, prefixes));
            Some(())
        }

        /// Each of them is what it was made for, at the edges of all that it may be asked for.
        fn check(&self, asked: &[IpNet]) -> Result<(), TestCaseError> {
            let words: Vec<u32> = self.pages.iter().map(|word| word.load(Ordering::Relaxed)).collect();
            let (pages, []) = words.as_chunks::<{ PAGE as usize }>() else { panic!("whole pages") };
            let pages: &[Page] = pages;
            for (layout, prefixes) in &self.lists {
                let list = List(*layout, pages.to_vec());
                for address in asked.iter().flat_map(edges) {
                    check(&list, prefixes, address)?;
                }
            }
            Ok(())
        }
    }

    fn prefixes(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    const SOME: [&str; 5] =
        ["192.0.2.0/24", "198.51.100.7/32", "203.0.0.0/8", "2001:db8::/32", "2001:db8:7::1/128"];

    #[test]
    fn each_list_stays_what_it_was() -> Result<(), TestCaseError> {
        let all = prefixes(&SOME);
        let mut lists = Lists::of(&all, 256);
        // Without the first, the second, …: so each is gone, and comes again, more often than a bucket has room for.
        for without in (0..all.len()).cycle().take(100) {
            let list: Vec<_> =
                all.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, p)| *p).collect();
            prop_assert!(lists.change(&list).is_some(), "{} should be changed", without);
            lists.check(&all)?;
        }
        prop_assert_eq!(lists.lists.len(), SLOTS as usize);
        Ok(())
    }

    #[test]
    fn what_was_left_behind_does_not_come_back() {
        let mut lists = Lists::of(&prefixes(&SOME), 64);
        let before = lists.lists.clone();
        assert!(lists.change(&prefixes(&SOME[1..])).is_some());
        lists.lists = before;
        assert_eq!(lists.change(&prefixes(&SOME[..4])), None, "the list is not the newest one");
    }

    #[test]
    fn without_room_nothing_is_made() {
        let all = prefixes(&SOME);
        let mut lists = Lists::of(&all, 1);
        assert!(lists.change(&prefixes(&SOME[1..])).is_some(), "nothing in a /16 takes no room");
        assert!(lists.change(&prefixes(&SOME[2..])).is_some());
        assert!(lists.change(&prefixes(&["192.0.2.1/32", "203.0.0.0/8", SOME[3], SOME[4]])).is_some());
        assert_eq!(lists.change(&prefixes(&["192.0.2.2/32", "203.0.0.0/8", SOME[3], SOME[4]])), None);
    }

    #[test]
    fn much_that_differs_is_no_change() {
        let some = |first: u32| (0..=MOST as u32).map(move |n| (first + 2 * n).to_be_bytes().into());
        let list = |first| some(first).map(|ip: std::net::IpAddr| ip.into()).collect::<Vec<IpNet>>();
        assert_eq!(differences(&list(0), &list(1)), None);
        assert_eq!(differences(&list(0), &list(0)), Some([vec![], vec![]]));
    }

    proptest! {
        #[test]
        fn any_list_is_made_of_any_other(
            all in proptest::collection::vec(some_prefix(), 1..40),
            chosen in proptest::collection::vec(any::<u64>(), 2..8),
        ) {
            let choice = |bits: u64| -> Vec<IpNet> {
                all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, prefix)| *prefix).collect()
            };
            let mut lists = Lists::of(&choice(chosen[0]), 256);
            for bits in &chosen[1..] {
                if lists.change(&choice(*bits)).is_none() {
                    // Nothing of a family before, or of it too much at once.
                    lists = Lists::of(&choice(*bits), 256);
                }
                lists.check(&all)?;
            }
        }
    }
}
