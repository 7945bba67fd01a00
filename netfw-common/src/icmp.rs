//! How ICMP is told apart by the two ports of a tuple, which it has not.
//!
//! - *Echo*: the identifier plays the part of the port of whoever asks (RFC 5508 §3), the other port is 0.
//! - *Any other but errors*: its type, in both ports, marked so that it is no identifier and an answer is no request. So packets of
//!   each type are a flow of their own, to which only the answer to them belongs.

/// Marks the type on the side of whoever asks.
const ASKS: u16 = 0x100;
/// Marks it on the other side.
const ANSWERS: u16 = 0x200;

/// Types of an echo request and its reply (RFC 792, RFC 4443 §4).
#[inline(always)]
pub const fn echoes(v6: bool) -> [u8; 2] {
    if v6 { [128, 129] } else { [8, 0] }
}

/// Whether packets of this type answer others: echo replies; timestamps, information and address masks (RFC 792, RFC 950); what
/// nodes (RFC 4620) and home agents (RFC 6275) tell when asked.
#[inline(always)]
pub const fn is_answer(v6: bool, kind: u8) -> bool {
    if v6 { matches!(kind, 129 | 140 | 145) } else { matches!(kind, 0 | 14 | 16 | 18) }
}

/// Source and destination port in the tuple of a packet that is no error.
#[inline(always)]
pub const fn ports(v6: bool, kind: u8, identifier: u16) -> [u16; 2] {
    let [request, reply] = echoes(v6);
    if kind == request {
        [identifier, 0]
    } else if kind == reply {
        [0, identifier]
    } else if is_answer(v6, kind) {
        // All of these have the type that follows upon that of the request.
        let request = kind as u16 - 1;
        [ANSWERS | request, ASKS | request]
    } else {
        [ASKS | kind as u16, ANSWERS | kind as u16]
    }
}

/// The type of the packets in whose direction a flow has these ports: that of an echo request, unless they are marked.
#[inline(always)]
pub const fn asked(v6: bool, ports: [u16; 2]) -> u8 {
    if are_marks(ports) { ports[1] as u8 } else { echoes(v6)[0] }
}

/// Whether they stand for a type, and not for an identifier.
#[inline(always)]
pub const fn are_marks([source, destination]: [u16; 2]) -> bool {
    source != 0 && destination != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reversed([source, destination]: [u16; 2]) -> [u16; 2] {
        [destination, source]
    }

    #[test]
    fn an_echo_is_known_by_its_identifier() {
        for v6 in [false, true] {
            let [request, reply] = echoes(v6);
            assert_eq!(ports(v6, reply, 0x10d), reversed(ports(v6, request, 0x10d)));
            assert_eq!(asked(v6, ports(v6, request, 0x10d)), request);
            assert_eq!(asked(v6, ports(v6, request, 0)), request);
        }
    }

    #[test]
    fn each_other_type_is_a_flow_of_its_own() {
        for v6 in [false, true] {
            let others = || (0..=u8::MAX).filter(|kind| !echoes(v6).contains(kind));
            for kind in others() {
                let own = ports(v6, kind, 7);
                assert!(are_marks(own), "an identifier could be as well: {kind}");
                assert_eq!(others().filter(|other| ports(v6, *other, 7) == own).count(), 1, "{kind}");
                let answers = others().filter(|other| ports(v6, *other, 7) == reversed(own));
                let expected = is_answer(v6, kind).then(|| kind - 1);
                let expected = expected.or((kind < u8::MAX && is_answer(v6, kind + 1)).then(|| kind + 1));
                assert!(answers.eq(expected), "{kind}");
                if !is_answer(v6, kind) {
                    assert_eq!(asked(v6, own), kind);
                }
            }
        }
    }
}
