//! Rules that admit so many flows and no more. The rates are so slow that no token grows while a story is told.

use crate::packet::{ACK, Gateway, Packet, SYN, Side};

fn knock(gateway: &Gateway, host: &str, port: u16) -> Packet {
    Packet::tcp(gateway.world.at(host, port), gateway.world.at("master", 22), SYN)
}

/// All sources share what the rule admits; what is above is dropped, and a later rule does not get it. (Scenario 22.)
pub fn per_rule(gateway: &mut Gateway) {
    gateway.apply(
        r#"
        [[rule]]
        name = "ssh"
        action = "accept"
        protocol = "tcp"
        port = 22
        limit = { rate = "1/day", burst = 3, per = "rule" }
        [[rule]]
        action = "accept"
        "#,
    );
    for (host, port) in [("client", 4000), ("stranger", 4000), ("client", 4001)] {
        let syn = knock(gateway, host, port);
        gateway.outside(&syn).accepted(&syn);
    }
    let above = knock(gateway, "neighbour", 4000);
    let outcome = gateway.outside(&above);
    outcome.dropped("rate-limited");
    assert_eq!(outcome.moved.rules.keys().collect::<Vec<_>>(), ["ssh"], "the rule decided");
    let datagram = Packet::udp(above.source, above.destination);
    gateway.outside(&datagram).accepted(&datagram);
}

/// Each source has tokens of its own, in both families by its whole address. (Scenario 22.)
pub fn per_source(gateway: &mut Gateway) {
    gateway
        .apply("[[rule]]\naction = \"accept\"\nlimit = { rate = \"1/day\", burst = 2, per = \"source\" }\n");
    for host in ["client", "neighbour", "stranger"] {
        for port in [4000, 4001] {
            let syn = knock(gateway, host, port);
            gateway.outside(&syn).accepted(&syn);
        }
        gateway.outside(&knock(gateway, host, 4002)).dropped("rate-limited");
    }
}

/// Packets of a flow that was admitted cost nothing, and neither does judging it again after a change. (Scenario 22.)
pub fn only_new_flows_pay(gateway: &mut Gateway) {
    let rule = "[[rule]]\nname = \"ssh\"\naction = \"accept\"\nlimit = { rate = \"1/day\", burst = 2 }\n";
    gateway.apply(rule);
    let syn = knock(gateway, "client", 4000);
    gateway.outside(&syn).accepted(&syn);
    let answer = syn.answer().flags(SYN | ACK);
    gateway.send(&answer).accepted(&answer);
    let ack = syn.flags(ACK);
    gateway.outside(&ack).accepted(&ack);
    gateway.apply(rule);
    for packet in [&syn, &ack] {
        gateway.outside(packet).accepted(packet);
    }
    let second = knock(gateway, "client", 4001);
    gateway.outside(&second).accepted(&second);
    gateway.outside(&knock(gateway, "client", 4002)).dropped("rate-limited");
    gateway.apply(rule);
    gateway.outside(&ack).accepted(&ack);
}

/// What is dropped for another reason, or handed from XDP to TC, costs nothing. (Scenario 22.)
pub fn what_is_dropped_does_not_pay(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        "[[rule]]\nchain = \"forward\"\naction = \"accept\"\nlimit = { rate = \"1/day\", burst = 2, per = \"source\" }\n",
    );
    let ask = |port| Packet::udp(world.at("client", port), world.at("worker1", 53));
    for port in 4000..4010 {
        let _ = gateway.outside(&Packet { ttl: 1, ..ask(port) }).answered("ttl-exceeded");
    }
    for port in [4000, 4001] {
        gateway.outside(&ask(port)).forwarded(Side::Inside, &ask(port).hop());
    }
    let _ = gateway.outside(&ask(4002)).dropped("rate-limited");
    // Above the limit nobody is told anything, either.
    gateway.outside(&Packet { ttl: 1, ..ask(4003) }).dropped("rate-limited");
}

/// A rule that rejects tells so many senders, and drops the others silently. (Scenario 22.)
pub fn limited_rejections(gateway: &mut Gateway) {
    gateway.apply("[[rule]]\naction = \"reject\"\nlimit = { rate = \"1/day\", burst = 2 }\n");
    for port in [4000, 4001] {
        let _ = gateway.outside(&knock(gateway, "client", port)).answered("rejected");
    }
    gateway.outside(&knock(gateway, "client", 4002)).dropped("rate-limited");
}
