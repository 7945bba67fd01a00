//! What is admitted, and what those are told who are not.

use netfw_common::{counters::Count, icmp};

use crate::packet::{ACK, Body, FIN, Gateway, Packet, RST, SYN, Side, quoted};

/// Nothing is admitted by default; what a rule admits is, with its answers. First match wins. (Scenario 18.)
pub fn first_match_wins(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[rule]]
        name = "not the stranger"
        chain = "forward"
        action = "drop"
        from = ["198.51.100.10", "2001:db8:2::10"]
        [[rule]]
        name = "web"
        chain = "forward"
        action = "accept"
        protocol = "tcp"
        to = ["worker1"]
        port = 80
        "#,
    );
    let syn = |from, to, port| Packet::tcp(world.at(from, 4000), world.at(to, port), SYN);
    let web = syn("client", "worker1", 80);
    let outcome = gateway.outside(&web);
    outcome.forwarded(Side::Inside, &web.hop());
    let one = Count { packets: 1, bytes: if world.is_v6() { 60 } else { 40 } };
    assert_eq!(outcome.moved.rules, [("web".to_owned(), one)].into());
    let answer = web.answer().flags(SYN | ACK);
    let outcome = gateway.inside(&answer);
    outcome.forwarded(Side::Outside, &answer.hop());
    assert!(outcome.moved.rules.is_empty(), "only the first packet of a flow is judged");

    let outcome = gateway.outside(&syn("stranger", "worker1", 80));
    outcome.dropped("rule");
    assert_eq!(outcome.moved.rules, [("not the stranger".to_owned(), one)].into());
    gateway.outside(&syn("client", "worker2", 80)).dropped("policy-forward");
    gateway.outside(&syn("client", "worker1", 81)).dropped("policy-forward");
    gateway.outside(&syn("client", "master", 80)).dropped("policy-input");
    let udp = Packet::udp(world.at("client", 4000), world.at("worker1", 80));
    gateway.outside(&udp).dropped("policy-forward");
}

/// A flow of one ICMP type admits no other, but for the answers to it; it lives as long as its own type is admitted. (Scenario 18.)
pub fn each_icmp_type_is_judged(gateway: &mut Gateway) {
    let world = gateway.world;
    let [kind, answer, other] = if world.is_v6() { [139, 140, 144] } else { [13, 14, 17] };
    let accepting = |kinds: &[u8]| {
        let (protocol, client) = (if world.is_v6() { "icmpv6" } else { "icmp" }, world.host("client"));
        format!(
            r#"
            [[rule]]
            name = "some"
            chain = "forward"
            action = "accept"
            protocol = "{protocol}"
            icmp-type = {kinds:?}
            from = ["{client}"]
            "#
        )
    };
    let message = |kind| {
        let body = Body::Icmp { kind, code: 0, detail: 0 };
        Packet::new(world.at("client", 0), world.at("worker1", 0), body)
    };
    let asked = message(kind);
    gateway.apply(&accepting(&[kind]));
    gateway.inside(&message(answer).answer()).dropped("icmp-unrelated");
    gateway.outside(&asked).forwarded(Side::Inside, &asked.hop());
    gateway.inside(&asked.answer()).forwarded(Side::Outside, &asked.answer().hop());
    gateway.outside(&message(other)).dropped("policy-forward");
    let back = Packet { body: asked.body.clone(), ..asked.answer() };
    gateway.inside(&back).dropped("policy-forward");

    gateway.apply(&accepting(&[kind, other]));
    gateway.outside(&asked).forwarded(Side::Inside, &asked.hop());
    let [echo, _] = icmp::echoes(world.is_v6());
    gateway.apply(&accepting(&[echo, other]));
    gateway.outside(&asked).dropped("flow-cut");
}

/// A rule's `to` is the target, its `port-forward` the translation. (Scenario 18.)
pub fn rules_see_the_target(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "ssh"
        protocol = "tcp"
        port = "2201-2202"
        to = ["worker1:22", "worker2:22"]
        spread = "one-to-one"
        [[rule]]
        name = "not worker2"
        chain = "forward"
        action = "drop"
        to = ["worker2"]
        port = 22
        protocol = "tcp"
        port-forward = "ssh"
        "#,
    );
    let syn = |port| Packet::tcp(world.at("client", 4000), world.at("master", port), SYN);
    let admitted = syn(2201);
    gateway.outside(&admitted).forwarded(Side::Inside, &admitted.to(world.at("worker1", 22)).hop());
    gateway.outside(&syn(2202)).dropped("rule");
}

