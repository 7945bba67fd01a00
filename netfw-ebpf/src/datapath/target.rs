//! Which target of a port-forward a new flow goes to.

use core::ops::ControlFlow;

use netfw_common::{
    family::{Address, Family},
    health::{self, DRAINS, UNCHECKED},
    image::{Forward, MAX_BALANCED, ONE_TO_ONE, ROUND_ROBIN, SOURCE_HASH},
};

use super::{
    kernel::Kernel,
    work::{NONE, Work},
};

/// Number of the target for the packet that [`Work::forward`] translates, or [`NONE`].
///
/// Chosen as if all took flows, so that one that fails moves nobody else's clients; its own share is spread evenly over
/// the others. Where none takes flows the first choice stands, for the rules to judge, and [`Work::refused`] is set.
#[inline(always)]
pub fn choose<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    let Some(forward) = kernel.forward(work.forward) else { return NONE };
    let turn = turn(kernel, work, forward);
    let (Some(nth), Some(displaced)) = (turn.checked_rem(forward.targets), turn.checked_div(forward.targets))
    else {
        return NONE;
    };
    let first = forward.first_target.wrapping_add(nth);
    if kernel.share(first) != 0 {
        return first;
    }
    let other = if forward.spread == ONE_TO_ONE { NONE } else { another(kernel, forward, displaced) };
    if other != NONE {
        return other;
    }
    work.refused = 1;
    first
}

#[inline(always)]
fn turn<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, forward: &Forward) -> u32 {
    match forward.spread {
        ONE_TO_ONE => u32::from(work.tuple.destination_port.wrapping_sub(forward.first_port)),
        ROUND_ROBIN => kernel.turn(u32::from(forward.id)),
        SOURCE_HASH => scramble(work.tuple.source.fold()),
        _ => kernel.random(),
    }
}

/// Spreads neighbouring addresses over all targets (the finaliser of MurmurHash3).
#[inline(always)]
pub fn scramble(word: u32) -> u32 {
    let word = (word ^ word >> 16).wrapping_mul(0x85eb_ca6b);
    let word = (word ^ word >> 13).wrapping_mul(0xc2b2_ae35);
    word ^ word >> 16
}

/// Whose turn it is among those that take flows. One that stops taking them meanwhile is still a good answer.
#[inline(always)]
fn another<F: Family, K: Kernel<F>>(kernel: &K, forward: &Forward, turn: u32) -> u32 {
    let (first, end) = (forward.first_target, forward.first_target.wrapping_add(forward.targets));
    turn.checked_rem(kernel.takers(first, end)).map_or(NONE, |nth| kernel.taker(first, end, nth))
}

/// How many of the targets from `first` to before `end` take new flows.
#[inline(always)]
pub fn takers<F: Family, K: Kernel<F>>(kernel: &K, first: u32, end: u32) -> u32 {
    let mut count = 0;
    kernel.repeat(end.wrapping_sub(first).min(MAX_BALANCED), |nth| {
        count += kernel.share(first.wrapping_add(nth));
        ControlFlow::Continue(())
    });
    count
}

/// Number of the `nth` of them, or of the last one before it.
#[inline(always)]
pub fn taker<F: Family, K: Kernel<F>>(kernel: &K, first: u32, end: u32, nth: u32) -> u32 {
    let (mut found, mut left) = (NONE, nth);
    kernel.repeat(end.wrapping_sub(first).min(MAX_BALANCED), |nth| {
        let number = first.wrapping_add(nth);
        if kernel.share(number) == 0 {
            return ControlFlow::Continue(());
        }
        found = number;
        left = left.wrapping_sub(1);
        if left == u32::MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

/// How much a target takes of the new flows: 1 or 0.
#[inline(always)]
pub fn share<F: Family, K: Kernel<F>>(kernel: &K, number: u32) -> u32 {
    match kernel.target(number).map(|target| target.health) {
        None | Some(DRAINS) => 0,
        Some(UNCHECKED) => 1,
        Some(word) => health::share(kernel.health(u32::from(word))),
    }
}
