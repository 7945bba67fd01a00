//! Where a packet lies: XDP, TC or a byte buffer. The contexts differ in three things only: how bytes are loaded
//! and stored, how transport checksums are fixed, and (outside this crate's pure half) how a verdict becomes an action.

use netfw_common::checksum::Sum;

/// The place in the kernel where the pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP on a managed interface: finishes a packet or leaves it untouched.
    Xdp,
    /// TC ingress of a managed interface: complete.
    Ingress,
    /// TC egress of a managed interface: what the master itself, or a neighbour of netfw, sends.
    Egress,
}

/// Packet bytes that were checked to be there; accessors cannot fail. Offsets are constants below the checked length.
pub trait View {
    /// A byte.
    fn byte(&self, at: u32) -> u8;
    /// 16 bits in memory order.
    fn half(&self, at: u32) -> u16;
    /// 32 bits in memory order.
    fn word(&self, at: u32) -> u32;
}

/// A packet at a hook.
pub trait Context {
    /// Which hook: a constant, so that what a hook cannot do is not even compiled for it.
    const HOOK: Hook;

    /// Bytes under inspection.
    type View<'a>: View
    where
        Self: 'a;

    /// Length of the frame that can be reached, in bytes.
    fn length(&self) -> u32;

    /// Wire packets in this one: more than 1 for what GRO merged or TSO will split.
    fn segments(&self) -> u32;

    /// `LENGTH` bytes from `offset`, which must be at most [`MAX_OFFSET`]; none when the packet ends before.
    fn view<const LENGTH: u32>(&self, offset: u32) -> Option<Self::View<'_>>;

    /// Overwrites bytes (in memory order); false when that failed.
    fn store<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool;

    /// Brings a transport checksum up to date: `pseudo` is the change of the pseudo header, `plain` that of what
    /// the checksum covers otherwise. The two differ for packets whose checksum the hardware will complete.
    /// False when that failed.
    fn fix_checksum(&mut self, offset: u32, pseudo: Sum, plain: Sum, udp: bool) -> bool;

    /// Copies the first `length` bytes of the IP packet; false when that failed (or at XDP, which leaves answers to TC).
    fn quote(&self, length: u32, into: &mut Quote) -> bool;

    /// Replaces the whole frame by the first `length` bytes of `frame` and, behind them, the first `quoted` bytes of
    /// `quote`; false when that failed (or at XDP, which has no way to quote, with a quote).
    fn replace(&mut self, frame: &[u16; ANSWER_HALVES], length: u32, quote: &Quote, quoted: u32) -> bool;
}

/// Highest offset at which headers are looked for.
pub const MAX_OFFSET: u32 = 255;
/// How much of a packet an ICMP error quotes at most, bytes: within the 576 and 1,280 that RFC 1812 §4.3.2.3 and
/// RFC 4443 §2.4 allow for the whole error.
pub const QUOTE: u32 = 512;
/// The beginning of a packet, with zeros behind it.
pub type Quote = [u32; QUOTE as usize / 4];
/// Size of the buffer for the headers of an answer, in 16-bit words.
pub const ANSWER_HALVES: usize = 64;
