//! A packet as the question describes it, in an Ethernet frame: a SYN where a connection would begin, an echo request, the shortest
//! one of other protocols.

use std::net::IpAddr;

use netfw_common::{
    checksum::{Sum, sum_bytes},
    family::{Addr6, Address as _, Family, Ipv4, Ipv6, addr4, addr6},
    tuple::Tuple,
    wire::{ICMP, ICMPV6, SCTP, TCP, TCP_ACK, TCP_SYN, UDP},
};

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IP protocol number.
    pub protocol: u8,
    /// Who sends it.
    pub source: IpAddr,
    /// Its port; of an echo request the identifier.
    pub source_port: u16,
    /// To whom.
    pub destination: IpAddr,
    /// Its port; of an echo reply the identifier.
    pub destination_port: u16,
}

const TTL: u8 = 64;

impl Packet {
    /// As the flow table knows it.
    pub fn tuple(&self) -> Tuple<Addr6> {
        let address = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => addr4(ip).widen(),
            IpAddr::V6(ip) => addr6(ip),
        };
        Tuple {
            source: address(self.source),
            destination: address(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol.into(),
        }
    }

    /// In a frame to the station `to`. Inside a connection it does not ask for one.
    pub fn frame(&self, to: [u8; 6], connected: bool) -> Vec<u8> {
        const FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];
        let payload = self.payload(connected);
        let (ethertype, header) = match self.source {
            IpAddr::V4(_) => (Ipv4::ETHERTYPE, self.header4(payload.len())),
            IpAddr::V6(_) => (Ipv6::ETHERTYPE, self.header6(payload.len())),
        };
        [&to[..], &FROM, &ethertype.to_be_bytes(), &header, &payload].concat()
    }

    fn header4(&self, payload: usize) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, self.protocol, 0, 0];
        header[2..4].copy_from_slice(&(20 + payload as u16).to_be_bytes());
        header.extend(self.addresses());
        let checksum = sum_bytes(&header).finish();
        header[10..12].copy_from_slice(&checksum.to_ne_bytes());
        header
    }

    fn header6(&self, payload: usize) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, self.protocol, TTL];
        header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        header.extend(self.addresses());
        header
    }

    fn addresses(&self) -> Vec<u8> {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        [octets(self.source), octets(self.destination)].concat()
    }

    fn payload(&self, connected: bool) -> Vec<u8> {
        let ports = [self.source_port.to_be_bytes(), self.destination_port.to_be_bytes()].concat();
        let mut payload = match self.protocol {
            TCP => {
                let flags = if connected { TCP_ACK } else { TCP_SYN };
                [ports, vec![0; 8], vec![0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
            }
            UDP => [ports, vec![0, 8, 0, 0]].concat(),
            SCTP => [ports, vec![0; 8]].concat(),
            ICMP => self.echo(8, 0),
            ICMPV6 => self.echo(128, 129),
            _ => vec![0; 8],
        };
        if let Some(at) = checksum_offset(self.protocol) {
            let checksum = (self.pseudo_header(payload.len()) + sum_bytes(&payload)).finish();
            // Zero would say that there is none.
            let checksum = if checksum == 0 { u16::MAX } else { checksum };
            payload[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
        }
        payload
    }

    /// A reply where the identifier stands at the destination.
    fn echo(&self, request: u8, reply: u8) -> Vec<u8> {
        let is_reply = self.destination_port != 0;
        let identifier = if is_reply { self.destination_port } else { self.source_port };
        let kind = if is_reply { reply } else { request };
        [vec![kind, 0, 0, 0], identifier.to_be_bytes().to_vec(), vec![0, 1]].concat()
    }

    fn pseudo_header(&self, payload: usize) -> Sum {
        if self.protocol == ICMP {
            return Sum::default();
        }
        sum_bytes(&self.addresses()) + Sum::of_value(self.protocol.into()) + Sum::of_value(payload as u16)
    }
}

fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        ICMP | ICMPV6 => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn packet(protocol: u8, source: &str, destination: &str) -> Packet {
        let ip = |text: &str| text.parse().expect("an address");
        Packet {
            protocol,
            source: ip(source),
            source_port: 40_000,
            destination: ip(destination),
            destination_port: 0,
        }
    }

    #[test]
    fn checksums_and_lengths_are_right() {
        for (source, destination, icmp) in
            [("192.0.2.1", "198.51.100.7", ICMP), ("2001:db8::1", "2001:db8::2", ICMPV6)]
        {
            for protocol in [TCP, UDP, icmp, SCTP, 47] {
                let frame = packet(protocol, source, destination).frame([2; 6], false);
                let sliced = SlicedPacket::from_ethernet(&frame).expect("a packet");
                let sound = match (sliced.net, sliced.transport) {
                    (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) => {
                        let header = ip.header().to_header();
                        header.header_checksum == header.calc_header_checksum()
                            && tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).ok()
                                == Some(tcp.checksum())
                    }
                    (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Tcp(tcp))) => {
                        tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).ok()
                            == Some(tcp.checksum())
                    }
                    (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) => {
                        let header = udp.to_header();
                        header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).ok()
                            == Some(udp.checksum())
                    }
                    (Some(_), _) => true,
                    (None, _) => false,
                };
                assert!(sound, "{protocol} from {source}");
            }
        }
    }

    #[test]
    fn an_identifier_at_the_destination_makes_a_reply() {
        let request = packet(ICMP, "192.0.2.1", "192.0.2.2");
        let reply = Packet { source_port: 0, destination_port: 7, ..request };
        assert_eq!(request.frame([2; 6], false)[34], 8);
        assert_eq!(reply.frame([2; 6], false)[34], 0);
        assert_eq!(reply.frame([2; 6], false)[38..40], [0, 7]);
    }
}
