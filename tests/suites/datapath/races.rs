//! Two cores at once: while a packet is handled, another one is, at every point where the flow table is used.

use std::{cell::RefCell, rc::Rc};

use netfw_common::{
    family::{Ipv4, Ipv6},
    reason::Reason,
};
use netfw_ebpf::datapath::kernel::Table;
use netfw_tests::packet::{
    ACK, Action, FIN, Gateway, Packet, RST, Ran, SYN, Side, read,
    world::{V4, V6, World, next_mac},
};

use crate::memory::{Machine, Memory};

const RULES: &str = r#"
    [[port-forward]]
    name = "one of two"
    protocol = ["tcp", "udp"]
    port = 53
    to = ["worker1:53", "worker2:53"]
"#;

const MASQUERADE: &str = "[masquerade]\nfrom = [\"lan\"]\nports = \"20000-29999\"\n";

/// A packet and where it comes in.
type Arrival = (Side, Packet);

fn handle(machine: &Machine, (side, packet): &Arrival) -> Ran {
    Memory::on_another_core(machine, *side, &Gateway::framed(*side, packet))
}

#[track_caller]
fn left(ran: &Ran) -> Packet {
    assert_eq!(ran.action, Action::Transmit);
    let packet = read(&ran.frame).expect("a right packet");
    assert_eq!(
        ran.frame[..6],
        next_mac(packet.destination.ip()),
        "to {} by another's way",
        packet.destination
    );
    packet
}

/// Runs `before`, then `first` interrupted by `second` at every point in turn; `check` judges each outcome.
fn race(
    rules: &str,
    world: World,
    before: impl Fn(&Machine) -> (Arrival, Arrival),
    check: impl Fn(&Machine, Ran, Ran),
) {
    for uses in 0.. {
        let mut machine = Machine::new(32, 32);
        machine.apply(&netfw_tests::rules::two_armed(rules));
        let (first, second) = before(&machine);
        let seen = Rc::new(RefCell::new(None));
        let result = Rc::clone(&seen);
        machine.interrupt(uses, move |machine| *result.borrow_mut() = Some(handle(machine, &second)));
        let ran = handle(&machine, &first);
        if machine.calm_down() {
            assert!(uses > 0, "the flow table was not used");
            return;
        }
        println!("{world:?}, interrupted at use {uses}");
        let other = seen.borrow_mut().take().expect("the other core has acted");
        check(&machine, ran, other);
    }
}

fn halves(machine: &Machine, table: Table) -> usize {
    machine.store::<Ipv4>().count(table) + machine.store::<Ipv6>().count(table)
}

/// The first packets of a flow of a balanced forward, at once: one mapping, nothing lost. (Scenario 5.)
#[test]
fn first_packets_of_one_flow() {
    for world in [V4, V6] {
        let query = Packet::udp(world.at("client", 4000), world.at("master", 53));
        let arrival = (Side::Outside, query.clone());
        for rules in [RULES, &format!("{RULES}balance = \"random\"\n")] {
            race(
                rules,
                world,
                |_| (arrival.clone(), arrival.clone()),
                |machine, one, other| {
                    let arrived = left(&one);
                    assert_eq!(arrived, left(&other), "two mappings of one flow");
                    assert_eq!(halves(machine, Table::Outside), 2);
                    let opened: Vec<_> =
                        machine.counts.borrow().translations.values().map(|it| it.flows_opened).collect();
                    assert_eq!(opened, [1]);
                    let answer = handle(machine, &(Side::Inside, arrived.answer()));
                    assert_eq!(left(&answer), query.answer().hop());
                },
            );
        }
    }
}

/// The same where a source port is drawn.
#[test]
fn first_packets_of_one_hidden_flow() {
    for world in [V4, V6] {
        let query = Packet::udp(world.at("worker1", 4000), world.at("client", 53));
        let arrival = (Side::Inside, query.clone());
        race(
            MASQUERADE,
            world,
            |_| (arrival.clone(), arrival.clone()),
            |machine, one, other| {
                let outside = left(&one);
                assert_eq!(outside, left(&other), "two mappings of one flow");
                assert_eq!(halves(machine, Table::Inside), 2, "a port is held in vain");
                let answer = handle(machine, &(Side::Outside, outside.answer()));
                assert_eq!(left(&answer), query.answer().hop());
            },
        );
    }
}

