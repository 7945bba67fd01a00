//! What a router does to every packet, and what it doesn't. (Scenario 9.)

use crate::packet::{Body, Fate, Gateway, Packet, Side, fragments, quoted};

const OPEN: &str = "[policy]\ninput = \"accept\"\nforward = \"accept\"\n";

/// TTL goes down once, DSCP and ECN stay.
pub fn one_hop_older(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(OPEN);
    for (ttl, tos) in [(2, 0), (64, 0x2e << 2), (128, 0x03), (255, 0xff)] {
        let packet = Packet { ttl, tos, ..Packet::udp(world.at("client", 4000), world.at("worker1", 80)) };
        gateway.outside(&packet).forwarded(Side::Inside, &packet.hop());
        gateway.outside(&packet).forwarded(Side::Inside, &packet.hop());
        let local = packet.to(world.at("master", 80));
        gateway.outside(&local).accepted(&local);
    }
}

/// The last hop: the sender is told, of new flows and of live ones; what ends here may arrive with TTL 1.
pub fn the_last_hop(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(OPEN);
    let probe = Packet::udp(world.at("client", 4000), world.at("worker1", 33_434));
    for ttl in [1, 0, 64, 1] {
        let probe = probe.ttl(ttl);
        let outcome = gateway.outside(&probe);
        if ttl > 1 {
            outcome.forwarded(Side::Inside, &probe.hop());
            continue;
        }
        let answer = outcome.answered("ttl-exceeded");
        let kind = if world.is_v6() { 3 } else { 11 };
        assert_eq!(answer.body, Body::Icmp { kind, code: 0, detail: 0 });
        assert_eq!((answer.source, answer.destination), (world.at("master", 0), world.at("client", 0)));
        let quote = quoted(&answer).expect("8 bytes are quoted");
        assert_eq!((quote.source, quote.destination, quote.ttl), (probe.source, probe.destination, ttl));
    }
    let local = probe.to(world.at("master", 80)).ttl(1);
    gateway.outside(&local).accepted(&local);
}

/// An error quotes the packet as it came, whole or its first 512 bytes, also where it would have been translated; it
/// comes from the address that was asked.
pub fn the_packet_is_quoted(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway
        .apply("[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 53\nto = [\"worker1:5353\"]\n");
    for length in [0, 1, 63, 64, 463, 465, 484, 485, 1400] {
        let probe = Packet::udp(world.at("client", 4000), world.at("master", 53)).ttl(1).sized(length);
        let answer = gateway.outside(&probe).answered("ttl-exceeded");
        let mut expected = probe.datagram();
        expected.truncate(512);
        assert_eq!(answer.payload, expected, "{length} bytes");
        assert_eq!(answer.source.ip(), world.host("master"));
    }
    let elsewhere = Packet::udp(world.at("client", 4000), world.at("second", 53)).ttl(1);
    assert_eq!(gateway.outside(&elsewhere).answered("ttl-exceeded").source.ip(), world.host("second"));
}

/// Nobody is told of an error's end, nor of a later fragment's.
pub fn never_about_errors(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(OPEN);
    let sent = Packet::udp(world.at("client", 4000), world.at("worker1", 53));
    let arrived = gateway.outside(&sent).forwarded_somehow();
    let (kind, code) = if world.is_v6() { (1, 4) } else { (3, 3) };
    let body = Body::Icmp { kind, code, detail: 0 };
    let mut error = Packet::new(world.at("worker1", 0), world.at("client", 0), body);
    error.payload = arrived.datagram();
    gateway.inside(&error).forwarded(Side::Outside, &{
        let mut left = error.clone();
        left.payload = arrived.datagram();
        left.hop()
    });
    gateway.inside(&error.ttl(1)).dropped("ttl-exceeded");
    let parts =
        |ttl| fragments(&Gateway::framed(Side::Outside, &sent.divisible().sized(3000).ttl(ttl)), 1400);
    assert_eq!(gateway.receive(Side::Outside, &parts(64)[0]).fate, Fate::Forwarded);
    gateway.receive(Side::Outside, &parts(1)[1]).dropped("ttl-exceeded");
}
