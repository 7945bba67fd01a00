//! Scenario 8: datagrams of every size, and the two faces of a UDP checksum of zero.

use std::{
    net::{Ipv6Addr, UdpSocket},
    sync::Barrier,
    thread,
};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice, UdpHeader};
use netfw_tests::{
    lab::{Engine, Lab},
    net::{RawPort, UdpServer, ask, frame, udp_socket},
    netfw::Netfw,
    rules,
    scenario::two_armed,
};

const RULES: &str = "[masquerade]\nfrom = [\"lan\"]\n[[port-forward]]\nname = \"echo\"\nprotocol = \"udp\"\nport = 7000\nto = \"worker1:7\"\n";

/// Frames that fill more than the one buffer that XDP sees. (Scenario 8.)
#[test]
fn jumbo_frames_arrive_unchanged() -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        for (host, interface) in JUMBO {
            lab.host("switch").shell(&format!("ip link set {host}-{interface} mtu 9000"))?;
            lab.host(host).shell(&format!("ip link set {interface} mtu 9000"))?;
        }
        let netfw = Netfw::up(&lab, &rules::two_armed(RULES))?;
        for (worker, master) in [("192.168.80.3", "192.0.2.1"), ("[fd00:80::3]", "[2001:db8::1]")] {
            let any = if worker.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let _server = UdpServer::echo(lab.host("worker1"), &format!("{worker}:7"))?;
            let socket = udp_socket(lab.host("client"), any)?;
            for size in [3_000, 4_096, 8_952] {
                ask(&socket, &format!("{master}:7000"), &vec![0x5a; size])
                    .with_context(|| format!("engine {engine}: {size} bytes to {master}"))?;
            }
        }
        netfw.finish()?;
    }
    Ok(())
}

/// Who has to be wide for that.
const JUMBO: [(&str, &str); 6] = [
    ("client", "eth0"),
    ("internet", "eth0"),
    ("internet", "eth1"),
    ("master", "eth0"),
    ("master", "eth1"),
    ("worker1", "eth0"),
];

/// Empty, odd, and as large as the link carries, through a forward and a masquerade, both families.
#[test]
fn every_size_arrives_unchanged() -> Result<()> {
    let families = [
        ("192.168.80.3", "192.0.2.1", "203.0.113.10", "0.0.0.0", 1472),
        ("[fd00:80::3]", "[2001:db8::1]", "[2001:db8:1::10]", "[::]", 1452),
    ];
    two_armed(&rules::two_armed(RULES), |lab, _| {
        for (worker, master, client, any, full) in families {
            let _inside = UdpServer::echo(lab.host("worker1"), &format!("{worker}:7"))?;
            let _outside = UdpServer::echo(lab.host("client"), &format!("{client}:9"))?;
            let to_worker = udp_socket(lab.host("client"), &format!("{any}:0"))?;
            let to_client = udp_socket(lab.host("worker2"), &format!("{any}:0"))?;
            for size in [0, 1, 2, 3, 255, 256, 511, 1001, full - 1, full] {
                let payload: Vec<_> = (0..size).map(|index: usize| index.to_le_bytes()[0]).collect();
                ask(&to_worker, &format!("{master}:7000"), &payload)?;
                ask(&to_client, &format!("{client}:9"), &payload)?;
            }
        }
        Ok(())
    })
}

/// Scenario 5: the first datagrams of a flow come in at once, on several cores, at a balanced forward: all of them reach
/// the same worker, and all are answered.
#[test]
fn first_datagrams_at_once_are_one_flow() -> Result<()> {
    const ROUNDS: u16 = 40;
    let forward = "[[port-forward]]\nname = \"shared\"\nprotocol = \"udp\"\nport = 7000\n\
                   to = [\"worker1:7\", \"worker2:7\"]\nbalance = \"random\"\n";
    two_armed(&rules::two_armed(forward), |lab, netfw| {
        for (workers, client, master) in [
            (["192.168.80.3:7", "192.168.80.4:7"], "203.0.113.10", "192.0.2.1:7000"),
            (["[fd00:80::3]:7", "[fd00:80::4]:7"], "[2001:db8:1::10]", "[2001:db8::1]:7000"),
        ] {
            let [one, two] = workers;
            let servers =
                [UdpServer::echo(lab.host("worker1"), one)?, UdpServer::echo(lab.host("worker2"), two)?];
            for port in 5000..5000 + ROUNDS {
                let socket = udp_socket(lab.host("client"), &format!("{client}:{port}"))?;
                send_at_once(&socket, master, &servers).with_context(|| format!("from port {port}"))?;
            }
        }
        let opened = netfw.counters()?.number("port_forwards.shared.flows_opened");
        ensure!(opened == u64::from(2 * ROUNDS), "{opened} flows in {ROUNDS} rounds of each family");
        Ok(())
    })
}

