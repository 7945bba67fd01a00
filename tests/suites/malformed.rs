//! Scenario 30: frames that lie. Each is dropped, with the reason that fits, and nothing of it goes on.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::Lab,
    net::{RawPort, UdpServer, ask, frame, udp_socket},
    netfw::Netfw,
    rules,
    scenario::two_armed,
    wait,
};

/// Everything that is not malformed or spoofed gets through.
const OPEN: &str = "[policy]\ninput = \"accept\"\nforward = \"accept\"\n";

/// Where the IPv4 header, the IPv6 header and what follows IPv4 begin in a frame.
const IP: usize = 14;

/// What is done to a well-made datagram, and the reason for which it is dropped then.
type Lie = (&'static str, fn(&mut Vec<u8>), &'static str);

const LIES_V4: [Lie; 6] = [
    ("a version of five", |frame| frame[IP] = 0x55, "malformed"),
    ("a header of four words", |frame| frame[IP] = 0x44, "malformed"),
    ("a header longer than the packet", |frame| frame[IP] = 0x4f, "malformed"),
    ("more bytes promised than sent", |frame| frame[IP + 2..IP + 4].copy_from_slice(&[0x40, 0]), "malformed"),
    ("no room for the ports", |frame| frame.truncate(IP + 20 + 3), "malformed"),
    ("a wrong header checksum", |frame| frame[IP + 10] ^= 0xff, "bad-checksum"),
];

const LIES_V6: [Lie; 3] = [
    ("a version of four", |frame| frame[IP] = 0x40, "malformed"),
    ("more bytes promised than sent", |frame| frame[IP + 4..IP + 6].copy_from_slice(&[0x40, 0]), "malformed"),
    ("no room for the ports", |frame| frame.truncate(IP + 40 + 3), "malformed"),
];

/// Sources that cannot send from outside, and why.
const SENDERS: [(&str, &str, &str); 8] = [
    ("192.168.80.77", "192.168.80.3", "spoofed"),
    ("fd00:80::77", "fd00:80::3", "spoofed"),
    ("127.0.0.1", "192.168.80.3", "martian"),
    ("224.0.0.1", "192.168.80.3", "martian"),
    ("0.0.0.0", "192.168.80.3", "martian"),
    ("::1", "fd00:80::3", "martian"),
    ("ff02::1", "fd00:80::3", "martian"),
    ("192.0.2.1", "192.0.2.1", "martian"),
];

/// Broken headers.
#[test]
fn broken_headers_are_malformed() -> Result<()> {
    two_armed(&rules::two_armed(OPEN), |lab, netfw| {
        let cases =
            [("203.0.113.10", "192.168.80.3", &LIES_V4[..]), ("2001:db8:1::10", "fd00:80::3", &LIES_V6[..])];
        for (from, to, lies) in cases {
            for (what, tell, reason) in lies {
                let mut frame = datagram(lab, from, to)?;
                tell(&mut frame);
                expect_drop(lab, netfw, &frame, reason).with_context(|| format!("{what}, {from}"))?;
            }
        }
        Ok(())
    })
}

/// Addresses that cannot be true.
#[test]
fn impossible_senders_are_dropped() -> Result<()> {
    two_armed(&rules::two_armed(OPEN), |lab, netfw| {
        for (from, to, reason) in SENDERS {
            let frame = datagram(lab, from, to)?;
            expect_drop(lab, netfw, &frame, reason).with_context(|| format!("from {from} to {to}"))?;
        }
        Ok(())
    })
}

/// Who knows the addresses and ports of a conversation but stands on the other side of the master does not get into it; the
/// conversation goes on.
#[test]
fn nobody_joins_a_conversation_from_the_other_side() -> Result<()> {
    let forward = "[[port-forward]]\nname = \"echo\"\nprotocol = \"udp\"\nport = 7000\nto = \"worker1:7\"\n";
    two_armed(&rules::two_armed(forward), |lab, netfw| {
        for (client, master, worker) in
            [("203.0.113.10", "192.0.2.1", "192.168.80.3"), ("2001:db8:1::10", "2001:db8::1", "fd00:80::3")]
        {
            let at = |address: &str, port: u16| {
                if address.contains(':') {
                    format!("[{address}]:{port}")
                } else {
                    format!("{address}:{port}")
                }
            };
            let _server = UdpServer::echo(lab.host("worker1"), &at(worker, 7))?;
            let socket = udp_socket(lab.host("client"), &at(client, 4000))?;
            ask(&socket, &at(master, 7000), b"hello")?;
            let (from, to) = ((client.parse()?, 4000), (master.parse()?, 7000));
            let frame =
                between((lab.host("worker2").mac("eth0")?, lab.host("master").mac("eth1")?), from, to)?;
            expect_drop_from(lab, netfw, "worker2", &frame, "spoofed").context("the client's part")?;
            ask(&socket, &at(master, 7000), b"hello")?;
            let frame = between(macs(lab)?, (worker.parse()?, 7), from)?;
            expect_drop(lab, netfw, &frame, "spoofed").context("the worker's part")?;
            ask(&socket, &at(master, 7000), b"hello")?;
        }
        Ok(())
    })
}

