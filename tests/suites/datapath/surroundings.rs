//! What is around the master changes: neighbours, routes, widths, its own programs.

use std::{cell::RefCell, rc::Rc};

use netfw_tests::packet::{
    ACK, Action, Body, Counters, Fate, Gateway, Hook, Hooks as _, Packet, SYN, Side, quoted, read,
    stories::tcp::announcing,
    world::{ROUTER_MAC, V4, V6, next_mac},
};

use crate::{
    memory::{Machine, Memory},
    tell,
};

const RULES: &str = r#"
    [masquerade]
    from = ["lan"]
    [[port-forward]]
    name = "dns"
    protocol = "udp"
    port = 53
    to = ["worker1:5353"]
"#;

/// Too large and not to be cut: the sender is told the width, of new flows and of live ones. (Scenario 11.)
#[test]
fn too_big_and_whole() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(RULES);
        let query = Packet::udp(world.at("client", 4000), world.at("master", 53));
        let header = if world.is_v6() { 48 } else { 28 };
        for mtu in [1400, 1300, 1280] {
            machine.borrow_mut().mtu[Side::Inside as usize] = mtu;
            let fits = query.sized(mtu as usize - header);
            machine.borrow().wait(2);
            let large = query.sized(mtu as usize - header + 1);
            let answer = gateway.outside(&large).answered("too-big");
            let (kind, code) = if world.is_v6() { (2, 0) } else { (3, 4) };
            assert_eq!(answer.body, Body::Icmp { kind, code, detail: mtu });
            let quote = quoted(&answer).expect("8 bytes are quoted");
            assert_eq!((quote.source, quote.destination), (query.source, query.destination));
            gateway.outside(&fits).forwarded(Side::Inside, &fits.to(world.at("worker1", 5353)).hop());
            let answer = gateway.outside(&large).answered("too-big");
            assert_eq!(answer.body, Body::Icmp { kind, code, detail: mtu });
        }
    });
}

/// Too large but divisible: translated like any other, left to the stack to be cut, and not aged twice. (Scenario 13.)
#[test]
fn too_big_and_divisible() {
    tell(|gateway, machine| {
        let world = gateway.world;
        if world.is_v6() {
            return;
        }
        gateway.apply(RULES);
        machine.borrow_mut().mtu = [1300; 2];
        let query = Packet::udp(world.at("client", 4000), world.at("master", 53)).divisible().sized(1400);
        let outcome = gateway.outside(&query);
        assert_eq!(outcome.fate, Fate::Routed);
        assert_eq!(outcome.packet(), query.to(world.at("worker1", 5353)));
        let out = Packet::udp(world.at("worker2", 5000), world.at("client", 53)).divisible().sized(1400);
        for _ in 0..2 {
            let outcome = gateway.inside(&out);
            assert_eq!(outcome.fate, Fate::Routed);
            assert_eq!(outcome.packet(), out.from(world.at("master", 5000)));
        }
    });
}

/// The segment size fits the narrowest of both interfaces and of the routes to both ends, also where a neighbour is not known
/// yet. (Scenarios 11, 13.)
#[test]
fn the_segment_size_fits_the_narrowest() {
    for narrow in [Side::Outside, Side::Inside] {
        for by_route in [true, false] {
            for unresolved in [None, Some(ROUTER_MAC), Some(next_mac(V4.host("worker1")))] {
                tell(|gateway, machine| {
                    if by_route {
                        machine.borrow_mut().mtu[narrow as usize] = 1300;
                    } else {
                        machine.borrow_mut().set_width(narrow, 1300);
                    }
                    machine.borrow_mut().unresolved.extend(unresolved);
                    both_announce(gateway, 1300);
                });
            }
        }
    }
}

/// Both ends of a connection announce more than fits into packets of `mtu` bytes; each hears of what fits.
#[track_caller]
fn both_announce(gateway: &mut Gateway, mtu: u16) {
    let world = gateway.world;
    let size = (mtu - if world.is_v6() { 60 } else { 40 }).to_be_bytes();
    gateway.apply("[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = \"worker1:22\"\n");
    let syn = Packet::tcp(world.at("client", 4000), world.at("master", 2201), SYN);
    let arrived = gateway.outside(&announcing(&syn, 8960)).forwarded_somehow();
    assert_eq!(arrived.payload[2..], size);
    let answer = Packet { payload: Vec::new(), ..arrived.answer().flags(SYN | ACK) };
    let restored = gateway.inside(&announcing(&answer, 8960)).forwarded_somehow();
    assert_eq!(restored.payload[2..], size);
}

