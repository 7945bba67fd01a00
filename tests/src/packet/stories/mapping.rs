//! An inside end has one outside port, whoever it talks to, and may be reached there.

use netfw_common::counters::Count;

use crate::packet::{ACK, Gateway, Packet, SYN, Side, Translated};

const MAPPING: &str = "[masquerade]\nfrom = [\"lan\"]\nmapping = \"endpoint-independent\"\n";
const OPEN: &str = "filtering = \"endpoint-independent\"\n";

const SERVERS: [&str; 3] = ["client", "stranger", "neighbour"];

/// One outside port for all that an inside end talks to, and it is nobody else's (RFC 4787 REQ-1, REQ-3).
pub fn one_port_towards_everyone(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(MAPPING);
    for kind in [Packet::udp, |from, to| Packet::tcp(from, to, SYN)] {
        let mut ports = Vec::new();
        for worker in ["worker1", "worker2", "worker3"] {
            let ask = |server| kind(world.at(worker, 5000), world.at(server, 53));
            let source = gateway.inside(&ask("client")).forwarded_somehow().source;
            for server in SERVERS {
                let left = ask(server).from(source);
                gateway.inside(&ask(server)).forwarded(Side::Outside, &left.hop());
                gateway.outside(&left.answer()).forwarded(Side::Inside, &ask(server).answer().hop());
            }
            assert!(!ports.contains(&source.port()), "a port for two");
            ports.push(source.port());
        }
        assert_eq!(ports[0], 5000, "the first one keeps its port");
    }
}

/// So it is for the identifiers of echoes.
pub fn one_identifier_towards_everyone(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(MAPPING);
    for worker in ["worker1", "worker2"] {
        let ping = |server| Packet::echo(world.at(worker, 0), world.at(server, 0), 77);
        let source = gateway.inside(&ping("client")).forwarded_somehow().source;
        let left = ping("stranger").from(source);
        gateway.inside(&ping("stranger")).forwarded(Side::Outside, &left.hop());
        assert_eq!(source.port() == 77, worker == "worker1");
    }
}

/// A host without mappings, hidden behind the same address, never gets a mapped port.
pub fn a_mapped_port_is_kept_from_others(gateway: &mut Gateway) {
    let world = gateway.world;
    let some = "[[masquerade]]\nfrom = [\"worker1\"]\nmapping = \"endpoint-independent\"\n";
    gateway.apply(&format!("{some}[[masquerade]]\nfrom = [\"lan\"]\n"));
    let ask = |worker, server| Packet::udp(world.at(worker, 5000), world.at(server, 53));
    let left = |worker, server| ask(worker, server).from(world.at("master", 5000)).hop();
    gateway.inside(&ask("worker1", "client")).forwarded(Side::Outside, &left("worker1", "client"));
    assert_ne!(gateway.inside(&ask("worker2", "stranger")).forwarded_somehow().source.port(), 5000);
    gateway.inside(&ask("worker1", "stranger")).forwarded(Side::Outside, &left("worker1", "stranger"));
}

/// Only who was asked may answer, unless filtering is endpoint-independent too (RFC 4787 REQ-8).
pub fn strangers_are_kept_out(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(MAPPING);
    let asked = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let _ = gateway.inside(&asked).forwarded_somehow();
    for (from, port) in [("stranger", 53), ("client", 54)] {
        let knock = Packet::udp(world.at(from, port), world.at("master", 5000));
        gateway.outside(&knock).dropped("policy-input");
    }
}

/// With both, whoever knows the outside port reaches the inside end, gets its answers, and is counted.
pub fn strangers_are_let_in(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("{MAPPING}{OPEN}"));
    for (kind, header) in
        [(Packet::udp as fn(_, _) -> Packet, 8), (|from, to| Packet::tcp(from, to, SYN), 20)]
    {
        // What one protocol has opened is shut for the other.
        gateway.outside(&kind(world.at("stranger", 4001), world.at("master", 5000))).dropped("policy-input");
        let asked = kind(world.at("worker1", 5000), world.at("client", 53));
        let _ = gateway.inside(&asked).forwarded_somehow();
        let before = gateway.counters();
        let knock = kind(world.at("stranger", 4000), world.at("master", 5000));
        gateway.outside(&knock).forwarded(Side::Inside, &knock.to(asked.source).hop());
        let answer = knock.to(asked.source).answer();
        let answer = if header == 20 { answer.flags(SYN | ACK) } else { answer };
        gateway.inside(&answer).forwarded(Side::Outside, &answer.from(knock.destination).hop());
        let network = if world.is_v6() { 40 } else { 20 };
        let one = Count { packets: 1, bytes: network + header + knock.payload.len() as u64 };
        let expected = Translated { flows_opened: 1, forth: one, back: one };
        assert_eq!(gateway.counters().since(&before).translation(""), expected);
    }
    // No mapping, no way in.
    let elsewhere = Packet::udp(world.at("stranger", 4000), world.at("master", 5001));
    gateway.outside(&elsewhere).dropped("policy-input");
}