/// The same datagram, unharmed, gets through: what stops the others is what was done to them.
#[test]
fn an_honest_datagram_gets_through() -> Result<()> {
    two_armed(&rules::two_armed(OPEN), |lab, _| {
        for (from, to) in [("203.0.113.10", "192.168.80.3"), ("2001:db8:1::10", "fd00:80::3")] {
            let arrival = RawPort::open(lab.host("worker1"), "eth0")?;
            RawPort::open(lab.host("internet"), "eth0")?.send(&datagram(lab, from, to)?)?;
            arrival.expect("the datagram", |frame| holds_payload(frame).then_some(()))?;
        }
        Ok(())
    })
}

/// TCP flags that only scanners send.
#[test]
fn impossible_flags_are_dropped() -> Result<()> {
    two_armed(&rules::two_armed(OPEN), |lab, netfw| {
        for (from, to) in [("203.0.113.10", "192.168.80.3"), ("2001:db8:1::10", "fd00:80::3")] {
            let mut bytes = Vec::new();
            let (from, to): (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
            frame::packet(macs(lab)?, from, to, 64)?
                .tcp(4000, 7, 1, 1000)
                .syn()
                .fin()
                .write(&mut bytes, PAYLOAD)?;
            expect_drop(lab, netfw, &bytes, "bad-tcp-flags")?;
        }
        Ok(())
    })
}

/// A frame for another machine, as a flooding switch delivers it, is none of netfw's business.
#[test]
fn frames_for_others_are_neither_forwarded_nor_counted() -> Result<()> {
    two_armed(&rules::two_armed(OPEN), |lab, netfw| {
        lab.host("master").shell("ip link set eth0 promisc on")?;
        let mut frame = datagram(lab, "203.0.113.10", "192.168.80.3")?;
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        let arrival = RawPort::open(lab.host("worker1"), "eth0")?;
        let before = netfw.counters()?.count("interfaces.eth0.received");
        RawPort::open(lab.host("internet"), "eth0")?.send(&frame)?;
        arrival.expect_none("a frame for somebody else", |frame| holds_payload(frame).then_some(()))?;
        ensure!(netfw.counters()?.count("interfaces.eth0.received") == before, "it was counted");
        lab.host("master").shell("ip link set eth0 promisc off")?;
        Ok(())
    })
}

const PAYLOAD: &[u8] = b"a payload that is seen nowhere else";

fn holds_payload(frame: &[u8]) -> bool {
    frame.windows(PAYLOAD.len()).any(|window| window == PAYLOAD)
}

fn macs(lab: &Lab) -> Result<frame::Macs> {
    Ok((lab.host("internet").mac("eth0")?, lab.host("master").mac("eth0")?))
}

fn datagram(lab: &Lab, from: &str, to: &str) -> Result<Vec<u8>> {
    frame::udp(macs(lab)?, (from.parse()?, to.parse()?), (4000, 7), PAYLOAD)
}

fn between(macs: frame::Macs, from: (IpAddr, u16), to: (IpAddr, u16)) -> Result<Vec<u8>> {
    frame::udp(macs, (from.0, to.0), (from.1, to.1), PAYLOAD)
}

/// Sends a frame to the master from outside, and expects one drop more for `reason`, and nothing at the worker.
fn expect_drop(lab: &Lab, netfw: &Netfw<'_>, frame: &[u8], reason: &str) -> Result<()> {
    expect_drop_from(lab, netfw, "internet", frame, reason)
}

/// The same, sent by any host.
fn expect_drop_from(lab: &Lab, netfw: &Netfw<'_>, sender: &str, frame: &[u8], reason: &str) -> Result<()> {
    let arrival = RawPort::open(lab.host("worker1"), "eth0")?;
    let before = netfw.counters()?;
    RawPort::open(lab.host(sender), "eth0")?.send(frame)?;
    netfw.expect_drops(reason, 1..);
    wait::within(netfw_tests::net::ANSWER, "the drop to be counted", || {
        let moved = netfw.counters().ok()?.since(&before);
        (moved.drops(reason) == 1).then_some(())
    })
    .with_context(|| {
        format!(
            "{reason}; moved:{}",
            netfw.counters().map_or_else(|it| it.to_string(), |it| it.since(&before).to_string())
        )
    })?;
    arrival.expect_none("the dropped frame", |seen| holds_payload(seen).then_some(()))
}
