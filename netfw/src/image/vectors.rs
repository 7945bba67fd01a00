//! Sets of rules, each kept once.

use std::{array, collections::HashMap};

use netfw_common::image::{MAX_VECTORS, Vector};

use super::error::{self, CompileError};

/// Operations that only the compiler needs.
pub(super) trait SetOperations {
    /// The set of `numbers`.
    fn of(numbers: impl IntoIterator<Item = usize>) -> Self;
    /// Takes a number out.
    fn remove(&mut self, number: usize);
    /// Puts in all of another set.
    fn add(&mut self, other: &Self);
    /// What is in `self` and not in `other`.
    fn without(&self, other: &Self) -> Self;
    /// The lowest number in it.
    fn first(&self) -> Option<usize>;
}

impl SetOperations for Vector {
    fn of(numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut set = Self::default();
        numbers.into_iter().for_each(|number| set.insert(number));
        set
    }

    fn remove(&mut self, number: usize) {
        let word = &mut self.words[number / 64];
        *word &= !(1 << (number % 64));
        if *word == 0 {
            self.summary &= !(1 << (number / 64));
        }
    }

    fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self.summary |= other.summary;
    }

    fn without(&self, other: &Self) -> Self {
        let words = array::from_fn(|index| self.words[index] & !other.words[index]);
        let summary = words.iter().rev().fold(0, |summary, &word| summary << 1 | u64::from(word != 0));
        Self { summary, words }
    }

    fn first(&self) -> Option<usize> {
        let word = self.summary.trailing_zeros() as usize;
        self.words.get(word).map(|bits| 64 * word + bits.trailing_zeros() as usize)
    }
}

/// All vectors of an image; equal ones are shared.
#[derive(Debug)]
pub(super) struct Vectors {
    list: Vec<Vector>,
    known: HashMap<Vector, u16>,
}

impl Default for Vectors {
    fn default() -> Self {
        let empty = Vector::default();
        Self { list: vec![empty], known: HashMap::from([(empty, 0)]) }
    }
}

impl Vectors {
    /// Index of a vector with this content.
    pub(super) fn index(&mut self, vector: &Vector) -> Result<u16, CompileError> {
        if let Some(&index) = self.known.get(vector) {
            return Ok(index);
        }
        let count = self.list.len() + 1;
        error::at_most(MAX_VECTORS as usize, count, "distinct combinations of rules", error::FEWER_VECTORS)?;
        let index = self.list.len() as u16;
        self.list.push(*vector);
        self.known.insert(*vector, index);
        Ok(index)
    }

    /// The vectors, by index.
    pub(super) fn into_list(self) -> Vec<Vector> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    fn members(vector: &Vector) -> BTreeSet<usize> {
        (0..4096).filter(|&number| vector.contains(number)).collect()
    }

    proptest! {
        #[test]
        fn vectors_are_sets(a in btree_set(0usize..4096, 0..40), b in btree_set(0usize..4096, 0..40)) {
            let mut set = Vector::of(a.iter().copied());
            prop_assert_eq!(members(&set), a.clone());
            prop_assert_eq!(set.first(), a.first().copied());
            let rest = set.without(&Vector::of(b.iter().copied()));
            prop_assert_eq!(members(&rest), &a - &b);
            let mut both = rest;
            both.add(&Vector::of(b.iter().copied()));
            prop_assert_eq!(members(&both), &a | &b);
            b.iter().for_each(|&number| set.remove(number));
            prop_assert_eq!(set, rest);
        }
    }

    #[test]
    fn equal_vectors_are_shared_and_the_empty_one_is_the_first() {
        let mut vectors = Vectors::default();
        assert_eq!(vectors.index(&Vector::default()), Ok(0));
        assert_eq!(vectors.index(&Vector::of([5, 70])), Ok(1));
        assert_eq!(vectors.index(&Vector::of([70, 5])), Ok(1));
        assert_eq!(vectors.into_list().len(), 2);
    }

    #[test]
    fn indexes_run_out_in_words() {
        let mut vectors = Vectors::default();
        let pairs = (0..4096).flat_map(|low| (low + 1..4096).map(move |high| Vector::of([low, high])));
        let mut indexes = pairs.take(MAX_VECTORS as usize).map(|pair| vectors.index(&pair));
        assert_eq!(indexes.nth(MAX_VECTORS as usize - 2), Some(Ok(u16::MAX - 1)));
        assert!(indexes.next().is_some_and(|refused| refused.is_err()));
    }
}
