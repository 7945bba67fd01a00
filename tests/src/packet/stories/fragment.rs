//! A packet in pieces: the later ones find their way by the first.

use std::net::SocketAddr;

use crate::packet::{
    ACK, Body, Fate, Gateway, Packet, SYN, Side, fragments, reassemble, wire::ETHERNET, world::side_of,
};

const GRE: u8 = 47;
const DNS: &str =
    "[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 53\nto = [\"worker1:5353\"]\n";

/// Fragments in order go through every kind of translation, each by itself, and twice if they come twice. (Scenario 12.)
pub fn in_order(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("{DNS}source-nat = \"auto\"\n[[port-forward]]\nname = \"hidden\"\nprotocol = \"udp\"\nport = \"60-69\"\nto = \"worker2:160-169\"\nsource-nat = \"always\"\n[masquerade]\nfrom = [\"lan\"]\nports = \"20000-20001\"\n"));
    let ask = |from, to| Packet::udp(from, to);
    let (client, worker2) = (world.at("client", 4000), world.at("worker2", 4000));
    let ways = [
        (Side::Outside, ask(client, world.at("master", 53)), client, world.at("worker1", 5353)),
        (
            Side::Outside,
            ask(client, world.at("master", 65)),
            world.at("gateway", 4000),
            world.at("worker2", 165),
        ),
        (
            Side::Inside,
            ask(worker2, world.at("master", 53)),
            world.at("gateway", 4000),
            world.at("worker1", 5353),
        ),
        (Side::Inside, ask(world.at("worker1", 20_001), client), world.at("master", 20_001), client),
    ];
    for (side, sent, from, to) in ways {
        let arrived = sent.from(from).to(to).hop();
        for length in [1481, 4096, 60_000] {
            let (sent, arrived) = (sent.divisible().sized(length), arrived.divisible().sized(length));
            carry(gateway, side, &sent, &arrived);
            let (answer, restored) = (arrived.answer(), sent.answer().hop());
            carry(gateway, side_of(to.ip()), &answer, &restored);
        }
    }
}

#[track_caller]
fn carry(gateway: &mut Gateway, side: Side, sent: &Packet, expected: &Packet) {
    let parts = fragments(&Gateway::framed(side, sent), 1400);
    let arrived: Vec<_> = parts
        .iter()
        .map(|part| {
            let [once, twice] = [(), ()].map(|()| gateway.receive(side, part));
            assert_eq!((once.fate, twice.fate), (Fate::Forwarded, Fate::Forwarded));
            assert_eq!(once.frame()[ETHERNET..], twice.frame()[ETHERNET..]);
            once.frame().to_vec()
        })
        .collect();
    assert_eq!(reassemble(&arrived).expect("whole again"), *expected);
}

/// What is sent, where, and as what it arrives.
pub type Way = (Side, Packet, Packet);

/// A way for each protocol, open in both directions: a datagram to a forward, and what the LAN sends as the master, from another port
/// where there are ports.
pub fn ways(gateway: &mut Gateway) -> [Way; 4] {
    let world = gateway.world;
    gateway.apply(&format!("{DNS}[masquerade]\nfrom = [\"lan\"]\nports = \"20000-20001\"\n"));
    let (worker, client) = (world.at("worker2", 5000), world.at("client", 7));
    let query = Packet::udp(client, world.at("master", 53));
    let segment = connected(gateway, worker, client);
    let tunnelled = Packet::new(world.at("worker2", 0), world.at("client", 0), Body::Raw(GRE));
    [
        (Side::Outside, query.clone(), query.to(world.at("worker1", 5353))),
        hidden(gateway, &Packet::echo(worker, client, 5000)),
        hidden(gateway, &segment),
        (Side::Inside, tunnelled.clone(), tunnelled.from(world.at("master", 0))),
    ]
    .map(|(side, sent, arrived)| (side, large(&sent), large(&arrived).hop()))
}

fn large(packet: &Packet) -> Packet {
    packet.divisible().sized(4000)
}

/// The way of a packet that leaves from a port of the masquerade's range.
fn hidden(gateway: &mut Gateway, packet: &Packet) -> Way {
    let source = gateway.inside(packet).forwarded_somehow().source;
    assert!([20_000, 20_001].contains(&source.port()), "{source}");
    (Side::Inside, packet.clone(), packet.from(source))
}

/// A segment of a connection that was just opened.
fn connected(gateway: &mut Gateway, from: SocketAddr, to: SocketAddr) -> Packet {
    let syn = Packet::tcp(from, to, SYN);
    let left = gateway.inside(&syn).forwarded_somehow();
    let _ = gateway.outside(&left.answer().flags(SYN | ACK)).forwarded_somehow();
    syn.flags(ACK)
}

/// An echo, a segment and a tunnel are carried in pieces as a datagram is, there and back. (Scenario 12.)
pub fn of_each_protocol(gateway: &mut Gateway) {
    for (side, sent, arrived) in ways(gateway) {
        carry(gateway, side, &sent, &arrived);
        carry(gateway, side_of(arrived.destination.ip()), &arrived.answer(), &sent.answer().hop());
    }
}

/// A later fragment without its first is dropped for its own reason; once that has come, it goes the same way. (Scenario 12.)
pub fn before_its_first(gateway: &mut Gateway) {
    for (side, sent, arrived) in ways(gateway) {
        for part in fragments(&Gateway::framed(side, &sent), 1400).iter().skip(1) {
            gateway.receive(side, part).dropped("fragment-before-first");
        }
        carry(gateway, side, &sent, &arrived);
    }
}

/// Fragments of a refused packet: the first one has no pardon, nor have the others.
pub fn of_a_refused_packet(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let world = gateway.world;
    let sent = Packet::udp(world.at("client", 4000), world.at("master", 54)).divisible().sized(3000);
    let parts = fragments(&Gateway::framed(Side::Outside, &sent), 1400);
    gateway.receive(Side::Outside, &parts[0]).dropped("policy-input");
    gateway.receive(Side::Outside, &parts[1]).dropped("fragment-before-first");
}
