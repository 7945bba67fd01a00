//! SYN cookies, made and checked by the kernel (Linux 6.0, `CONFIG_SYN_COOKIES`).
//!
//! Its helpers take headers of packets. What the cookie depends on, apart from the kernel's secret and the minute, is the addresses, the
//! ports, and the sequence number of the SYN; that is taken to be 0, because the reset that brings the cookie back does not
//! tell it. The kernel hides a segment size in it, too: without options always the same.

use aya_ebpf::helpers::generated::{
    bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4,
    bpf_tcp_raw_gen_syncookie_ipv6,
};
use netfw_common::{
    family::{Address, Family},
    tuple::Tuple,
};

use super::maps;
use crate::datapath::work::Work;

/// A TCP header without options.
type Segment = [u32; 5];
/// Its length as the header says it, in the word that also has flags and window.
const LENGTH: u32 = 0x5000_0000;
/// An IPv4 header, of which the addresses matter.
type Header4 = [u32; 5];
/// An IPv6 header, of which the addresses matter.
type Header6 = [u32; 10];

/// A cookie for the packet's tuple; 0: this kernel makes none.
#[inline(always)]
pub(super) fn make<F: Family>(work: &Work<F>) -> u32 {
    let tuple = &work.tuple;
    if maps::SYN_COOKIES.load() == 0 {
        return 0;
    }
    let mut segment = segment(tuple, 0, 0);
    let (length, segment) = (size_of::<Segment>() as u32, segment.as_mut_ptr().cast());
    // SAFETY: the headers are as long as the helpers expect.
    let made = unsafe {
        if F::V6 {
            bpf_tcp_raw_gen_syncookie_ipv6(header6(tuple).as_mut_ptr().cast(), segment, length)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv4(header4(tuple).as_mut_ptr().cast(), segment, length)
        }
    };
    // The segment size lies above it.
    if made < 0 { 0 } else { made as u32 }
}

/// Whether it is one that was made for this tuple in the last two minutes.
#[inline(always)]
pub(super) fn checks<F: Family>(tuple: &Tuple<F::Addr>, cookie: u32) -> bool {
    if maps::SYN_COOKIES.load() == 0 {
        return false;
    }
    // As the ACK that ends a handshake would bring it.
    let mut segment = segment(tuple, 1, cookie.wrapping_add(1));
    let segment = segment.as_mut_ptr().cast();
    // SAFETY: as above.
    unsafe {
        if F::V6 {
            bpf_tcp_raw_check_syncookie_ipv6(header6(tuple).as_mut_ptr().cast(), segment) == 0
        } else {
            bpf_tcp_raw_check_syncookie_ipv4(header4(tuple).as_mut_ptr().cast(), segment) == 0
        }
    }
}

#[inline(always)]
fn segment<A>(tuple: &Tuple<A>, sequence: u32, acknowledged: u32) -> Segment {
    let ports = u32::from(tuple.source_port) << 16 | u32::from(tuple.destination_port);
    [ports.to_be(), sequence.to_be(), acknowledged.to_be(), LENGTH.to_be(), 0]
}

#[inline(always)]
fn header4<A: Address>(tuple: &Tuple<A>) -> Header4 {
    [0, 0, 0, tuple.source.widen()[0], tuple.destination.widen()[0]]
}

#[inline(always)]
fn header6<A: Address>(tuple: &Tuple<A>) -> Header6 {
    let ([a, b, c, d], [e, f, g, h]) = (tuple.source.widen(), tuple.destination.widen());
    [0, 0, a, b, c, d, e, f, g, h]
}
