//! Port-forwards, in every form of the rules file.

use netfw_common::counters::{Count, TranslationCount};

use crate::packet::{ACK, Gateway, Packet, SYN, Side};

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
    let expected = TranslationCount {
        flows_opened: 1,
        forth: Count { packets: 2, bytes: 2 * header + 1301 },
        back: Count { packets: 1, bytes: header },
    };
    assert_eq!(gateway.counters().since(&before).translation("ssh"), expected);
}
