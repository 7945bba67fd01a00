//! Endpoint-independent mappings: how long they live, and what they are good for.

use std::net::IpAddr;

use netfw_common::{
    family::{Address, Ipv4, Ipv6, addr4, addr6},
    mapping::Mapping,
};
use netfw_tests::packet::{
    ACK, Engine, FIN, Fate, Gateway, Packet, RST, SYN, Side,
    world::{V4, V6, World},
};

use crate::{
    gateway,
    memory::{Machine, machine::Stored},
    tell,
};

const MINUTE: u64 = 60;
const OPEN: &str = r#"
    [masquerade]
    from = ["lan"]
    mapping = "endpoint-independent"
    filtering = "endpoint-independent"
"#;

/// Whether a stranger who has never been seen reaches a port.
fn reaches(gateway: &mut Gateway, knock: &Packet) -> bool {
    let outcome = gateway.outside(knock);
    if outcome.fate != Fate::Forwarded {
        outcome.dropped("policy-input");
    }
    outcome.fate == Fate::Forwarded
}

/// What the inside sends keeps a mapping alive, what the outside sends does not (RFC 4787 REQ-5, REQ-6).
#[test]
fn a_mapping_lives_with_outbound_traffic() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(OPEN);
        let asked = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
        let knock = |port| Packet::udp(world.at("stranger", port), world.at("master", 5000));
        for port in 1..4 {
            let _ = gateway.inside(&asked).forwarded_somehow();
            machine.borrow().wait(5 * MINUTE - 1);
            assert!(reaches(gateway, &knock(port)));
        }
        // Nor does what belongs to a flow.
        machine.borrow().wait(1);
        let _ = gateway.outside(&knock(3)).forwarded_somehow();
        machine.borrow().wait(1);
        assert!(!reaches(gateway, &knock(9)));
        // Its end still sends, and is reached again; the answer to a stranger counts likewise.
        let answer = knock(3).to(asked.source).answer();
        gateway.inside(&answer).forwarded(Side::Outside, &knock(3).answer().hop());
        machine.borrow().wait(5 * MINUTE - 1);
        assert!(reaches(gateway, &knock(9)));
    });
}

/// The mapping of a connection lives as long as that may be silent, and goes soon after its end (RFC 5382 REQ-5).
#[test]
fn a_mapping_lives_with_its_connection() {
    [End::Fins, End::Reset].into_iter().for_each(lives_with_its_connection);
}

/// How a connection ends.
#[derive(Clone, Copy)]
enum End {
    Fins,
    Reset,
}

fn lives_with_its_connection(end: End) {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(OPEN);
        let syn = Packet::tcp(world.at("worker1", 5000), world.at("client", 443), SYN);
        let left = gateway.inside(&syn).forwarded_somehow();
        let answer = left.answer();
        let _ = gateway.outside(&answer.flags(SYN | ACK)).forwarded_somehow();
        for _ in 0..2 {
            machine.borrow().wait(1);
            let _ = gateway.inside(&syn.flags(ACK)).forwarded_somehow();
        }
        let knock = |port| Packet::tcp(world.at("stranger", port), world.at("master", 5000), SYN);
        machine.borrow().wait(120 * MINUTE);
        assert!(reaches(gateway, &knock(1)));
        let _ = gateway.inside(&syn.flags(ACK)).forwarded_somehow();
        match end {
            End::Fins => {
                let _ = gateway.inside(&syn.flags(FIN | ACK)).forwarded_somehow();
                let _ = gateway.outside(&answer.flags(FIN | ACK)).forwarded_somehow();
                let _ = gateway.inside(&syn.flags(ACK)).forwarded_somehow();
            }
            End::Reset => drop(gateway.outside(&answer.flags(RST)).forwarded_somehow()),
        }
        machine.borrow().wait(4 * MINUTE - 1);
        assert!(reaches(gateway, &knock(2)));
        machine.borrow().wait(2);
        assert!(!reaches(gateway, &knock(3)));
    });
}

/// The table is full of others' mappings: the oldest gives way, and the next packet of a flow that uses it puts it back.
#[test]
fn a_mapping_that_was_pushed_out_comes_back() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(OPEN);
        let asked = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
        let left = gateway.inside(&asked).forwarded_somehow();
        gateway.outside(&left.answer()).forwarded(Side::Inside, &asked.answer().hop());
        // The flow proves itself: it stays.
        machine.borrow().wait(1);
        gateway.inside(&asked).forwarded(Side::Outside, &left);
        for port in 6000..6040 {
            let _ = gateway
                .inside(&Packet::udp(world.at("worker2", port), asked.destination))
                .forwarded_somehow();
        }
        let knock = |port| Packet::udp(world.at("stranger", port), world.at("master", 5000));
        assert!(!reaches(gateway, &knock(1)));
        machine.borrow().wait(1);
        gateway.inside(&asked).forwarded(Side::Outside, &left);
        assert!(reaches(gateway, &knock(2)));
    });
}

/// A mapping that is used is never the oldest, neither of its halves.
#[test]
fn a_mapping_in_use_is_not_pushed_out() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(OPEN);
        let asked = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
        let left = gateway.inside(&asked).forwarded_somehow();
        for port in 6000..6100 {
            gateway.outside(&left.answer()).forwarded(Side::Inside, &asked.answer().hop());
            gateway.inside(&asked).forwarded(Side::Outside, &left);
            let other = Packet::udp(world.at("worker2", port), asked.destination);
            let _ = gateway.inside(&other).forwarded_somehow();
            machine.borrow().wait(1);
        }
        let knock = Packet::udp(world.at("stranger", 4000), world.at("master", 5000));
        assert!(reaches(gateway, &knock));
    });
}

