//! `syn-proxy`: while too many connections are being opened from outside, a SYN through a port-forward so marked opens none until
//! its source has proved to be there. Nothing is kept of sources that have not, so whoever makes them up fills nothing.
//!
//! The SYN is answered with an ACK that acknowledges what its sender never sent. Who is really opening a connection answers
//! that with a reset whose sequence number is the number acknowledged, and goes on opening (RFC 9293 §3.10.7.3, SYN-SENT: "first, check
//! the ACK bit"); that number is a SYN cookie of the kernel's, so the reset proves that the ACK has arrived at the source
//! address. From then on the source may open connections. The next SYN takes the ordinary way: no sequence number is translated and no
//! option lost, because the gateway takes no part in the connection. Linux repeats its SYN at once (`TCP_TIMEOUT_MIN`, in
//! `tcp_rcv_synsent_state_process`), others when their timer says so.
//!
//! An ACK, and no SYN with it, because it is what a server sends that believes in an older connection (the challenge ACK of
//! RFC 5961 §4): connection tracking on the way to the client lets that through and the reset as well
//! (`nf_conntrack_tcp_packet`), while it takes a SYN, ACK with a wrong number for invalid. To a client whose connection is
//! established it is an old acknowledgment, which changes nothing.
//!
//! Both come before the flow table is asked, which the flood has filled: even the filter over its keys tells little then. And if the flow
//! was opened just before the pressure began, its client repeats its SYN and would answer the challenge in vain: the
//! reset would be carried to the target.

use netfw_common::{
    explain::Note,
    family::Family,
    flow::LOCAL,
    image::{FORWARD, INPUT, SYN_PROXY},
    pressure,
    reason::Reason,
    tick::Tick,
    wire::{TCP_ACK, TCP_RST, TCP_SYN},
};

use super::{
    Step,
    kernel::Kernel,
    plan,
    work::{self, NONE, Work},
};

/// What [`examine`] finds, beside `ORDINARY`: nothing that matters here.
const ORDINARY: u32 = 0;
/// The source has proved to be there.
pub const PROVED: u32 = 1;
/// It has not.
pub const UNPROVED: u32 = 2;
/// It does so by this reset.
pub const PROOF: u32 = 3;

/// How long a proof is good, ticks. Whoever makes up sources may know one that has given it: the less time to use it the better.
const GOOD: u32 = Tick::ticks(300);

/// Whether the packet may be a SYN to be challenged, or the reset that answers a challenge. Only of TCP are there flags.
#[inline(always)]
pub fn concerns<F: Family>(work: &Work<F>) -> bool {
    let flags = work.tcp_flags as u8;
    flags & TCP_ACK == 0 && flags & (TCP_SYN | TCP_RST) != 0 && work.external()
}

/// Sets [`Work::unproved`] of a SYN, and takes note of a reset that proves something: then it has served its purpose.
#[inline(always)]
pub fn packet<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    if !pressure::holds(kernel.pressed_until(), work.now) {
        return Ok(());
    }
    let found = examine(kernel, work);
    if found == ORDINARY {
        return Ok(());
    }
    kernel.note(Note::Challenge, found);
    if found == PROOF {
        kernel.vouch(work.tuple.source, work.now);
        return work.drop(Reason::ChallengeMet);
    }
    work.unproved = u32::from(found == UNPROVED);
    Ok(())
}

/// What the packet means to a port-forward with `syn-proxy`, if it goes through one.
#[inline(always)]
fn examine<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    if !is_guarded(kernel, work) {
        return ORDINARY;
    }
    if work.tcp_flags as u8 & TCP_RST != 0 {
        return if kernel.is_cookie(&work.tuple, work.sequence) { PROOF } else { ORDINARY };
    }
    let good = kernel.vouched(work.tuple.source).is_some_and(|since| work.now.since(since) <= GOOD);
    if good { PROVED } else { UNPROVED }
}

/// Whether the packet goes through such a port-forward; then notes it.
#[inline(always)]
fn is_guarded<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    if work.fragment != work::WHOLE {
        return false;
    }
    let number = plan::port_forward(kernel, work);
    let guarded =
        number != NONE && kernel.forward(number).is_some_and(|forward| forward.flags & SYN_PROXY != 0);
    if guarded {
        work.forward = number;
    }
    guarded
}

/// The chain that judges a SYN to be challenged. By which way it would leave matters to nobody until it does.
#[inline(always)]
pub fn chain<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let local = kernel.local(work.leaving.destination) != 0;
    work.flags |= if local { LOCAL } else { 0 };
    work.chain = if local { INPUT } else { FORWARD };
}

/// Counts a SYN from outside that opens a flow, or would.
#[inline(always)]
pub fn note_opening<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) {
    if work.tcp_flags as u8 & TCP_SYN != 0 && work.external() {
        kernel.count_opening(work.now);
    }
}

/// The number that the challenge acknowledges; none where the sender would believe it: he may have sent data with his SYN (RFC 7413).
#[inline(always)]
pub fn number<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Option<u32> {
    let number = kernel.cookie(work);
    let acknowledged = number.wrapping_sub(work.sequence);
    let acceptable = acknowledged.wrapping_sub(1) <= work.data;
    (number != 0 && !acceptable).then_some(number)
}
