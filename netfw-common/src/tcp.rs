//! How far a TCP connection has come, from what each side was seen to send (RFC 9293 §3.3.2).
//!
//! Each direction of a flow records only what passed in that direction (no cache line is shared between
//! cores); the state is computed from both records by [`state`], here and in user space alike.

use crate::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// What one side was seen to send: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Seen(pub u8);

impl Seen {
    /// Any packet at all.
    pub const PACKET: u8 = 0x01;
    /// A SYN.
    pub const SYN: u8 = 0x02;
    /// An ACK without SYN: this side has received the other's answer.
    pub const ACK: u8 = 0x04;
    /// A FIN.
    pub const FIN: u8 = 0x08;
    /// A RST, and nothing but RSTs since.
    pub const RST: u8 = 0x10;

    /// Whether any of `bits` is set.
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// Adds a packet that is not TCP.
    #[must_use]
    pub const fn packet(self) -> Self {
        Self(self.0 | Self::PACKET)
    }

    /// Adds a TCP packet with these flags (bits of the 14th header byte).
    ///
    /// A packet after a RST takes the RST back: the receiver has evidently refused it (out of window, RFC 5961
    /// §3), or it was forged.
    #[must_use]
    pub const fn tcp(self, flags: u8) -> Self {
        let mut seen = self.0 | Self::PACKET;
        if flags & TCP_RST != 0 {
            return Self(seen | Self::RST);
        }
        seen &= !Self::RST;
        if flags & TCP_SYN != 0 {
            seen |= Self::SYN;
        } else if flags & TCP_ACK != 0 {
            seen |= Self::ACK;
        }
        if flags & TCP_FIN != 0 {
            seen |= Self::FIN;
        }
        Self(seen)
    }
}

/// State of a flow, for every protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Only the originator has spoken, or the handshake is not complete.
    Opening,
    /// Both ends have spoken.
    Established,
    /// TCP: one end has closed.
    Closing,
    /// TCP: both ends have closed, or one has reset. Kept for late packets, first to go.
    Closed,
}

/// State of a TCP connection from what its originator and its responder have sent.
pub const fn state(originator: Seen, responder: Seen) -> State {
    if originator.has(Seen::RST) || responder.has(Seen::RST) {
        return State::Closed;
    }
    match (originator.has(Seen::FIN), responder.has(Seen::FIN)) {
        (true, true) => State::Closed,
        (false, false) if originator.has(Seen::ACK) && responder.has(Seen::PACKET) => State::Established,
        (false, false) => State::Opening,
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

    fn play(packets: &[(bool, u8)]) -> State {
        let (mut originator, mut responder) = (Seen::default(), Seen::default());
        for &(from_originator, flags) in packets {
            let side = if from_originator { &mut originator } else { &mut responder };
            *side = side.tcp(flags);
        }
        state(originator, responder)
    }

    const OPEN: [(bool, u8); 3] = [(true, TCP_SYN), (false, TCP_SYN | TCP_ACK), (true, TCP_ACK)];

    #[test]
    fn a_connection_lives_and_ends() {
        assert_eq!(play(&OPEN[..1]), State::Opening);
        assert_eq!(play(&OPEN[..2]), State::Opening);
        assert_eq!(play(&OPEN), State::Established);
        let fin = TCP_FIN | TCP_ACK;
        assert_eq!(play(&[&OPEN[..], &[(true, fin)]].concat()), State::Closing);
        assert_eq!(play(&[&OPEN[..], &[(true, fin), (false, fin), (true, TCP_ACK)]].concat()), State::Closed);
    }

    #[test]
    fn a_refused_reset_is_taken_back() {
        assert_eq!(play(&[&OPEN[..], &[(true, TCP_RST)]].concat()), State::Closed);
        assert_eq!(play(&[&OPEN[..], &[(true, TCP_RST), (true, TCP_ACK)]].concat()), State::Established);
    }

    #[test]
    fn picked_up_in_mid_stream() {
        assert_eq!(play(&[(true, TCP_ACK), (false, TCP_ACK)]), State::Established);
        assert_eq!(play(&[(true, TCP_ACK)]), State::Opening);
    }

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
