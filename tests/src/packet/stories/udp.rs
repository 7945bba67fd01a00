//! Datagrams: checksums at their edges, lengths, fragments.

use crate::packet::{
    Body, Fate, Gateway, Packet, Side, fragments, reassemble, wire::ETHERNET, world::side_of,
};

const DNS: &str =
    "[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 53\nto = [\"worker1:5353\"]\n";

/// A datagram to the forward, and what the worker must get.
fn question(gateway: &Gateway) -> (Packet, Packet) {
    let world = gateway.world;
    let sent = Packet::udp(world.at("client", 4000), world.at("master", 53));
    let arrived = sent.to(world.at("worker1", 5353)).hop();
    (sent, arrived)
}

/// No checksum stays none over IPv4; over IPv6 there is no such thing. (Scenario 8.)
pub fn without_a_checksum(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let (sent, arrived) = question(gateway);
    let bare = |packet: &Packet| Packet { body: Body::Udp { checksum: false }, ..packet.clone() };
    if gateway.world.is_v6() {
        gateway.outside(&bare(&sent)).dropped("bad-checksum");
        return;
    }
    gateway.outside(&bare(&sent)).forwarded(Side::Inside, &bare(&arrived));
    let answer = bare(&arrived).answer();
    gateway.inside(&answer).forwarded(Side::Outside, &bare(&sent).answer().hop());
}

/// A checksum that comes out as 0 is sent as 0xffff. (Scenario 8.)
pub fn a_checksum_of_zero(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let (sent, arrived) = question(gateway);
    let checksum_at = if gateway.world.is_v6() { 60 } else { 40 };
    let mut met = false;
    for word in 0..=u16::MAX {
        let payload = word.to_be_bytes().to_vec();
        let arrived = Packet { payload, ..arrived.clone() };
        let bytes = arrived.frame([0; 6], [0; 6]);
        if bytes[checksum_at..checksum_at + 2] != [0xff, 0xff] {
            continue;
        }
        let sent = Packet { payload: arrived.payload.clone(), ..sent.clone() };
        let outcome = gateway.outside(&sent);
        outcome.forwarded(Side::Inside, &arrived);
        assert_eq!(outcome.frame()[checksum_at..checksum_at + 2], [0xff, 0xff]);
        met = true;
    }
    assert!(met, "one word of all must give this sum");
}

/// Empty, odd and full datagrams, with and without padding behind them. (Scenario 8.)
pub fn lengths(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let (sent, arrived) = question(gateway);
    let full = if gateway.world.is_v6() { 1452 } else { 1472 };
    for length in [0, 1, 2, 3, 17, 18, 19, 999, full - 1, full] {
        let outcome = gateway.outside(&sent.sized(length));
        outcome.forwarded(Side::Inside, &arrived.sized(length));
        let mut padded = Gateway::framed(Side::Outside, &sent.sized(length));
        padded.extend([0xa5; 7]);
        gateway.receive(Side::Outside, &padded).forwarded(Side::Inside, &arrived.sized(length));
    }
}

/// Fragments in order go through every kind of translation, each by itself, and twice if they come twice. (Scenario 12.)
pub fn fragments_in_order(gateway: &mut Gateway) {
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
            carry_fragments(gateway, side, &sent, &arrived);
            let (answer, restored) = (arrived.answer(), sent.answer().hop());
            carry_fragments(gateway, side_of(to.ip()), &answer, &restored);
        }
    }
}

#[track_caller]
fn carry_fragments(gateway: &mut Gateway, side: Side, sent: &Packet, expected: &Packet) {
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

/// A later fragment without its first is dropped for its own reason. (Scenario 12.)
pub fn a_fragment_before_its_first(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let (sent, _) = question(gateway);
    let parts = fragments(&Gateway::framed(Side::Outside, &sent.divisible().sized(3000)), 1400);
    gateway.receive(Side::Outside, &parts[1]).dropped("fragment-before-first");
    assert_eq!(gateway.receive(Side::Outside, &parts[0]).fate, Fate::Forwarded);
    assert_eq!(gateway.receive(Side::Outside, &parts[1]).fate, Fate::Forwarded);
}

/// Fragments of a refused packet: the first one has no pardon, nor have the others.
pub fn fragments_of_a_refused_packet(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let world = gateway.world;
    let sent = Packet::udp(world.at("client", 4000), world.at("master", 54)).divisible().sized(3000);
    let parts = fragments(&Gateway::framed(Side::Outside, &sent), 1400);
    gateway.receive(Side::Outside, &parts[0]).dropped("policy-input");
    gateway.receive(Side::Outside, &parts[1]).dropped("fragment-before-first");
}
