//! `netfw explain`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use netfw_common::wire::{ICMP, ICMPV6, SCTP, TCP, UDP};

use super::{args::Explain, output};
use crate::{
    daemon::{
        Failure, Instance,
        explain::{Packet, Question, explain},
    },
    report::explain::Explanation,
};

/// An end of a packet as it is typed: an address, perhaps with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    ip: IpAddr,
    port: Option<u16>,
}

/// The port of who opens a connection, if none is named: one that programs draw.
const EPHEMERAL: u16 = 50_000;

/// Reads an end.
///
/// # Errors
/// It is none.
pub(super) fn end(text: &str) -> Result<End, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse() {
        return Ok(End { ip, port: None });
    }
    let whole = text.parse::<SocketAddr>().map(|end| End { ip: end.ip(), port: Some(end.port()) });
    whole.map_err(|_| "write an address, or one with a port: 192.0.2.1:22, [2001:db8::1]:22".to_owned())
}

/// Asks and tells.
///
/// # Errors
/// The question makes no sense, or has no answer.
pub(super) async fn run(instance: &Instance, json: bool, typed: &Explain) -> Result<()> {
    let packet = packet(typed)?;
    let question = Question { packet, interface: typed.interface.clone(), with: typed.with.clone() };
    output::print(json, &explain(instance, &question).await?, Explanation::render)
}

fn packet(typed: &Explain) -> Result<Packet, Failure> {
    let (source, destination) = (&typed.source, &typed.destination);
    check_families(typed.protocol, source.ip, destination.ip)?;
    let (source_port, destination_port) = match typed.protocol {
        TCP | UDP | SCTP => (source.port.unwrap_or(EPHEMERAL), wanted_port(destination)?),
        ICMP | ICMPV6 if destination.port.is_some() => (0, destination.port.unwrap_or_default()),
        ICMP | ICMPV6 => (source.port.unwrap_or(EPHEMERAL), 0),
        other if source.port.is_some() || destination.port.is_some() => {
            return Err(usage(&format!("protocol {other} has no ports"), "write the addresses alone"));
        }
        _ => (0, 0),
    };
    Ok(Packet {
        protocol: typed.protocol,
        source: source.ip,
        source_port,
        destination: destination.ip,
        destination_port,
    })
}

fn usage(what: &str, help: &str) -> Failure {
    Failure::Usage(format!("{what}\nhelp: {help}"))
}

fn wanted_port(destination: &End) -> Result<u16, Failure> {
    destination.port.filter(|port| *port != 0).ok_or_else(|| {
        let end = SocketAddr::new(destination.ip, 22);
        usage(
            &format!("to which port of {}?", destination.ip),
            &format!("write it behind the address, such as {end}"),
        )
    })
}

fn check_families(protocol: u8, source: IpAddr, destination: IpAddr) -> Result<(), Failure> {
    if source.is_ipv4() != destination.is_ipv4() {
        let what = format!("no packet goes from {source} to {destination}: one is IPv4, the other IPv6");
        return Err(usage(&what, "write two addresses of one family"));
    }
    match protocol {
        ICMP if source.is_ipv6() => {
            Err(usage("icmp is a protocol of IPv4", "for these addresses write icmpv6"))
        }
        ICMPV6 if source.is_ipv4() => {
            Err(usage("icmpv6 is a protocol of IPv6", "for these addresses write icmp"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(protocol: u8, source: &str, destination: &str) -> Result<Packet, String> {
        let (source, destination) = (end(source)?, end(destination)?);
        let typed = Explain { protocol, source, destination, interface: None, with: None };
        packet(&typed).map_err(|failure| failure.to_string())
    }

    #[test]
    fn ends_are_understood() {
        for (text, port) in [
            ("192.0.2.1", None),
            ("192.0.2.1:22", Some(22)),
            ("2001:db8::1", None),
            ("[2001:db8::1]", None),
            ("[2001:db8::1]:22", Some(22)),
        ] {
            assert_eq!(end(text).map(|end| end.port), Ok(port), "{text}");
        }
        for text in ["", "worker1", "192.0.2.1:", "192.0.2.1:70000", "192.0.2.0/24"] {
            assert!(end(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_packet_is_refused() {
        for (protocol, source, destination, what) in [
            (TCP, "192.0.2.1", "[2001:db8::1]:22", "one family"),
            (TCP, "192.0.2.1", "192.0.2.2", "192.0.2.2:22"),
            (ICMP, "2001:db8::1", "2001:db8::2", "icmpv6"),
            (ICMPV6, "192.0.2.1", "192.0.2.2", "write icmp"),
            (47, "192.0.2.1", "192.0.2.2:5", "has no ports"),
        ] {
            let refused = asked(protocol, source, destination).expect_err(what);
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn an_echo_has_an_identifier_at_one_end() {
        let ports = |packet: Result<Packet, String>| {
            packet.map(|packet| (packet.source_port, packet.destination_port))
        };
        assert_eq!(ports(asked(ICMP, "192.0.2.1", "192.0.2.2")), Ok((EPHEMERAL, 0)));
        assert_eq!(ports(asked(ICMP, "192.0.2.1:7", "192.0.2.2")), Ok((7, 0)));
        assert_eq!(ports(asked(ICMP, "192.0.2.2", "192.0.2.1:7")), Ok((0, 7)));
    }
}
