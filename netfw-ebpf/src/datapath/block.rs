//! `[block]` and bans: whom nothing is accepted from, nor sent to.

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

/// Whether the source of that tuple is blocked. The master's own addresses never are: a list of whole networks may hold them.
#[inline(always)]
fn source<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    let address = work.reply_key.source;
    let found = if kernel.listed(address) {
        LISTED
    } else if some_ban(kernel, work) {
        BANNED
    } else {
        FREE
    };
    if found != FREE && kernel.local(address) != 0 { FREE } else { found }
}

/// Whether a prefix around that address is banned, of one of the lengths in use.
#[inline(always)]
fn some_ban<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    let Some(bans) = kernel.bans() else { return false };
    let [short, long] = bans.lengths.of::<F>();
    let mut is_banned = |length| {
        work.asked_length = length;
        kernel.asked(work)
    };
    block::any_of(0, short, &mut is_banned) || F::V6 && block::any_of(1, long, &mut is_banned)
}

/// Whether the prefix of [`Work::asked_length`] around that address is banned.
#[inline(always)]
pub fn asked<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    kernel.banned(&block::key::<F>(work.reply_key.source, work.asked_length))
}
