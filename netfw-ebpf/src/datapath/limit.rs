//! The `limit` of the rule that decided: asked when the packet is judged, so that a flood is refused early and leaves no
//! trace; a token is spent when the flow is committed, so that only flows that are admitted cost one.

use netfw_common::{
    family::Family,
    image::{LIMIT_PER_SOURCE, Rule},
};

use super::{
    kernel::{BucketKey, Kernel},
    work::{NONE, Work},
};

/// How often a token is tried for that other cores snatch away: each time one of them has got one.
const TRIES: u32 = 16;

/// Whether the rule that decided has no limit, or a token left.
#[inline(always)]
pub fn has_token<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    let Some(rule) = limited(kernel, work) else { return true };
    let full_at = kernel.bucket(&bucket(work, rule));
    rule.limit.take(full_at, kernel.nanos()).is_some()
}

/// Spends a token, if the rule that decided has a limit; says whether there was one.
#[inline(always)]
pub fn spend<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    let Some(rule) = limited(kernel, work) else { return true };
    let bucket = bucket(work, rule);
    for _ in 0..TRIES {
        let full_at = kernel.bucket(&bucket);
        let Some(next) = rule.limit.take(full_at, kernel.nanos()) else { return false };
        if kernel.exchange_bucket(&bucket, full_at, next) {
            return true;
        }
    }
    false
}

/// The rule that decided, if it has a limit.
#[inline(always)]
fn limited<'k, F: Family, K: Kernel<F>>(kernel: &'k K, work: &Work<F>) -> Option<&'k Rule> {
    if work.rule == NONE {
        return None;
    }
    kernel.rule(work.rule).filter(|rule| !rule.limit.is_none())
}

/// Sources are told apart by their whole address: in IPv6, too, the hosts of a LAN share a /64 without being one.
#[inline(always)]
fn bucket<F: Family>(work: &Work<F>, rule: &Rule) -> BucketKey<F::Addr> {
    BucketKey {
        per_source: rule.flags & LIMIT_PER_SOURCE != 0,
        rule: rule.counter,
        source: work.tuple.source,
    }
}
