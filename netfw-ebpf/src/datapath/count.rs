//! Counting.

use netfw_common::{counters::Count, family::Family};

use super::{
    Verdict,
    context::{Context, Hook},
    event,
    kernel::Kernel,
    work::{self, Work},
};

/// Counts a packet. Every packet that arrives for us is counted exactly once, by the hook that finishes it.
#[inline(always)]
pub fn packet<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, verdict: Verdict) {
    kernel.conclude(work, verdict);
    if matches!(verdict, Verdict::Pass | Verdict::Punt | Verdict::Hold) {
        return;
    }
    let size = Count { packets: u64::from(work.segments), bytes: u64::from(work.bytes) };
    if let Some(rule) = kernel.rule(work.rule).filter(|_| work.rule != work::NONE) {
        kernel.count_rule(rule.counter, size);
    }
    if matches!(verdict, Verdict::Drop | Verdict::Answer) {
        kernel.count_drop(work.reason, size);
        event::dropped::<F, C, K>(kernel, work);
    }
    if C::HOOK == Hook::Egress {
        return;
    }
    kernel.count_interface(
        work.interface,
        |count| match verdict {
            Verdict::Forward => &mut count.forwarded,
            Verdict::Accept => &mut count.accepted,
            _ => &mut count.dropped,
        },
        size,
    );
}