/// XDP sees the first buffer of a large frame alone: it leaves the frame as it is to TC, which sees the whole of it.
#[test]
fn more_than_xdp_can_see() {
    for world in [V4, V6] {
        let machine = Rc::new(RefCell::new(Machine::new(8, 8)));
        machine.borrow_mut().mtu = [9000; 2];
        let mut memory = Memory::new(Rc::clone(&machine));
        memory.apply(&netfw_tests::rules::two_armed(RULES));
        let query = Packet::udp(world.at("client", 4000), world.at("master", 53)).sized(8000);
        let frame = Gateway::framed(Side::Outside, &query);
        let ran = memory.run(Hook::Xdp, Side::Outside, &frame[..3500]);
        assert_eq!((ran.action, &ran.frame[..]), (Action::Next, &frame[..3500]));
        assert_eq!(memory.counters(), Counters::default());
        let ran = memory.run(Hook::Ingress, Side::Outside, &frame);
        assert_eq!(ran.action, Action::Transmit);
        let arrived = query.to(world.at("worker1", 5353)).hop();
        assert_eq!(read(&ran.frame).expect("a right packet"), arrived);
    }
}

/// One arm: the client comes in, from behind a router, by the interface that the target is behind. Whom the target would answer
/// past the master is hidden; who is answered through it is not. (Scenario 7.)
#[test]
fn who_is_answered_past_the_master() {
    let rules = netfw_tests::rules::two_armed(RULES);
    let rules = rules.replace("[interfaces]", "[interfaces]\nanti-spoof = \"off\"");
    for world in [V4, V6] {
        let machine = Rc::new(RefCell::new(Machine::new(8, 64)));
        machine.borrow_mut().moved.insert(world.host("client"));
        machine.borrow_mut().far.extend(["client", "worker3"].map(|name| world.host(name)));
        let mut memory = Memory::new(Rc::clone(&machine));
        memory.apply(&rules);
        let mut seen = |side, from, port| {
            let query = Packet::udp(world.at(from, port), world.at("master", 53));
            let ran = memory.run(Hook::Ingress, side, &Gateway::framed(side, &query));
            read(&ran.frame).expect("a right packet").source.ip()
        };
        assert_eq!(seen(Side::Inside, "client", 4000), world.host("gateway"), "the same interface");
        assert_eq!(seen(Side::Outside, "worker2", 4001), world.host("gateway"), "the target's neighbour");
        assert_eq!(seen(Side::Outside, "worker3", 4002), world.host("worker3"), "behind a router");
        machine.borrow_mut().far.insert(world.host("worker1"));
        assert_eq!(seen(Side::Outside, "worker2", 4003), world.host("worker2"), "the target behind a router");
    }
}

/// A neighbour that isn't known yet is for the kernel to find; a moved one is found after a second.
#[test]
fn neighbours() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(RULES);
        let worker = next_mac(world.host("worker1"));
        machine.borrow_mut().unresolved.insert(worker);
        let query = Packet::udp(world.at("client", 4000), world.at("master", 53));
        let arrived = query.to(world.at("worker1", 5353)).hop();
        gateway.outside(&query).forwarded(Side::Inside, &arrived);
        gateway.outside(&query).forwarded(Side::Inside, &arrived);
        machine.borrow_mut().unresolved.clear();
        gateway.outside(&query).forwarded(Side::Inside, &arrived);

        // Errors find their way likewise.
        machine.borrow_mut().unresolved.insert(ROUTER_MAC);
        let (kind, code) = if world.is_v6() { (1, 4) } else { (3, 3) };
        let mut refusal =
            Packet::new(world.at("worker1", 0), world.at("client", 0), Body::Icmp { kind, code, detail: 0 });
        refusal.payload = arrived.datagram();
        let left = gateway.inside(&refusal).forwarded_somehow();
        assert_eq!(left.source, world.at("master", 0));
    });
}

/// A look-up believes a neighbour's last link address for ever, so the kernel must be given a packet for each now and then; one does for
/// all flows that lead there.
#[test]
fn one_packet_a_second_goes_by_the_kernel() {
    for world in [V4, V6] {
        let machine = Rc::new(RefCell::new(Machine::new(8, 64)));
        let mut memory = Memory::new(Rc::clone(&machine));
        memory.apply(&netfw_tests::rules::two_armed(RULES));
        let query = |port| (Side::Outside, Packet::udp(world.at("client", port), world.at("master", 53)));
        let [one, other] = [4000, 4001].map(query);
        let elsewhere = (Side::Inside, Packet::udp(world.at("worker2", 4000), world.at("stranger", 53)));
        let mut at = |hook, (side, packet): &(Side, Packet)| {
            memory.run(hook, *side, &Gateway::framed(*side, packet)).action
        };
        let opened = [&one, &other, &elsewhere].map(|packet| at(Hook::Xdp, packet));
        assert_eq!(opened, [Action::Transmit; 3]);
        for _ in 0..2 {
            machine.borrow().wait(2);
            assert_eq!([&one, &other].map(|packet| at(Hook::Xdp, packet)), [Action::Next; 2]);
            assert_eq!(at(Hook::Ingress, &one), Action::Transmit);
            assert_eq!(at(Hook::Xdp, &other), Action::Transmit, "it leads to the same neighbour");
            assert_eq!(at(Hook::Xdp, &elsewhere), Action::Next, "it leads to another one");
        }
    }
}