/// Input: the master's own services, and the answers that leave. (Scenario 18.)
pub fn the_masters_services(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        "[[rule]]\naction = \"accept\"\nprotocol = \"tcp\"\nfrom = [\"office\", \"!203.0.113.11\", \"!2001:db8:1::11\"]\nport = 22\n",
    );
    let syn = Packet::tcp(world.at("client", 4000), world.at("master", 22), SYN);
    gateway.outside(&syn).accepted(&syn);
    let answer = syn.answer().flags(SYN | ACK);
    gateway.send(&answer).accepted(&answer);
    let ack = syn.flags(ACK);
    gateway.outside(&ack).accepted(&ack);
    gateway.outside(&syn.from(world.at("stranger", 4000))).dropped("policy-input");
    gateway.outside(&syn.from(world.at("neighbour", 4000))).dropped("policy-input");
}

/// Output: what the master sends itself, and the answers that come. (Scenario 18.)
pub fn the_master_as_a_client(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[[rule]]\nchain = \"output\"\naction = \"drop\"\nprotocol = \"udp\"\nport = 53\n");
    let syn = Packet::tcp(world.at("master", 40_000), world.at("client", 443), SYN);
    gateway.send(&syn).accepted(&syn);
    let answer = syn.answer().flags(SYN | ACK);
    gateway.outside(&answer).accepted(&answer);
    gateway.outside(&answer.to(world.at("master", 40_001))).dropped("policy-input");
    let query = Packet::udp(world.at("master", 40_000), world.at("client", 53));
    gateway.send(&query).dropped("rule");
}

/// A refused SYN gets a reset that the sender believes. (RFC 9293 §3.10.7.1)
pub fn reject_tcp(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[policy]\ninput = \"reject\"\nforward = \"reject\"\n");
    for to in ["master", "worker1"] {
        let syn = Packet::tcp(world.at("client", 4000), world.at(to, 22), SYN);
        let Body::Tcp { sequence, acknowledged, .. } = syn.body else { unreachable!() };
        let reset = |flags, sequence, acknowledged| {
            let body = Body::Tcp { flags, sequence, acknowledged };
            Packet { body, ..Packet::tcp(world.at(to, 22), syn.source, RST) }
        };
        let answer = gateway.outside(&syn).answered("rejected");
        assert_eq!(answer, reset(RST | ACK, 0, sequence + 1));
        let answer = gateway.outside(&syn.sized(10)).answered("rejected");
        assert_eq!(answer, reset(RST | ACK, 0, sequence + 11));
        let answer = gateway.outside(&syn.flags(FIN | ACK).sized(10)).answered("rejected");
        assert_eq!(answer, reset(RST, acknowledged, 0));
        gateway.outside(&syn.flags(RST)).dropped("rejected");
    }
}

/// Another refused packet gets an ICMP error that quotes it.
pub fn reject_udp(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[policy]\ninput = \"reject\"\nforward = \"reject\"\n");
    for to in ["master", "worker1"] {
        let datagram = Packet::udp(world.at("client", 4000), world.at(to, 53));
        let answer = gateway.outside(&datagram).answered("rejected");
        let (kind, code) = if world.is_v6() { (1, 4) } else { (3, 3) };
        assert_eq!(answer.body, Body::Icmp { kind, code, detail: 0 });
        assert_eq!(answer.source, world.at("master", 0));
        assert_eq!(answer.destination, world.at("client", 0));
        let quote = quoted(&answer).expect("8 bytes are quoted");
        assert_eq!((quote.source, quote.destination), (datagram.source, datagram.destination));
    }
}

/// An interface's rules hold for it alone.
pub fn rules_of_an_interface(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[[rule]]\naction = \"accept\"\nprotocol = \"udp\"\nport = 53\ninterface = \"eth1\"\n");
    let inside = Packet::udp(world.at("worker1", 4000), world.at("gateway", 53));
    gateway.inside(&inside).accepted(&inside);
    let outside = Packet::udp(world.at("client", 4000), world.at("master", 53));
    gateway.outside(&outside).dropped("policy-input");
}
