//! Random first packets of flows, about the hosts that the random rules files are about.

use std::net::{IpAddr, SocketAddr};

use netfw_tests::packet::{
    Body, Gateway, Hook, Outcome, Packet, SYN, Side,
    world::{V4, V6, World, side_of},
};
use proptest::prelude::*;

use crate::naive::{self, generate};

/// A protocol without ports.
const GRE: u8 = 47;
/// SCTP, whose ports lie in what is payload to a [`Packet`].
const SCTP: u8 = 132;

/// A first packet, and where it is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The side at which it comes in; none: the master itself sends it.
    pub(crate) side: Option<Side>,
    /// As rules see it before any translation, but for its chain.
    pub(crate) packet: naive::Packet,
}

/// The world of an address.
pub(super) fn world(address: IpAddr) -> World {
    if address.is_ipv6() { V6 } else { V4 }
}

/// Whether an address is the master's.
pub(super) fn is_own(address: IpAddr) -> bool {
    ["master", "second", "gateway"].iter().any(|name| world(address).host(name) == address)
}

/// The type of an echo request, and of an echo reply.
pub(super) fn echoes(packet: &naive::Packet) -> [u16; 2] {
    if packet.source.is_ipv6() { [128, 129] } else { [8, 0] }
}

/// The number of the family's ICMP.
fn icmp(packet: &naive::Packet) -> u8 {
    if packet.source.is_ipv6() { 58 } else { 1 }
}

/// A port that port-forwards may have: the first one of each it has for sure.
pub(super) fn called_port(port: u16) -> u16 {
    let behind = if port.is_multiple_of(2) { 0 } else { port / 2 % 10 };
    100 + 10 * (port % 3) + behind
}

/// Any first packet: most come in where they should, many call the master, and some it sends itself.
pub(crate) fn arrival() -> impl Strategy<Value = Arrival> {
    let (astray, calls) = (prop::bool::weighted(0.05), prop::bool::weighted(0.4));
    (generate::packet(), astray, calls).prop_map(|(packet, astray, calls)| place(packet, astray, calls))
}

fn place(mut packet: naive::Packet, astray: bool, calls: bool) -> Arrival {
    let world = world(packet.source);
    // The other family's ICMP has a checksum that says nothing here.
    if [1, 58].contains(&packet.protocol) && packet.protocol != icmp(&packet) {
        packet.protocol = GRE;
    }
    if is_own(packet.source) {
        if is_own(packet.destination) {
            packet.destination = world.host("stranger");
        }
        return Arrival::sent(packet);
    }
    if calls {
        packet.destination = world.host("master");
        packet.detail = if packet.has_ports() { called_port(packet.detail) } else { packet.detail };
    }
    let side = side_of(packet.source);
    Arrival::coming(if astray { across(side) } else { side }, packet)
}

fn across(side: Side) -> Side {
    if side == Side::Inside { Side::Outside } else { Side::Inside }
}

impl Arrival {
    /// What comes in at a side.
    pub(super) fn coming(side: Side, packet: naive::Packet) -> Self {
        let interface = side.slot() as usize;
        Self { side: Some(side), packet: naive::Packet { interface, ..packet } }
    }

    /// What the master sends.
    pub(super) fn sent(packet: naive::Packet) -> Self {
        let interface = side_of(packet.destination).slot() as usize;
        Self { side: None, packet: naive::Packet { interface, ..packet } }
    }

    /// The packet itself.
    pub(crate) fn wire(&self) -> Packet {
        let naive::Packet { source, destination, protocol, source_port, detail, .. } = self.packet;
        let (from, to) = (SocketAddr::new(source, source_port), SocketAddr::new(destination, detail));
        let [request, reply] = echoes(&self.packet);
        match protocol {
            6 => Packet::tcp(from, to, SYN),
            17 => Packet::udp(from, to),
            SCTP => sctp(from, to),
            _ if protocol != icmp(&self.packet) => raw(protocol, from, to),
            _ if detail == request => Packet::echo(from, to, source_port),
            _ if detail == reply => Packet::echo(to, from, source_port).answer(),
            _ => Packet {
                body: Body::Icmp { kind: detail as u8, code: 0, detail: 0 },
                ..raw(protocol, from, to)
            },
        }
    }

    /// Whether it is ICMP, of this type.
    pub(super) fn is_icmp(&self, kind: u16) -> bool {
        self.packet.protocol == icmp(&self.packet) && self.packet.detail == kind
    }

    /// Shows a packet to the gateway where this one was seen.
    #[track_caller]
    pub(super) fn show(&self, gateway: &mut Gateway, packet: &Packet) -> Outcome {
        match self.side {
            Some(side) => gateway.receive(side, &Gateway::framed(side, packet)),
            None => gateway.leave(Hook::Egress, packet),
        }
    }
}

fn raw(protocol: u8, from: SocketAddr, to: SocketAddr) -> Packet {
    let bare = |end: SocketAddr| SocketAddr::new(end.ip(), 0);
    Packet::new(bare(from), bare(to), Body::Raw(protocol))
}

fn sctp(from: SocketAddr, to: SocketAddr) -> Packet {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    Packet { payload: [&ports[..], &[7; 12]].concat(), ..raw(SCTP, from, to) }
}

/// What the receiver of a packet answers.
pub(super) fn answer(packet: &Packet) -> Packet {
    let mut answer = packet.answer();
    if answer.body == Body::Raw(SCTP) {
        answer.payload[..4].rotate_left(2);
    }
    answer
}