/// While user space listens, a way lasts until something changes, and not for ever.
#[test]
fn a_way_lasts_while_nothing_changes() {
    for world in [V4, V6] {
        let machine = Rc::new(RefCell::new(Machine::new(8, 64)));
        let mut memory = Memory::new(Rc::clone(&machine));
        memory.apply(&netfw_tests::rules::two_armed(RULES));
        let query =
            Gateway::framed(Side::Outside, &Packet::udp(world.at("client", 4000), world.at("master", 53)));
        let mut lasts = |seconds| {
            machine.borrow().wait(seconds);
            let mut leaves = |hook| memory.run(hook, Side::Outside, &query).action == Action::Transmit;
            let lasts = leaves(Hook::Xdp);
            assert!(
                lasts || leaves(Hook::Ingress),
                "XDP leaves it to TC where the kernel must be given a packet"
            );
            lasts
        };
        assert!(lasts(0), "XDP opens the flow");
        machine.borrow_mut().listen(60);
        assert!(lasts(0), "a change counts when the way is a second old");
        assert!(!lasts(2), "something has changed");
        assert!(lasts(2) && lasts(4), "nothing has changed");
        assert!(!lasts(3), "the kernel must be given a packet now and then");
        machine.borrow_mut().listen(1);
        assert!(!lasts(3) && !lasts(3), "nobody listens any more");
    }
}

/// A live flow whose way is gone: the sender is told.
#[test]
fn no_way_any_more() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(RULES);
        let query = Packet::udp(world.at("client", 4000), world.at("master", 53));
        let arrived = gateway.outside(&query).forwarded_somehow();
        machine.borrow_mut().unreachable.insert(world.host("worker1"));
        gateway.outside(&query).forwarded(Side::Inside, &arrived);
        machine.borrow().wait(2);
        let answer = gateway.outside(&query).answered("no-route");
        let kind = if world.is_v6() { 1 } else { 3 };
        assert!(matches!(answer.body, Body::Icmp { kind: found, .. } if found == kind));
    });
}

/// A port on which a program of the master waits is never given to a LAN host. (Scenario 2.)
#[test]
fn ports_of_local_programs() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(RULES);
        machine.borrow_mut().sockets.insert((6, 22));
        let syn = Packet::tcp(world.at("worker1", 22), world.at("client", 4000), SYN);
        let left = gateway.inside(&syn).forwarded_somehow();
        assert_ne!(left.source.port(), 22);
        let answer = left.answer().flags(SYN | ACK);
        gateway.outside(&answer).forwarded(Side::Inside, &syn.answer().flags(SYN | ACK).hop());
        // The same port of another protocol is free.
        let query = Packet::udp(world.at("worker1", 22), world.at("client", 4000));
        gateway.inside(&query).forwarded(Side::Outside, &query.from(world.at("master", 22)).hop());
    });
}

/// A peer that is reached by another interface from now on: its flows go with it, and nobody goes on in its old place.
#[test]
fn a_peer_that_moves() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(&format!("{RULES}\n[[rule]]\naction = \"accept\"\n"));
        let query = Packet::udp(world.at("client", 4000), world.at("master", 53));
        let to_the_master = query.to(world.at("master", 22));
        let arrived = query.to(world.at("worker1", 5353)).hop();
        gateway.outside(&query).forwarded(Side::Inside, &arrived);
        gateway.outside(&to_the_master).accepted(&to_the_master);
        let own = Packet::udp(world.at("master", 6000), world.at("client", 53));
        gateway.send(&own).accepted(&own);
        machine.borrow_mut().moved.insert(world.host("client"));
        for _ in 0..2 {
            gateway.inside(&query).forwarded(Side::Inside, &arrived);
            gateway.outside(&query).dropped("spoofed");
            gateway.inside(&to_the_master).accepted(&to_the_master);
            gateway.outside(&to_the_master).dropped("spoofed");
            gateway.inside(&own.answer()).accepted(&own.answer());
            gateway.outside(&own.answer()).dropped("spoofed");
        }
    });
}
