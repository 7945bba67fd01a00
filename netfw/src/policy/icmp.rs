//! ICMP types by name, as IANA registers them.

type Names = &'static [(&'static str, u8)];

const ICMP: Names = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
];

const ICMPV6: Names = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbour-solicitation", 135),
    ("neighbour-advertisement", 136),
    ("redirect", 137),
];

/// The names of the types that `protocol` has; none if it is not an ICMP.
pub(super) fn types_of(protocol: u8) -> Option<Names> {
    match protocol {
        super::ICMP => Some(ICMP),
        super::ICMPV6 => Some(ICMPV6),
        _ => None,
    }
}
