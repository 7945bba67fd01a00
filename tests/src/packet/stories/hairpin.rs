//! A LAN host reaches another through the outside address. (Scenario 6.)

use crate::packet::{ACK, Gateway, Packet, SYN, Side};

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
