//! How long a flow may stay silent. All numbers of the RFCs stand here.

use crate::{tcp::State, wire};

/// Kinds of idle timeout; the discriminant indexes [`crate::image::Policy::timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Timeout {
    /// RFC 5382 REQ-5: established connections, at least 2 h 4 min; also half-closed ones (RFC 6146 §3.5.2.2), whose
    /// other half may wait for hours.
    TcpEstablished = 0,
    /// RFC 5382 REQ-5: partially open, at least 4 min; RFC 7857 §2.1 asks for a setting of its own.
    TcpOpening = 1,
    /// The same for closed ones; RFC 7857 §2.2 wants the 4 min after a RST, too.
    TcpClosed = 2,
    /// RFC 4787 REQ-5: at least 2 min, 5 min recommended.
    Udp = 3,
    /// RFC 4787 REQ-5: the minimum, for UDP that nobody has answered.
    UdpUnanswered = 4,
    /// RFC 5508 REQ-2: at least 60 s.
    Icmp = 5,
    /// Protocols without an RFC on their translation.
    Other = 6,
}

/// How many kinds there are.
pub const TIMEOUTS: usize = 7;

/// The timeout that applies to a flow of `protocol` in `state`.
#[inline(always)]
pub const fn kind(protocol: u32, state: State) -> Timeout {
    const TCP: u32 = wire::TCP as u32;
    const UDP: u32 = wire::UDP as u32;
    const ICMP: u32 = wire::ICMP as u32;
    const ICMPV6: u32 = wire::ICMPV6 as u32;
    match (protocol, state) {
        (TCP, State::Established | State::Closing) => Timeout::TcpEstablished,
        (TCP, State::Opening) => Timeout::TcpOpening,
        (TCP, State::Closed) => Timeout::TcpClosed,
        (UDP, State::Opening) => Timeout::UdpUnanswered,
        (UDP, _) => Timeout::Udp,
        (ICMP | ICMPV6, _) => Timeout::Icmp,
        _ => Timeout::Other,
    }
}

/// Idle ticks after which a flow of `protocol` in `state` is dead. A port-forward's own timeout (0: none) stands in for
/// those of answered flows.
#[inline(always)]
pub fn limit(timeouts: &[u32; TIMEOUTS], protocol: u32, state: State, own: u32) -> u32 {
    let kind = kind(protocol, state);
    if own != 0 && !matches!(kind, Timeout::TcpOpening | Timeout::TcpClosed | Timeout::UdpUnanswered) {
        return own;
    }
    timeouts.get(kind as usize).copied().unwrap_or(0)
}
