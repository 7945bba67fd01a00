//! `[block]` and bans: whom nothing is accepted from, nor sent to.

use core::hint::black_box;

use netfw_common::{block, explain::Note, family::Family, reason::Reason};

use super::{Step, kernel::Kernel, link, work::Work};

/// Drops a packet without a flow if an end of it is blocked.
#[inline(always)]
pub fn new_flow<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    let found = kernel.blocked(work);
    kernel.note(Note::Block, found);
    match found {
        FREE => Ok(()),
        LISTED => work.drop(Reason::Blocked),
        _ => work.drop(Reason::Banned),
    }
}

/// Whether an end of the packet without a flow is blocked: [`FREE`], [`LISTED`] or [`BANNED`]. What the link needs never is.
#[inline(always)]
pub fn packet<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    if link::needs(work) {
        return FREE;
    }
    work.reply_key = work.tuple;
    ends(kernel, work)
}

/// The same for the live flow in [`Work::original`], whoever opened it.
#[inline(always)]
pub fn live_flow<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    let opened_by_peer = work.original.is_reply();
    work.reply_key = if opened_by_peer { work.original.leaving.reversed() } else { work.tuple };
    ends(kernel, work)
}

/// The same for the tuple in [`Work::reply_key`].
#[inline(always)]
fn ends<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    let found = source(kernel, work);
    if found != FREE {
        return found;
    }
    work.reply_key = work.reply_key.reversed();
    source(kernel, work)
}

/// Not blocked.
pub const FREE: u32 = 0;
/// By `[block]`.
pub const LISTED: u32 = 1;
/// By a ban.
pub const BANNED: u32 = 2;

/// Whether the source of that tuple is blocked: looks it up with each prefix length in use. The
/// master's own addresses never are: a list of whole networks may hold them.
#[inline(always)]
fn source<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    let (Some(policy), Some(bans)) = (kernel.policy(), kernel.bans()) else { return FREE };
    let [mut listed, banned] = [policy.block_lengths.of::<F>(), bans.lengths.of::<F>()];
    if listed != [0; 2] && !kernel.may_be_listed(work.reply_key.source) {
        listed = [0; 2];
    }
    let mut found = some_of(kernel, work, listed[0] | banned[0], 1);
    if F::V6 && found == FREE {
        found = some_of(kernel, work, listed[1] | banned[1], 65);
    }
    if found != FREE && kernel.local(work.reply_key.source) != 0 { FREE } else { found }
}

/// The same for the lengths that are bits of a word, the lowest of which stands for `first`.
#[inline(always)]
fn some_of<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, lengths: u64, first: u32) -> u32 {
    let mut left = lengths;
    for _ in 0..64 {
        if left == 0 {
            break;
        }
        work.asked_length = first + (black_box(left.trailing_zeros()) & 63);
        let found = kernel.asked(work);
        if found != FREE {
            return found;
        }
        left &= left.wrapping_sub(1);
    }
    FREE
}

/// Whether the prefix of [`Work::asked_length`] around that address is blocked.
#[inline(always)]
pub fn asked<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> u32 {
    let key = block::key::<F>(work.reply_key.source, work.asked_length);
    if kernel.listed(&key) {
        return LISTED;
    }
    if kernel.banned(&key) { BANNED } else { FREE }
}
