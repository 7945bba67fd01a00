//! What the link needs, whatever the policy; and whose frames these are.

use crate::packet::{Body, Fate, Gateway, Packet, Side};

const SHUT: &str = "[policy]\ninput = \"drop\"\nforward = \"drop\"\noutput = \"drop\"\n";

/// Neighbour discovery with hop limit 255, in both directions; never forwarded or forged ones.
pub fn discovery(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(SHUT);
    if !world.is_v6() {
        return arp(gateway);
    }
    for kind in 133..=137 {
        let body = Body::Icmp { kind, code: 0, detail: 0 };
        let question = Packet::new(world.at("router", 0), world.at("master", 0), body).ttl(255);
        gateway.outside(&question).accepted(&question);
        gateway.outside(&question.ttl(254)).dropped("policy-input");
        let answer = question.answer().ttl(255);
        gateway.send(&answer).accepted(&answer);
    }
}

/// ARP is no IP packet: not even counted.
fn arp(gateway: &mut Gateway) {
    let mut frame = Gateway::framed(
        Side::Outside,
        &Packet::udp(gateway.world.at("router", 1), gateway.world.at("master", 1)),
    );
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(gateway.receive(Side::Outside, &frame).fate, Fate::Passed);
}

/// Answers to the master's own DHCP client, and its questions.
pub fn dhcp(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(SHUT);
    let (client, server) = if world.is_v6() { (546, 547) } else { (68, 67) };
    let offer = Packet::udp(world.at("router", server), world.at("master", client));
    gateway.outside(&offer).accepted(&offer);
    let request = offer.answer();
    gateway.send(&request).accepted(&request);
    let other = Packet::udp(world.at("router", 4000), world.at("master", client));
    gateway.outside(&other).dropped("policy-input");
}

/// A frame to all or many with a packet for the master alone is no way around the rules (RFC 1122 §3.3.6).
pub fn group_frames(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[[rule]]\naction = \"accept\"\n");
    let packet = Packet::udp(world.at("client", 4000), world.at("master", 53));
    for to in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
        let frame = packet.frame(crate::packet::world::ROUTER_MAC, to);
        gateway.receive(Side::Outside, &frame).dropped("group-frame");
    }
    gateway.outside(&packet).accepted(&packet);
}

/// Frames for other machines, broadcasts and multicasts are nobody's business here.
pub fn frames_for_others(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[policy]\nforward = \"accept\"\n");
    let packet = Packet::udp(world.at("client", 4000), world.at("worker1", 53));
    for to in [[2, 0, 0, 0, 0, 0x77], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
        let frame = packet.frame(crate::packet::world::ROUTER_MAC, to);
        assert_eq!(gateway.receive(Side::Outside, &frame).fate, Fate::Passed, "to {to:02x?}");
    }
}
