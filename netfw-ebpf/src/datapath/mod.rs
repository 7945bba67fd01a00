//! The pipeline.
//!
//! ```text
//! parse → find flow → plan destination → route → plan source → judge → commit → rewrite → emit
//! ```
//!
//! Decide, judge, commit, write: nothing has a side effect before the packet is judged, so that a dropped packet
//! leaves no trace but its reason, and so that XDP can hand a packet it cannot finish to TC untouched.

pub mod answer;
pub mod carry;
pub mod classify;
pub mod commit;
pub mod context;
pub mod find;
pub mod fragment;
pub mod judge;
pub mod kernel;
pub mod link;
pub mod open;
pub mod parse;
pub mod plan;
pub mod reclaim;
pub mod related;
pub mod rewrite;
pub mod route;
pub mod work;

use netfw_common::{counters::Count, family::Family};

use self::{
    context::{Context, Hook},
    kernel::Kernel,
    work::Work,
};

/// What becomes of a packet. Carries no payload: details lie in [`Work`], because a payload leaves registers
/// undefined on some paths, which the verifier refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[must_use]
pub enum Verdict {
    /// None of our business: untouched and uncounted.
    Pass,
    /// XDP cannot finish it: untouched and uncounted, TC takes it.
    Punt,
    /// To the master's own stack (ingress), or out as it is (egress).
    Accept,
    /// Out by [`Work::hop`].
    Forward,
    /// Dropped for [`Work::reason`].
    Drop,
    /// Dropped for [`Work::reason`], and the sender is told: the packet has become the [`Work::answer`].
    Answer,
}

/// What a stage returns: go on, or stop with a verdict.
pub type Step = Result<(), Verdict>;

/// Decides about one packet and changes it accordingly.
///
/// `work` must have been filled by [`Work::begin`]; afterwards it tells the details of the verdict.
#[inline(always)]
pub fn run<F: Family, C: Context, K: Kernel<F>>(ctx: &mut C, kernel: &K, work: &mut Work<F>) -> Verdict {
    let verdict = match decide(ctx, kernel, work) {
        Ok(()) => Verdict::Accept,
        Err(verdict) => verdict,
    };
    let verdict = if verdict == Verdict::Answer { answer::tell(ctx, kernel, work) } else { verdict };
    count::<F, C, K>(kernel, work, verdict);
    verdict
}

#[inline(always)]
fn decide<F: Family, C: Context, K: Kernel<F>>(ctx: &mut C, kernel: &K, work: &mut Work<F>) -> Step {
    parse::packet(ctx, work)?;
    if C::HOOK != Hook::Egress {
        parse::sanity(work)?;
    }
    if work.kind == work::ICMP_ERROR {
        return related::carry(ctx, kernel, work);
    }
    fragment::ports(kernel, work)?;
    match find::flow(kernel, work) {
        Some(entry) => carry::packet(ctx, kernel, work, entry),
        None => open::flow(ctx, kernel, work),
    }
}

/// Every packet that arrives for us is counted exactly once, by the hook that finishes it.
#[inline(always)]
fn count<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &Work<F>, verdict: Verdict) {
    if matches!(verdict, Verdict::Pass | Verdict::Punt) {
        return;
    }
    let size = Count { packets: u64::from(work.segments), bytes: u64::from(work.bytes) };
    if let Some(rule) = kernel.rule(work.rule).filter(|_| work.rule != work::NONE) {
        kernel.count_rule(rule.counter, size);
    }
    let dropped = matches!(verdict, Verdict::Drop | Verdict::Answer);
    if dropped {
        kernel.count_drop(work.reason, size);
    }
    if C::HOOK == Hook::Egress {
        return;
    }
    kernel.count_interface(work.interface, |count| match verdict {
        Verdict::Forward => &mut count.forwarded,
        Verdict::Accept => &mut count.accepted,
        _ => &mut count.dropped,
    }, size);
}
