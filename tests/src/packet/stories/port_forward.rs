//! Port-forwards, in every form of the rules file.

use netfw_common::counters::Count;

use crate::packet::{ACK, Gateway, Packet, SYN, Side, Translated};

/// Both sides see the translated address, counters are exact. (Scenario 1.)
pub fn a_single_port(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "ssh"
        protocol = "tcp"
        port = 2201
        to = ["worker1:22"]
        "#,
    );
    let before = gateway.counters();
    let syn = Packet::tcp(world.at("client", 40_000), world.at("master", 2201), SYN);
    gateway.outside(&syn).forwarded(Side::Inside, &syn.to(world.at("worker1", 22)).hop());
    let answer = Packet::tcp(world.at("worker1", 22), syn.source, SYN | ACK);
    gateway.inside(&answer).forwarded(Side::Outside, &answer.from(syn.destination).hop());
    let data = syn.flags(ACK).sized(1301);
    gateway.outside(&data).forwarded(Side::Inside, &data.to(world.at("worker1", 22)).hop());

    let header = if world.is_v6() { 60 } else { 40 };
    let expected = Translated {
        flows_opened: 1,
        forth: Count { packets: 2, bytes: 2 * header + 1301 },
        back: Count { packets: 1, bytes: header },
    };
    assert_eq!(gateway.counters().since(&before).translation("ssh"), expected);
}

/// A new flow from `client` to `port` of the master that must arrive at `target`, and its answer.
#[track_caller]
fn leads_to(gateway: &mut Gateway, port: u16, target: (&str, u16)) {
    let world = gateway.world;
    let syn = Packet::tcp(world.at("client", 30_000 + port), world.at("master", port), SYN);
    let target = world.at(target.0, target.1);
    gateway.outside(&syn).forwarded(Side::Inside, &syn.to(target).hop());
    let answer = Packet::tcp(target, syn.source, SYN | ACK);
    gateway.inside(&answer).forwarded(Side::Outside, &answer.from(syn.destination).hop());
}

/// A port that no forward has is for the master, which nobody admitted.
#[track_caller]
fn leads_nowhere(gateway: &mut Gateway, from: &str, to: &str, port: u16) {
    let world = gateway.world;
    let syn = Packet::tcp(world.at(from, 40_000), world.at(to, port), SYN);
    gateway.outside(&syn).dropped("policy-input");
}

/// One line, four workers; the ports beside stay shut. (Scenario 1.)
pub fn one_to_one(gateway: &mut Gateway) {
    gateway.apply(
        r#"
        [[port-forward]]
        name = "ssh"
        protocol = "tcp"
        port = "2201-2204"
        to = ["worker1:22", "worker2:22", "worker3:22", "worker4:22"]
        spread = "one-to-one"
        "#,
    );
    for (port, target) in [(2201, "worker1"), (2202, "worker2"), (2203, "worker3"), (2204, "worker4")] {
        leads_to(gateway, port, (target, 22));
    }
    leads_nowhere(gateway, "client", "master", 2200);
    leads_nowhere(gateway, "client", "master", 2205);
}

/// A range is kept or shifted; its edges belong to it. (Scenario 1.)
pub fn ranges_kept_and_shifted(gateway: &mut Gateway) {
    gateway.apply(
        r#"
        [[port-forward]]
        name = "kept"
        protocol = "tcp"
        port = "4040-4049"
        to = "worker1:4040-4049"
        [[port-forward]]
        name = "shifted"
        protocol = "tcp"
        port = "8081-8084"
        to = "worker2:65532-65535"
        [[port-forward]]
        name = "gathered"
        protocol = "tcp"
        port = [1, "65534-65535"]
        to = "worker3:80"
        "#,
    );
    for port in [4040, 4045, 4049] {
        leads_to(gateway, port, ("worker1", port));
    }
    leads_to(gateway, 8081, ("worker2", 65532));
    leads_to(gateway, 8084, ("worker2", 65535));
    for port in [1, 65534, 65535] {
        let world = gateway.world;
        let syn = Packet::tcp(world.at("client", 1024 + port % 100), world.at("master", port), SYN);
        gateway.outside(&syn).forwarded(Side::Inside, &syn.to(world.at("worker3", 80)).hop());
    }
    for port in [4039, 4050, 8080, 8085, 2, 65533] {
        leads_nowhere(gateway, "client", "master", port);
    }
}

