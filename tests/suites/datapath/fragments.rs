//! Fragments that come before their first, with the kernel's reassembly played by the story. (Scenario 12.)

use std::{cell::RefCell, rc::Rc};

use netfw_common::counters::Count;
use netfw_tests::packet::{
    Action, Fate, Gateway, Hook, Hooks as _, Packet, Side, checksum, fragments, reassemble,
    stories::fragment::ways,
    world::{V4, V6, World},
};

use crate::{
    memory::{Machine, Memory},
    tell,
};

const DNS: &str =
    "[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 53\nto = [\"worker1:5353\"]\n";

fn question(world: World) -> (Packet, Vec<Vec<u8>>) {
    let packet = Packet::udp(world.at("client", 4000), world.at("master", 53)).divisible().sized(4000);
    let parts = fragments(&Gateway::framed(Side::Outside, &packet), 1400);
    (packet, parts)
}

/// The frame as it comes back: the way there and back has cost it a hop.
fn aged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[12] == 0x86 {
        frame[21] -= 1;
        return frame;
    }
    frame[22] -= 1;
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn come_back(gateway: &mut Gateway, machine: &RefCell<Machine>, side: Side, frame: &[u8]) -> Vec<u8> {
    let place = machine.borrow().last_held.get();
    machine.borrow().comes_back.set(place);
    let outcome = gateway.receive(side, &aged(frame));
    machine.borrow().comes_back.set(0);
    assert_eq!(outcome.fate, Fate::Forwarded);
    outcome.frame().to_vec()
}

/// They are held, the first one too, whatever protocol they are of, and count when they come back; then they are no older than
/// others.
#[test]
fn held_until_they_are_in_order() {
    tell(|gateway, machine| {
        machine.borrow_mut().reassembler = 99;
        for (side, sent, arrived) in ways(gateway) {
            let parts = fragments(&Gateway::framed(side, &sent), 1400);
            for part in parts.iter().rev() {
                assert_eq!(gateway.receive(side, part).fate, Fate::Held);
            }
            assert_eq!(machine.borrow().held_fragments(), 3);
            let back: Vec<_> = parts.iter().map(|part| come_back(gateway, machine, side, part)).collect();
            assert_eq!(machine.borrow().held_fragments(), 0);
            assert_eq!(reassemble(&back).expect("whole again"), arrived);
            // What comes late knows its ports.
            assert_eq!(gateway.receive(side, &parts[0]).fate, Fate::Forwarded);
            assert_eq!(gateway.receive(side, &parts[2]).fate, Fate::Forwarded);
        }
    });
}

/// The hop that the detour costs is the one that the master takes: the last but one is enough.
#[test]
fn the_detour_costs_no_hop_more() {
    tell(|gateway, machine| {
        machine.borrow_mut().reassembler = 99;
        gateway.apply(DNS);
        let (packet, _) = question(gateway.world);
        let parts = fragments(&Gateway::framed(Side::Outside, &packet.ttl(2)), 1400);
        for part in parts.iter().rev() {
            assert_eq!(gateway.receive(Side::Outside, part).fate, Fate::Held);
        }
        let arrived: Vec<_> =
            parts.iter().map(|part| come_back(gateway, machine, Side::Outside, part)).collect();
        assert_eq!(reassemble(&arrived).expect("whole again").ttl, 1);
    });
}

/// What comes back without its first is not sent there again.
#[test]
fn only_once() {
    tell(|gateway, machine| {
        machine.borrow_mut().reassembler = 99;
        gateway.apply(DNS);
        let (_, parts) = question(gateway.world);
        assert_eq!(gateway.receive(Side::Outside, &parts[1]).fate, Fate::Held);
        let place = machine.borrow().last_held.get();
        machine.borrow().comes_back.set(place);
        gateway.receive(Side::Outside, &aged(&parts[1])).dropped("fragment-before-first");
        machine.borrow().comes_back.set(0);
    });
}

/// Those that never come back are dropped, and counted when their place is needed.
#[test]
fn given_up() {
    for world in [V4, V6] {
        let machine = Rc::new(RefCell::new(Machine::new(8, 8)));
        machine.borrow_mut().reassembler = 99;
        let mut memory = Memory::new(Rc::clone(&machine));
        memory.apply(&netfw_tests::rules::two_armed(DNS));
        let (_, parts) = question(world);
        let mut receive = |part: &[u8]| memory.run(Hook::Ingress, Side::Outside, part).action;
        assert_eq!([&parts[1], &parts[2]].map(|part| receive(part)), [Action::Hold; 2]);
        machine.borrow().wait(7);
        assert_eq!(receive(&parts[0]), Action::Transmit, "too late to be waited for");
        machine.borrow().wait(31);
        assert_eq!(receive(&parts[1]), Action::Hold, "the ports are those of an older packet");
        let lost = parts[1..].iter().map(|part| part.len() as u64 - 14).sum();
        let lost = Count { packets: 2, bytes: lost };
        let counters = memory.counters();
        assert_eq!(counters.drops.get("fragment-before-first"), Some(&lost));
        assert_eq!(counters.interface(Side::Outside).dropped, lost);
        assert_eq!(machine.borrow().held_fragments(), 1);
    }
}

/// What the kernel could not bring back is not given to it.
#[test]
fn not_held() {
    tell(|gateway, machine| {
        machine.borrow_mut().reassembler = 99;
        gateway.apply(DNS);
        let (packet, _) = question(gateway.world);
        let local = gateway.world.address("169.254.0.7", "fe80::7");
        for packet in [packet.ttl(1), packet.from((local, 4000).into())] {
            let parts = fragments(&Gateway::framed(Side::Outside, &packet), 1400);
            gateway.receive(Side::Outside, &parts[1]).dropped("fragment-before-first");
        }
        if !gateway.world.is_v6() {
            let parts = fragments(&Gateway::framed(Side::Outside, &packet), 1400);
            gateway.receive(Side::Outside, &optioned(&parts[1])).dropped("fragment-before-first");
        }
    });
}

/// The same IPv4 frame with a word of no operation in its header.
fn optioned(frame: &[u8]) -> Vec<u8> {
    let mut frame = [&frame[..34], &[1; 4], &frame[34..]].concat();
    frame[14] = 0x46;
    let length = (frame.len() as u16 - 14).to_be_bytes();
    frame[16..18].copy_from_slice(&length);
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..38]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}
