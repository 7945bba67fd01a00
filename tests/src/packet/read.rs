//! From bytes to fields, trusting nothing: every length and every checksum must be right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};

use super::{
    body::{Body, Packet},
    wire::{ETHERNET, checksum, covered},
};

/// The packet in a frame, if a receiver would take it.
pub fn read(frame: &[u8]) -> Result<Packet> {
    let (head, segment) = split(frame)?;
    ensure!(!head.fragmented, "a fragment");
    let packet = head.packet(segment)?;
    head.verify(segment)?;
    Ok(packet)
}

/// The packet in a frame, if its lengths are right, whatever its transport checksum says; none for a fragment.
///
/// # Errors
/// What is wrong with it.
pub fn plausible(frame: &[u8]) -> Result<Option<Packet>> {
    let (head, segment) = split(frame)?;
    if head.fragmented {
        return Ok(None);
    }
    head.check_lengths(segment)?;
    head.packet(segment).map(Some)
}

/// The packet that fragments make up; they must be in order.
pub fn reassemble(frames: &[Vec<u8>]) -> Result<Packet> {
    let mut segment = Vec::new();
    let mut first = None;
    for frame in frames {
        let (head, part) = split(frame)?;
        segment.extend(part);
        first.get_or_insert(head);
    }
    let head = first.context("no fragments")?;
    head.verify(&segment)?;
    head.packet(&segment)
}

/// The packet that an ICMP error quotes, as far as 8 bytes of its transport header tell. Only the IPv4 header
/// checksum can be verified.
pub fn quoted(error: &Packet) -> Result<Packet> {
    let ethertype: [u8; 2] = if error.is_v6() { [0x86, 0xdd] } else { [0x08, 0x00] };
    let frame = [&[0; 12][..], &ethertype, &error.payload].concat();
    let (head, segment) = parts(&frame)?;
    head.packet(segment)
}

/// What an IP header says.
struct Head {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    tos: u8,
    keep_whole: bool,
    protocol: u8,
    fragmented: bool,
    length: usize,
}

/// Header and payload, cut to the length that the header announces.
fn split(frame: &[u8]) -> Result<(Head, &[u8])> {
    let (head, rest) = parts(frame)?;
    let segment = rest.get(..head.length).context("the packet is shorter than it says")?;
    Ok((head, segment))
}

fn parts(frame: &[u8]) -> Result<(Head, &[u8])> {
    let ip = frame.get(ETHERNET..).context("no Ethernet header")?;
    match frame[12..14] {
        [0x08, 0x00] => head4(ip),
        [0x86, 0xdd] => head6(ip),
        _ => bail!("no IP packet"),
    }
}

fn head4(ip: &[u8]) -> Result<(Head, &[u8])> {
    let bytes: [u8; 20] = *ip.first_chunk().context("no IPv4 header")?;
    ensure!(bytes[0] == 0x45, "not an IPv4 header without options: {:#x}", bytes[0]);
    ensure!(checksum(&bytes) == 0, "the IPv4 header checksum is wrong");
    let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let head = Head {
        source: Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]).into(),
        destination: Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]).into(),
        ttl: bytes[8],
        tos: bytes[1],
        keep_whole: bytes[6] & 0x40 != 0,
        protocol: bytes[9],
        fragmented: bytes[6] & 0x3f != 0 || bytes[7] != 0,
        length: total.checked_sub(20).context("the total length is less than the header's")?,
    };
    Ok((head, &ip[20..]))
}

