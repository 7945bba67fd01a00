//! The flow table is bounded, and those who have proved themselves keep their places.

use std::{cell::RefCell, rc::Rc};

use netfw_common::{
    family::{Ipv4, Ipv6},
    flow::TURNED,
};
use netfw_ebpf::datapath::kernel::Table;
use netfw_tests::packet::{
    ACK, Body, Engine, FIN, Gateway, Packet, SYN, Side,
    world::{V4, V6},
};

use crate::memory::{Machine, Memory};

const RULES: &str = r#"
    [masquerade]
    from = ["lan"]
    [[port-forward]]
    name = "ssh"
    protocol = "tcp"
    port = 2201
    to = ["worker1:22"]
"#;

/// Tells a story with room for `PROVEN` flows and for 16 halves of beginners a side.
fn tell_small(story: impl Fn(&mut Gateway, &RefCell<Machine>)) {
    for world in [V4, V6] {
        for engine in [Engine::Tc, Engine::Xdp] {
            let machine = Rc::new(RefCell::new(Machine::new(PROVEN, 16)));
            let mut gateway = Gateway::new(Box::new(Memory::new(Rc::clone(&machine))), engine, world);
            gateway.apply(RULES);
            story(&mut gateway, &machine);
        }
    }
}

const PROVEN: usize = 8;

/// Halves in a part of the table.
fn halves(machine: &RefCell<Machine>, table: Table) -> usize {
    let machine = machine.borrow();
    machine.store::<Ipv4>().count(table) + machine.store::<Ipv6>().count(table)
}

struct Session {
    sent: Packet,
    arrived: Packet,
}

impl Session {
    fn open(gateway: &mut Gateway, port: u16) -> Self {
        let world = gateway.world;
        let sent = Packet::tcp(world.at("client", port), world.at("master", 2201), SYN);
        let arrived = gateway.outside(&sent).forwarded_somehow();
        let session = Self { sent, arrived };
        session.answer(gateway, SYN | ACK);
        session.send(gateway, ACK);
        session
    }

    #[track_caller]
    fn send(&self, gateway: &mut Gateway, flags: u8) {
        gateway.outside(&self.sent.flags(flags)).forwarded(Side::Inside, &self.arrived.flags(flags));
    }

    #[track_caller]
    fn answer(&self, gateway: &mut Gateway, flags: u8) {
        let answer = self.arrived.answer().flags(flags);
        gateway.inside(&answer).forwarded(Side::Outside, &self.sent.answer().flags(flags).hop());
    }

    fn close(&self, gateway: &mut Gateway) {
        self.send(gateway, FIN | ACK);
        self.answer(gateway, FIN | ACK);
        self.send(gateway, ACK);
    }
}

/// With the client's answer to the answer a flow moves, whole.
#[test]
fn a_flow_proves_itself() {
    tell_small(|gateway, machine| {
        let world = gateway.world;
        let syn = Packet::tcp(world.at("client", 4000), world.at("master", 2201), SYN);
        let arrived = gateway.outside(&syn).forwarded_somehow();
        let _ = gateway.outside(&syn).forwarded_somehow();
        let _ = gateway.inside(&arrived.answer().flags(SYN | ACK)).forwarded_somehow();
        let _ = gateway.outside(&syn).forwarded_somehow();
        assert_eq!((halves(machine, Table::Outside), halves(machine, Table::Proven)), (2, 0));
        let _ = gateway.outside(&syn.flags(ACK)).forwarded_somehow();
        assert_eq!((halves(machine, Table::Outside), halves(machine, Table::Proven)), (0, 2));
        let _ = gateway.inside(&arrived.answer().flags(ACK)).forwarded_somehow();
    });
}

/// Whoever is left when the other end was cut off keeps the way to himself, by which he is made to speak. It is no way for his own
/// packets, should the rules admit them again.
#[test]
fn a_cut_leaves_the_way_to_the_other_end() {
    tell_small(|gateway, machine| {
        let session = Session::open(gateway, 4000);
        gateway.apply("");
        let _ = gateway.inside(&session.arrived.answer().flags(ACK)).answered("flow-cut");
        let ways = |machine: &RefCell<Machine>| {
            let machine = machine.borrow();
            let four =
                machine.store::<Ipv4>().all(Table::Proven).into_iter().map(|flow| (flow.hop, flow.flags));
            let six =
                machine.store::<Ipv6>().all(Table::Proven).into_iter().map(|flow| (flow.hop, flow.flags));
            four.chain(six).map(|(hop, flags)| (hop.macs, flags & TURNED != 0)).collect::<Vec<_>>()
        };
        let back = ways(machine);
        gateway.apply(RULES);
        session.send(gateway, ACK);
        let forth = ways(machine);
        let ([(to_client, true)], [(to_worker, false)]) = (&back[..], &forth[..]) else {
            panic!("{back:?}, then {forth:?}")
        };
        assert_ne!(to_client, to_worker);
    });
}

