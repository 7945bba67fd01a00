//! How far a TCP connection has come, from what each side was seen to send (RFC 9293 §3.3.2).
//!
//! Each direction of a flow records only what passed in that direction (no cache line is shared between
//! cores); the state is computed from both records by [`state`], here and in user space alike.
//!
//! **No packet is dropped for its numbers, and none is believed for its flags alone.** The ends check every segment
//! themselves (RFC 9293 §3.10.7.4, RFC 5961), and a gateway that refuses what it holds to be out of window breaks
//! connections whose beginning, window scale or other path it has not seen. But whoever knows the ports of a connection
//! can send a SYN, FIN or RST into it, and that must not end it here while it lives on at both ends. So what a segment
//! claims counts only if the *other* side's acknowledgments, which the forger does not see, agree:
//!
//! - a side *has answered* when it acknowledged what the other one had sent (a spoofed handshake never does);
//! - a FIN or RST counts when it stands where the other side expects the next byte, or at most [`SLACK`] beyond, for
//!   data that was on its way. A guess succeeds once in 260,000 times, and then it still takes nothing but the
//!   patience of the timeout: the next packet of that side takes a RST back.
//!
//! Two numbers a direction are enough, both from its last packet: no window is followed, so that a wrong number does
//! harm only until the next right one. (RFC 6146 §3.5.2 and RFC 7857 §2 leave the validation to the gateway.)

use crate::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// How far beyond the last acknowledgment a FIN or RST may stand. The end of a transfer is acknowledged by every second
/// segment at least (RFC 9293 §3.8.6.3): this is nearly two of the largest that an Ethernet carries.
pub const SLACK: u32 = 1 << 14;

/// A segment, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Segment {
    /// Bits of the 14th header byte.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number, if the ACK flag is set.
    pub acknowledged: u32,
    /// Bytes of data.
    pub length: u32,
}

impl Segment {
    /// Whether any of these flags is set.
    const fn has(self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The sequence number after it; SYN and FIN take one each.
    pub const fn end(self) -> u32 {
        let control = self.has(TCP_SYN) as u32 + self.has(TCP_FIN) as u32;
        self.sequence.wrapping_add(self.length).wrapping_add(control)
    }
}

/// What one side was seen to send: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Seen(pub u8);

impl Seen {
    /// Any packet at all.
    pub const PACKET: u8 = 0x01;
    /// A SYN.
    pub const SYN: u8 = 0x02;
    /// An acknowledgment of what the other side was seen to send.
    pub const ANSWER: u8 = 0x04;
    /// A FIN.
    pub const FIN: u8 = 0x08;
    /// A RST, and nothing but RSTs since.
    pub const RST: u8 = 0x10;
    /// Any acknowledgment, right or wrong.
    pub const ACK: u8 = 0x20;

    /// Whether any of `bits` is set.
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// Adds a packet that is not TCP.
    #[must_use]
    pub const fn packet(self) -> Self {
        Self(self.0 | Self::PACKET)
    }
}

/// Record of one side.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Side {
    /// What kinds of packets it has sent.
    pub seen: Seen,
    /// Where its last packet ended, but from its FIN on, where that did.
    pub end: u32,
    /// What it acknowledged last.
    pub acknowledged: u32,
}

impl Side {
    /// Adds a segment. `peer` is the other side's record, as long as the connection has not proved itself; after that
    /// nothing of it is needed.
    #[must_use]
    #[inline(always)]
    pub const fn record(self, segment: Segment, peer: Self) -> Self {
        let mut side = self;
        let mut seen = self.seen.0 | Seen::PACKET;
        if segment.has(TCP_RST) || segment.has(TCP_FIN) || !self.seen.has(Seen::FIN) {
            side.end = segment.end();
        }
        if segment.has(TCP_ACK) {
            side.acknowledged = segment.acknowledged;
            seen |= Seen::ACK;
        }
        if segment.has(TCP_RST) {
            side.seen = Seen(seen | Seen::RST);
            return side;
        }
        // The receiver has evidently refused a RST that is followed by anything (RFC 5961 §3), or it was forged.
        seen &= !Seen::RST;
        if segment.has(TCP_SYN) {
            seen |= Seen::SYN;
        }
        if segment.has(TCP_FIN) {
            seen |= Seen::FIN;
        }
        if segment.has(TCP_ACK) && peer.is_answered_by(segment.acknowledged) {
            seen |= Seen::ANSWER;
        }
        side.seen = Seen(seen);
        side
    }

