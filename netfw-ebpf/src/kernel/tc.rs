//! The TC contexts. Bytes are read and written directly: the verifier adds what makes the headers of a packet that shares
//! its data our own. Transport checksums change through a helper, which knows of those that the hardware will complete;
//! the IPv4 header leaves such sums alone, because its own checksum balances every change.

use core::{arch::asm, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_redir_neigh},
    helpers::generated::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_tail,
        bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use aya_log_ebpf::debug;
use netfw_common::{
    checksum::Sum,
    family::{Address, Family, Ipv4, Ipv6},
    neighbour::{self, Neighbour},
    wire::ETHERNET,
};

use super::{
    action,
    live::Live,
    maps,
    parts::Parts,
    stages::{EgressStages, IngressStages},
    xdp::{Bytes, bounded},
};
use crate::datapath::{
    self, Verdict,
    context::{ANSWER_HALVES, Context, Hook, QUOTE, Quote},
    kernel::{Kernel, Way},
    stages::Stages,
    work::Work,
};

/// Headers that must lie in the linear part: Ethernet, IPv6, an extension, a quoted header and its ports.
const HEADERS: u32 = 128;
/// Marks what was judged already and comes in again for the master's own stack, so that the ingress hook lets it through. `tc_index` survives the way
/// from one interface to another's ingress and can't be set from outside; `mark` belongs to others.
const ANSWERED: u32 = 0x6e66;
/// Addressed to this host (`PACKET_HOST`).
const TO_US: u32 = 0;
/// The last of the kinds that follow: to all (`PACKET_BROADCAST`), to many (`PACKET_MULTICAST`).
const TO_MANY: u32 = 2;

/// A packet at a TC hook.
pub struct Tc<const EGRESS: bool>(*mut __sk_buff);

impl<const EGRESS: bool> Tc<EGRESS> {
    /// The packet of this context.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }
}

impl<const EGRESS: bool> Context for Tc<EGRESS> {
    const HOOK: Hook = if EGRESS { Hook::Egress } else { Hook::Ingress };

    type View<'a>
        = Bytes
    where
        Self: 'a;

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        segments(self.0)
    }

    #[inline(always)]
    fn view<const LENGTH: u32>(&self, offset: u32) -> Option<Bytes> {
        let offset = bounded(offset)?;
        let (start, end) = bounds(self.0);
        Bytes::within(start + offset, end, LENGTH)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool {
        let Some(offset) = bounded(offset) else { return false };
        let (start, end) = bounds(self.0);
        Bytes::within(start + offset, end, 2 * N as u32).is_some_and(|bytes| {
            bytes.overwrite(halves);
            true
        })
    }

    #[inline(always)]
    fn fix_checksum(&mut self, offset: u32, pseudo: Sum, plain: Sum, udp: bool) -> bool {
        let udp = if udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let change = |delta: Sum, flags: u64| {
            let delta = u64::from(delta.to_wsum());
            // SAFETY: the helper checks the offset.
            delta == 0 || unsafe { bpf_l4_csum_replace(self.0, offset, 0, delta, flags | udp) == 0 }
        };
        change(pseudo, u64::from(BPF_F_PSEUDO_HDR)) && change(plain, 0)
    }

    #[inline(always)]
    fn quote(&self, length: u32, into: &mut Quote) -> bool {
        if length == 0 || length > QUOTE {
            return false;
        }
        // SAFETY: the buffer is at least as long as announced.
        unsafe {
            bpf_skb_load_bytes(self.0.cast(), ETHERNET, into.as_mut_ptr().cast(), quotable(length)) == 0
        }
    }

    #[inline(always)]
    fn replace(&mut self, frame: &[u16; ANSWER_HALVES], length: u32, quote: &Quote, quoted: u32) -> bool {
        if length == 0 || length > 2 * ANSWER_HALVES as u32 || quoted > QUOTE {
            return false;
        }
        // SAFETY: the buffers are at least as long as announced.
        unsafe {
            bpf_skb_change_tail(self.0, length + quoted, 0) == 0
                && bpf_skb_store_bytes(self.0, 0, frame.as_ptr().cast(), length, 0) == 0
                && (quoted == 0
                    || bpf_skb_store_bytes(self.0, length, quote.as_ptr().cast(), quotable(quoted), 0) == 0)
        }
    }
}

/// `length`, which is from 1 to [`QUOTE`]: said once more where it is used, as Linux 6.1 forgets the bounds of a number of
/// 32 bits that was put on the stack meanwhile.
#[inline(always)]
fn quotable(length: u32) -> u32 {
    const { assert!(QUOTE == 512) };
    let mut less = u64::from(length.wrapping_sub(1));
    // SAFETY: arithmetic on a register, which changes nothing for such a length.
    unsafe { asm!("{less} &= 511", less = inout(reg) less, options(nomem, nostack)) };
    less as u32 + 1
}