/// The first packets of one end to two servers, at once: one outside port for both, in vain held none.
#[test]
fn first_packets_to_two_servers() {
    let rules = format!("{MASQUERADE}mapping = \"endpoint-independent\"\n");
    for world in [V4, V6] {
        let query = |server| Packet::udp(world.at("worker1", 4000), world.at(server, 53));
        let arrivals = || ((Side::Inside, query("client")), (Side::Inside, query("stranger")));
        race(
            &rules,
            world,
            |_| arrivals(),
            |machine, one, other| {
                assert_eq!(left(&one).source, left(&other).source, "two ports of one end");
                assert_eq!(halves(machine, Table::Inside), 4);
                let third = left(&handle(machine, &(Side::Inside, query("neighbour"))));
                assert_eq!(third.source, left(&one).source);
            },
        );
    }
}

/// Two ends want the same port for their mappings at once: each gets one of its own.
#[test]
fn one_mapped_port_for_two() {
    let rules = "[masquerade]\nfrom = [\"lan\"]\nmapping = \"endpoint-independent\"\n";
    for world in [V4, V6] {
        let query = |name, server| Packet::udp(world.at(name, 4000), world.at(server, 53));
        let arrivals =
            || ((Side::Inside, query("worker1", "client")), (Side::Inside, query("worker2", "stranger")));
        race(
            rules,
            world,
            |_| arrivals(),
            |machine, one, other| {
                assert_ne!(left(&one).source, left(&other).source);
                for (ran, name) in [(one, "worker1"), (other, "worker2")] {
                    let third = left(&handle(machine, &(Side::Inside, query(name, "neighbour"))));
                    assert_eq!(third.source, left(&ran).source);
                }
            },
        );
    }
}

/// Two hosts want the same port at once: each gets one.
#[test]
fn one_port_for_two() {
    let rules = "[masquerade]\nfrom = [\"lan\"]\n";
    for world in [V4, V6] {
        let query = |name| Packet::udp(world.at(name, 4000), world.at("client", 53));
        let arrivals = || ((Side::Inside, query("worker1")), (Side::Inside, query("worker2")));
        race(
            rules,
            world,
            |_| arrivals(),
            |machine, one, other| {
                assert_ne!(left(&one).source, left(&other).source);
                for (ran, name) in [(one, "worker1"), (other, "worker2")] {
                    let answer = handle(machine, &(Side::Outside, left(&ran).answer()));
                    assert_eq!(left(&answer), query(name).answer().hop());
                }
                assert_eq!(halves(machine, Table::Inside), 4);
            },
        );
    }
}

/// Opens a connection up to its SYN-ACK; returns the SYN and what the worker got.
fn half_open(machine: &Machine, world: World) -> (Packet, Packet) {
    let syn = Packet::tcp(world.at("client", 4000), world.at("master", 53), SYN);
    let arrived = left(&handle(machine, &(Side::Outside, syn.clone())));
    let _ = left(&handle(machine, &(Side::Inside, arrived.answer().flags(SYN | ACK))));
    (syn, arrived)
}

/// While a connection proves itself, its other packets find it, and it proves itself once.
#[test]
fn a_connection_proves_itself() {
    for world in [V4, V6] {
        for from_worker in [false, true] {
            let before = |machine: &Machine| {
                let (syn, arrived) = half_open(machine, world);
                let ack = (Side::Outside, syn.flags(ACK));
                let other =
                    if from_worker { (Side::Inside, arrived.answer().flags(ACK)) } else { ack.clone() };
                (ack, other)
            };
            race(RULES, world, before, |machine, one, other| {
                let arrived = left(&one);
                let other = left(&other);
                if from_worker {
                    assert_eq!(other.source, world.at("master", 53));
                } else {
                    assert_eq!(other, arrived);
                }
                assert_eq!((halves(machine, Table::Proven), halves(machine, Table::Outside)), (2, 0));
                let answer = handle(machine, &(Side::Inside, arrived.answer()));
                assert_eq!(left(&answer).destination, world.at("client", 4000));
            });
        }
    }
}

