//! Random packets of a small world, and rules for it.

use netfw_tests::packet::{
    ACK, Body, FIN, Packet, RST, SYN, Side,
    world::{V4, V6},
};
use proptest::{prelude::*, sample::select};

/// Rules under which nothing depends on chance.
pub(crate) const RULES: &str = r#"
    [policy]
    forward = "reject"
    [masquerade]
    from = ["lan"]
    [[port-forward]]
    name = "one"
    protocol = ["tcp", "udp"]
    port = "50-52"
    to = ["worker1:60", "worker2:60", "worker3:60"]
    spread = "one-to-one"
    [[port-forward]]
    name = "balanced"
    protocol = ["tcp", "udp"]
    port = 53
    to = ["worker1:70", "worker4:70"]
    balance = "source-hash"
    [[rule]]
    chain = "input"
    action = "accept"
    port = 54
    protocol = ["tcp", "udp"]
    [[rule]]
    chain = "forward"
    action = "accept"
    protocol = ["tcp", "udp"]
    from = ["office"]
    to = ["worker2"]
"#;

/// A packet in words that make sense in both families.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sketch {
    pub(crate) side: Side,
    pub(crate) ends: (&'static str, &'static str),
    pub(crate) ports: (u16, u16),
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) size: usize,
    pub(crate) ttl: u8,
    pub(crate) v6: bool,
}

impl Sketch {
    /// The packet itself.
    pub(crate) fn packet(&self) -> Packet {
        let world = if self.v6 { V6 } else { V4 };
        let (from, to) = (world.at(self.ends.0, self.ports.0), world.at(self.ends.1, self.ports.1));
        let packet = match self.kind {
            // Each side speaks with the numbers that the other one expects.
            0..=2 if self.side == Side::Inside => Packet::tcp(to, from, SYN).answer().flags(self.flags),
            0..=2 => Packet::tcp(from, to, SYN).flags(self.flags),
            3..=5 => Packet::udp(from, to),
            6 => Packet::echo(from, to, self.ports.0),
            7 => Packet::echo(to, from, self.ports.1).answer(),
            _ => Packet {
                body: Body::Raw(47),
                ..Packet::udp(world.at(self.ends.0, 0), world.at(self.ends.1, 0))
            },
        };
        packet.sized(self.size).ttl(self.ttl)
    }
}

/// Any sketch, from so small a world that packets meet each other.
pub(crate) fn sketch() -> impl Strategy<Value = Sketch> {
    let outside = select(vec!["client", "neighbour", "stranger"]);
    let inside = select(vec!["worker1", "worker2", "worker3", "worker4"]);
    let master = select(vec!["master", "master", "second", "gateway"]);
    let ends = prop_oneof![
        (outside.clone(), master.clone()).prop_map(|ends| (Side::Outside, ends)),
        (outside.clone(), inside.clone()).prop_map(|ends| (Side::Outside, ends)),
        (inside.clone(), outside).prop_map(|ends| (Side::Inside, ends)),
        (inside.clone(), master).prop_map(|ends| (Side::Inside, ends)),
    ];
    let ports = (select(vec![50u16, 60, 70, 4000, 4001]), select(vec![50u16, 51, 53, 54, 60, 4000]));
    let flags = select(vec![SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]);
    let ttl = prop_oneof![9 => Just(64u8), 1 => 0..3u8];
    (ends, ports, 0..9u8, flags, 0..80usize, ttl, any::<bool>()).prop_map(
        |((side, ends), ports, kind, flags, size, ttl, v6)| Sketch {
            side,
            ends,
            ports,
            kind,
            flags,
            size,
            ttl,
            v6,
        },
    )
}