/// Where the linear part begins and ends. Volatile: LLVM would hand the two to a function of its own as 32-bit
/// numbers, which the verifier no longer knows as packet pointers.
#[inline(always)]
fn bounds(skb: *mut __sk_buff) -> (usize, usize) {
    // SAFETY: the context is valid while the program runs.
    unsafe {
        (
            ptr::read_volatile(&raw const (*skb).data) as usize,
            ptr::read_volatile(&raw const (*skb).data_end) as usize,
        )
    }
}

#[inline(always)]
fn segments(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*skb).gso_segs.max(1) }
}

/// Runs the pipeline on a packet.
#[inline(always)]
pub fn run<const EGRESS: bool>(ctx: &TcContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // First of all: each packet that was forwarded at ingress comes by.
    if EGRESS && was_judged(skb) {
        return action::NEXT;
    }
    // SAFETY: the context is valid while the program runs.
    let (protocol, vlan, kind, index) =
        unsafe { ((*skb).protocol, (*skb).vlan_present, (*skb).pkt_type, (*skb).tc_index) };
    if vlan != 0 || (!EGRESS && kind > TO_MANY) {
        return action::NEXT;
    }
    if !EGRESS && index == ANSWERED {
        // SAFETY: as above.
        unsafe { (*skb).tc_index = 0 };
        return action::NEXT;
    }
    match u16::from_be(protocol as u16) {
        Ipv4::ETHERTYPE => run_family::<Ipv4, EGRESS>(ctx),
        Ipv6::ETHERTYPE => run_family::<Ipv6, EGRESS>(ctx),
        _ => action::NEXT,
    }
}

#[inline(always)]
fn run_family<F: Parts, const EGRESS: bool>(ctx: &TcContext) -> i32
where
    IngressStages: Stages<F>,
    EgressStages: Stages<F>,
{
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    let Some(live) = Live::new(ctx.as_ptr()) else { return action::NEXT };
    let Some(work) = F::scratch().get_ptr_mut(0) else { return action::NEXT };
    // SAFETY: this core's own copy; the context is valid.
    let (work, ifindex, arrived) = unsafe { (&mut *work, (*skb).ifindex, (*skb).ingress_ifindex) };
    if work.begin(&live, ifindex, segments(skb)).is_err() {
        if EGRESS || <Live as Kernel<F>>::reassembler(&live) != ifindex {
            return action::NEXT;
        }
        if !resume(&live, work, skb) {
            return action::SHOT;
        }
    }
    // SAFETY: the context is valid.
    work.group_frame = u32::from(!EGRESS && unsafe { (*skb).pkt_type } != TO_US);
    work.routed = if EGRESS { arrived } else { 0 };
    linearise(ctx);
    work.slot = live.slot();
    let verdict = if EGRESS {
        datapath::run(&mut EgressStages(skb), work)
    } else {
        datapath::run(&mut IngressStages(skb), work)
    };
    if maps::DEBUG.load() != 0 {
        log(ctx, ifindex, verdict as u32, work.reason as u32);
    }
    match verdict {
        Verdict::Pass | Verdict::Punt | Verdict::Accept => to_stack(&mut Tc::<EGRESS>::new(skb), &live, work),
        Verdict::Forward if work.way.hop.ifindex == 0 => to_stack(&mut Tc::<EGRESS>::new(skb), &live, work),
        Verdict::Forward => transmit::<F, EGRESS>(&mut Tc::new(skb), work),
        Verdict::Drop => action::SHOT,
        Verdict::Hold => reassemble::<F>(&live, skb, work),
        // Who sent it is not the neighbour that the frame names.
        Verdict::Answer if work.reassembled != 0 => {
            work.way.gateway = F::Addr::default();
            neighbour::<F>(work.ifindex, &work.way.gateway)
        }
        Verdict::Answer => answer::<EGRESS>(skb, ifindex),
    }
}

/// A function of its own: its stack is not that of the stages. The verifier removes the call where it says nothing.
#[inline(never)]
fn log(ctx: &TcContext, ifindex: u32, verdict: u32, reason: u32) {
    debug!(ctx, "tc: interface {} verdict {} reason {}", ifindex, verdict, reason);
}

/// What arrived on a managed interface was judged there, also where it took the way through the reassembly.
#[inline(always)]
fn was_judged(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is valid.
    let arrived = unsafe { (*skb).ingress_ifindex };
    // Neither depends on an image, nor on the family.
    let live = Live::resume(ptr::null_mut(), 0);
    arrived != 0
        && (Kernel::<Ipv4>::slot_of(&live, arrived) != 0 || Kernel::<Ipv4>::reassembler(&live) == arrived)
}

/// Sets up for a packet that the reassembly gives back: as if it had just come in where its fragments did.
#[inline(always)]
fn resume<F: Parts>(live: &Live, work: &mut Work<F>, skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is valid.
    let place = unsafe { (*skb).tc_index };
    // SAFETY: as above.
    unsafe { (*skb).tc_index = 0 };
    let Some(held) = <Live as Kernel<F>>::held(live, place.wrapping_sub(1)) else { return false };
    let Some(interface) = <Live as Kernel<F>>::interface(live, held.interface) else { return false };
    if work.begin(live, interface.ifindex, segments(skb)).is_err() {
        return false;
    }
    work.reassembled = place;
    true
}