/// One half of a mapping was pushed out and its port has gone to somebody else: its end gets another.
#[test]
fn half_a_mapping_is_none() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(OPEN);
        let ask = |worker, server| Packet::udp(world.at(worker, 5000), world.at(server, 53));
        let port = |gateway: &mut Gateway, worker, server| {
            gateway.inside(&ask(worker, server)).forwarded_somehow().source.port()
        };
        assert_eq!(port(gateway, "worker1", "client"), 5000);
        if world.is_v6() {
            lose_outside_half::<Ipv6>(&machine.borrow(), world);
        } else {
            lose_outside_half::<Ipv4>(&machine.borrow(), world);
        }
        assert_eq!(port(gateway, "worker2", "stranger"), 5000);
        let other = port(gateway, "worker1", "neighbour");
        assert_ne!(other, 5000);
        assert_eq!(port(gateway, "worker1", "stranger"), other);
        assert_eq!(port(gateway, "worker2", "neighbour"), 5000);
    });
}

/// Forgets who is behind port 5000 of the master.
fn lose_outside_half<F: Stored>(machine: &Machine, world: World) {
    let address = match world.host("master") {
        IpAddr::V4(address) => F::Addr::narrow(addr4(address).widen()),
        IpAddr::V6(address) => F::Addr::narrow(addr6(address)),
    };
    machine.store::<F>().remove_mapping(&Mapping::outside_key(address, 5000, 17));
}

/// A mapping that is dead gives its port to whoever wants it.
#[test]
fn a_dead_mapping_holds_no_port() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(OPEN);
        let ask = |worker, server| Packet::udp(world.at(worker, 5000), world.at(server, 53));
        let _ = gateway.inside(&ask("worker1", "client")).forwarded_somehow();
        assert_ne!(gateway.inside(&ask("worker2", "stranger")).forwarded_somehow().source.port(), 5000);
        machine.borrow().wait(5 * MINUTE + 1);
        for server in ["client", "stranger"] {
            assert_eq!(gateway.inside(&ask("worker3", server)).forwarded_somehow().source.port(), 5000);
        }
        assert_ne!(gateway.inside(&ask("worker1", "client")).forwarded_somehow().source.port(), 5000);
    });
}

/// A program that the master has started on a mapped port meanwhile gets what comes for it. (Scenario 2.)
#[test]
fn a_mapping_shadows_no_program_of_the_master() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(&format!("{OPEN}[policy]\ninput = \"accept\"\n"));
        let asked = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
        let _ = gateway.inside(&asked).forwarded_somehow();
        machine.borrow_mut().sockets.insert((17, 5000));
        let query = Packet::udp(world.at("stranger", 4000), world.at("master", 5000));
        gateway.outside(&query).accepted(&query);
        let other = gateway.inside(&asked.to(world.at("neighbour", 53))).forwarded_somehow().source;
        assert_ne!(other.port(), 5000);
        let third = asked.to(world.at("neighbour", 54));
        gateway.inside(&third).forwarded(Side::Outside, &third.from(other).hop());
    });
}

/// Two LAN hosts behind two gateways, both at the port that somebody else already uses there.
fn behind_two_gateways(engine: Engine, world: World, mapping: &str) -> [Gateway; 2] {
    [("master", "second"), ("second", "master")].map(|(own, other)| {
        let (mut gateway, machine) = gateway(engine, world);
        machine.borrow_mut().disown(world.host(other));
        gateway.apply(&format!("[masquerade]\nfrom = [\"lan\"]\nto = [\"{}\"]\n{mapping}", world.host(own)));
        for server in ["client", "router"] {
            let first = Packet::udp(world.at("worker3", 5000), world.at(server, 3478));
            let _ = gateway.inside(&first).forwarded_somehow();
        }
        gateway
    })
}

/// Sends a packet out of a gateway and returns what becomes of it at the other one.
fn across(from: &mut Gateway, to: &mut Gateway, packet: &Packet) -> Fate {
    let left = from.inside(packet).forwarded_somehow();
    to.outside(&Packet { ttl: 64, ..left }).fate
}

/// Each learns from a server outside where the other one is, and sends there: the second packet gets through (RFC 5128
/// §3.3). Where the port depends on the destination, none does.
#[test]
fn holes_are_punched_through_two_gateways() {
    for (mapping, works) in [("mapping = \"endpoint-independent\"\n", true), ("", false)] {
        for engine in [Engine::Tc, Engine::Xdp] {
            for world in [V4, V6] {
                println!("{world:?}, {engine:?}, {mapping:?}");
                assert_eq!(punch(behind_two_gateways(engine, world, mapping)), [works, works]);
            }
        }
    }
}

/// Whether the second packet and the third get through; the first never does.
fn punch([mut one, mut two]: [Gateway; 2]) -> [bool; 2] {
    let world = one.world;
    let hosts = [world.at("worker1", 5000), world.at("worker2", 5000)];
    let register = |host| Packet::udp(host, world.at("client", 3478));
    let here = one.inside(&register(hosts[0])).forwarded_somehow().source;
    let there = two.inside(&register(hosts[1])).forwarded_somehow().source;
    let (to_there, to_here) = (Packet::udp(hosts[0], there), Packet::udp(hosts[1], here));
    assert_eq!(across(&mut one, &mut two, &to_there), Fate::Dropped("policy-input"));
    let second = across(&mut two, &mut one, &to_here);
    let third = across(&mut one, &mut two, &to_there);
    [second, third].map(|fate| fate == Fate::Forwarded)
}
