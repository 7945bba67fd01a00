//! How source ports are given out, by the numbers.

use std::collections::BTreeSet;

use netfw_common::{
    family::{Ipv4, Ipv6, addr4, addr6},
    tuple::Tuple,
};
use netfw_ebpf::datapath::kernel::Table;
use netfw_tests::packet::{
    Action, Gateway, Packet, Side, read,
    world::{V4, V6, World},
};

use crate::memory::{Machine, Memory, machine::Stored};

const RANGE: u16 = 1000;

/// A machine that hides the LAN behind so many ports, from 20000 on.
fn machine(ports: u16) -> Machine {
    let mut machine = Machine::new(8, 16 * usize::from(ports));
    let range = format!("ports = \"20000-{}\"", 20_000 + ports - 1);
    machine.apply(&netfw_tests::rules::two_armed(&format!("[masquerade]\nfrom = [\"lan\"]\n{range}\n")));
    machine
}

/// A query of a LAN host that is given by a number.
fn query(world: World, number: u16) -> Packet {
    let worker = ["worker1", "worker2", "worker3", "worker4"][usize::from(number % 4)];
    Packet::udp(world.at(worker, 1024 + number / 4), world.at("client", 53))
}

/// The port that a packet gets, if it gets one.
fn port(machine: &Machine, packet: &Packet) -> Option<u16> {
    let ran = Memory::on_another_core(machine, Side::Inside, &Gateway::framed(Side::Inside, packet));
    (ran.action == Action::Transmit).then(|| read(&ran.frame).expect("a right packet").source.port())
}

/// Forgets the flow of a packet that left with this port.
fn free(machine: &Machine, world: World, packet: &Packet, port: u16) {
    let left = packet.from(world.at("master", port));
    if world.is_v6() {
        remove::<Ipv6>(machine, packet);
        remove::<Ipv6>(machine, &left.answer());
    } else {
        remove::<Ipv4>(machine, packet);
        remove::<Ipv4>(machine, &left.answer());
    }
}

fn remove<F: Stored>(machine: &Machine, packet: &Packet) {
    use netfw_common::family::Address;
    let address = |ip| match ip {
        std::net::IpAddr::V4(ip) => F::Addr::narrow(addr4(ip).widen()),
        std::net::IpAddr::V6(ip) => F::Addr::narrow(addr6(ip)),
    };
    let key = Tuple {
        source: address(packet.source.ip()),
        destination: address(packet.destination.ip()),
        source_port: packet.source.port(),
        destination_port: packet.destination.port(),
        protocol: packet.protocol().into(),
    };
    machine.store::<F>().remove(Table::Inside, &key);
}

/// While a tenth of the range is free, fewer than one allocation in 10,000 fails; a full range fails, and one freed port
/// of it is found again before long. (Scenario 4.)
#[test]
fn a_search_seldom_fails_while_a_tenth_is_free() {
    for world in [V4, V6] {
        let machine = machine(RANGE);
        for number in 0..RANGE / 10 * 9 {
            port(&machine, &query(world, number)).expect("a free port");
        }
        let (mut tried, mut failed) = (0, 0);
        for round in 0..15_000 {
            let asked = query(world, RANGE + round);
            tried += 1;
            match port(&machine, &asked) {
                Some(port) => free(&machine, world, &asked, port),
                None => failed += 1,
            }
        }
        assert!(failed * 10_000 < tried, "{failed} of {tried}");
    }
}

/// A range that has fewer ports than are looked at is searched whole: its last port is found. (Scenario 4.)
#[test]
fn a_small_range_is_used_up() {
    const SMALL: u16 = 127;
    for world in [V4, V6] {
        let machine = machine(SMALL);
        // Towards each server anew.
        for server in 53..61 {
            let ask = |number| query(world, number).to(world.at("client", server));
            let used: BTreeSet<u16> =
                (0..SMALL).map(|number| port(&machine, &ask(number)).expect("a free port")).collect();
            assert_eq!(used.len(), usize::from(SMALL));
            assert_eq!(port(&machine, &ask(SMALL)), None);
        }
    }
}

/// Whoever cannot keep a port gets one that nobody can guess (RFC 6056): all parts of the range alike, none after the other.
#[test]
fn ports_are_drawn_by_chance() {
    for world in [V4, V6] {
        let machine = machine(RANGE);
        let (mut parts, mut in_a_row, mut last) = ([0_u32; 10], 0, 0);
        for number in 0..4000 {
            let asked = query(world, number);
            let port = port(&machine, &asked).expect("a free port");
            free(&machine, world, &asked, port);
            parts[usize::from(port - 20_000) / 100] += 1;
            in_a_row += u32::from(port.abs_diff(last) <= 1);
            last = port;
        }
        assert!(parts.iter().all(|part| (300..500).contains(part)), "{parts:?}");
        assert!(in_a_row < 40, "{in_a_row} of 4000 beside the one before");
    }
}
