//! The filter over the keys of all flows, made anew now and then: nothing is taken out of it ([`netfw_common::bloom`]).

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use netfw_common::{
    bloom::{self, Halves},
    family::Address,
    flow::Flow,
    shared::Shared,
    tuple::Tuple,
};

use super::{
    install::wait_for_readers,
    maps::{FlowTables, Maps},
    sys::Mapped,
    table::ANY,
};

/// Below one bit in so many it tells nearly all strangers.
const SPARSE: usize = 16;

impl Maps {
    /// Makes the filter anew if that promises much: where it is not sparse, and has twice the bits that were `left` when it was made last.
    /// Gives what is left now.
    ///
    /// First keys are noted in both halves, then those of all flows that are there in the other one, then that one is asked. Between the
    /// steps no packet is on its way any more that knows only the one before: so a flow is noted in time by whoever enters it, or
    /// is found. Where a daemon has ended in between, all of this holds again.
    ///
    /// # Errors
    /// What the kernel says; then the filter is what it was, but fuller.
    pub fn renew_filter(&self, left: usize) -> Result<usize> {
        let Halves { asked, .. } = self.bloom_halves.get(&0)?.unwrap_or_default();
        let words = self.bloom.capacity() / 2;
        let memory = self.bloom.memory()?;
        let (lower, upper) = memory.long_words().split_at(words as usize);
        let (used, fresh, first) = if asked == 0 { (lower, upper, words) } else { (upper, lower, 0) };
        if !promises_much(used, left) {
            return Ok(left);
        }
        fresh.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.use_halves(Halves { asked, noted: [asked, first] })?;
        note_all(&self.flows4, fresh)?;
        note_all(&self.flows6, fresh)?;
        self.use_halves(Halves { asked: first, noted: [asked, first] })?;
        self.use_halves(Halves { asked: first, noted: [first; 2] })?;
        Ok(bits(fresh))
    }

    /// What is needed to note keys.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn notes(&self) -> Result<Notes> {
        let halves = self.bloom_halves.get(&0)?.unwrap_or_default();
        Ok(Notes { memory: self.bloom.memory()?, words: self.bloom.capacity() / 2, halves })
    }

    fn use_halves(&self, halves: Halves) -> Result<()> {
        self.bloom_halves.set(&0, halves, ANY)?;
        wait_for_readers();
        Ok(())
    }
}

/// The filter, for whoever enters flows: not while it is made anew, which the lock of the instance sees to.
pub(super) struct Notes {
    memory: Mapped,
    words: u32,
    halves: Halves,
}

impl Notes {
    /// Notes a key, as programs do, before its flow is entered.
    pub(super) fn add<A: Address>(&self, key: &Tuple<A>) {
        for first in self.halves.noted {
            note(&self.memory.long_words()[first as usize..][..self.words as usize], key);
        }
    }
}

fn promises_much(used: &[AtomicU64], left: usize) -> bool {
    let set = bits(used);
    set >= 64 * used.len() / SPARSE && set >= 2 * left
}

fn bits(half: &[AtomicU64]) -> usize {
    half.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
}

/// The tables in the order in which a flow moves through them, so none is missed.
fn note_all<A: Address>(tables: &FlowTables<A>, half: &[AtomicU64]) -> Result<()>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    for table in tables.all() {
        table.each_batch(&mut |keys, _| {
            keys.iter().for_each(|key| note(half, key));
            Ok(())
        })?;
    }
    Ok(())
}

fn note<A: Address>(half: &[AtomicU64], key: &Tuple<A>) {
    let (word, bit) = bloom::place(bloom::hash(key), half.len() as u32);
    half[word as usize].fetch_or(bit, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_most_strangers_stays() {
        let half = |words: usize| -> Vec<AtomicU64> {
            (0..256).map(|n| AtomicU64::new(if n < words { u64::MAX } else { 0 })).collect()
        };
        assert!(!promises_much(&half(15), 0), "it is sparse");
        assert!(promises_much(&half(16), 0));
        assert!(!promises_much(&half(31), 16 * 64), "most of that are flows");
        assert!(promises_much(&half(32), 16 * 64));
    }
}
