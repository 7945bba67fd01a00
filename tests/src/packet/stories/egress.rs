//! What leaves without having been seen when it came in.

use std::net::SocketAddr;

use crate::packet::{Counters, Gateway, Hook, Packet, SYN, Side, world::World};

/// A container on a bridge of the master's own.
fn container(world: World, port: u16) -> SocketAddr {
    SocketAddr::new(world.address("172.17.0.2", "fd00:17::2"), port)
}

/// What came in at a managed interface was judged there: it is neither judged nor counted again.
pub fn handled_already(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[policy]\noutput = \"drop\"\nforward = \"drop\"\n");
    let packet = Packet::tcp(world.at("client", 4000), world.at("worker1", 22), SYN);
    let flows = gateway.flows();
    let outcome = gateway.leave(Hook::Handled, &packet);
    outcome.accepted(&packet);
    assert_eq!(outcome.moved, Counters::default());
    assert_eq!(gateway.flows(), flows);
}

/// What came from an interface that isn't managed meets chain forward. (Scenario 28.)
pub fn routed_from_elsewhere(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[[rule]]\nchain = \"forward\"\naction = \"accept\"\nprotocol = \"udp\"\nport = 53\n");
    let query = Packet::udp(container(world, 4000), world.at("client", 53));
    gateway.leave(Hook::Routed, &query).accepted(&query);
    let other = query.to(world.at("client", 54));
    gateway.leave(Hook::Routed, &other).dropped("policy-forward");
    let own = Packet::udp(world.at("master", 4000), world.at("client", 54));
    gateway.send(&own).accepted(&own);
}

/// It may be masqueraded too, and gets its answers.
pub fn routed_and_hidden(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[masquerade]\nfrom = [\"172.17.0.0/16\", \"fd00:17::/64\", \"lan\"]\n");
    let query = Packet::udp(container(world, 4000), world.at("client", 53));
    let left = query.from(world.at("master", 4000));
    gateway.leave(Hook::Routed, &query).accepted(&left);
    let lan = Packet::udp(world.at("worker1", 4000), world.at("client", 53));
    assert_ne!(gateway.inside(&lan).forwarded_somehow().source, left.source);
    // No route leads to the bridge here: the way out is the default one.
    gateway.outside(&left.answer()).forwarded(Side::Outside, &query.answer().hop());
}
