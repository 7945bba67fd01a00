//! Ways out that wrap a packet in another: only the stack can take them.

use crate::packet::{Fate, Gateway, Hook, Packet};

/// A packet to an encapsulated route is judged as one that is forwarded, and left to the stack as it came.
pub fn an_encapsulated_route(gateway: &mut Gateway) {
    let world = gateway.world;
    let packet = Packet::udp(world.at("worker1", 5000), world.at("tunnelled", 53));
    gateway.apply("[policy]\nforward = \"accept\"\n");
    for _ in 0..2 {
        let outcome = gateway.inside(&packet);
        assert_eq!((outcome.fate, outcome.packet()), (Fate::Routed, packet.clone()));
    }
    gateway
        .leave(Hook::Routed, &packet.answer().to(world.at("client", 5000)))
        .accepted(&packet.answer().to(world.at("client", 5000)));
    gateway.apply("[policy]\ninput = \"accept\"\nforward = \"drop\"\n");
    let other = packet.from(world.at("worker2", 5000));
    gateway.inside(&other).dropped("policy-forward");
    // The way out has no interface that could be an external one: no masquerade applies.
    gateway.apply("[masquerade]\nfrom = [\"lan\"]\n");
    gateway.inside(&other).dropped("policy-forward");
}

/// A port-forward may lead into the tunnel.
pub fn a_forward_into_a_tunnel(gateway: &mut Gateway) {
    let world = gateway.world;
    let target = world.at("tunnelled", 5353);
    let forward = "[[port-forward]]\nname = \"far\"\nprotocol = \"udp\"\nport = 53\n";
    gateway.apply(&format!("{forward}to = [\"{target}\"]\n"));
    let query = Packet::udp(world.at("client", 4000), world.at("master", 53));
    let arrived = query.to(target);
    for _ in 0..2 {
        let outcome = gateway.outside(&query);
        assert_eq!((outcome.fate, outcome.packet()), (Fate::Routed, arrived.clone()));
    }
    gateway.leave(Hook::Routed, &arrived.answer()).accepted(&query.answer());
}
