//! The next version of a list, made where packets read the present one.
//!
//! For them nothing changes: a key says in which versions it is. A bucket that gets one more is written elsewhere, and only then
//! the index leads there; a cell of the sieve may name a length too much.

use std::sync::atomic::AtomicU32;

use ipnet::Ipv6Net;
use netfw_common::block::{
    self, Key, PAGE,
    v6::{self, BUCKET, KEY_ROOM, Layout, SINCE, UNTIL},
};

use super::{Entry, each_cell, entry, lengths};
use crate::{
    image::block_keys,
    kernel::pages::patch::{Room, load, store},
};

/// Keys in a page.
const KEYS: u32 = PAGE / KEY_ROOM;
/// Prefixes shorter than that have too many cells.
const SHORTEST: u8 = 16;

/// The next version of the list with this layout, without the first prefixes and with the others; none before the `oldest` is
/// asked any more. `None` where it has to be laid out anew.
pub(in crate::kernel::pages) fn patch(
    pages: &[AtomicU32],
    room: &mut Room,
    layout: Layout,
    oldest: u32,
    [gone, come]: [&[Ipv6Net]; 2],
) -> Option<Layout> {
    let mut layout = Layout { version: layout.version + 1, ..layout };
    if gone.is_empty() && come.is_empty() {
        return Some(layout);
    }
    // Without keys there is nothing that could be added to.
    if layout.lengths == [0; 4] || come.iter().any(|prefix| prefix.prefix_len() < SHORTEST) {
        return None;
    }
    let keys = |prefixes: &[Ipv6Net]| -> Vec<Key> {
        prefixes.iter().flat_map(|&prefix| block_keys(&prefix.into())).collect()
    };
    let come = keys(come);
    let mut list = List { pages, layout, oldest, next: (room.next - layout.keys) * KEYS, room };
    keys(gone).iter().try_for_each(|key| list.retire(key))?;
    come.iter().try_for_each(|key| list.admit(key))?;
    for (word, more) in layout.lengths.iter_mut().zip(lengths(&come).v6) {
        *word |= more;
    }
    Some(layout)
}

/// A list as it lies in pages.
struct List<'p> {
    pages: &'p [AtomicU32],
    /// Of the version that is being made.
    layout: Layout,
    oldest: u32,
    /// Number of the next key.
    next: u32,
    room: &'p mut Room,
}

impl List<'_> {
    /// Of a key's bucket, the word of the index, and what it says.
    fn bucket(&self, key: &Key) -> Option<(u32, u32, u32)> {
        let at = self.layout.index * PAGE + (v6::hash(key, self.layout.seed) & self.layout.mask);
        let (first, count) = v6::keys_of(load(self.pages, at)?);
        Some((at, first, count))
    }

    /// Where the room of a key begins.
    fn place(&self, number: u32) -> u32 {
        self.layout.keys * PAGE + number * KEY_ROOM
    }

    fn read(&self, number: u32) -> Option<Entry> {
        let mut entry = Entry::default();
        for (word, at) in entry.iter_mut().zip(self.place(number)..) {
            *word = load(self.pages, at)?;
        }
        Some(entry)
    }

    /// Adds one behind the last.
    fn write(&mut self, entry: &Entry) -> Option<()> {
        // The page behind the last one: nobody else takes any meanwhile.
        if self.next.is_multiple_of(KEYS) {
            self.room.take(1)?;
        }
        for (word, at) in entry.iter().zip(self.place(self.next)..) {
            store(self.pages, at, *word)?;
        }
        self.next += 1;
        Some(())
    }

    /// A key is in the list no more.
    fn retire(&self, key: &Key) -> Option<()> {
        let (_, first, count) = self.bucket(key)?;
        for number in first..first + count {
            if self.read(number)? == entry(key, self.read(number)?[SINCE as usize]) {
                return store(self.pages, self.place(number) + UNTIL, self.layout.version);
            }
        }
        None
    }

    /// A key is in the list from now on.
    fn admit(&mut self, key: &Key) -> Option<()> {
        let (at, first, count) = self.bucket(key)?;
        let moved = self.next;
        for number in first..first + count {
            let entry = self.read(number)?;
            if entry[UNTIL as usize] > self.oldest {
                self.write(&entry)?;
            }
        }
        self.write(&entry(key, self.layout.version))?;
        let count = self.next - moved;
        if count > BUCKET {
            return None;
        }
        store(self.pages, at, v6::index_word(moved, count))?;
        self.note(key)
    }

    /// Notes in the sieve where it is.
    fn note(&self, key: &Key) -> Option<()> {
        let (address, length, _) = block::prefix(key);
        let mut noted = Some(());
        each_cell(&self.layout, address, length, |cell| {
            let at = self.layout.sieve * PAGE + cell;
            let word = load(self.pages, at).map(|cell| cell | 1 << v6::bit(length));
            noted = noted.and(word.and_then(|word| store(self.pages, at, word)));
        });
        noted
    }
}