/// Both protocols on one port; neither gets the other's answers. (Scenario 1.)
pub fn tcp_and_udp(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "dns"
        protocol = ["tcp", "udp"]
        port = 53
        to = ["worker1:5353"]
        "#,
    );
    let (client, worker) = (world.at("client", 4000), world.at("worker1", 5353));
    let query = Packet::udp(client, world.at("master", 53));
    gateway.outside(&query).forwarded(Side::Inside, &query.to(worker).hop());
    let stray = Packet::tcp(worker, client, SYN | ACK);
    gateway.inside(&stray).dropped("policy-forward");
    let answer = query.to(worker).answer();
    gateway.inside(&answer).forwarded(Side::Outside, &answer.from(query.destination).hop());
}

/// Who is not in `from` meets chain input, as if the forward were not there. (Scenario 1.)
pub fn only_for_some(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "ssh"
        protocol = "tcp"
        port = 22
        to = ["worker1:22"]
        from = ["office"]
        [[rule]]
        action = "accept"
        protocol = "tcp"
        port = 22
        "#,
    );
    leads_to(gateway, 22, ("worker1", 22));
    let syn = Packet::tcp(world.at("stranger", 4000), world.at("master", 22), SYN);
    gateway.outside(&syn).accepted(&syn);
}

/// A forward of one local address leaves the others alone.
pub fn only_at_one_address(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "web"
        protocol = "tcp"
        port = 80
        to = ["worker1:8080"]
        address = ["192.0.2.9", "2001:db8::9"]
        "#,
    );
    leads_nowhere(gateway, "client", "master", 80);
    let syn = Packet::tcp(world.at("client", 4000), world.at("second", 80), SYN);
    gateway.outside(&syn).forwarded(Side::Inside, &syn.to(world.at("worker1", 8080)).hop());
    let answer = syn.to(world.at("worker1", 8080)).answer().flags(SYN | ACK);
    gateway.inside(&answer).forwarded(Side::Outside, &answer.from(syn.destination).hop());
}

fn balanced(gateway: &mut Gateway, balance: &str) {
    gateway.apply(&format!(
        r#"
        [[port-forward]]
        name = "history"
        protocol = "udp"
        port = 18080
        to = ["worker1:18080", "worker2:18080", "worker3:18080"]
        balance = "{balance}"
        "#
    ));
}

/// Sends a first packet from `port`, a second one after it; says which worker got both.
#[track_caller]
fn chosen(gateway: &mut Gateway, from: &str, port: u16) -> std::net::IpAddr {
    let world = gateway.world;
    let packet = Packet::udp(world.at(from, port), world.at("master", 18080));
    let first = gateway.outside(&packet).forwarded_somehow();
    gateway.outside(&packet).forwarded(Side::Inside, &first);
    assert_eq!(packet.to(first.destination).hop(), first);
    first.destination.ip()
}

/// In turn, new flows only: a flow stays where it is.
pub fn balanced_in_turn(gateway: &mut Gateway) {
    balanced(gateway, "round-robin");
    let workers: Vec<_> = (0..6).map(|n| chosen(gateway, "client", 5000 + n)).collect();
    assert_eq!(workers[..3], workers[3..]);
    let different: std::collections::BTreeSet<_> = workers.iter().collect();
    assert_eq!(different.len(), 3);
}

/// By source: all flows of a client go to one worker, those of many clients to all.
pub fn balanced_by_source(gateway: &mut Gateway) {
    balanced(gateway, "source-hash");
    let worker = chosen(gateway, "client", 5000);
    for port in 5001..5006 {
        assert_eq!(chosen(gateway, "client", port), worker);
    }
    let world = gateway.world;
    let clients = (1..=40).map(|n| world.address(&format!("203.0.113.{n}"), &format!("2001:db8:1::{n:x}")));
    let workers: std::collections::BTreeSet<_> = clients
        .map(|client| {
            let packet = Packet::udp((client, 99).into(), world.at("master", 18080));
            gateway.outside(&packet).forwarded_somehow().destination
        })
        .collect();
    assert_eq!(workers.len(), 3);
}