/// Ten times the capacity in short connections: all succeed, and none of it needs a daemon. (Scenario 25.)
#[test]
fn short_connections_make_room_for_each_other() {
    tell_small(|gateway, machine| {
        let stays = Session::open(gateway, 999);
        for n in 0..10 * PROVEN as u16 {
            Session::open(gateway, 4000 + n).close(gateway);
            assert!(halves(machine, Table::Proven) <= 2 * PROVEN);
        }
        stays.send(gateway, ACK);
        stays.answer(gateway, ACK);
    });
}

/// A table full of living flows keeps them; a new one waits among the beginners, working, until one has gone silent.
#[test]
fn a_full_table_keeps_what_lives() {
    tell_small(|gateway, machine| {
        let living: Vec<_> = (0..PROVEN as u16).map(|n| Session::open(gateway, 4000 + n)).collect();
        let late = Session::open(gateway, 5000);
        assert_eq!((halves(machine, Table::Proven), halves(machine, Table::Outside)), (2 * PROVEN, 2));
        late.send(gateway, ACK);
        late.answer(gateway, ACK);
        machine.borrow().wait(2 * 3600);
        for session in &living[1..] {
            session.send(gateway, ACK);
        }
        let late = Session::open(gateway, 5001);
        machine.borrow().wait(5 * 60);
        for session in &living[1..] {
            session.answer(gateway, ACK);
        }
        drop(late);
        let newest = Session::open(gateway, 5002);
        newest.send(gateway, ACK);
        assert_eq!((halves(machine, Table::Proven), halves(machine, Table::Outside) % 2), (2 * PROVEN, 0));
        for session in &living[1..] {
            session.send(gateway, ACK);
            session.answer(gateway, ACK);
        }
    });
}

/// A flood of SYNs evicts other SYNs only: sessions, and what the LAN has just asked, go on. (Scenario 29.)
#[test]
fn a_flood_evicts_only_itself() {
    tell_small(|gateway, machine| {
        let world = gateway.world;
        let session = Session::open(gateway, 4000);
        let query = Packet::udp(world.at("worker2", 5000), world.at("stranger", 53));
        let left = gateway.inside(&query).forwarded_somehow();
        for n in 0..300 {
            let source = world
                .address(&format!("198.51.{}.{}", n / 250, n % 250 + 1), &format!("2001:db8:2::{n:x}:1"));
            let syn = Packet::tcp((source, 1234).into(), world.at("master", 2201), SYN);
            gateway.outside(&syn).forwarded(Side::Inside, &syn.to(world.at("worker1", 22)).hop());
            assert!(halves(machine, Table::Outside) <= 16);
        }
        session.send(gateway, ACK);
        session.answer(gateway, ACK);
        gateway.outside(&left.answer()).forwarded(Side::Inside, &query.answer().hop());
        Session::open(gateway, 4001).close(gateway);
    });
}

/// Handshakes from spoofed addresses, blind to what the worker answers, take no place from anybody. (Scenario 29.)
#[test]
fn spoofed_handshakes_prove_nothing() {
    tell_small(|gateway, machine| {
        let session = Session::open(gateway, 4000);
        let proven = halves(machine, Table::Proven);
        assert_eq!(proven, 2);
        let world = gateway.world;
        for port in 0..100 {
            let syn = Packet::tcp(world.at("stranger", 4000 + port), world.at("master", 2201), SYN);
            let arrived = gateway.outside(&syn).forwarded_somehow();
            let _ = gateway.inside(&arrived.answer().flags(SYN | ACK)).forwarded_somehow();
            let mut blind = syn.flags(ACK);
            if let Body::Tcp { acknowledged, .. } = &mut blind.body {
                *acknowledged = acknowledged.wrapping_add(1 << 20);
            }
            let _ = gateway.outside(&blind).forwarded_somehow();
            assert_eq!(halves(machine, Table::Proven), proven);
        }
        session.answer(gateway, ACK);
        session.send(gateway, ACK);
    });
}
