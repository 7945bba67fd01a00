//! The first rule (or port-forward) that accepts every field of a packet.

use core::hint::black_box;

use netfw_common::image::{Vector, WORDS};

use super::work::NONE;

/// Words of the vectors that a turn of the loop looks at: for all of them, each vector's pointer moves once.
const AT_ONCE: usize = 8;

/// Number of the lowest bit from `from` on that all vectors have, or [`NONE`]; also where one of them is missing.
#[inline(always)]
pub fn lowest<const FIELDS: usize>(vectors: [Option<&Vector>; FIELDS], from: u32) -> u32 {
    let begin = from / 64;
    let Some(fields) = all(vectors).filter(|_| begin < WORDS as u32) else { return NONE };
    let words = fields.iter().fold(u64::MAX << begin, |all, field| all & field.summary);
    if words == 0 {
        return NONE;
    }
    // The compiler knows that this is below 64 and would leave the mask out; the verifier wants to see it.
    let first = black_box(begin) as usize & (WORDS - 1);
    match common(&fields, first) & u64::MAX << (from % 64) {
        0 => among(&fields, words & (u64::MAX << begin) << 1),
        bits => number(begin, bits),
    }
}

#[inline(always)]
fn all<const FIELDS: usize>(vectors: [Option<&Vector>; FIELDS]) -> Option<[&Vector; FIELDS]> {
    let first = vectors[0]?;
    let complete = vectors.iter().all(Option::is_some);
    complete.then(|| vectors.map(|vector| vector.unwrap_or(first)))
}

/// Number of the lowest bit that all vectors have in these words. The verifier follows the loop turn by turn, which are few.
#[inline(always)]
fn among<const FIELDS: usize>(fields: &[&Vector; FIELDS], words: u64) -> u32 {
    for begin in (0..WORDS).step_by(AT_ONCE) {
        let worth = words >> begin;
        if worth == 0 {
            break;
        }
        for nth in 0..AT_ONCE {
            if worth >> nth & 1 == 0 {
                continue;
            }
            let bits = common(fields, begin + nth);
            if bits != 0 {
                return number((begin + nth) as u32, bits);
            }
        }
    }
    NONE
}

/// The bits that all vectors have in a word.
#[inline(always)]
fn common<const FIELDS: usize>(fields: &[&Vector; FIELDS], word: usize) -> u64 {
    fields.iter().fold(u64::MAX, |all, field| all & field.words[word])
}

#[inline(always)]
fn number(word: u32, bits: u64) -> u32 {
    word * 64 + bits.trailing_zeros()
}

#[cfg(test)]
mod tests {
    use netfw_common::image::MAX_RULES;
    use proptest::prelude::*;

    use super::*;

    fn vector(numbers: &[usize]) -> Vector {
        let mut vector = Vector::default();
        numbers.iter().for_each(|&number| vector.insert(number));
        vector
    }

    proptest! {
        #[test]
        fn finds_what_a_walk_finds(
            a in proptest::collection::vec(0..MAX_RULES as usize, 0..200),
            b in proptest::collection::vec(0..MAX_RULES as usize, 0..200),
            common in proptest::option::of(0..MAX_RULES as usize),
            from in 0..MAX_RULES as usize,
        ) {
            let (mut a, mut b) = (vector(&a), vector(&b));
            if let Some(number) = common {
                a.insert(number);
                b.insert(number);
            }
            let walked = |mut numbers: std::ops::Range<usize>| {
                let found = numbers.find(|&number| a.contains(number) && b.contains(number));
                found.map_or(NONE, |number| number as u32)
            };
            for from in [0, from, common.unwrap_or(0), common.unwrap_or(0) + 1, MAX_RULES as usize] {
                prop_assert_eq!(lowest([Some(&a), Some(&b)], from as u32), walked(from..MAX_RULES as usize));
            }
        }
    }
}
