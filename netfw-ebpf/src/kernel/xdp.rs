//! The XDP context: packet bytes are read and written directly.

use core::{arch::asm, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_xdp_adjust_tail, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use netfw_common::{
    checksum::Sum,
    family::{Family, Ipv4, Ipv6},
    interface::Interface,
    wire::ETHERNET,
};

use super::{live::Live, maps, parts::Parts, stages::XdpStages};
use crate::datapath::{
    self, Verdict,
    context::{ANSWER_HALVES, Context, Hook, MAX_OFFSET, Quote, View},
    stages::Stages,
    work::Work,
};

/// Bytes of the shortest frame without its checksum.
const SHORTEST: u32 = 60;

/// Checked packet bytes.
#[derive(Clone, Copy)]
pub struct Bytes(*const u8);

impl Bytes {
    /// `length` bytes at `start`, if the packet reaches that far.
    #[inline(always)]
    pub fn within(start: usize, end: usize, length: u32) -> Option<Self> {
        if start + length as usize > end { None } else { Some(Self(start as *const u8)) }
    }
}

impl Bytes {
    /// Overwrites the first bytes, which must have been asked for.
    #[inline(always)]
    pub fn overwrite<const N: usize>(self, halves: &[u16; N]) {
        let target = self.0.cast_mut().cast::<u16>();
        for (n, half) in halves.iter().enumerate() {
            // SAFETY: within the bounds that were checked; headers lie on even offsets of an aligned buffer.
            unsafe { *target.add(n) = *half };
        }
    }
}

/// `offset`, if it is at most [`MAX_OFFSET`]: said once more in a way that the compiler cannot take for granted. It
/// likes to test a number that this one is made of instead, and the verifier of Linux 6.1 doesn't see through that.
#[inline(always)]
pub fn bounded(offset: u32) -> Option<usize> {
    const { assert!(MAX_OFFSET == 255) };
    if offset > MAX_OFFSET {
        return None;
    }
    let mut offset = u64::from(offset);
    // SAFETY: arithmetic on a register, which changes nothing after the comparison.
    unsafe { asm!("{offset} &= 255", offset = inout(reg) offset, options(pure, nomem, nostack)) };
    Some(offset as usize)
}

/// One load of the width that is asked for: rustc would read packet bytes, whose alignment it doesn't know, singly.
macro_rules! load {
    ($width:literal, $pointer:expr) => {{
        let value: u64;
        // SAFETY: the verifier checks the address against the bounds check of `Bytes::within`.
        unsafe {
            asm!(
                concat!("{value} = *(", $width, " *)({pointer} + 0)"),
                pointer = in(reg) $pointer,
                value = out(reg) value,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }};
}

impl View for Bytes {
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        load!("u8", self.0.wrapping_add(at as usize)) as u8
    }

    #[inline(always)]
    fn half(&self, at: u32) -> u16 {
        load!("u16", self.0.wrapping_add(at as usize)) as u16
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        load!("u32", self.0.wrapping_add(at as usize)) as u32
    }
}

/// Where the frame begins and ends. Volatile for the reason given at the TC context.
#[inline(always)]
fn bounds(ctx: *mut xdp_md) -> (usize, usize) {
    // SAFETY: the context is valid while the program runs.
    unsafe {
        (
            ptr::read_volatile(&raw const (*ctx).data) as usize,
            ptr::read_volatile(&raw const (*ctx).data_end) as usize,
        )
    }
}

/// A frame at the XDP hook.
pub struct Xdp(*mut xdp_md);

impl Xdp {
    /// The frame of this context.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self(ctx)
    }

    #[inline(always)]
    fn bytes(&self, offset: u32, length: u32) -> Option<Bytes> {
        let offset = bounded(offset)?;
        let (start, end) = bounds(self.0);
        Bytes::within(start + offset, end, length)
    }
}

impl Context for Xdp {
    const HOOK: Hook = Hook::Xdp;

    type View<'a>
        = Bytes
    where
        Self: 'a;

    #[inline(always)]
    fn length(&self) -> u32 {
        let (start, end) = bounds(self.0);
        (end - start) as u32
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn view<const LENGTH: u32>(&self, offset: u32) -> Option<Bytes> {
        self.bytes(offset, LENGTH)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool {
        let Some(bytes) = self.bytes(offset, 2 * N as u32) else { return false };
        bytes.overwrite(halves);
        true
    }

    #[inline(always)]
    fn fix_checksum(&mut self, offset: u32, pseudo: Sum, plain: Sum, udp: bool) -> bool {
        let Some(bytes) = self.bytes(offset, 2) else { return false };
        let field = bytes.half(0);
        let delta = pseudo + plain;
        let fixed = if udp { delta.update_udp(field) } else { delta.update(field) };
        bytes.overwrite(&[fixed]);
        true
    }

    #[inline(always)]
    fn quote(&self, _length: u32, _into: &mut Quote) -> bool {
        false
    }

    #[inline(always)]
    fn replace(&mut self, frame: &[u16; ANSWER_HALVES], length: u32, _: &Quote, quoted: u32) -> bool {
        if length == 0 || length > 2 * ANSWER_HALVES as u32 || quoted != 0 {
            return false;
        }
        // What is too short for the wire (IEEE 802.3) keeps the sender's own last bytes behind it: not every driver pads.
        let excess = self.length().saturating_sub(length.max(SHORTEST));
        // SAFETY: the context is valid; the buffer is at least as long as announced.
        unsafe {
            (excess == 0 || bpf_xdp_adjust_tail(self.0, -(excess as i32)) == 0)
                && bpf_xdp_store_bytes(self.0, 0, frame.as_ptr().cast_mut().cast(), length) == 0
        }
    }
}

/// Runs the pipeline on a frame.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let (start, end) = bounds(ctx.ctx);
    let Some(header) = Bytes::within(start, end, ETHERNET) else {
        return xdp_action::XDP_PASS;
    };
    fetch(start, end);
    match u16::from_be(header.half(12)) {
        Ipv4::ETHERTYPE => run_family::<Ipv4>(ctx),
        Ipv6::ETHERTYPE => run_family::<Ipv6>(ctx),
        _ => xdp_action::XDP_PASS,
    }
}

/// Has the end of an IPv4 header on its way while the Ethernet header is waited for. Both come from whoever has written them, a
/// device or another core, and lie in two cache lines where a frame begins in the last bytes of one.
#[inline(always)]
fn fetch(start: usize, end: usize) {
    if let Some(header) = Bytes::within(start, end, ETHERNET + 20) {
        // SAFETY: within the bounds that were checked. Not `pure`: the load is what it is for.
        unsafe {
            asm!(
                "{value} = *(u32 *)({header} + 30)",
                header = in(reg) header.0,
                value = out(reg) _,
                options(readonly, nostack, preserves_flags)
            );
        }
    }
}

#[inline(always)]
fn run_family<F: Parts>(ctx: &XdpContext) -> u32
where
    XdpStages: Stages<F>,
{
    let Some(live) = Live::new(ctx.as_ptr()) else { return xdp_action::XDP_PASS };
    let Some(work) = F::scratch().get_ptr_mut(0) else { return xdp_action::XDP_PASS };
    // SAFETY: this core's own copy.
    let work = unsafe { &mut *work };
    // SAFETY: the context is valid while the program runs.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    if !work.begin(&live, ifindex, 1).is_ok_and(|interface| for_us(ctx, interface)) {
        return xdp_action::XDP_PASS;
    }
    work.slot = live.slot();
    let verdict = datapath::run(&mut XdpStages(ctx.ctx), work);
    if maps::DEBUG.load() != 0 {
        log(ctx, ifindex, verdict as u32, work.reason as u32);
    }
    match verdict {
        Verdict::Drop => xdp_action::XDP_DROP,
        // To the device that it came from, which was noted as one that transmits. Not by `XDP_TX`: veth wakes its peer for that only
        // where the peer runs XDP, too (`veth_xdp_flush`).
        Verdict::Answer => xdp_action::XDP_REDIRECT,
        Verdict::Forward => transmit(&mut Xdp::new(ctx.ctx), work),
        _ => xdp_action::XDP_PASS,
    }
}

/// A function of its own: its stack is not that of the stages. The verifier removes the call where it says nothing.
#[inline(never)]
fn log(ctx: &XdpContext, ifindex: u32, verdict: u32, reason: u32) {
    debug!(ctx, "xdp: interface {} verdict {} reason {}", ifindex, verdict, reason);
}

/// Whether the frame is addressed to this interface's MAC: no broadcast, no multicast, nothing that a promiscuous
/// interface overhears.
#[inline(always)]
fn for_us(ctx: &XdpContext, interface: &Interface) -> bool {
    let (start, end) = bounds(ctx.ctx);
    Bytes::within(start, end, ETHERNET)
        .is_some_and(|header| header.word(0) == interface.mac_high && header.half(4) == interface.mac_low)
}

/// Sends the frame to the device that was noted when it was asked whether that can transmit.
#[inline(always)]
fn transmit<F: Family>(frame: &mut Xdp, work: &Work<F>) -> u32 {
    if frame.store(0, &work.hop().mac_halves()) { xdp_action::XDP_REDIRECT } else { xdp_action::XDP_ABORTED }
}
