//! A change of the rules judges every live flow once more. (Scenario 20.)

use crate::packet::{ACK, Body, Fate, Gateway, Packet, RST, SYN, Side};

/// Forwards to one target each.
pub(super) fn forwards(ports: &[(u16, &str)]) -> String {
    let one = |(port, target): &(u16, &str)| {
        format!(
            "[[port-forward]]\nname = \"p{port}\"\nprotocol = [\"tcp\", \"udp\"]\nport = {port}\nto = [\"{target}\"]\n"
        )
    };
    ports.iter().map(one).collect()
}

/// A connection through a forward: the client's packet, and the same as it arrives at the target.
pub(super) fn open(gateway: &mut Gateway, port: u16) -> (Packet, Packet) {
    let world = gateway.world;
    let syn = Packet::tcp(world.at("client", 4000), world.at("master", port), SYN);
    let arrived = gateway.outside(&syn).forwarded_somehow();
    let answer = arrived.answer().flags(SYN | ACK);
    gateway.inside(&answer).forwarded(Side::Outside, &syn.answer().flags(SYN | ACK).hop());
    gateway.outside(&syn.flags(ACK)).forwarded(Side::Inside, &arrived.flags(ACK));
    (syn.flags(ACK), arrived.flags(ACK))
}

/// A forward that is gone cuts its flows, at both ends, and no other.
pub fn a_removed_forward_is_cut(gateway: &mut Gateway) {
    gateway.apply(&forwards(&[(2201, "worker1:22"), (2202, "worker2:22")]));
    let (cut, cut_arrived) = open(gateway, 2201);
    let (kept, kept_arrived) = open(gateway, 2202);
    gateway.apply(&forwards(&[(2202, "worker2:22")]));

    let reset = |packet: &Packet| {
        let Body::Tcp { acknowledged, .. } = packet.body else { unreachable!() };
        let body = Body::Tcp { flags: RST, sequence: acknowledged, acknowledged: 0 };
        Packet { body, ..packet.answer() }
    };
    assert_eq!(gateway.outside(&cut).answered("flow-cut"), reset(&cut));
    let answer = cut_arrived.answer();
    assert_eq!(gateway.inside(&answer).answered("flow-cut"), reset(&answer));
    gateway.outside(&cut).dropped("policy-input");
    gateway.inside(&answer).dropped("policy-forward");

    gateway.outside(&kept).forwarded(Side::Inside, &kept_arrived);
    gateway.inside(&kept_arrived.answer()).forwarded(Side::Outside, &kept.answer().hop());
}

/// A target that is no longer listed loses its flows, though the port is still forwarded.
pub fn a_changed_target_is_cut(gateway: &mut Gateway) {
    gateway.apply(&forwards(&[(2201, "worker1:22")]));
    let (old, _) = open(gateway, 2201);
    gateway.apply(&forwards(&[(2201, "worker2:22")]));
    let _ = gateway.outside(&old).answered("flow-cut");
    let new = old.flags(SYN);
    gateway.outside(&new).forwarded(Side::Inside, &new.to(gateway.world.at("worker2", 22)).hop());
}

/// UDP cannot be reset: it is dropped.
pub fn a_datagram_of_a_cut_flow(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&forwards(&[(53, "worker1:53")]));
    let query = Packet::udp(world.at("client", 4000), world.at("master", 53));
    let arrived = gateway.outside(&query).forwarded_somehow();
    gateway.inside(&arrived.answer()).forwarded(Side::Outside, &query.answer().hop());
    gateway.apply("");
    gateway.outside(&query).dropped("flow-cut");
    gateway.outside(&query).dropped("policy-input");
}

/// The same rules again, or more of them, change nothing for what goes on.
pub fn nothing_is_lost_without_need(gateway: &mut Gateway) {
    let world = gateway.world;
    let rules = format!("[masquerade]\nfrom = [\"lan\"]\n{}", forwards(&[(2201, "worker1:22")]));
    gateway.apply(&rules);
    let (sent, arrived) = open(gateway, 2201);
    let out = Packet::udp(world.at("worker2", 5000), world.at("client", 53));
    let left = gateway.inside(&out).forwarded_somehow();
    for more in ["", "[[rule]]\naction = \"drop\"\nfrom = [\"office\"]\n", ""] {
        gateway.apply(&format!("{rules}{more}"));
        gateway.outside(&sent).forwarded(Side::Inside, &arrived);
        gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
        gateway.outside(&left.answer()).forwarded(Side::Inside, &out.answer().hop());
    }
}

/// A rule that now stands in the way cuts what it refuses; `on-change = "keep"` lets it end by itself.
pub fn kept_on_demand(gateway: &mut Gateway) {
    gateway.apply(&forwards(&[(2201, "worker1:22")]));
    let (sent, arrived) = open(gateway, 2201);
    gateway.apply("[flows]\non-change = \"keep\"\n");
    gateway.outside(&sent).forwarded(Side::Inside, &arrived);
    gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
    let new = sent.flags(SYN).from(gateway.world.at("client", 4001));
    gateway.outside(&new).dropped("policy-input");
}

/// Without masquerade for its source, a hidden flow ends.
pub fn a_removed_masquerade_is_cut(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[masquerade]\nfrom = [\"lan\"]\n");
    let query = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let left = gateway.inside(&query).forwarded_somehow();
    gateway.apply("[masquerade]\nfrom = [\"worker2\"]\n");
    gateway.outside(&left.answer()).dropped("flow-cut");
    // Its own direction may not have been told yet.
    assert!(matches!(gateway.inside(&query).fate, Fate::Dropped("flow-cut" | "policy-forward")));
    gateway.inside(&query).dropped("policy-forward");
}
