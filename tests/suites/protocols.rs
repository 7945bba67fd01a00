//! Protocols other than TCP, UDP and ICMP, as programs with raw sockets speak them, and what lies between IP and transport.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use anyhow::{Context, Result, bail, ensure};
use netfw_tests::{
    lab::{Host, Lab},
    net::{ANSWER, RawPort, SILENCE, udp_socket},
    packet::{Packet, extended},
    rules,
    scenario::two_armed,
};
use socket2::{Domain, Protocol, Socket, Type};

const SCTP: i32 = 132;
const GRE: i32 = 47;
/// For experiments (RFC 3692).
const EXPERIMENTS: [i32; 2] = [253, 254];

/// Addresses of a family.
struct Family {
    client: &'static str,
    master: &'static str,
    worker: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { client: "203.0.113.10", master: "192.0.2.1", worker: "192.168.80.3" },
    Family { client: "2001:db8:1::10", master: "2001:db8::1", worker: "fd00:80::3" },
];

/// A socket for the packets of one protocol; what it does is the same as with datagrams.
struct Raw(UdpSocket);

impl Raw {
    /// In the family of an address.
    fn open(host: &Host, protocol: i32, family: IpAddr) -> Result<Self> {
        let domain = Domain::for_address(SocketAddr::new(family, 0));
        let socket = host.enter(|| Ok(Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?))?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(Self(socket.into()))
    }

    fn send(&self, to: IpAddr, content: &[u8]) -> Result<()> {
        self.0.send_to(content, SocketAddr::new(to, 0)).with_context(|| format!("sending to {to}"))?;
        Ok(())
    }

    /// Who sent the next packet, and what is in it.
    fn receive(&self) -> Result<(IpAddr, Vec<u8>)> {
        let mut packet = vec![0; 2048];
        let (length, source) = self.0.recv_from(&mut packet).context("receiving a packet")?;
        // IPv4 sockets tell the header, too.
        let header = if source.is_ipv4() { usize::from(packet[0] & 0x0f) * 4 } else { 0 };
        Ok((source.ip(), packet[header..length].to_vec()))
    }

    fn expect_silence(&self) -> Result<()> {
        self.0.set_read_timeout(Some(SILENCE))?;
        match self.0.recv(&mut [0; 2048]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            other => bail!("expected silence, but: {other:?}"),
        }
    }
}

/// Scenario 14: SCTP and GRE are hidden by their addresses alone, bytes untouched; a second worker that looks the same from
/// outside is refused and counted.
#[test]
fn sctp_and_gre_are_hidden_by_address() -> Result<()> {
    // Ports 5000 and 2905, a checksum that nobody mends; and a key that nobody looks at.
    let sctp = [0x13, 0x88, 0x0b, 0x59, 0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef, 1, 0, 0, 4];
    let gre = [0x20, 0, 8, 0, 0, 0, 0, 7, 1, 2, 3, 4];
    two_armed(&rules::two_armed("[masquerade]\nfrom = [\"lan\"]\n"), |lab, netfw| {
        let mut refused = 0;
        for family in &FAMILIES {
            let [client, master]: [IpAddr; 2] = [family.client.parse()?, family.master.parse()?];
            for (protocol, content) in [(SCTP, &sctp[..]), (GRE, &gre[..])] {
                let server = Raw::open(lab.host("client"), protocol, client)?;
                let worker = Raw::open(lab.host("worker1"), protocol, client)?;
                worker.send(client, content)?;
                assert_eq!(server.receive()?, (master, content.to_vec()));
                let mut answer = content.to_vec();
                answer[..4].rotate_left(if protocol == SCTP { 2 } else { 0 });
                server.send(master, &answer)?;
                assert_eq!(worker.receive()?, (client, answer));
                Raw::open(lab.host("worker2"), protocol, client)?.send(client, content)?;
                server.expect_silence()?;
                refused += 1;
                netfw.expect_drops("no-free-port", refused..=refused);
            }
        }
        Ok(())
    })
}

const RULES: &str = r#"
[[rule]]
name = "experiment"
chain = "forward"
action = "accept"
protocol = 253
to = ["worker1"]

[[rule]]
name = "through"
chain = "forward"
action = "accept"
protocol = ["icmp", "udp"]

[[rule]]
name = "own"
action = "accept"
protocol = ["icmp", "udp"]
"#;

/// Scenario 14: a protocol that nobody knows follows the rules; what a router would have to look into is not forwarded, though the rules
/// accept it, and the master may be sent it.
#[test]
fn the_unknown_follows_the_rules() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        FAMILIES.iter().try_for_each(|family| unknown_protocols(lab, family))?;
        netfw.expect_drops("policy-forward", 2..=2);
        options(lab)?;
        extension_headers(lab)?;
        netfw.expect_drops("ip-options", 3..=3);
        Ok(())
    })
}

/// One that a rule accepts, with its answer, and one that none does.
fn unknown_protocols(lab: &Lab, family: &Family) -> Result<()> {
    let [client, worker]: [IpAddr; 2] = [family.client.parse()?, family.worker.parse()?];
    let [known, unknown] = EXPERIMENTS;
    let [caller, called] = ["client", "worker1"].map(|host| Raw::open(lab.host(host), known, client));
    let (caller, called) = (caller?, called?);
    caller.send(worker, b"anything")?;
    assert_eq!(called.receive()?, (client, b"anything".to_vec()));
    called.send(client, b"something")?;
    assert_eq!(caller.receive()?, (worker, b"something".to_vec()));
    let refused = Raw::open(lab.host("worker1"), unknown, client)?;
    Raw::open(lab.host("client"), unknown, client)?.send(worker, b"anything")?;
    refused.expect_silence()
}

/// IPv4: to record the route is asked of the master and of a worker behind it.
fn options(lab: &Lab) -> Result<()> {
    let ping = |to: &str| lab.host("client").run(["ping", "-c1", "-W1", "-R", to]);
    ping("192.0.2.1")?.success()?;
    ping("192.168.80.3")?.expect_code(1)?;
    lab.host("client").run(["ping", "-c1", "192.168.80.3"])?.success()?;
    Ok(())
}

/// IPv6: headers that only the receiver reads pass; those that routers read reach the master alone.
fn extension_headers(lab: &Lab) -> Result<()> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION_OPTIONS: u8 = 60;
    let worker = udp_socket(lab.host("worker1"), "[fd00:80::3]:9")?;
    let master = udp_socket(lab.host("master"), "[2001:db8::1]:9")?;
    for (header, to) in
        [(HOP_BY_HOP, &worker), (ROUTING, &worker), (DESTINATION_OPTIONS, &worker), (HOP_BY_HOP, &master)]
    {
        send_behind(lab, header, to.local_addr()?)?;
    }
    for receiver in [worker, master] {
        receiver.recv(&mut [0; 64]).context("the one that may pass")?;
        receiver.set_read_timeout(Some(SILENCE))?;
        ensure!(receiver.recv(&mut [0; 64]).is_err(), "one that must not pass");
    }
    Ok(())
}

/// A datagram behind an extension header, as the internet hands it to the master.
fn send_behind(lab: &Lab, header: u8, to: SocketAddr) -> Result<()> {
    /// Six bytes of padding, as an option.
    const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];
    let packet = Packet::udp("[2001:db8:1::10]:4000".parse()?, to);
    let frame = packet.frame(lab.host("internet").mac("eth0")?, lab.host("master").mac("eth0")?);
    RawPort::open(lab.host("internet"), "eth0")?.send(&extended(&frame, &[(header, PADDING)]))
}