fn head6(ip: &[u8]) -> Result<(Head, &[u8])> {
    let bytes: [u8; 40] = *ip.first_chunk().context("no IPv6 header")?;
    ensure!(bytes[0] >> 4 == 6, "not an IPv6 header");
    let address = |at: usize| {
        let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("16 bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut head = Head {
        source: address(8),
        destination: address(24),
        ttl: bytes[7],
        tos: bytes[0] << 4 | bytes[1] >> 4,
        keep_whole: true,
        protocol: bytes[6],
        fragmented: false,
        length: u16::from_be_bytes([bytes[4], bytes[5]]).into(),
    };
    let mut rest = &ip[40..];
    while let 0 | 43 | 44 | 60 = head.protocol {
        head.fragmented |= head.protocol == 44;
        let bytes: [u8; 2] = *rest.first_chunk().context("an extension header is cut off")?;
        let length = if head.protocol == 44 { 8 } else { 8 + 8 * usize::from(bytes[1]) };
        head.protocol = bytes[0];
        head.length = head.length.checked_sub(length).context("an extension header is too long")?;
        rest = rest.get(length..).context("an extension header is cut off")?;
    }
    Ok((head, rest))
}

impl Head {
    fn packet(&self, segment: &[u8]) -> Result<Packet> {
        let echo =
            |request| if self.source.is_ipv6() { 129 - u8::from(request) } else { 8 * u8::from(request) };
        let half = |at: usize| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
        let word = |at: usize| Some(u32::from(half(at)?) << 16 | u32::from(half(at + 2)?));
        let short = "the transport header is cut off";
        let (body, ports, header) = match self.protocol {
            6 => {
                // A quoted segment ends after its sequence number.
                let flags = segment.get(13).copied().unwrap_or(0);
                let acknowledged = word(8).unwrap_or(0);
                let body = Body::Tcp { flags, sequence: word(4).context(short)?, acknowledged };
                (body, half(0).zip(half(2)).context(short)?, 20)
            }
            17 => {
                let checksum = half(6).context(short)? != 0;
                (Body::Udp { checksum }, half(0).zip(half(2)).context(short)?, 8)
            }
            1 | 58 => {
                let (kind, identifier) = (*segment.first().context(short)?, half(4).context(short)?);
                match kind {
                    kind if kind == echo(true) => (Body::Request, (identifier, 0), 8),
                    kind if kind == echo(false) => (Body::Reply, (0, identifier), 8),
                    kind => {
                        let body = Body::Icmp { kind, code: segment[1], detail: word(4).context(short)? };
                        (body, (0, 0), 8)
                    }
                }
            }
            protocol => (Body::Raw(protocol), (0, 0), 0),
        };
        Ok(Packet {
            source: SocketAddr::new(self.source, ports.0),
            destination: SocketAddr::new(self.destination, ports.1),
            ttl: self.ttl,
            tos: self.tos,
            keep_whole: self.keep_whole,
            body,
            payload: segment.get(header..).unwrap_or_default().to_vec(),
        })
    }

    /// Whether the transport header fits, and announces no more than there is.
    fn check_lengths(&self, segment: &[u8]) -> Result<()> {
        let least = [(6, 20), (17, 8), (1, 8), (58, 8), (132, 12)];
        let least =
            least.iter().find(|(protocol, _)| *protocol == self.protocol).map_or(0, |(_, least)| *least);
        ensure!(segment.len() >= least, "the transport header is cut off");
        let announced = match self.protocol {
            6 => (20, usize::from(segment[12] >> 4) * 4),
            17 => (8, usize::from(u16::from_be_bytes([segment[4], segment[5]]))),
            _ => return Ok(()),
        };
        ensure!((announced.0..=segment.len()).contains(&announced.1), "it announces {} bytes", announced.1);
        Ok(())
    }

    /// Verifies the transport checksum, and UDP's length.
    fn verify(&self, segment: &[u8]) -> Result<()> {
        let pseudo = covered(self.source, self.destination, self.protocol, segment);
        let right = match self.protocol {
            1 => checksum(segment) == 0,
            6 | 58 => checksum(&pseudo) == 0,
            17 => {
                let length = usize::from(u16::from_be_bytes([segment[4], segment[5]]));
                ensure!(length == segment.len(), "UDP says {length} bytes of {}", segment.len());
                let none = segment[6..8] == [0, 0];
                ensure!(!(none && self.source.is_ipv6()), "UDP over IPv6 without a checksum");
                none || checksum(&pseudo) == 0
            }
            _ => true,
        };
        ensure!(right, "the checksum of protocol {} is wrong", self.protocol);
        Ok(())
    }
}