/// All that is sent at once is answered, by one of the servers.
fn send_at_once(socket: &UdpSocket, to: &str, servers: &[UdpServer]) -> Result<()> {
    const AT_ONCE: usize = 4;
    let barrier = Barrier::new(AT_ONCE);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                barrier.wait();
                socket.send_to(b"now", to)
            });
        }
    });
    for n in 0..AT_ONCE {
        socket.recv(&mut [0; 3]).with_context(|| format!("{n} of {AT_ONCE} answers"))?;
    }
    let own = socket.local_addr()?;
    let came = servers.iter().map(|server| server.peers().iter().filter(|peer| **peer == own).count());
    let came: Vec<_> = came.filter(|&came| came != 0).collect();
    ensure!(came == [AT_ONCE], "they were spread: {came:?}");
    Ok(())
}

/// IPv4: a sender that computes no checksum is left alone.
#[test]
fn no_checksum_stays_no_checksum() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        let mut frame = datagram(lab, "203.0.113.10", "192.0.2.1", b"unchecked")?;
        frame[40..42].copy_from_slice(&[0, 0]);
        assert_eq!(arriving_checksum(lab, &frame)?, 0);
        Ok(())
    })
}

/// A checksum that comes out as zero is sent as all ones, because zero would mean none.
#[test]
fn a_computed_zero_is_sent_as_all_ones() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        // The checksum of the rest, added as payload, makes the sum all ones, whose complement is zero.
        let udp = UdpHeader { source_port: 4000, destination_port: 7, length: 10, checksum: 0 };
        let filler = udp.calc_checksum_ipv4_raw([203, 0, 113, 10], [192, 168, 80, 3], &[0, 0])?;
        let frame = datagram(lab, "203.0.113.10", "192.0.2.1", &filler.to_be_bytes())?;
        assert_eq!(arriving_checksum(lab, &frame)?, 0xffff);
        let [client, worker]: [Ipv6Addr; 2] = ["2001:db8:1::10".parse()?, "fd00:80::3".parse()?];
        let filler = udp.calc_checksum_ipv6_raw(client.octets(), worker.octets(), &[0, 0])?;
        let frame = datagram(lab, "2001:db8:1::10", "2001:db8::1", &filler.to_be_bytes())?;
        assert_eq!(arriving_checksum(lab, &frame)?, 0xffff);
        Ok(())
    })
}

/// A datagram from port 4000 to the forwarded port, as the internet hands it to the master.
fn datagram(lab: &Lab, from: &str, to: &str, payload: &[u8]) -> Result<Vec<u8>> {
    let macs = (lab.host("internet").mac("eth0")?, lab.host("master").mac("eth0")?);
    frame::udp(macs, (from.parse()?, to.parse()?), (4000, 7000), payload)
}

/// Sends it to the master; the UDP checksum with which it reaches the worker.
fn arriving_checksum(lab: &Lab, frame: &[u8]) -> Result<u16> {
    let arrival = RawPort::open(lab.host("worker1"), "eth0")?;
    RawPort::open(lab.host("internet"), "eth0")?.send(frame)?;
    arrival.expect("the datagram", |frame| {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let ip = matches!(packet.net, Some(NetSlice::Ipv4(_) | NetSlice::Ipv6(_)));
        match packet.transport {
            Some(TransportSlice::Udp(udp)) if ip && udp.destination_port() == 7 => Some(udp.checksum()),
            _ => None,
        }
    })
}