/// What a mapping lets in is judged by chain forward, on its way to the inside end; what a port-forward wants is its own.
pub fn rules_come_first(gateway: &mut Gateway) {
    let world = gateway.world;
    let rules = r#"
        [[rule]]
        name = "not him"
        chain = "forward"
        action = "drop"
        from = ["198.51.100.0/24", "2001:db8:2::/48"]
        to = ["worker1"]
        protocol = "udp"
        port = 5000
    "#;
    gateway.apply(&format!("{MAPPING}{OPEN}{rules}"));
    let asked = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let _ = gateway.inside(&asked).forwarded_somehow();
    let knock = |from| Packet::udp(world.at(from, 4000), world.at("master", 5000));
    gateway.outside(&knock("stranger")).dropped("rule");
    gateway.outside(&knock("neighbour")).forwarded(Side::Inside, &knock("neighbour").to(asked.source).hop());
    let forward =
        "[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 5000\nto = [\"worker2:53\"]\n";
    gateway.apply(&format!("{MAPPING}{OPEN}{forward}"));
    gateway
        .outside(&knock("stranger"))
        .forwarded(Side::Inside, &knock("stranger").to(world.at("worker2", 53)).hop());
    // The end that has lost its port gets another one.
    let other = Packet::udp(asked.source, world.at("stranger", 99));
    let left = gateway.inside(&other).forwarded_somehow().source;
    assert_ne!(left.port(), 5000);
    let third = Packet::udp(asked.source, world.at("stranger", 98));
    gateway.inside(&third).forwarded(Side::Outside, &third.from(left).hop());
}

/// A mapped port that `ports` leaves out from now on is given up; the flows that use it go on.
pub fn a_port_out_of_range_is_given_up(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(MAPPING);
    let ask = |server| Packet::udp(world.at("worker1", 5000), world.at(server, 53));
    let left = ask("client").from(world.at("master", 5000)).hop();
    gateway.inside(&ask("client")).forwarded(Side::Outside, &left);
    gateway.apply(&format!("{MAPPING}ports = \"20000-20010\"\n"));
    gateway.inside(&ask("client")).forwarded(Side::Outside, &left);
    let new = gateway.inside(&ask("stranger")).forwarded_somehow().source;
    assert!((20_000..=20_010).contains(&new.port()), "{new}");
    gateway.inside(&ask("neighbour")).forwarded(Side::Outside, &ask("neighbour").from(new).hop());
}

/// When strangers are no longer let in, those who were are cut off; the inside end's own flows go on.
pub fn a_closed_filter_cuts(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("{MAPPING}{OPEN}"));
    let asked = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let left = asked.from(world.at("master", 5000));
    let _ = gateway.inside(&asked).forwarded_somehow();
    let knock = Packet::udp(world.at("stranger", 4000), world.at("master", 5000));
    let _ = gateway.outside(&knock).forwarded_somehow();
    gateway.apply(&format!("{MAPPING}{OPEN}ports = \"1-65535\"\n"));
    gateway.outside(&knock).forwarded(Side::Inside, &knock.to(asked.source).hop());
    gateway.apply(MAPPING);
    gateway.outside(&knock).dropped("flow-cut");
    gateway.outside(&left.answer()).forwarded(Side::Inside, &asked.answer().hop());
}

/// A LAN host that sends to the outside port of another, or to its own, comes from its own outside port (RFC 4787 REQ-9).
pub fn hairpin_through_a_mapping(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("{MAPPING}{OPEN}"));
    let asked = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let _ = gateway.inside(&asked).forwarded_somehow();
    for (from, port) in [("worker2", 6000), ("worker1", 6001)] {
        let knock = Packet::udp(world.at(from, port), world.at("master", 5000));
        let arrived = knock.to(asked.source).from(world.at("master", port));
        gateway.inside(&knock).forwarded(Side::Inside, &arrived.hop());
        gateway.inside(&arrived.answer()).forwarded(Side::Inside, &knock.answer().hop());
    }
    let own = Packet::udp(asked.source, world.at("master", 5000));
    let arrived = gateway.inside(&own).forwarded_somehow();
    assert_eq!((arrived.source.ip(), arrived.destination), (world.host("master"), asked.source));
    gateway.inside(&arrived.answer()).forwarded(Side::Inside, &own.answer().hop());
    // The same port as towards the outside.
    let out = Packet::udp(world.at("worker2", 6000), world.at("client", 53));
    gateway.inside(&out).forwarded(Side::Outside, &out.from(world.at("master", 6000)).hop());
}
