//! Scenario 12: large datagrams through every kind of translation, whatever order their fragments come in.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::Lab,
    net::{ANSWER, RawPort, SILENCE, TcpServer, UdpServer, ask, connect, exchange_line, frame, udp_socket},
    netfw::Netfw,
    packet::fragments,
    rules,
    scenario::two_armed,
    wait,
};

const RULES: &str = r#"
[masquerade]
from = ["lan"]

[[port-forward]]
name = "one"
protocol = "udp"
port = 7000
to = "worker1:7"

[[port-forward]]
name = "balanced"
protocol = "udp"
port = 7100
to = ["worker1:71", "worker1:71"]
balance = "random"

[[rule]]
name = "own"
action = "accept"
protocol = "udp"
port = 7200

[[rule]]
name = "ping"
action = "accept"
protocol = ["icmp", "icmpv6"]

[[port-forward]]
name = "stream"
protocol = "tcp"
port = 7300
to = "worker1:73"
"#;

/// Bytes of a datagram in each fragment.
const PART: usize = 1400;
/// Bytes of the datagrams.
const SIZES: [usize; 2] = [4_000, 60_000];

/// How the fragments of a datagram come in.
#[derive(Clone, Copy, Debug)]
enum Order {
    AsSent,
    Reversed,
    /// Every other one first.
    Shuffled,
    /// Each twice, the last one first.
    Twice,
}

impl Order {
    fn of(self, mut parts: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        match self {
            Self::AsSent => parts,
            Self::Reversed => {
                parts.reverse();
                parts
            }
            Self::Shuffled => {
                let odd = parts.iter().skip(1).step_by(2);
                odd.chain(parts.iter().step_by(2)).cloned().collect()
            }
            Self::Twice => parts.iter().rev().flat_map(|part| [part.clone(), part.clone()]).collect(),
        }
    }
}

/// Who sends to which address, and who receives it there.
struct Way {
    from: (&'static str, &'static str),
    to: &'static str,
    receiver: (&'static str, &'static str),
}

const fn way(
    from: (&'static str, &'static str),
    to: &'static str,
    receiver: (&'static str, &'static str),
) -> Way {
    Way { from, to, receiver }
}

/// A port-forward, a balanced one, the masquerade, and from the LAN through the outside address back into it.
const WAYS: [Way; 8] = [
    way(("client", "203.0.113.10:5001"), "192.0.2.1:7000", ("worker1", "192.168.80.3:7")),
    way(("client", "[2001:db8:1::10]:5001"), "[2001:db8::1]:7000", ("worker1", "[fd00:80::3]:7")),
    way(("client", "203.0.113.10:5002"), "192.0.2.1:7100", ("worker1", "192.168.80.3:71")),
    way(("client", "[2001:db8:1::10]:5002"), "[2001:db8::1]:7100", ("worker1", "[fd00:80::3]:71")),
    way(("worker2", "192.168.80.4:5003"), "203.0.113.10:9", ("client", "203.0.113.10:9")),
    way(("worker2", "[fd00:80::4]:5003"), "[2001:db8:1::10]:9", ("client", "[2001:db8:1::10]:9")),
    way(("worker2", "192.168.80.4:5004"), "192.0.2.1:7000", ("worker1", "192.168.80.3:7")),
    way(("worker2", "[fd00:80::4]:5004"), "[2001:db8::1]:7000", ("worker1", "[fd00:80::3]:7")),
];

/// Whatever the order, there and back, in each direction of a flow.
#[test]
fn every_order_through_every_translation() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        // Of a fragment that comes twice before its first, the second is of no use.
        netfw.expect_drops("fragment-before-first", ..);
        for way in &WAYS {
            for size in SIZES {
                for order in [Order::AsSent, Order::Reversed, Order::Shuffled, Order::Twice] {
                    there_and_back(lab, way, size, order)
                        .with_context(|| format!("{} to {}: {size} bytes {order:?}", way.from.0, way.to))?;
                }
            }
        }
        Ok(())
    })
}

/// The kernel puts in order what nobody needs to drop.
#[test]
fn nothing_is_dropped_when_nothing_is_missing() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        for way in &WAYS[..2] {
            let before = netfw.counters()?;
            there_and_back(lab, way, 4_000, Order::Reversed)?;
            let moved = netfw.counters()?.since(&before);
            assert_eq!(moved.number("interfaces.eth0.forwarded.packets"), 3);
            assert_eq!(moved.number("interfaces.eth1.forwarded.packets"), 3);
            assert_eq!(moved.number("port_forwards.one.to_target.packets"), 3);
        }
        Ok(())
    })
}

