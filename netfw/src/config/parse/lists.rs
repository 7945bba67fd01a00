//! Long lists of networks, remembered. One of a million is asked for again and again, and changes by a few lines: only those are
//! read anew.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    slice,
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;

use super::include::words;
use crate::config::{source::Source, value};

/// Bytes from which on a text is a long one. Shorter ones are read in less than a millisecond.
const LONG: usize = 1 << 16;
/// How many lists are remembered.
const REMEMBERED: usize = 8;
/// How many lines two texts are followed apart before their ends are compared.
const APART: usize = 32;
/// Compared at once.
const CHUNK: usize = 256;

/// A list as it was read: what its text holds depends on nothing else.
struct List {
    path: PathBuf,
    text: Arc<str>,
    networks: Arc<[IpNet]>,
}

/// Those used last come last.
static KNOWN: Mutex<VecDeque<List>> = Mutex::new(VecDeque::new());

/// The networks in a long text, in their order, each as often as it is written; `None` if the text is not long, or a line is wrong.
pub(super) fn networks(source: &Source) -> Option<Arc<[IpNet]>> {
    if source.text().len() < LONG {
        return None;
    }
    // Not locked while a list is read: who asks for the same one meanwhile reads it, too.
    let (same, last) = recall(source.path(), source.text());
    let networks = match (same, last) {
        (Some(same), _) => same,
        (None, Some((text, known))) => follow(&text, &known, source.text())?,
        (None, None) => read(source.text())?,
    };
    remember(source, &networks);
    Some(networks)
}

type Known = (Arc<str>, Arc<[IpNet]>);

/// The networks of this text, if it is known, and what the file held last.
fn recall(path: &Path, text: &str) -> (Option<Arc<[IpNet]>>, Option<Known>) {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let same = known.iter().find(|list| *list.text == *text).map(|list| Arc::clone(&list.networks));
    let last = known.iter().rfind(|list| list.path == path);
    (same, last.map(|list| (Arc::clone(&list.text), Arc::clone(&list.networks))))
}

fn remember(source: &Source, networks: &Arc<[IpNet]>) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|list| list.text != *source.text());
    if known.len() == REMEMBERED {
        known.pop_front();
    }
    let (path, text) = (source.path().to_owned(), Arc::clone(source.text()));
    known.push_back(List { path, text, networks: Arc::clone(networks) });
}

fn read(text: &str) -> Option<Arc<[IpNet]>> {
    sorted(&[text]).map(Arc::from)
}

fn sorted(texts: &[&str]) -> Option<Vec<IpNet>> {
    let words = texts.iter().flat_map(|text| words(text));
    let mut networks = words.map(|(_, word)| value::network(word).ok()).collect::<Option<Vec<_>>>()?;
    networks.sort();
    Some(networks)
}

/// The networks of a text, by those of another one. As a list has no order, it does not matter which of its lines is taken for
/// which of the other's, as long as each is taken once.
fn follow(old: &str, known: &[IpNet], new: &str) -> Option<Arc<[IpNet]>> {
    let (gone, come) = differences(old, new);
    let length = |texts: &[&str]| texts.iter().map(|text| text.len()).sum::<usize>();
    if length(&gone) + length(&come) > new.len() / 2 {
        return read(new);
    }
    Some(changed(known, &sorted(&gone)?, &sorted(&come)?).into())
}

/// Sorted networks without some of them, and with others. What lies between is copied as it is.
fn changed(mut known: &[IpNet], gone: &[IpNet], come: &[IpNet]) -> Vec<IpNet> {
    let mut networks = Vec::with_capacity(known.len() + come.len());
    let gone = gone.iter().map(|network| (network, false));
    let mut steps: Vec<_> = gone.chain(come.iter().map(|network| (network, true))).collect();
    steps.sort();
    for (network, comes) in steps {
        let (before, rest) = known.split_at(known.partition_point(|known| known < network));
        networks.extend_from_slice(before);
        networks.extend(comes.then_some(*network));
        known = rest.strip_prefix(slice::from_ref(network)).filter(|_| !comes).unwrap_or(rest);
    }
    networks.extend_from_slice(known);
    networks
}

/// The lines that only the one and only the other has.
fn differences<'t>(mut old: &'t str, mut new: &'t str) -> (Vec<&'t str>, Vec<&'t str>) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    loop {
        let same = common_start(old, new);
        (old, new) = (&old[same..], &new[same..]);
        if old.is_empty() && new.is_empty() {
            return (gone, come);
        }
        let (left, joined) = meeting(old, new).unwrap_or_else(|| {
            let same = common_end(old, new);
            (old.len() - same, new.len() - same)
        });
        gone.push(&old[..left]);
        come.push(&new[..joined]);
        (old, new) = (&old[left..], &new[joined..]);
    }
}

/// Where, not far from their beginning, two texts have the same line again.
fn meeting(old: &str, new: &str) -> Option<(usize, usize)> {
    let lines = |text| {
        let lines = str::split_inclusive(text, '\n').take(APART);
        let placed = lines.scan(0, |end, line| Some((std::mem::replace(end, *end + line.len()), line)));
        placed.collect::<Vec<_>>()
    };
    let (old, new) = (lines(old), lines(new));
    let meets =
        |(left, line)| new.iter().find(|(_, other)| *other == line).map(|(joined, _)| (left, *joined));
    old.iter().copied().filter_map(meets).min_by_key(|(left, joined)| left + joined)
}

