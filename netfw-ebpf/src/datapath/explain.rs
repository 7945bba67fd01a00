//! What a dry run tells at its end.

use netfw_common::{
    explain::Account,
    family::{Address, Family},
};

use super::{Verdict, event::widen, work::Work};

/// Completes the account, whose notes were made on the way, field by field where it lies.
#[inline(always)]
pub fn conclude<F: Family>(work: &Work<F>, verdict: Verdict, account: &mut Account) {
    account.verdict = verdict as u32 + 1;
    account.reason = work.reason as u32;
    account.generation = work.generation;
    account.chain = work.chain;
    account.forward = work.forward;
    account.forward_id = work.forward_id;
    account.refused = work.refused;
    account.masquerade = work.masquerade;
    account.rule = work.rule;
    account.flags = work.flags.into();
    account.drawn = work.drawn;
    account.too_big = work.too_big;
    account.out = work.way.hop.ifindex;
    account.mtu = work.way.hop.mtu;
    account.gateway = work.way.gateway.widen();
    widen(&work.tuple, &mut account.arriving);
    widen(&work.leaving, &mut account.leaving);
}
