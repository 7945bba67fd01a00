//! The door to the master's SSH server that nothing shadows. (Scenario 23.)

use super::icmp;
use crate::packet::{ACK, Gateway, Packet, RST, SYN, Side};

/// Rules that admit nothing, in any direction.
const SHUT: &str = r#"
[policy]
input = "drop"
output = "drop"

[failsafe]
ssh-port = 22
from = ["office", "!203.0.113.11", "!2001:db8:1::11"]

[masquerade]
from = ["lan"]

[[rule]]
name = "nobody"
action = "drop"
[[rule]]
name = "nobody gets an answer"
chain = "output"
action = "drop"
"#;

fn syn(gateway: &Gateway, from: &str, port: u16) -> Packet {
    Packet::tcp(gateway.world.at(from, 4000), gateway.world.at("master", port), SYN)
}

/// Both directions pass, from the named network alone and to this port alone, and no flow is entered.
pub fn nothing_shuts_it(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(SHUT);
    let syn = syn(gateway, "client", 22);
    let answer = syn.answer().flags(SYN | ACK);
    // In any order: there is no state to be lost.
    for packet in [&syn.flags(ACK), &syn, &syn.flags(RST)] {
        let outcome = gateway.outside(packet);
        outcome.accepted(packet);
        assert!(outcome.moved.rules.is_empty(), "no rule is asked");
        gateway.send(&answer).accepted(&answer);
    }
    assert_eq!(gateway.flows(), 0);
    for (from, port) in [("neighbour", 22), ("stranger", 22), ("client", 23)] {
        gateway.outside(&self::syn(gateway, from, port)).dropped("rule");
    }
    let beyond = syn.to(world.at("worker1", 22));
    gateway.outside(&beyond).dropped("policy-forward");
    gateway.send(&answer.from(world.at("master", 23))).dropped("rule");
    let udp = Packet::udp(world.at("client", 4000), world.at("master", 22));
    gateway.outside(&udp).dropped("rule");
}

/// The server learns how wide the way to its client is.
pub fn errors_about_it_pass(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(SHUT);
    let answer = syn(gateway, "client", 22).answer().flags(SYN | ACK);
    let error = icmp::error(&answer, world.at("router", 0), 8);
    gateway.outside(&error).accepted(&error);
    let other = icmp::error(&answer.from(world.at("master", 23)), world.at("router", 0), 8);
    gateway.outside(&other).dropped("icmp-unrelated");
}

/// Answers to the door's port belong to the master: no LAN host is hidden behind it.
pub fn no_lan_host_takes_its_port(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(SHUT);
    let sent = Packet::tcp(world.at("worker1", 22), world.at("client", 4000), SYN);
    let left = gateway.inside(&sent).forwarded_somehow();
    assert_ne!(left.source.port(), 22);
    let answer = left.answer().flags(SYN | ACK);
    gateway.outside(&answer).forwarded(Side::Inside, &answer.to(sent.source).hop());
}
