//! Counting.

use netfw_common::{
    counters::{Count, Finisher},
    family::Family,
};

use super::{
    Verdict,
    context::{Context, Hook},
    event,
    kernel::Kernel,
    work::{self, Work},
};

/// Who finishes a packet that is accepted, or forwarded as planned.
#[inline(always)]
pub fn finisher<F: Family, C: Context>(work: &Work<F>, forwarded: bool) -> Finisher {
    match C::HOOK {
        Hook::Xdp => Finisher::Xdp,
        Hook::Ingress if forwarded && work.way.hop.ifindex != 0 => Finisher::Tc,
        Hook::Ingress | Hook::Egress => Finisher::Stack,
    }
}

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