/// A closed connection is opened again by two SYNs at once: one new flow.
#[test]
fn ports_are_used_again() {
    for world in [V4, V6] {
        let before = |machine: &Machine| {
            let (syn, arrived) = half_open(machine, world);
            let _ = handle(machine, &(Side::Outside, syn.flags(ACK)));
            let _ = handle(machine, &(Side::Outside, syn.flags(FIN | ACK)));
            let _ = handle(machine, &(Side::Inside, arrived.answer().flags(FIN | ACK)));
            ((Side::Outside, syn.clone()), (Side::Outside, syn))
        };
        race(RULES, world, before, |machine, one, other| {
            let arrived = left(&one);
            assert_eq!(arrived, left(&other), "two mappings of one connection");
            let answer = handle(machine, &(Side::Inside, arrived.answer().flags(SYN | ACK)));
            assert_eq!(left(&answer).destination, world.at("client", 4000));
            assert_eq!((halves(machine, Table::Proven), halves(machine, Table::Outside)), (0, 2));
        });
    }
}

/// A reset while the other end speaks harms nobody else.
#[test]
fn a_reset_meets_data() {
    for world in [V4, V6] {
        let before = |machine: &Machine| {
            let (syn, arrived) = half_open(machine, world);
            let _ = handle(machine, &(Side::Outside, syn.flags(ACK)));
            ((Side::Outside, syn.flags(RST)), (Side::Inside, arrived.answer().flags(ACK)))
        };
        race(RULES, world, before, |_, one, other| {
            assert_eq!(left(&one).destination.port(), 53);
            assert_eq!(left(&other).source, world.at("master", 53));
        });
    }
}

/// Two flows and one token: one is admitted, and nothing is left of the other. (Scenario 22.)
#[test]
fn the_last_token() {
    const RULE: &str = "[[rule]]\naction = \"accept\"\nlimit = { rate = \"1/day\", burst = 1 }\n";
    for world in [V4, V6] {
        let query = |port| (Side::Outside, Packet::udp(world.at("client", port), world.at("master", 53)));
        race(
            RULE,
            world,
            |_| (query(4000), query(4001)),
            |machine, one, other| {
                let through = [one, other].iter().filter(|ran| ran.action == Action::Next).count();
                assert_eq!(through, 1);
                assert_eq!(halves(machine, Table::Outside), 2);
                assert_eq!(machine.counts.borrow().drops[&(Reason::RateLimited as u32)].packets, 1);
            },
        );
    }
}

/// The first packets of one flow at once cost one token. (Scenario 22.)
#[test]
fn one_flow_pays_once() {
    const RULE: &str = "[[rule]]\naction = \"accept\"\nlimit = { rate = \"1/day\", burst = 2 }\n";
    for world in [V4, V6] {
        let query = |port| (Side::Outside, Packet::udp(world.at("client", port), world.at("master", 53)));
        race(
            RULE,
            world,
            |_| (query(4000), query(4000)),
            |machine, one, other| {
                assert_eq!((one.action, other.action), (Action::Next, Action::Next));
                assert_eq!(handle(machine, &query(4001)).action, Action::Next, "the second token");
                assert_eq!(handle(machine, &query(4002)).action, Action::Shot);
            },
        );
    }
}

/// After a loss a target and its client speak at once: one flow, and each hears the other.
#[test]
fn a_target_and_its_client() {
    let rules = "[[port-forward]]\nname = \"one\"\nprotocol = \"tcp\"\nport = 53\nto = \"worker1:22\"\n[masquerade]\nfrom = [\"lan\"]\n";
    for world in [V4, V6] {
        let asked = Packet::tcp(world.at("client", 4000), world.at("master", 53), ACK);
        let said = asked.to(world.at("worker1", 22)).answer();
        let (target, client) = ((Side::Inside, said.clone()), (Side::Outside, asked.clone()));
        let pairs = [(&target, &client), (&client, &target), (&target, &target)];
        for (first, second) in pairs {
            race(
                rules,
                world,
                |_| (first.clone(), second.clone()),
                |machine, one, other| {
                    for (arrival, ran) in [(first, one), (second, other)] {
                        // Another core's word finds the client's half alone: it is not lost for good.
                        if first == second && ran.action == Action::Shot {
                            continue;
                        }
                        let expected = match arrival.0 {
                            Side::Inside => said.from(asked.destination),
                            Side::Outside => asked.to(said.source),
                        };
                        assert_eq!(left(&ran), expected.hop());
                    }
                    let opened: Vec<_> =
                        machine.counts.borrow().translations.values().map(|it| it.flows_opened).collect();
                    assert_eq!(opened, [1]);
                    assert_eq!(halves(machine, Table::Outside) + halves(machine, Table::Proven), 2);
                    assert_eq!(left(&handle(machine, &target)), said.from(asked.destination).hop());
                },
            );
        }
    }
}
