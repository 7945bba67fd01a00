//! Targets that are down, or drain, get no new flows.

use std::collections::BTreeMap;

use netfw_common::health::{DOWN, UP};

use crate::packet::{ACK, Body, Gateway, Packet, RST, SYN, Side};

const TARGETS: [&str; 3] = ["worker1", "worker2", "worker3"];

/// A forward of port 18080 to three workers.
fn history(balance: &str) -> String {
    format!(
        r#"
        [[port-forward]]
        name = "history"
        protocol = ["tcp", "udp"]
        port = 18080
        to = ["worker1:18080", "worker2:18080", "worker3:18080"]
        balance = "{balance}"
        check = {{ tcp = true }}
        "#
    )
}

fn set(gateway: &mut Gateway, worker: &str, state: u32) {
    let target = gateway.world.at(worker, 18080);
    gateway.set_health("history", target, state);
}

/// Which worker each of `flows` new flows goes to; `first` is the source port of the first one.
fn shares(gateway: &mut Gateway, first: u16, flows: u16) -> BTreeMap<&'static str, usize> {
    let world = gateway.world;
    let mut shares = BTreeMap::new();
    for port in first..first + flows {
        let datagram = Packet::udp(world.at("client", port), world.at("master", 18080));
        let target = gateway.outside(&datagram).forwarded_somehow().destination;
        let worker = TARGETS.into_iter().find(|worker| world.at(worker, 18080) == target);
        *shares.entry(worker.expect("a flow goes to one of the targets")).or_default() += 1;
    }
    shares
}

/// In turn: the share of one that is down goes to the others in equal parts, and comes back when it is up.
pub fn a_share_is_taken_over(gateway: &mut Gateway) {
    gateway.apply(&history("round-robin"));
    assert_eq!(shares(gateway, 1000, 12), TARGETS.map(|worker| (worker, 4)).into());
    set(gateway, "worker2", DOWN);
    assert_eq!(shares(gateway, 2000, 12), [("worker1", 6), ("worker3", 6)].into());
    set(gateway, "worker1", DOWN);
    assert_eq!(shares(gateway, 3000, 12), [("worker3", 12)].into());
    set(gateway, "worker1", UP);
    set(gateway, "worker2", UP);
    assert_eq!(shares(gateway, 4000, 12), TARGETS.map(|worker| (worker, 4)).into());
}

/// By source: a failure moves the clients of the one that failed, and nobody else.
pub fn other_clients_stay(gateway: &mut Gateway) {
    gateway.apply(&history("source-hash"));
    let world = gateway.world;
    let targets = |port: u16, gateway: &mut Gateway| -> Vec<_> {
        let client = |n: u8| world.address(&format!("203.0.113.{n}"), &format!("2001:db8:1::{n:x}"));
        let datagram = |n| Packet::udp((client(n), port).into(), world.at("master", 18080));
        (20..60).map(|n| gateway.outside(&datagram(n)).forwarded_somehow().destination).collect()
    };
    let before = targets(99, gateway);
    set(gateway, "worker2", DOWN);
    let after = targets(100, gateway);
    let down = world.at("worker2", 18080);
    assert!(before.contains(&down) && !after.contains(&down));
    for (before, after) in before.iter().zip(&after).filter(|(before, _)| **before != down) {
        assert_eq!(before, after);
    }
    for other in ["worker1", "worker3"].map(|worker| world.at(worker, 18080)) {
        let moved = before.iter().zip(&after).filter(|(before, _)| **before == down);
        assert!(moved.clone().any(|(_, after)| *after == other), "{other} takes nothing over");
    }
}

/// By chance: none of forty flows meets the one that is down.
pub fn chance_avoids_who_is_down(gateway: &mut Gateway) {
    gateway.apply(&history("random"));
    set(gateway, "worker3", DOWN);
    let shares = shares(gateway, 1000, 40);
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), ["worker1", "worker2"]);
}

