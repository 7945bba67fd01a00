//! The first rule (or port-forward) that accepts every field of a packet.

use core::{hint::black_box, ops::ControlFlow};

use netfw_common::image::{Vector, WORDS};

use super::{repeat::Repeat, work::NONE};

/// Words of the vectors that a turn of the loop looks at: a turn has its price. With twice as many the verifier has a fifth more to follow,
/// and each start takes that much longer. A word that the summaries leave out costs a bit test, so no turn has to find the next one,
/// for which there is no instruction.
const AT_ONCE: u32 = 4;

/// Number of the lowest bit that all vectors have, or [`NONE`].
#[inline(always)]
pub fn first<const FIELDS: usize>(loops: &impl Repeat, fields: [&Vector; FIELDS]) -> u32 {
    next(loops, fields, 0)
}

/// Number of the lowest bit from `from` on that all vectors have, or [`NONE`].
#[inline(always)]
pub fn next<const FIELDS: usize>(loops: &impl Repeat, fields: [&Vector; FIELDS], from: u32) -> u32 {
    let begin = from / 64;
    if begin >= WORDS as u32 {
        return NONE;
    }
    let words = fields.iter().fold(u64::MAX << begin, |all, field| all & field.summary);
    // Of most packets: to call back costs more than to look.
    if words == 0 {
        return NONE;
    }
    let mut found = NONE;
    loops.repeat(WORDS as u32 / AT_ONCE, |turn| {
        // The compiler knows that this is below 64 and would leave the mask out; the verifier wants to see it.
        let first = black_box(turn * AT_ONCE) & (WORDS as u32 - AT_ONCE);
        let worth = words >> first;
        if worth == 0 {
            return ControlFlow::Break(());
        }
        for nth in 0..AT_ONCE {
            let word = first + nth;
            if worth >> nth & 1 == 0 {
                continue;
            }
            let all = if word == begin { u64::MAX << (from % 64) } else { u64::MAX };
            let bits = fields.iter().fold(all, |all, field| all & field.words[word as usize]);
            if bits != 0 {
                found = word * 64 + bits.trailing_zeros();
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    found
}

#[cfg(test)]
mod tests {
    use netfw_common::image::MAX_RULES;
    use proptest::prelude::*;

    use super::*;

    struct Plain;
    impl Repeat for Plain {}

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
            prop_assert_eq!(first(&Plain, [&a, &b]), walked(0..MAX_RULES as usize));
            for from in [from, common.unwrap_or(0), common.unwrap_or(0) + 1, MAX_RULES as usize] {
                prop_assert_eq!(next(&Plain, [&a, &b], from as u32), walked(from..MAX_RULES as usize));
            }
        }
    }
}
