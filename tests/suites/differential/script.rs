//! Random conversations in a small world, so that packets meet each other.

use std::{collections::HashSet, net::SocketAddr};

use netfw_tests::packet::{
    ACK, Body, FIN, Packet, RST, SYN, Side,
    world::{V4, V6},
};
use proptest::{
    prelude::*,
    sample::{Index, select},
};

use super::{Exchange, twin::side_of_sender};

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Somebody speaks to somebody.
    Open(Opening),
    /// The sender of an earlier packet sends another.
    Again(Index, u8, usize),
    /// The receiver of one that came out answers it.
    Answer(Index, u8, usize),
    /// The receiver of one that came out, or a router, complains.
    Error(Index, bool, u8, usize),
}

/// The first packet of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    from: &'static str,
    to: &'static str,
    ports: (u16, u16),
    kind: u8,
    flags: u8,
    size: usize,
    ttl: u8,
    tos: u8,
    v6: bool,
}

impl Opening {
    fn packet(&self) -> Packet {
        let world = if self.v6 { V6 } else { V4 };
        let (from, to) = (world.at(self.from, self.ports.0), world.at(self.to, self.ports.1));
        let packet = match self.kind {
            0..=2 => Packet::tcp(from, to, SYN).flags(self.flags),
            3..=5 => Packet::udp(from, to),
            9 => Packet::new(world.at(self.from, 0), world.at(self.to, 0), Body::Raw(EXPERIMENT)),
            6 if !self.v6 => Packet { body: Body::Udp { checksum: false }, ..Packet::udp(from, to) },
            _ => Packet::echo(from, to, self.ports.0),
        };
        Packet { tos: self.tos, ..packet.sized(self.size).ttl(self.ttl) }
    }
}

/// A protocol that nobody knows (RFC 3692).
const EXPERIMENT: u8 = 253;

/// Any step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let follow = select(vec![SYN, ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, RST | ACK]);
    let answer = select(vec![SYN | ACK, SYN | ACK, ACK, ACK, FIN | ACK, RST, RST | ACK]);
    prop_oneof![
        6 => opening().prop_map(Step::Open),
        3 => (any::<Index>(), follow, 0..60usize).prop_map(|(n, flags, size)| Step::Again(n, flags, size)),
        6 => (any::<Index>(), answer, 0..60usize).prop_map(|(n, flags, size)| Step::Answer(n, flags, size)),
        1 => (any::<Index>(), any::<bool>(), 0..6u8, 8..60usize)
            .prop_map(|(n, router, kind, bytes)| Step::Error(n, router, kind, bytes)),
    ]
}

fn opening() -> impl Strategy<Value = Opening> {
    let outside = || select(vec!["client", "neighbour", "stranger"]);
    let inside = || select(vec!["worker1", "worker2", "worker3", "worker4"]);
    let ends = prop_oneof![
        3 => (outside(), Just("master")),
        1 => (outside(), inside()),
        3 => (inside(), outside()),
        1 => (inside(), Just("gateway")),
        2 => (inside(), Just("master")),
    ];
    let ports = (select(vec![4000u16, 4001, 4002, 61_000]), select(vec![50u16, 51, 52, 53, 54, 55, 60]));
    let flags = select(vec![SYN, SYN, SYN, SYN, SYN, SYN, ACK, SYN | ACK, FIN | ACK, RST, 0, SYN | FIN]);
    let ttl = prop_oneof![9 => Just(64u8), 1 => 1..3u8];
    let tos = select(vec![0u8, 0, 0x10, 0xb8, 3]);
    (ends, ports, 0..10u8, flags, 0..80usize, ttl, tos, any::<bool>()).prop_map(
        |((from, to), ports, kind, flags, size, ttl, tos, v6)| Opening {
            from,
            to,
            ports,
            kind,
            flags,
            size,
            ttl,
            tos,
            v6,
        },
    )
}

/// Protocol and both ends, in a fixed order.
type Ends = (u8, SocketAddr, SocketAddr);

fn ends(packet: &Packet) -> Ends {
    let (one, other) = (packet.source, packet.destination);
    (packet.protocol(), one.min(other), one.max(other))
}

/// What was said so far, where both gateways agreed.
#[derive(Default)]
pub(crate) struct Script {
    exchanges: Vec<Exchange>,
    /// The ends of conversations about which they did not, as they are known on both sides: what follows is not comparable.
    forgotten: HashSet<Ends>,
    next: usize,
}

/// Where a packet comes in, as it comes to each gateway, and the step that began its conversation.
type Next = (Side, [Packet; 2], usize);