/// Live flows go on, whatever the state of their target: ending them is not the datapath's decision.
pub fn live_flows_go_on(gateway: &mut Gateway) {
    gateway.apply(&history("round-robin"));
    let world = gateway.world;
    let datagram = Packet::udp(world.at("client", 1000), world.at("master", 18080));
    let arrived = gateway.outside(&datagram).forwarded_somehow();
    gateway.inside(&arrived.answer()).forwarded(Side::Outside, &datagram.answer().hop());
    for worker in TARGETS {
        set(gateway, worker, DOWN);
    }
    gateway.outside(&datagram).forwarded(Side::Inside, &arrived);
    gateway.inside(&arrived.answer()).forwarded(Side::Outside, &datagram.answer().hop());
}

/// Nobody left: the sender is told at once, the drop has its own reason, and no flow is entered.
pub fn nobody_left(gateway: &mut Gateway) {
    gateway.apply(&history("round-robin"));
    for worker in TARGETS {
        set(gateway, worker, DOWN);
    }
    let world = gateway.world;
    let before = gateway.counters();
    let syn = Packet::tcp(world.at("client", 1000), world.at("master", 18080), SYN);
    let answer = gateway.outside(&syn).answered("no-target-up");
    let Body::Tcp { flags, .. } = answer.body else { panic!("{answer:?}") };
    assert_eq!((flags, answer.source, answer.destination), (RST | ACK, syn.destination, syn.source));
    let datagram = Packet::udp(syn.source, syn.destination);
    let answer = gateway.outside(&datagram).answered("no-target-up");
    let (kind, code) = if world.is_v6() { (1, 4) } else { (3, 3) };
    assert_eq!(answer.body, Body::Icmp { kind, code, detail: 0 });
    assert_eq!(gateway.counters().since(&before).drops["no-target-up"].packets, 2);
    assert_eq!(gateway.flows(), 0);
    set(gateway, "worker2", UP);
    gateway.outside(&syn).forwarded(Side::Inside, &syn.to(world.at("worker2", 18080)).hop());
}

/// Who is not admitted does not learn how the targets are.
pub fn strangers_learn_nothing(gateway: &mut Gateway) {
    let rule =
        "[[rule]]\nname = \"no\"\nchain = \"forward\"\naction = \"drop\"\nport-forward = \"history\"\n";
    gateway.apply(&format!("{}{rule}", history("round-robin")));
    for worker in TARGETS {
        set(gateway, worker, DOWN);
    }
    let world = gateway.world;
    let syn = Packet::tcp(world.at("client", 1000), world.at("master", 18080), SYN);
    gateway.outside(&syn).dropped("rule");
}

/// One-to-one: a port whose target is down is refused; the others don't step in.
pub fn one_to_one_has_no_substitute(gateway: &mut Gateway) {
    gateway.apply(
        r#"
        [[port-forward]]
        name = "history"
        protocol = "tcp"
        port = "2201-2202"
        to = ["worker1:18080", "worker2:18080"]
        spread = "one-to-one"
        check = { banner = "SSH-" }
        "#,
    );
    set(gateway, "worker1", DOWN);
    let world = gateway.world;
    let syn = Packet::tcp(world.at("client", 1000), world.at("master", 2201), SYN);
    let _ = gateway.outside(&syn).answered("no-target-up");
    let other = syn.to(world.at("master", 2202));
    gateway.outside(&other).forwarded(Side::Inside, &other.to(world.at("worker2", 18080)).hop());
}

/// A target that drains: no new flows, live ones go on through the reload that said so.
pub fn drained(gateway: &mut Gateway) {
    let rules = |drain| {
        format!(
            r#"
            [[port-forward]]
            name = "history"
            protocol = "udp"
            port = 18080
            to = ["worker1:18080", {{ target = "worker2:18080", drain = {drain} }}]
            "#
        )
    };
    gateway.apply(&rules(false));
    assert_eq!(shares(gateway, 1000, 4), [("worker1", 2), ("worker2", 2)].into());
    gateway.apply(&rules(true));
    assert_eq!(shares(gateway, 1000, 4), [("worker1", 2), ("worker2", 2)].into(), "the same flows");
    assert_eq!(shares(gateway, 2000, 4), [("worker1", 4)].into());
    gateway.apply(&rules(false));
    assert_eq!(shares(gateway, 3000, 4), [("worker1", 2), ("worker2", 2)].into());
}
