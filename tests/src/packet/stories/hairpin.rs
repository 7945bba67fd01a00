//! A LAN host reaches another through the outside address. (Scenarios 6, 7.)

use crate::packet::{
    ACK, Gateway, Packet, SYN, Side,
    world::{self, World},
};

/// To another host, and to itself; the answers come back through the master, from the address that was asked.
pub fn through_the_outside_address(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        "[[port-forward]]\nname = \"web\"\nprotocol = [\"tcp\", \"udp\"]\nport = \"80-89\"\nto = [\"worker1:8080-8089\"]\n",
    );
    for (from, port) in [("worker2", 80), ("worker1", 89)] {
        let syn = Packet::tcp(world.at(from, 4000), world.at("master", port), SYN);
        let arrived = syn.to(world.at("worker1", 8000 + port)).from(world.at("gateway", 4000));
        gateway.inside(&syn).forwarded(Side::Inside, &arrived.hop());
        let answer = arrived.answer().flags(SYN | ACK);
        gateway.inside(&answer).forwarded(Side::Inside, &syn.answer().flags(SYN | ACK).hop());
        gateway.inside(&syn.flags(ACK)).forwarded(Side::Inside, &arrived.flags(ACK).hop());
    }
    // Behind the inner address, which nothing is forwarded from, any port may be kept.
    let datagram = Packet::udp(world.at("worker2", 85), world.at("master", 85));
    let arrived = datagram.to(world.at("worker1", 8085)).from(world.at("gateway", 85));
    gateway.inside(&datagram).forwarded(Side::Inside, &arrived.hop());
    // Another host with the same source port gets one of its own.
    let datagram = |from| Packet::udp(world.at(from, 4000), world.at("master", 85));
    let one = gateway.inside(&datagram("worker3")).forwarded_somehow();
    let two = gateway.inside(&datagram("worker4")).forwarded_somehow();
    assert_eq!((one.source.ip(), two.source.ip()), (world.host("gateway"), world.host("gateway")));
    assert_ne!(one.source.port(), two.source.port());
    for (from, arrived) in [("worker3", one), ("worker4", two)] {
        gateway.inside(&arrived.answer()).forwarded(Side::Inside, &datagram(from).answer().hop());
    }
}

/// Balanced: each of the targets answers through the master, the caller itself among them.
pub fn balanced(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(
        "[[port-forward]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 80\nto = [\"worker1:8080\", \"worker2:8080\"]\n",
    );
    let mut targets = std::collections::BTreeSet::new();
    for port in 4000..4004 {
        let syn = Packet::tcp(world.at("worker1", port), world.at("master", 80), SYN);
        let arrived = gateway.inside(&syn).forwarded_somehow();
        assert_eq!(arrived.source, world.at("gateway", port), "answers must come back through the master");
        targets.insert(arrived.destination);
        let answer = arrived.answer().flags(SYN | ACK);
        gateway.inside(&answer).forwarded(Side::Inside, &syn.answer().flags(SYN | ACK).hop());
    }
    assert_eq!(targets, [world.at("worker1", 8080), world.at("worker2", 8080)].into());
}

/// What `source-nat` says about a caller from outside, about one in the LAN, and about the target itself.
pub fn as_source_nat_says(gateway: &mut Gateway) {
    let mut own = 4000;
    for (mode, hidden) in MODES {
        gateway.apply_whole(&rules(gateway.world, "strict", mode));
        check(gateway, &mut own, Side::Outside, ["client", "master"], mode == "always");
        for caller in ["worker2", "worker1"] {
            check(gateway, &mut own, Side::Inside, [caller, "master"], hidden);
        }
    }
}

/// A client in the target's own subnet, whose packets come in elsewhere: the target would answer it past the master, also
/// where the client is the target itself. One who stands behind a router is answered through the master.
pub fn a_client_beside_the_target(gateway: &mut Gateway) {
    let mut own = 4000;
    for anti_spoof in ["loose", "off"] {
        for (mode, hidden) in MODES {
            gateway.apply_whole(&rules(gateway.world, anti_spoof, mode));
            check(gateway, &mut own, Side::Outside, ["client", "master"], mode == "always");
            for caller in ["worker2", "worker1"] {
                check(gateway, &mut own, Side::Outside, [caller, "second"], hidden);
            }
        }
    }
}

/// Values of `source-nat`, and whether they hide who would be answered past the master.
const MODES: [(&str, bool); 3] = [("auto", true), ("always", true), ("never", false)];

/// A range and a balanced forward.
fn rules(world: World, anti_spoof: &str, source_nat: &str) -> String {
    let [one, range, three] =
        [("worker1", "8443"), ("worker1", "8080-8089"), ("worker3", "8443")].map(|(host, ports)| {
            let address = world.at(host, 0).to_string();
            format!("{}{ports}", address.strip_suffix('0').expect("a port of 0"))
        });
    let forward = format!("protocol = \"udp\"\nsource-nat = \"{source_nat}\"");
    format!(
        r#"
        [interfaces]
        external = ["eth0"]
        internal = ["eth1"]
        anti-spoof = "{anti_spoof}"
        [[port-forward]]
        name = "range"
        port = "80-89"
        to = "{range}"
        {forward}
        [[port-forward]]
        name = "balanced"
        port = 443
        to = ["{one}", "{three}"]
        {forward}
        "#
    )
}

/// Somebody whose packets come in at `side` calls every forward, from the ports after `own`: whether he is hidden, and is
/// answered from where he called.
#[track_caller]
fn check(gateway: &mut Gateway, own: &mut u16, side: Side, [caller, called]: [&str; 2], hidden: bool) {
    let world = gateway.world;
    for port in [80, 89, 443, 443] {
        *own += 1;
        let own = *own;
        let question = Packet::udp(world.at(caller, own), world.at(called, port));
        let arrived = match side {
            Side::Outside => gateway.outside(&question),
            Side::Inside => gateway.inside(&question),
        }
        .forwarded_somehow();
        let seen = if hidden { "gateway" } else { caller };
        assert_eq!(arrived.source, world.at(seen, own), "{caller} at port {port}");
        // No host answers a question that seems to be its own.
        if arrived.source.ip() != arrived.destination.ip() {
            let answer = gateway.inside(&arrived.answer());
            answer.forwarded(world::side_of(world.host(caller)), &question.answer().hop());
        }
    }
}