/// Bytes of the lines with which both texts begin.
fn common_start(old: &str, new: &str) -> usize {
    let (old, new) = (old.as_bytes(), new.as_bytes());
    let chunks = old.chunks_exact(CHUNK).zip(new.chunks_exact(CHUNK));
    let whole = CHUNK * chunks.take_while(|(old, new)| old == new).count();
    let rest = old[whole..].iter().zip(&new[whole..]).take_while(|(old, new)| old == new).count();
    let same = whole + rest;
    if same == old.len() && same == new.len() {
        return same;
    }
    old[..same].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

/// Bytes of the lines with which both texts end.
fn common_end(old: &str, new: &str) -> usize {
    let (old, new) = (old.as_bytes(), new.as_bytes());
    let chunks = old.rchunks_exact(CHUNK).zip(new.rchunks_exact(CHUNK));
    let whole = CHUNK * chunks.take_while(|(old, new)| old == new).count();
    let [old_end, new_end] = [old, new].map(|text| text[..text.len() - whole].iter().rev());
    let same = whole + old_end.zip(new_end).take_while(|(old, new)| old == new).count();
    let from = old.len() - same;
    old[from..].iter().position(|byte| *byte == b'\n').map_or(0, |first| same - first - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(numbers: impl Iterator<Item = u32>) -> String {
        numbers.map(|number| format!("192.0.{}.{} # {number}\n", number / 256, number % 256)).collect()
    }

    fn followed(old: &str, new: &str) -> Vec<IpNet> {
        let known = read(old).expect("no wrong line");
        follow(old, &known, new).expect("no wrong line").to_vec()
    }

    fn read_anew(text: &str) -> Vec<IpNet> {
        read(text).expect("no wrong line").to_vec()
    }

    #[test]
    fn few_lines_differ_where_few_were_changed() {
        let old = lines(0..1000);
        let changed = |number| matches!(number, 0 | 17 | 18 | 500 | 999);
        let new = lines((0..1000).map(|number| if changed(number) { number + 2000 } else { number }));
        let (gone, come) = differences(&old, &new);
        assert_eq!(gone.concat(), lines((0..1000).filter(|number| changed(*number))));
        assert_eq!(come.concat().lines().count(), 5);
        assert_eq!(followed(&old, &new), read_anew(&new));
    }

    #[test]
    fn a_long_piece_that_comes_in_or_goes_is_found_by_what_follows() {
        let (short, long) = (lines((0..400).chain(500..900)), lines(0..900));
        let count = |texts: Vec<&str>| texts.concat().lines().count();
        let (gone, come) = differences(&short, &long);
        assert!(count(gone) <= 1 && count(come) <= 101, "what follows was taken for new");
        let (gone, come) = differences(&long, &short);
        assert!(count(gone) <= 101 && count(come) <= 1, "what follows was taken for new");
        assert_eq!(followed(&short, &long), read_anew(&long));
        assert_eq!(followed(&long, &short), read_anew(&short));
    }

    #[test]
    fn a_wrong_line_is_noticed() {
        let old = lines(0..100);
        let known = read(&old).expect("no wrong line");
        assert!(follow(&old, &known, &old.replace("192.0.0.7 ", "192.0.0.x ")).is_none());
    }

    #[test]
    fn what_a_file_held_before_is_known_again() {
        let path = Path::new("known-again.txt");
        let (old, new) = (lines(0..5000), lines(3..5003));
        let ask = |text: &str| networks(&Source::new(path, text)).expect("a long list without a wrong line");
        let first = ask(&old);
        assert_eq!(ask(&new).to_vec(), read_anew(&new));
        assert!(Arc::ptr_eq(&first, &ask(&old)));
    }

    /// A few networks, as a few lines each, with other lines between them; the last may have no end.
    fn some_text() -> impl Strategy<Value = String> {
        let line = (0..12_u8, any::<bool>()).prop_map(|(number, line_break)| match number {
            0 => "\n".to_owned(),
            1 => "# remark\n".to_owned(),
            number => format!("10.0.0.{number}{}", if line_break { "\n" } else { " # one\n" }),
        });
        (proptest::collection::vec(line, 0..60), any::<bool>()).prop_map(|(lines, ends)| {
            let text = lines.concat();
            if ends { text } else { text.trim_end().to_owned() }
        })
    }

    proptest! {
        #[test]
        fn whatever_was_known_the_text_is_what_counts(old in some_text(), new in some_text()) {
            prop_assert_eq!(followed(&old, &new), read_anew(&new));
        }

        #[test]
        fn pieces_are_changed(
            text in some_text(), piece in some_text(), places in proptest::array::uniform2(0..60_usize),
        ) {
            let lines: Vec<_> = text.split_inclusive('\n').collect();
            let [from, to] = places.map(|place| place.min(lines.len()));
            let (from, to) = (from.min(to), from.max(to));
            let new = [&lines[..from].concat(), &piece, &lines[to..].concat()].map(|text| text.trim_end()).join("\n");
            prop_assert_eq!(followed(&text, &new), read_anew(&new));
        }
    }
}
