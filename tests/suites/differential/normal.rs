//! What both may choose for themselves, put aside: the ports of a masquerade, and how a gateway's own errors look.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use netfw_tests::packet::{
    Body, Packet, Side, quoted,
    world::{V4, V6},
};

/// Stands for a port that the gateway chose.
const SOME_PORT: u16 = 1;

/// An end of a conversation, with its protocol.
type End = (u8, SocketAddr);

/// The ports that a gateway has chosen for conversations: who has which, towards whom.
#[derive(Default)]
pub(crate) struct Ports(BTreeMap<(End, SocketAddr), SocketAddr>);

impl Ports {
    /// Notes the port with which a packet left: every one of a masqueraded conversation, and of others those that are not
    /// their sender's own, because two targets would answer the same client from the same port.
    pub(crate) fn learn(&mut self, sent: &Packet, left: &[(Side, Packet)], hidden: bool) {
        for (side, packet) in left.iter().filter(|(_, packet)| !is_error(packet)) {
            let towards_server = hidden && *side == Side::Outside && packet.destination == sent.destination;
            if towards_server || hidden && is_hairpinned(packet) || was_drawn(sent, packet) {
                let outside = (packet.protocol(), packet.source);
                self.0.entry((outside, packet.destination)).or_insert(sent.source);
            }
        }
    }

    /// Whether a sender has its own port where the other gateway let it, unless somebody else here has it.
    pub(crate) fn keeps_as_many_as(&self, other: &Self, sent: &Packet) -> bool {
        let kept = |ports: &Self| {
            ports.0.iter().find_map(|(((protocol, outside), to), inside)| {
                let here = *protocol == sent.protocol() && *to == sent.destination;
                (here && outside.port() == sent.source.port()).then_some(*inside)
            })
        };
        kept(other) != Some(sent.source) || kept(self).is_some()
    }

    /// The packets, as far as they must agree.
    pub(crate) fn normal(&self, left: &[(Side, Packet)]) -> Vec<(Side, Packet)> {
        let mut all: Vec<_> = left.iter().map(|(side, packet)| (*side, self.packet(packet))).collect();
        all.sort_by_key(|(side, packet)| (*side, format!("{packet:?}")));
        all
    }

    fn packet(&self, packet: &Packet) -> Packet {
        let mut packet = self.named(packet);
        if is_error(&packet) {
            let about = quoted(&packet).map(|quote| self.named(&eight_bytes(quote)));
            packet.payload = format!("{about:?}").into_bytes();
            if is_masters(packet.source.ip()) {
                // How much is quoted, the traffic class and whether it may be fragmented is the gateway's own choice.
                (packet.tos, packet.keep_whole) = (0, true);
            }
        }
        packet
    }

    fn named(&self, packet: &Packet) -> Packet {
        let given = |end: SocketAddr| self.0.keys().any(|(outside, _)| *outside == (packet.protocol(), end));
        let name =
            |end: SocketAddr| SocketAddr::new(end.ip(), if given(end) { SOME_PORT } else { end.port() });
        Packet { source: name(packet.source), destination: name(packet.destination), ..packet.clone() }
    }
}

/// Whether a packet left with another port of the same sender.
pub(crate) fn was_drawn(sent: &Packet, left: &Packet) -> bool {
    left.source.ip() == sent.source.ip() && left.source.port() != sent.source.port()
}

/// Whether a packet from the LAN to the outside address went back there, as one of the master's own.
fn is_hairpinned(left: &Packet) -> bool {
    [V4, V6].iter().any(|world| left.source.ip() == world.host("gateway"))
}

/// As much of a quoted packet as every error must quote.
fn eight_bytes(mut quote: Packet) -> Packet {
    if let Body::Tcp { flags, acknowledged, .. } = &mut quote.body {
        (*flags, *acknowledged) = (0, 0);
    }
    quote.payload.clear();
    quote
}

/// Whether it is an ICMP error.
pub(crate) fn is_error(packet: &Packet) -> bool {
    match packet.body {
        Body::Icmp { kind, .. } if packet.is_v6() => kind < 128,
        Body::Icmp { kind, .. } => matches!(kind, 3 | 4 | 11 | 12),
        _ => false,
    }
}

/// Whether an address is one of the master.
pub(crate) fn is_masters(address: IpAddr) -> bool {
    [V4, V6].iter().any(|world| [world.host("master"), world.host("gateway")].contains(&address))
}