/// By chance: a flow stays where it is, many flows reach all workers.
pub fn balanced_by_chance(gateway: &mut Gateway) {
    balanced(gateway, "random");
    let workers: std::collections::BTreeSet<_> =
        (0..60).map(|n| chosen(gateway, "client", 5000 + n)).collect();
    assert_eq!(workers.len(), 3);
}

/// Two targets answer the same client, which asked from one port, from the same port: each answer comes from the port that was
/// asked. (Scenario 3.)
pub fn two_targets_answer_alike(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "ssh"
        protocol = ["tcp", "udp"]
        port = "2201-2202"
        to = ["worker1:22", "worker2:22"]
        spread = "one-to-one"
        "#,
    );
    let client = world.at("client", 4000);
    for kind in [Packet::udp, |from, to| Packet::tcp(from, to, SYN)] {
        let asked = [2201, 2202].map(|port| kind(client, world.at("master", port)));
        for (question, worker) in asked.iter().zip(["worker1", "worker2"]) {
            let arrived = question.to(world.at(worker, 22));
            gateway.outside(question).forwarded(Side::Inside, &arrived.hop());
        }
        for (question, worker) in asked.iter().zip(["worker1", "worker2"]) {
            let answer = question.to(world.at(worker, 22)).answer();
            gateway.inside(&answer).forwarded(Side::Outside, &question.answer().hop());
        }
    }
}

/// Two ports lead a client's one to the same target, which could not tell its connections apart: both work. (Scenario 3.)
pub fn two_forwards_to_one_target(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "one"
        protocol = "tcp"
        port = [80, 8080]
        to = ["worker1:80"]
        "#,
    );
    let worker = world.at("worker1", 80);
    let one = Packet::tcp(world.at("client", 4000), world.at("master", 80), SYN);
    let two = one.to(world.at("master", 8080));
    let first = gateway.outside(&one).forwarded_somehow();
    let second = gateway.outside(&two).forwarded_somehow();
    assert_eq!((first.destination, second.destination), (worker, worker));
    assert_eq!(first.source, one.source);
    assert_ne!(second.source, first.source, "the worker could not tell them apart");
    for (question, arrived) in [(one, first), (two, second)] {
        let answer = arrived.answer().flags(SYN | ACK);
        let restored = answer.from(question.destination).to(question.source).hop();
        gateway.inside(&answer).forwarded(Side::Outside, &restored);
    }
}

/// The master may be a target itself.
pub fn to_the_master_itself(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "alternative"
        protocol = "tcp"
        port = 2222
        to = ["master:22"]
        "#,
    );
    let syn = Packet::tcp(world.at("client", 4000), world.at("master", 2222), SYN);
    let arrived = syn.to(world.at("gateway", 22));
    gateway.outside(&syn).accepted(&arrived);
    let answer = arrived.answer().flags(SYN | ACK);
    gateway.send(&answer).accepted(&answer.from(syn.destination));
}

/// `source-nat = "always"` hides the client; never otherwise, between two interfaces.
pub fn source_nat_always(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        r#"
        [[port-forward]]
        name = "hidden"
        protocol = "tcp"
        port = 80
        to = ["worker1:80"]
        source-nat = "always"
        "#,
    );
    let syn = Packet::tcp(world.at("client", 4000), world.at("master", 80), SYN);
    let expected = syn.to(world.at("worker1", 80)).from(world.at("gateway", 4000)).hop();
    gateway.outside(&syn).forwarded(Side::Inside, &expected);
    let answer = expected.answer().flags(SYN | ACK);
    let restored = syn.answer().flags(SYN | ACK).hop();
    gateway.inside(&answer).forwarded(Side::Outside, &restored);
}
