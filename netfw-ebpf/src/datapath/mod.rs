//! The pipeline.
//!
//! ```text
//! parse → find flow → plan destination → route → plan source → judge → commit → rewrite → emit
//! ```
//!
//! Decide, judge, commit, write: nothing has a side effect before the packet is judged, so that a dropped packet
//! leaves no trace but its reason, and so that XDP can hand a packet it cannot finish to TC untouched.

pub mod answer;
pub mod block;
pub mod carry;
pub mod challenge;
pub mod clamp;
pub mod classify;
pub mod commit;
pub mod context;
pub mod count;
pub mod event;
pub mod explain;
pub mod failsafe;
pub mod find;
pub mod fragment;
pub mod judge;
pub mod kernel;
pub mod limit;
pub mod link;
pub mod mapping;
pub mod open;
pub mod parse;
pub mod pick_up;
pub mod plan;
pub mod port;
pub mod promote;
pub mod reclaim;
pub mod related;
pub mod repeat;
pub mod rewrite;
pub mod route;
pub mod stages;
pub mod target;
pub mod traces;
pub mod work;

use netfw_common::{family::Family, reason::Reason};

use self::{stages::Stages, work::Work};

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
    /// A fragment that comes before its first: left to the kernel's reassembly, uncounted until it comes back.
    Hold,
    /// Dropped for [`Work::reason`], and the sender is told: the packet has become the [`Work::answer`].
    Answer,
}

/// What a stage returns: go on with the next, or stop with a verdict.
pub type Step = Result<(), Verdict>;

/// Decides about one packet and changes it accordingly.
///
/// `work` must have been filled by [`Work::begin`]; afterwards it tells the details of the verdict.
#[inline(always)]
pub fn run<F: Family, S: Stages<F>>(stages: &mut S, work: &mut Work<F>) -> Verdict {
    let verdict = match decide(stages, work) {
        Ok(()) => Verdict::Accept,
        Err(verdict) => verdict,
    };
    let verdict = if verdict == Verdict::Answer { stages.answer(work) } else { verdict };
    if verdict == Verdict::Forward && clamp::concerns(work) {
        stages.clamp(work);
    }
    stages.count(work, verdict);
    verdict
}

#[inline(always)]
fn decide<F: Family, S: Stages<F>>(stages: &mut S, work: &mut Work<F>) -> Step {
    if work.group_frame != 0 {
        return stages.group_frame(work);
    }
    stages.parse(work)?;
    if work.kind == work::ICMP_ERROR {
        stages.block(work)?;
        stages.related(work)?;
        return stages.translate(work);
    }
    if fragment::concerns(work) || failsafe::concerns(work) {
        stages.prepare(work)?;
    }
    let is_challenged = challenge::concerns(work) && stages.challenges(work)?;
    if !(is_challenged || stages.is_stranger(work)) {
        stages.carry(work)?;
    }
    stages.block(work)?;
    if pick_up::concerns(work) {
        stages.pick_up(work)?;
    }
    if work.overtaken == 0 {
        stages.open(work)?;
    }
    // With the flow that another core has opened meanwhile, or whose packet came in elsewhere; if that is gone again, the
    // table is too small. But a client who was found may talk with another target by now.
    stages.carry(work)?;
    work.drop(if work.overtaken == 0 { Reason::TableFull } else { Reason::AnswersUnknown })
}