/// To the master itself: its own stack gets them as from the interface that they came in on.
#[test]
fn the_masters_own_services() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        for (from, to) in [
            (("client", "203.0.113.10:5001"), "192.0.2.1:7200"),
            (("client", "[2001:db8:1::10]:5001"), "[2001:db8::1]:7200"),
        ] {
            let receiver = udp_socket(lab.host("master"), to)?;
            let payload = payload(4_000, 1);
            send(lab, from, to.parse()?, &payload, Order::Reversed)?;
            expect(&receiver, from.1.parse()?, &payload)?;
        }
        Ok(())
    })
}

/// Not datagrams alone: echoes that their senders' kernels cut, out of the LAN and to the master, and segments that a router cuts, to a
/// forward and back to the LAN.
#[test]
fn other_protocols() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        for (from, to) in [
            ("worker2", "203.0.113.10"),
            ("worker2", "2001:db8:1::10"),
            ("client", "192.0.2.1"),
            ("client", "2001:db8::1"),
        ] {
            lab.host(from).run(["ping", "-c2", "-i0.2", "-W10", "-s4000", to])?.success()?;
        }
        let counters = netfw.counters()?;
        for way in ["masquerade.out.packets", "masquerade.in.packets"] {
            assert_eq!(
                counters.number(way),
                2 * 2 * 3,
                "two echoes of three fragments in each family: {way}"
            );
        }
        segments_that_a_router_cuts(lab)
    })
}

/// Over IPv4 alone a router cuts them, where the sender does not forbid it.
fn segments_that_a_router_cuts(lab: &Lab) -> Result<()> {
    lab.host("client").namespace().sysctl("net/ipv4/ip_no_pmtu_disc", "1")?;
    // By its route: an interface of that width would not take in more either.
    lab.host("internet").shell("ip route replace 192.0.2.0/24 dev eth0 mtu lock 1300")?;
    let _inside = TcpServer::echo(lab.host("worker1"), "192.168.80.3:73")?;
    let _outside = TcpServer::echo(lab.host("client"), "203.0.113.10:73")?;
    let cut = || lab.host("internet").shell("awk '/^Ip: [0-9]/ { print $20 }' /proc/self/net/snmp");
    for (from, to) in [("client", "192.0.2.1:7300"), ("worker2", "203.0.113.10:73")] {
        let before = cut()?;
        let mut stream = connect(lab.host(from), to)?;
        exchange_line(&mut stream, &payload(60_000, 5)).with_context(|| format!("{from} to {to}"))?;
        ensure!(cut()? != before, "no segment was cut");
    }
    Ok(())
}

/// Without its first fragment a datagram goes nowhere, and each of the others is counted.
#[test]
fn the_first_one_missing() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        for (number, way) in WAYS.iter().enumerate() {
            let receiver = udp_socket(lab.host(way.receiver.0), way.receiver.1)?;
            let parts = parts(lab, way.from, way.to.parse()?, &payload(4_000, number as u8))?;
            let port = RawPort::open(lab.host(way.from.0), "eth0")?;
            parts[1..].iter().rev().try_for_each(|part| port.send(part))?;
            receiver.set_read_timeout(Some(SILENCE / 2))?;
            ensure!(receiver.recv(&mut [0; 65_536]).is_err(), "{} got something", way.receiver.0);
        }
        netfw.expect_drops("fragment-before-first", 16..=16);
        Ok(())
    })
}

/// Fragments of others than flows' packets are held in one place only as long as they may be of use.
#[test]
fn many_without_a_first_do_no_harm() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        let way = &WAYS[0];
        let port = RawPort::open(lab.host(way.from.0), "eth0")?;
        let parts = parts(lab, way.from, way.to.parse()?, &payload(4_000, 0))?;
        for identification in 1..=2_000_u16 {
            port.send(&identified(&parts[1], identification))?;
        }
        netfw.expect_drops("fragment-before-first", 2_000..);
        wait::until("the useless fragments to be gone", || {
            (netfw.counters().ok()?.drops("fragment-before-first") >= 2_000).then_some(())
        })?;
        wait::until("an honest datagram to get through", || {
            there_and_back(lab, way, 4_000, Order::Reversed).ok()
        })
    })
}

/// The reassembly is as lasting as the rest: also without the daemon, adopted, and when somebody has removed its
/// interface.
#[test]
fn it_outlives_the_daemon_and_comes_back() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw: &Netfw<'_>| {
        let name = || lab.host("master").shell("ip -br link show type veth | grep -o '^netfw[0-9]*'");
        netfw.kill()?;
        there_and_back(lab, &WAYS[0], 4_000, Order::Reversed).context("without a daemon")?;
        let before = name()?;
        netfw.start()?;
        there_and_back(lab, &WAYS[0], 4_000, Order::Reversed).context("adopted")?;
        assert_eq!(name()?, before, "it was there already");
        lab.host("master").shell(&format!("ip link delete {before}"))?;
        wait::until("the interface to come back", || name().ok().filter(|name| !name.is_empty()))?;
        wait::until("the reassembly to come back", || {
            there_and_back(lab, &WAYS[0], 4_000, Order::Reversed).ok()
        })
    })
}

