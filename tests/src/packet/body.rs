//! A packet by its fields.

use std::net::SocketAddr;

use netfw_common::icmp;

/// TCP flag.
pub const FIN: u8 = 0x01;
/// TCP flag.
pub const SYN: u8 = 0x02;
/// TCP flag.
pub const RST: u8 = 0x04;
/// TCP flag.
pub const ACK: u8 = 0x10;

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A TCP segment.
    Tcp {
        /// [`SYN`] and so on.
        flags: u8,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgment number.
        acknowledged: u32,
    },
    /// A UDP datagram; without a checksum where IPv4 allows it.
    Udp {
        /// Whether it has one.
        checksum: bool,
    },
    /// An ICMP echo request; the source port is its identifier.
    Request,
    /// An ICMP echo reply; the destination port is its identifier.
    Reply,
    /// Any other ICMP message; the payload is what follows its first 8 bytes.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Its second word.
        detail: u32,
    },
    /// Another protocol, all of it payload.
    Raw(u8),
}

/// A packet: two of them are equal when a receiver could not tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it; port 0 where there are none.
    pub source: SocketAddr,
    /// Who receives it.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4: may not be fragmented. (IPv6 packets never are, by routers.)
    pub keep_whole: bool,
    /// What it carries.
    pub body: Body,
    /// What that carries.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet with the usual header fields and a short payload of odd length.
    pub fn new(source: SocketAddr, destination: SocketAddr, body: Body) -> Self {
        Self {
            source,
            destination,
            ttl: 64,
            tos: 0,
            keep_whole: true,
            body,
            payload: b"a payload, odd in length.".to_vec(),
        }
    }

    /// A TCP segment without data.
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        let body = Body::Tcp { flags, sequence: 0x0100_0000, acknowledged: 0x7000_0001 };
        Self { payload: Vec::new(), ..Self::new(source, destination, body) }
    }

    /// A UDP datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Body::Udp { checksum: true })
    }

    /// An ICMP echo request.
    pub fn echo(source: SocketAddr, destination: SocketAddr, identifier: u16) -> Self {
        let mut packet = Self::new(source, destination, Body::Request);
        packet.source.set_port(identifier);
        packet.destination.set_port(0);
        packet
    }

    /// What the receiver answers, as far as addresses go.
    #[must_use]
    pub fn answer(&self) -> Self {
        let body = match self.body {
            Body::Request => Body::Reply,
            Body::Reply => Body::Request,
            Body::Tcp { flags, sequence, acknowledged } => {
                let taken =
                    self.payload.len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
                // As before its own SYN, if this answers one.
                let sequence_back = acknowledged.wrapping_sub(u32::from(flags & SYN != 0));
                Body::Tcp { flags, sequence: sequence_back, acknowledged: sequence.wrapping_add(taken) }
            }
            Body::Icmp { kind, code, detail } if icmp::is_answer(self.is_v6(), kind.wrapping_add(1)) => {
                Body::Icmp { kind: kind + 1, code, detail }
            }
            ref other => other.clone(),
        };
        Self { source: self.destination, destination: self.source, body, ttl: 64, ..self.clone() }
    }

    /// The same from elsewhere.
    #[must_use]
    pub fn from(&self, source: SocketAddr) -> Self {
        Self { source, ..self.clone() }
    }

    /// The same to elsewhere.
    #[must_use]
    pub fn to(&self, destination: SocketAddr) -> Self {
        Self { destination, ..self.clone() }
    }

    /// The same, one hop further.
    #[must_use]
    pub fn hop(&self) -> Self {
        Self { ttl: self.ttl - 1, ..self.clone() }
    }

    /// The same with another TTL.
    #[must_use]
    pub fn ttl(&self, ttl: u8) -> Self {
        Self { ttl, ..self.clone() }
    }

    /// The same with other TCP flags; a SYN stands one number before everything else.
    #[must_use]
    pub fn flags(&self, flags: u8) -> Self {
        let Body::Tcp { flags: old, sequence, acknowledged } = self.body else {
            panic!("no TCP segment: {self:?}")
        };
        let sequence =
            sequence.wrapping_add(u32::from(old & SYN != 0)).wrapping_sub(u32::from(flags & SYN != 0));
        Self { body: Body::Tcp { flags, sequence, acknowledged }, ..self.clone() }
    }

    /// The same TCP segment `ahead` bytes further on.
    #[must_use]
    pub fn ahead(&self, ahead: u32) -> Self {
        let Body::Tcp { flags, sequence, acknowledged } = self.body else {
            panic!("no TCP segment: {self:?}")
        };
        let sequence = sequence.wrapping_add(ahead);
        Self { body: Body::Tcp { flags, sequence, acknowledged }, ..self.clone() }
    }

    /// The same with a payload of `length` bytes.
    #[must_use]
    pub fn sized(&self, length: usize) -> Self {
        let payload = (0..length).map(|n| (n * 7 + n / 256) as u8).collect();
        Self { payload, ..self.clone() }
    }

    /// The same, but (over IPv4) it may be fragmented on its way.
    #[must_use]
    pub fn divisible(&self) -> Self {
        Self { keep_whole: self.is_v6(), ..self.clone() }
    }

    /// Whether it is IPv6.
    pub fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// IP protocol number.
    pub fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => 6,
            Body::Udp { .. } => 17,
            Body::Request | Body::Reply | Body::Icmp { .. } if self.is_v6() => 58,
            Body::Request | Body::Reply | Body::Icmp { .. } => 1,
            Body::Raw(protocol) => protocol,
        }
    }
}
