//! Protocols other than TCP, UDP and ICMP through a masquerade, as programs with raw sockets speak them.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context, Result, bail};
use netfw_tests::{
    lab::Host,
    net::{ANSWER, SILENCE},
    rules,
    scenario::two_armed,
};
use socket2::{Domain, Protocol, Socket, Type};

const SCTP: i32 = 132;
const GRE: i32 = 47;
const CLIENT: &str = "203.0.113.10:0";

/// A socket for the packets of one protocol.
struct Raw(Socket);

impl Raw {
    fn open(host: &Host, protocol: i32) -> Result<Self> {
        let socket =
            host.enter(|| Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)))?))?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(Self(socket))
    }

    fn send(&self, to: &str, content: &[u8]) -> Result<()> {
        let to: SocketAddr = to.parse()?;
        self.0.send_to(content, &to.into()).with_context(|| format!("sending to {to}"))?;
        Ok(())
    }

    /// Who sent the next packet, and what is in it.
    fn receive(&self) -> Result<(IpAddr, Vec<u8>)> {
        let mut packet = vec![0; 2048];
        let length = (&self.0).read(&mut packet).context("receiving a packet")?;
        let header = usize::from(packet[0] & 0x0f) * 4;
        let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
        Ok((source.into(), packet[header..length].to_vec()))
    }

    fn expect_silence(&self) -> Result<()> {
        self.0.set_read_timeout(Some(SILENCE))?;
        match (&self.0).read(&mut [0; 2048]) {
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
        for (protocol, content) in [(SCTP, &sctp[..]), (GRE, &gre[..])] {
            let server = Raw::open(lab.host("client"), protocol)?;
            let worker = Raw::open(lab.host("worker1"), protocol)?;
            worker.send(CLIENT, content)?;
            let (source, arrived) = server.receive()?;
            assert_eq!((source, arrived.as_slice()), ("192.0.2.1".parse()?, content));
            let mut answer = content.to_vec();
            answer[..4].rotate_left(if protocol == SCTP { 2 } else { 0 });
            server.send("192.0.2.1:0", &answer)?;
            assert_eq!(worker.receive()?, (CLIENT.parse::<SocketAddr>()?.ip(), answer));
            Raw::open(lab.host("worker2"), protocol)?.send(CLIENT, content)?;
            server.expect_silence()?;
            refused += 1;
            netfw.expect_drops("no-free-port", refused..=refused);
        }
        Ok(())
    })
}