/// Scenario 13: the LAN is narrower than the outside; what arrives is what was sent.
#[test]
fn different_widths() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        // Over IPv6 the sender must hear of the width first.
        netfw.expect_drops("too-big", ..);
        lab.host("master").shell("ip link set eth1 mtu 1300")?;
        lab.host("worker1").shell("ip link set eth0 mtu 1300")?;
        lab.host("worker2").shell("ip link set eth0 mtu 1300")?;
        for way in WAYS.iter().filter(|way| way.from.0 == "client" && !way.to.starts_with('[')) {
            for size in SIZES {
                let receiver = udp_socket(lab.host(way.receiver.0), way.receiver.1)?;
                for order in [Order::AsSent, Order::Reversed] {
                    let question = payload(size, 3);
                    send(lab, way.from, way.to.parse()?, &question, order)?;
                    receive(&receiver, &question).with_context(|| format!("{size} bytes {order:?}"))?;
                }
            }
        }
        for way in &WAYS {
            for size in SIZES {
                ask_until_the_width_is_known(lab, way, size)?;
            }
        }
        lab.host("master").shell("ip link set eth1 mtu 1500")?;
        Ok(())
    })
}

/// With the kernels' own fragments and path-MTU discovery.
fn ask_until_the_width_is_known(lab: &Lab, way: &Way, size: usize) -> Result<()> {
    let _server = UdpServer::echo(lab.host(way.receiver.0), way.receiver.1)?;
    let sender = udp_socket(lab.host(way.from.0), way.from.1)?;
    wait::until(&format!("{size} bytes from {} to {} and back", way.from.0, way.to), || {
        sender.set_read_timeout(Some(SILENCE)).ok()?;
        ask(&sender, way.to, &payload(size, 4)).ok()
    })
}

fn there_and_back(lab: &Lab, way: &Way, size: usize, order: Order) -> Result<()> {
    let (sender, receiver) = (
        udp_socket(lab.host(way.from.0), way.from.1)?,
        udp_socket(lab.host(way.receiver.0), way.receiver.1)?,
    );
    let question = payload(size, 1);
    send(lab, way.from, way.to.parse()?, &question, order)?;
    let peer = receive(&receiver, &question).context("the question")?;
    let answer = payload(size, 2);
    send(lab, way.receiver, peer, &answer, order)?;
    expect(&sender, way.to.parse()?, &answer).context("the answer")
}

fn payload(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|n| (n / 7) as u8 ^ seed).collect()
}

fn receive(socket: &UdpSocket, payload: &[u8]) -> Result<SocketAddr> {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(ANSWER))?;
    let (length, peer) = socket.recv_from(&mut buffer)?;
    ensure!(buffer[..length] == *payload, "{length} bytes instead of {}, or others", payload.len());
    Ok(peer)
}

fn expect(socket: &UdpSocket, from: SocketAddr, payload: &[u8]) -> Result<()> {
    let peer = receive(socket, payload)?;
    ensure!(peer == from, "from {peer} instead of {from}");
    Ok(())
}

/// Puts a datagram on the wire, in fragments, past the sender's own stack.
fn send(lab: &Lab, from: (&'static str, &str), to: SocketAddr, payload: &[u8], order: Order) -> Result<()> {
    let port = RawPort::open(lab.host(from.0), "eth0")?;
    order.of(parts(lab, from, to, payload)?).iter().try_for_each(|part| port.send(part))
}

fn parts(lab: &Lab, from: (&'static str, &str), to: SocketAddr, payload: &[u8]) -> Result<Vec<Vec<u8>>> {
    let next = if from.0 == "client" { "internet" } else { "master" };
    let macs = (lab.host(from.0).mac("eth0")?, lab.host(next).mac("eth1")?);
    let source: SocketAddr = from.1.parse()?;
    let whole = frame::udp(macs, (source.ip(), to.ip()), (source.port(), to.port()), payload)?;
    let name = next_name();
    Ok(fragments(&whole, PART).iter().map(|part| identified(part, name)).collect())
}

/// No two packets have the same identification.
fn next_name() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0x4000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The same fragment of another packet.
fn identified(part: &[u8], name: u16) -> Vec<u8> {
    let mut part = part.to_vec();
    if part[12] == 0x86 {
        part[60..62].copy_from_slice(&name.to_be_bytes());
        return part;
    }
    part[18..20].copy_from_slice(&name.to_be_bytes());
    part[24..26].fill(0);
    let sum = netfw_tests::packet::checksum(&part[14..34]);
    part[24..26].copy_from_slice(&sum.to_be_bytes());
    part
}
