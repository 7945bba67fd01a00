//! Scenario 9: TTL and hop limit, DSCP and ECN, time exceeded.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket};
use netfw_tests::{lab::Lab, net::RawPort, rules, scenario::two_armed, wait};
use socket2::{Domain, Socket, Type};

const ECHO: &str = "[[port-forward]]\nname = \"echo\"\nprotocol = \"udp\"\nport = 7000\nto = \"worker1:7\"\n";
const LAN: &str = "[masquerade]\nfrom = [\"lan\"]\n";

/// DSCP 46 (expedited forwarding), ECN 1 (capable).
const TRAFFIC_CLASS: u8 = 46 << 2 | 1;

const OUTSIDE: [&str; 2] = ["192.0.2.1:7000", "[2001:db8::1]:7000"];

/// Each router on the way takes one, the master too, and nobody touches the traffic class.
#[test]
fn a_forwarded_packet_loses_one_hop_and_keeps_its_class() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let port = RawPort::open(lab.host("worker1"), "eth0")?;
        for address in OUTSIDE {
            send(lab, "client", address, 64)?;
            let seen = port.expect("the datagram", |frame| hop_and_class(frame, 7))?;
            assert_eq!(seen, (62, TRAFFIC_CLASS), "{address}");
        }
        let _ = netfw;
        Ok(())
    })
}

/// The same the other way round.
#[test]
fn a_masqueraded_packet_loses_one_hop_and_keeps_its_class() -> Result<()> {
    two_armed(&rules::two_armed(LAN), |lab, _| {
        let port = RawPort::open(lab.host("client"), "eth0")?;
        for address in ["203.0.113.10:9", "[2001:db8:1::10]:9"] {
            send(lab, "worker1", address, 64)?;
            let seen = port.expect("the datagram", |frame| hop_and_class(frame, 9))?;
            assert_eq!(seen, (62, TRAFFIC_CLASS), "{address}");
        }
        Ok(())
    })
}

/// The last hop is used up at the master: the sender hears it from the master, about the packet that it sent.
#[test]
fn the_sender_is_told_when_the_hops_run_out() -> Result<()> {
    two_armed(&rules::two_armed(&format!("{ECHO}{LAN}")), |lab, netfw| {
        netfw.expect_drops("ttl-exceeded", 4..=4);
        // From outside the internet takes one hop before the master; from inside the master is the first.
        let cases = [
            ("client", OUTSIDE[0], 2, "192.0.2.1"),
            ("client", OUTSIDE[1], 2, "2001:db8::1"),
            ("worker1", "203.0.113.10:9", 1, "192.168.80.2"),
            ("worker1", "[2001:db8:1::10]:9", 1, "fd00:80::2"),
        ];
        for (from, to, hops, master) in cases {
            let port = RawPort::open(lab.host(from), "eth0")?;
            send(lab, from, to, hops)?;
            let wanted: SocketAddr = to.parse()?;
            let (sender, about) = port.expect("time exceeded", time_exceeded)?;
            assert_eq!((sender, about), (master.parse::<IpAddr>()?, wanted.ip()), "{from} to {to}");
        }
        Ok(())
    })
}

/// Whoever makes the master say so again and again does not make it talk without end (RFC 1812 §4.3.2.8): what is not said is
/// counted.
#[test]
fn not_every_sender_is_told() -> Result<()> {
    const MANY: u64 = 2_000;
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        netfw.expect_drops("ttl-exceeded", MANY..=MANY);
        let before = netfw.counters()?;
        let to: SocketAddr = OUTSIDE[0].parse()?;
        let socket = lab.host("client").enter(|| Ok(Socket::new(Domain::IPV4, Type::DGRAM, None)?))?;
        socket.set_ttl_v4(2)?;
        for _ in 0..MANY {
            // An error about an earlier one may wait at the socket: it is told once, instead of sending.
            socket.send_to(b"how far?", &to.into()).or_else(|_| socket.send_to(b"how far?", &to.into()))?;
        }
        wait::until("all to be dropped", || {
            (netfw.counters().ok()?.since(&before).drops("ttl-exceeded") == MANY).then_some(())
        })?;
        let silent = netfw.counters()?.since(&before).number("icmp_errors_suppressed");
        ensure!((1..MANY).contains(&silent), "{silent} of {MANY} were not told");
        Ok(())
    })
}

fn send(lab: &Lab, from: &str, to: &str, hops: u32) -> Result<()> {
    let to: SocketAddr = to.parse()?;
    let socket = lab.host(from).enter(|| Ok(Socket::new(Domain::for_address(to), Type::DGRAM, None)?))?;
    if to.is_ipv4() {
        socket.set_ttl_v4(hops)?;
        socket.set_tos_v4(TRAFFIC_CLASS.into())?;
    } else {
        socket.set_unicast_hops_v6(hops)?;
        socket.set_tclass_v6(TRAFFIC_CLASS.into())?;
    }
    socket.send_to(b"how far?", &to.into()).context("sending")?;
    Ok(())
}

/// Hop limit and traffic class of a datagram to `port`.
fn hop_and_class(frame: &[u8], port: u16) -> Option<(u8, u8)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let to_port = matches!(&packet.transport, Some(etherparse::TransportSlice::Udp(udp)) if udp.destination_port() == port);
    let seen = match packet.net? {
        NetSlice::Ipv4(ip) => (ip.header().ttl(), frame[15]),
        NetSlice::Ipv6(ip) => (ip.header().hop_limit(), ip.header().traffic_class()),
        NetSlice::Arp(_) => return None,
    };
    to_port.then_some(seen)
}

/// Who says that the time is exceeded, and where the packet in question was going.
fn time_exceeded(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.net? {
        NetSlice::Ipv4(ip) => {
            let payload = ip.payload().payload;
            let about: [u8; 4] = payload.get(24..28)?.try_into().ok()?;
            let exceeded = ip.header().protocol() == etherparse::IpNumber::ICMP && payload[0] == 11;
            exceeded.then(|| (ip.header().source_addr().into(), about.into()))
        }
        NetSlice::Ipv6(ip) => {
            let payload = ip.payload().payload;
            let about: [u8; 16] = payload.get(32..48)?.try_into().ok()?;
            let exceeded = ip.header().next_header() == etherparse::IpNumber::IPV6_ICMP && payload[0] == 3;
            exceeded.then(|| (ip.header().source_addr().into(), about.into()))
        }
        NetSlice::Arp(_) => None,
    }
}