    /// Whether an acknowledgment is one of what this side has sent. Of a connection that was picked up in the middle
    /// too little is known; but nobody answers there for whom it does not exist.
    const fn is_answered_by(self, acknowledged: u32) -> bool {
        self.seen.has(Seen::PACKET) && (!self.seen.has(Seen::SYN) || near(self.end, acknowledged))
    }

    /// Whether this side's last word stands where `peer` expects it.
    const fn is_expected_by(self, peer: Self) -> bool {
        peer.seen.has(Seen::ACK) && near(self.end, peer.acknowledged)
    }

    const fn has_finished(self, peer: Self) -> bool {
        self.seen.has(Seen::FIN) && self.is_expected_by(peer)
    }

    /// A SYN is refused by a RST without a number of its own, which acknowledges it (RFC 9293 §3.10.7.3).
    const fn refuses(self, peer: Self) -> bool {
        self.seen.has(Seen::ACK) && !peer.seen.has(Seen::ACK) && near(peer.end, self.acknowledged)
    }

    const fn has_reset(self, peer: Self) -> bool {
        self.seen.has(Seen::RST) && (self.is_expected_by(peer) || self.refuses(peer))
    }
}

/// Whether `number` is at `last`, or little beyond.
const fn near(number: u32, last: u32) -> bool {
    number.wrapping_sub(last) <= SLACK
}

/// State of a flow, for every protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Only the originator has spoken, or the handshake is not complete.
    Opening,
    /// Both ends have spoken.
    Established,
    /// TCP: one end has closed. The other one may go on as long as it likes (RFC 6146 §3.5.2.2).
    Closing,
    /// TCP: both ends have closed, or one has reset. Kept for late packets, first to go.
    Closed,
}

/// State of a TCP connection from what its originator and its responder have sent.
#[inline(always)]
pub const fn state(originator: Side, responder: Side) -> State {
    if originator.has_reset(responder) || responder.has_reset(originator) {
        return State::Closed;
    }
    let answered = originator.seen.has(Seen::ANSWER) && responder.seen.has(Seen::ANSWER);
    match (originator.has_finished(responder), responder.has_finished(originator)) {
        (true, true) => State::Closed,
        _ if !answered => State::Opening,
        (false, false) => State::Established,
        _ => State::Closing,
    }
}

/// Whether flags may occur in one segment: some flag that means something, and no contradiction. The others
/// are scans (null, SYN+FIN, SYN+RST, FIN without ACK), which netfilter's conntrack refuses as well.
pub const fn flags_are_sane(flags: u8) -> bool {
    let syn = flags & TCP_SYN != 0;
    let fin = flags & TCP_FIN != 0;
    let rst = flags & TCP_RST != 0;
    let ack = flags & TCP_ACK != 0;
    match (syn, fin, rst) {
        (true, false, false) | (false, false, true) => true,
        (false, _, false) => ack,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_flags_is_judged() {
        let sane = (0..=0x3f_u8).filter(|&flags| flags_are_sane(flags)).count();
        assert_eq!(
            sane,
            8 + 8 + 4 + 4,
            "SYN and RST with ACK, PSH, URG free; ACK and FIN+ACK with PSH, URG free"
        );
        for scan in [0, TCP_FIN, TCP_SYN | TCP_FIN, TCP_SYN | TCP_RST, 0x29] {
            assert!(!flags_are_sane(scan), "{scan:#x}");
        }
    }
}