/// Hands a fragment to the kernel's reassembly, which lies behind the other end of a veth pair.
#[inline(always)]
fn reassemble<F: Parts>(live: &Live, skb: *mut __sk_buff, work: &Work<F>) -> i32 {
    // SAFETY: the context is valid; a helper with plain arguments.
    unsafe {
        (*skb).tc_index = work.place;
        bpf_redirect_peer(<Live as Kernel<F>>::reassembler(live), 0) as i32
    }
}

/// Lets the packet go on to the stack; what comes from the reassembly, as if from where its fragments came in.
#[inline(always)]
fn to_stack<F: Parts, const EGRESS: bool>(packet: &mut Tc<EGRESS>, live: &Live, work: &Work<F>) -> i32 {
    if EGRESS || work.reassembled == 0 {
        return action::NEXT;
    }
    let Some(interface) = <Live as Kernel<F>>::interface(live, work.interface) else { return action::SHOT };
    let (high, low) = (interface.mac_high, interface.mac_low);
    if !packet.store(0, &[high as u16, (high >> 16) as u16, low]) {
        return action::SHOT;
    }
    // SAFETY: the context is valid; a helper with plain arguments.
    unsafe {
        (*packet.0).tc_index = ANSWERED;
        bpf_redirect(work.ifindex, u64::from(BPF_F_INGRESS)) as i32
    }
}

/// Brings the headers into the part of the packet that can be read directly.
#[inline(always)]
fn linearise(ctx: &TcContext) {
    let wanted = ctx.len().min(HEADERS);
    let (start, end) = bounds(ctx.as_ptr().cast());
    if start + wanted as usize > end {
        // SAFETY: the context is valid. Failure shows as a packet that is too short.
        unsafe { bpf_skb_pull_data(ctx.as_ptr().cast(), wanted) };
    }
}

/// Sends the packet out. The kernel looks the neighbour up when the cached way was just renewed: so it ages and probes
/// it.
#[inline(always)]
fn transmit<F: Parts, const EGRESS: bool>(packet: &mut Tc<EGRESS>, work: &mut Work<F>) -> i32 {
    let hop = work.way.hop;
    if work.resolve != 0 {
        note_probed(work);
        leave_to_kernel(work);
        return neighbour::<F>(hop.ifindex, &work.way.gateway);
    }
    if !packet.store(0, &hop.mac_halves()) {
        return action::SHOT;
    }
    // SAFETY: a helper with plain arguments.
    unsafe { bpf_redirect(hop.ifindex, 0) as i32 }
}

/// Notes that the kernel has sent to this neighbour, for whoever renews a way to it.
#[inline(always)]
fn note_probed<F: Family>(work: &Work<F>) {
    if !work.knows_neighbour() {
        return;
    }
    let Way { hop, gateway } = &work.way;
    if let Some(place) = maps::NEIGHBOURS.get_ptr_mut(neighbour::place(*gateway, hop.ifindex)) {
        let neighbour = Neighbour { address: gateway.widen(), ifindex: hop.ifindex, sent: hop.found };
        // SAFETY: a map's value, which may be written by another core at the same time ([`Neighbour`]).
        unsafe { *place = neighbour };
    }
}

/// Names no neighbour while one on the link has not answered. If he never does, the kernel tells the sender only of a packet whose
/// route it has found itself (`dst_link_failure`), and the sender would wait for minutes.
#[inline(always)]
fn leave_to_kernel<F: Family>(work: &mut Work<F>) {
    let is_on_link = work.way.gateway == work.leaving.destination;
    if is_on_link && !work.knows_neighbour() {
        work.way.gateway = F::Addr::default();
    }
}

/// Sends the packet to the neighbour with this address; without one, to where the kernel's routes lead. A function of
/// its own: its stack is not that of the stages.
#[inline(never)]
fn neighbour<F: Parts>(ifindex: u32, gateway: &F::Addr) -> i32 {
    if *gateway == F::Addr::default() {
        // SAFETY: without parameters the kernel asks its routing table.
        return unsafe { bpf_redirect_neigh(ifindex, ptr::null_mut(), 0, 0) as i32 };
    }
    let mut next =
        bpf_redir_neigh { nh_family: u32::from(F::AF), __bindgen_anon_1: unsafe { core::mem::zeroed() } };
    next.__bindgen_anon_1.ipv6_nh = gateway.widen();
    // SAFETY: the parameters have the length that is announced.
    unsafe { bpf_redirect_neigh(ifindex, &mut next, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

/// Sends the answer back the way the packet came: out, or up to the master's own stack.
#[inline(always)]
fn answer<const EGRESS: bool>(skb: *mut __sk_buff, ifindex: u32) -> i32 {
    // SAFETY: the context is valid; a helper with plain arguments.
    unsafe {
        if EGRESS {
            (*skb).tc_index = ANSWERED;
        }
        bpf_redirect(ifindex, if EGRESS { u64::from(BPF_F_INGRESS) } else { 0 }) as i32
    }
}
