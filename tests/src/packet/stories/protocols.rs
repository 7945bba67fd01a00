//! Protocols other than TCP, UDP and ICMP: their addresses are translated, and nothing else.

use super::icmp;
use crate::packet::{Body, Gateway, Packet, Side, world::World};

const LAN: &str = "[masquerade]\nfrom = [\"lan\"]\n";
const SCTP: u8 = 132;
const GRE: u8 = 47;
const ESP: u8 = 50;
const AH: u8 = 51;

/// A packet whose payload is all of the protocol's header and content.
fn raw(world: World, protocol: u8, [from, to]: [&str; 2], payload: &[u8]) -> Packet {
    let packet = Packet::new(world.at(from, 0), world.at(to, 0), Body::Raw(protocol));
    Packet { payload: payload.to_vec(), ..packet }
}

/// An SCTP packet with an INIT chunk. Its CRC32c, which covers no addresses, is any number.
fn sctp(world: World, ends: [&str; 2], ports: [u16; 2]) -> Packet {
    let chunk = [1, 0, 0, 20, 7, 7, 7, 7, 0, 1, 0, 0, 0, 1, 0, 1, 9, 9, 9, 9];
    let ports: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    raw(world, SCTP, ends, &[&ports[..], &[0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef], &chunk].concat())
}

/// SCTP is masqueraded with the ports that it has, also where `ports` asks for others; two hosts cannot use the same one
/// towards the same server. (Scenario 14.)
pub fn sctp_by_address(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("{LAN}ports = \"20000-60000\"\n"));
    for (worker, port) in [("worker1", 5000), ("worker2", 5001)] {
        let sent = sctp(world, [worker, "client"], [port, 2905]);
        gateway.inside(&sent).forwarded(Side::Outside, &sent.from(world.at("master", 0)).hop());
        let answer = sctp(world, ["client", "master"], [2905, port]);
        gateway.outside(&answer).forwarded(Side::Inside, &answer.to(world.at(worker, 0)).hop());
    }
    gateway.inside(&sctp(world, ["worker3", "client"], [5000, 2905])).dropped("no-free-port");
    for (server, port) in [("client", 2906), ("stranger", 2905)] {
        let sent = sctp(world, ["worker3", server], [5000, port]);
        gateway.inside(&sent).forwarded(Side::Outside, &sent.from(world.at("master", 0)).hop());
    }
    gateway.outside(&sctp(world, ["client", "master"], [2905, 5002])).dropped("policy-input");
}

/// Rules know the ports of SCTP.
pub fn rules_for_sctp(gateway: &mut Gateway) {
    let world = gateway.world;
    let rule = "[[rule]]\nchain = \"forward\"\naction = \"accept\"\nprotocol = \"sctp\"\nport = 2905\n";
    gateway.apply(rule);
    let sent = sctp(world, ["client", "worker1"], [5000, 2905]);
    gateway.outside(&sent).forwarded(Side::Inside, &sent.hop());
    let answer = sctp(world, ["worker1", "client"], [2905, 5000]);
    gateway.inside(&answer).forwarded(Side::Outside, &answer.hop());
    gateway.outside(&sctp(world, ["client", "worker1"], [5000, 2906])).dropped("policy-forward");
}

/// Tunnels have one client a server; GRE's key is neither looked at nor changed, nor the SPI of ESP. (Scenario 14.)
pub fn tunnels_by_address(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(LAN);
    for protocol in [GRE, ESP] {
        let packet = |ends, key| raw(world, protocol, ends, &[0x20, 0, 8, 0, 0, 0, 0, key, 1, 2, 3]);
        for key in [7, 8] {
            let sent = packet(["worker1", "client"], key);
            gateway.inside(&sent).forwarded(Side::Outside, &sent.from(world.at("master", 0)).hop());
            let answer = packet(["client", "master"], key);
            gateway.outside(&answer).forwarded(Side::Inside, &answer.to(world.at("worker1", 0)).hop());
        }
        gateway.inside(&packet(["worker2", "client"], 9)).dropped("no-free-port");
        let elsewhere = packet(["worker2", "stranger"], 9);
        gateway.inside(&elsewhere).forwarded(Side::Outside, &elsewhere.from(world.at("master", 0)).hop());
    }
}

/// Errors about them come back to whoever sent them, through the translation and without one. (Scenario 10.)
pub fn errors_about_other_protocols(gateway: &mut Gateway) {
    let world = gateway.world;
    for (rules, worker) in [(LAN, "worker1"), ("[policy]\nforward = \"accept\"\n", "worker2")] {
        gateway.apply(rules);
        let ends = [worker, "client"];
        let tunnels = [raw(world, GRE, ends, &[0x20, 0, 8, 0, 0, 0, 0, 7, 1]), raw(world, ESP, ends, &[7])];
        for sent in tunnels.into_iter().chain([sctp(world, ends, [5000, 2905])]) {
            let left = gateway.inside(&sent).forwarded_somehow();
            for bytes in [8, sent.payload.len()] {
                let error = icmp::error(&left, world.at("router", 0), bytes);
                icmp::tells(&gateway.outside(&error).forwarded_somehow(), &sent);
            }
        }
    }
}

/// AH signs the addresses: it is not translated, and passes where nothing has to be. (Scenario 14.)
pub fn signed_addresses(gateway: &mut Gateway) {
    let world = gateway.world;
    let packet = raw(world, AH, ["worker1", "client"], &[4, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    gateway.apply(LAN);
    gateway.inside(&packet).dropped("untranslatable");
    gateway.apply("[policy]\nforward = \"accept\"\n");
    gateway.inside(&packet).forwarded(Side::Outside, &packet.hop());
}

/// A protocol that nobody knows follows the policy, and its answers follow it. (Scenario 14.)
pub fn unknown_protocols_by_policy(gateway: &mut Gateway) {
    const EXPERIMENT: u8 = 253;
    let world = gateway.world;
    let question = raw(world, EXPERIMENT, ["client", "worker1"], b"anything");
    let answer = raw(world, EXPERIMENT, ["worker1", "client"], b"something");
    gateway.apply("");
    gateway.outside(&question).dropped("policy-forward");
    gateway.apply("[[rule]]\nchain = \"forward\"\naction = \"accept\"\nprotocol = 253\nto = [\"worker1\"]\n");
    gateway.inside(&answer).dropped("policy-forward");
    gateway.outside(&question).forwarded(Side::Inside, &question.hop());
    gateway.inside(&answer).forwarded(Side::Outside, &answer.hop());
}
