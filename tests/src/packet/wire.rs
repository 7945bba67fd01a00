//! From fields to bytes. Nothing here is shared with netfw, least of all the checksums.

use std::net::IpAddr;

use super::body::{Body, Packet};

/// Length of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
/// Sequence number of echoes.
const ECHO_SEQUENCE: [u8; 2] = [0, 1];

/// The Internet checksum of bytes, as a number: 0 for bytes that hold their own right checksum.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.map(u64::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The pseudo header, with the bytes that the checksum covers behind it.
pub(super) fn covered(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut bytes = [octets(source), octets(destination)].concat();
    bytes.extend((segment.len() as u32).to_be_bytes());
    bytes.extend(u32::from(protocol).to_be_bytes());
    bytes.extend(segment);
    bytes
}

impl Packet {
    /// The frame that carries it, between two link addresses.
    pub fn frame(&self, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
        let ethertype: [u8; 2] = if self.is_v6() { [0x86, 0xdd] } else { [0x08, 0x00] };
        [&to[..], &from, &ethertype, &self.datagram()].concat()
    }

    /// The IP packet.
    pub fn datagram(&self) -> Vec<u8> {
        let segment = self.segment();
        [self.header(segment.len()), segment].concat()
    }

    /// The same, its payload a whole segment whose checksum is put in at `at`.
    #[must_use]
    pub fn with_checksum(&self, at: usize) -> Self {
        let mut packet = self.clone();
        let sum = self.sum(&packet.payload).to_be_bytes();
        packet.payload[at..at + 2].copy_from_slice(&sum);
        packet
    }

    fn header(&self, length: usize) -> Vec<u8> {
        let mut header = if self.is_v6() {
            let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
            header.extend((length as u16).to_be_bytes());
            header.extend([self.protocol(), self.ttl]);
            header
        } else {
            let mut header = vec![0x45, self.tos];
            header.extend((length as u16 + 20).to_be_bytes());
            header.extend([0x12, 0x34, if self.keep_whole { 0x40 } else { 0 }, 0]);
            header.extend([self.ttl, self.protocol(), 0, 0]);
            header
        };
        header.extend(octets(self.source.ip()));
        header.extend(octets(self.destination.ip()));
        if !self.is_v6() {
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        header
    }

    fn segment(&self) -> Vec<u8> {
        let (ports, length) = (self.ports(), self.payload.len());
        let (mut head, at) = match self.body {
            Body::Tcp { flags, sequence, acknowledged } => {
                let numbers = [sequence.to_be_bytes(), acknowledged.to_be_bytes()].concat();
                ([&ports[..], &numbers, &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat(), Some(16))
            }
            Body::Udp { checksum } => {
                let length = (length as u16 + 8).to_be_bytes();
                ([&ports[..], &length, &[0, 0]].concat(), checksum.then_some(6))
            }
            Body::Request | Body::Reply => {
                let identifier = (self.source.port() | self.destination.port()).to_be_bytes();
                ([&[self.echo_type(), 0, 0, 0], &identifier[..], &ECHO_SEQUENCE].concat(), Some(2))
            }
            Body::Icmp { kind, code, detail } => {
                ([&[kind, code, 0, 0], &detail.to_be_bytes()[..]].concat(), Some(2))
            }
            Body::Raw(_) => (Vec::new(), None),
        };
        head.extend(&self.payload);
        if let Some(at) = at {
            let sum = match self.sum(&head) {
                0 if matches!(self.body, Body::Udp { .. }) => 0xffff,
                sum => sum,
            };
            head[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        head
    }

    fn sum(&self, segment: &[u8]) -> u16 {
        if self.protocol() == 1 {
            return checksum(segment);
        }
        checksum(&covered(self.source.ip(), self.destination.ip(), self.protocol(), segment))
    }

    fn ports(&self) -> Vec<u8> {
        [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat()
    }

    fn echo_type(&self) -> u8 {
        match (&self.body, self.is_v6()) {
            (Body::Request, false) => 8,
            (Body::Request, true) => 128,
            (_, false) => 0,
            (_, true) => 129,
        }
    }
}

/// A frame's IP packet cut into fragments with at most `size` bytes of payload (a multiple of 8) each.
pub fn fragments(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let v6 = frame[12] == 0x86;
    let header = ETHERNET + if v6 { 40 } else { 20 };
    let (head, body) = frame.split_at(header);
    let count = body.len().div_ceil(size);
    let cut = |(n, part): (usize, &[u8])| {
        let (offset, more) = ((n * size) as u16, n + 1 < count);
        let head = if v6 { fragment_head6(head, offset, more) } else { fragment_head4(head, offset, more) };
        resized([head, part.to_vec()].concat())
    };
    body.chunks(size).enumerate().map(cut).collect()
}

fn fragment_head4(head: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let mut head = head.to_vec();
    let field = (offset / 8) | (u16::from(more) << 13);
    head[20..22].copy_from_slice(&field.to_be_bytes());
    head
}

fn fragment_head6(head: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let mut head = head.to_vec();
    let next = std::mem::replace(&mut head[20], 44);
    head.extend([next, 0]);
    head.extend((offset | u16::from(more)).to_be_bytes());
    head.extend([0, 0, 0x12, 0x34]);
    head
}

/// A frame whose IP header says its length (and, in IPv4, its checksum) as it is now.
fn resized(mut frame: Vec<u8>) -> Vec<u8> {
    let length = frame.len() - ETHERNET;
    if frame[12] == 0x86 {
        frame[18..20].copy_from_slice(&(length as u16 - 40).to_be_bytes());
    } else {
        frame[16..18].copy_from_slice(&(length as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(&frame[ETHERNET..ETHERNET + 20]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// An IPv6 frame with extension headers: the number of each, and its bytes from the third on (6, 14, 22 …).
pub fn extended(frame: &[u8], headers: &[(u8, &[u8])]) -> Vec<u8> {
    let (head, body) = frame.split_at(ETHERNET + 40);
    let mut head = head.to_vec();
    let transport = head[20];
    let mut numbers = headers.iter().map(|(number, _)| *number).chain([transport]);
    head[20] = numbers.next().unwrap_or(transport);
    for ((_, rest), next) in headers.iter().zip(numbers) {
        head.extend([next, ((rest.len() + 2) / 8 - 1) as u8]);
        head.extend(*rest);
    }
    resized([&head, body].concat())
}