impl Script {
    /// The packets of a step, for each gateway; none where there is nothing to refer to.
    pub(crate) fn packets(&mut self, step: &Step, number: usize) -> Option<Next> {
        self.next = number;
        let next = match step {
            Step::Open(opening) => Some(self.open(opening.packet())),
            Step::Again(index, flags, size) => self.again(index, *flags, *size),
            Step::Answer(index, flags, size) => self.follow(index, |left| {
                let answer = Packet { tos: 0, ..left.answer().sized(*size) };
                if let Body::Tcp { .. } = left.body { answer.flags(*flags) } else { answer }
            }),
            Step::Error(index, router, kind, bytes) => {
                self.follow(index, |left| error(left, *router, *kind, *bytes))
            }
        };
        next.filter(|(_, sent, _)| !sent.iter().any(|packet| self.forgotten.contains(&ends(packet))))
    }

    fn open(&self, packet: Packet) -> Next {
        let root = self.root(&packet).unwrap_or(self.next);
        (side_of_sender(packet.source.ip()), [packet.clone(), packet], root)
    }

    /// The conversation between the same ends, if there was one.
    fn root(&self, packet: &Packet) -> Option<usize> {
        let same = |before: &&Exchange| ends(&before.sent[0]) == ends(packet);
        self.exchanges.iter().find(same).map(|before| before.root)
    }

    fn again(&self, index: &Index, flags: u8, size: usize) -> Option<Next> {
        let usable: Vec<_> =
            self.exchanges.iter().filter(|it| !super::normal::is_error(&it.sent[0])).collect();
        let before = pick(&usable, index)?;
        let again = |sent: &Packet| match sent.body {
            Body::Tcp { .. } => sent.sized(size).flags(flags),
            _ => sent.sized(size),
        };
        Some((before.side, [again(&before.sent[0]), again(&before.sent[1])], before.root))
    }

    /// What somebody sends who got something.
    fn follow(&self, index: &Index, reaction: impl Fn(&Packet) -> Packet) -> Option<Next> {
        let usable: Vec<_> = self.exchanges.iter().filter(|it| came_out(it)).collect();
        let before = pick(&usable, index)?;
        let sent = [reaction(&before.left[0][0].1), reaction(&before.left[1][0].1)];
        Some((before.left[0][0].0, sent, before.root))
    }

    /// Both gateways did the same.
    pub(crate) fn remember(&mut self, exchange: Exchange) {
        self.exchanges.push(exchange);
    }

    /// They did not: nothing more of this conversation.
    pub(crate) fn forget(&mut self, exchange: Exchange) {
        let root = exchange.root;
        for said in self.exchanges.extract_if(.., |said| said.root == root).chain([exchange]) {
            let left = said.left.iter().flatten().map(|(_, packet)| packet);
            self.forgotten.extend(said.sent.iter().chain(left).map(ends));
        }
    }

    /// The side from which a conversation was opened.
    pub(crate) fn opened_from(&self, root: usize) -> Option<Side> {
        self.history(root).next().map(|opening| opening.side)
    }

    /// What was said in a conversation.
    pub(crate) fn history(&self, root: usize) -> impl Iterator<Item = &Exchange> {
        self.exchanges.iter().filter(move |exchange| exchange.root == root)
    }
}

fn pick<'a>(from: &[&'a Exchange], index: &Index) -> Option<&'a Exchange> {
    (!from.is_empty()).then(|| *index.get(from))
}

/// Whether a packet came through.
pub(crate) fn came_out(exchange: &Exchange) -> bool {
    matches!(&exchange.left[0][..], [(side, packet)] if *side != exchange.side && !super::normal::is_error(packet))
}

/// An error about a packet, quoting some of it.
fn error(about: &Packet, router: bool, kind: u8, bytes: usize) -> Packet {
    let world = if about.is_v6() { V6 } else { V4 };
    let (v4, v6) = [
        ((3, 0), (1, 0)),
        ((3, 1), (1, 3)),
        ((3, 3), (1, 4)),
        ((3, 4), (2, 0)),
        ((11, 0), (3, 0)),
        ((12, 0), (4, 0)),
    ][usize::from(kind)];
    let (kind, code) = if about.is_v6() { v6 } else { v4 };
    let mut payload = about.datagram();
    payload.truncate(bytes + if about.is_v6() { 40 } else { 20 });
    let inside = side_of_sender(about.destination.ip()) == Side::Inside;
    let from = if router && !inside { world.host("router") } else { about.destination.ip() };
    let detail = if (kind, code) == (3, 4) || (about.is_v6() && kind == 2) { 1300 } else { 0 };
    let body = Body::Icmp { kind, code, detail };
    Packet { payload, ..Packet::new((from, 0).into(), (about.source.ip(), 0).into(), body) }
}
