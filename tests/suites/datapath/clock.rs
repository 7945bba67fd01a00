//! Time passes: flows live as long as the RFCs say, and no longer.

use std::net::SocketAddr;

use netfw_tests::packet::{
    ACK, Body, FIN, Fate, Gateway, Packet, RST, SYN, Side,
    world::{V4, V6},
};

use crate::{memory::Machine, tell};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Two targets in turn, so that a flow that was forgotten shows.
const FORWARD: &str = r#"
    [[port-forward]]
    name = "ssh"
    protocol = ["tcp", "udp"]
    port = 2201
    to = ["worker1:22", "worker2:22"]
"#;

/// How many flows the forward has opened.
fn opened(gateway: &Gateway) -> u64 {
    gateway.counters().translation("ssh").flows_opened
}

/// What the client sends, and what the worker gets, of an established connection.
fn establish(gateway: &mut Gateway, machine: &std::cell::RefCell<Machine>) -> (Packet, Packet) {
    let world = gateway.world;
    let syn = Packet::tcp(world.at("client", 4000), world.at("master", 2201), SYN);
    let arrived = gateway.outside(&syn).forwarded_somehow();
    let answer = arrived.answer().flags(SYN | ACK);
    gateway.inside(&answer).forwarded(Side::Outside, &syn.answer().flags(SYN | ACK).hop());
    machine.borrow().wait(1);
    gateway.outside(&syn.flags(ACK)).forwarded(Side::Inside, &arrived.flags(ACK));
    (syn.flags(ACK), arrived.flags(ACK))
}

/// The worker's word is one of a connection that is not known any more: the flow is opened anew.
#[track_caller]
fn is_forgotten(gateway: &mut Gateway, sent: &Packet, arrived: &Packet) {
    let before = opened(gateway);
    gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
    assert_eq!(opened(gateway), before + 1, "it is still known");
}

/// A session idle for 2 h 4 min still works, from both ends. (Scenario 16.)
#[test]
fn an_idle_session_lives_for_two_hours_and_four_minutes() {
    tell(|gateway, machine| {
        gateway.apply(FORWARD);
        let (sent, arrived) = establish(gateway, machine);
        for _ in 0..3 {
            machine.borrow().wait(2 * HOUR + 4 * MINUTE - 1);
            gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
            machine.borrow().wait(2 * HOUR + 4 * MINUTE - 1);
            gateway.outside(&sent).forwarded(Side::Inside, &arrived);
        }
        assert_eq!(opened(gateway), 1);
        machine.borrow().wait(2 * HOUR + 4 * MINUTE + 2);
        // State lost: it is judged as new.
        let _ = gateway.outside(&sent).forwarded_somehow();
        assert_eq!(opened(gateway), 2);
    });
}

/// Keep-alives of one end keep both directions. (Scenario 16.)
#[test]
fn keep_alives_refresh_a_session() {
    tell(|gateway, machine| {
        gateway.apply(FORWARD);
        let (sent, arrived) = establish(gateway, machine);
        for _ in 0..5 {
            machine.borrow().wait(2 * HOUR);
            gateway.outside(&sent).forwarded(Side::Inside, &arrived);
        }
        gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
        assert_eq!(opened(gateway), 1);
    });
}

/// What is closed, or was never opened, is forgotten after 4 minutes (RFC 5382 REQ-5).
#[test]
fn transitory_connections_are_forgotten_soon() {
    tell(|gateway, machine| {
        gateway.apply(FORWARD);
        let (sent, arrived) = establish(gateway, machine);
        close(gateway, &sent, &arrived);
        machine.borrow().wait(4 * MINUTE - 1);
        gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
        machine.borrow().wait(4 * MINUTE + 2);
        is_forgotten(gateway, &sent, &arrived);

        let syn = sent.from(gateway.world.at("client", 4001)).flags(SYN);
        let arrived = gateway.outside(&syn).forwarded_somehow();
        machine.borrow().wait(4 * MINUTE - 1);
        let answer = arrived.answer().flags(SYN | ACK);
        gateway.inside(&answer).forwarded(Side::Outside, &syn.answer().flags(SYN | ACK).hop());
        machine.borrow().wait(4 * MINUTE + 2);
        gateway.inside(&answer).dropped("policy-forward");
    });
}

/// Both ends finish.
fn close(gateway: &mut Gateway, sent: &Packet, arrived: &Packet) {
    let finish = FIN | ACK;
    gateway.outside(&sent.flags(finish)).forwarded(Side::Inside, &arrived.flags(finish));
    let (answer, restored) = (arrived.flags(finish).answer(), sent.flags(finish).answer().hop());
    gateway.inside(&answer).forwarded(Side::Outside, &restored);
}

/// A half-closed session waits for its other half as long as one that is open (RFC 6146 §3.5.2.2). (Scenario 15.)
#[test]
fn a_half_closed_session_waits_for_two_hours_and_four_minutes() {
    tell(|gateway, machine| {
        gateway.apply(FORWARD);
        let (sent, arrived) = establish(gateway, machine);
        gateway.outside(&sent.flags(FIN | ACK)).forwarded(Side::Inside, &arrived.flags(FIN | ACK));
        for _ in 0..2 {
            machine.borrow().wait(2 * HOUR + 4 * MINUTE - 1);
            let (answer, restored) =
                (arrived.flags(FIN | ACK).answer(), sent.flags(FIN | ACK).answer().hop());
            gateway.inside(&answer.flags(ACK)).forwarded(Side::Outside, &restored.flags(ACK));
        }
        machine.borrow().wait(2 * HOUR + 4 * MINUTE + 2);
        is_forgotten(gateway, &sent, &arrived);
    });
}

/// Nobody shortens a session who can't see it: it still lives after its 2 h 4 min. (Scenarios 15, 16.)
#[test]
fn forged_packets_do_not_shorten_a_session() {
    for flags in [RST, RST | ACK, FIN | ACK, SYN, SYN | ACK, ACK] {
        tell(|gateway, machine| {
            gateway.apply(FORWARD);
            let (sent, arrived) = establish(gateway, machine);
            gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
            for ahead in [100_000, 1 << 31, u32::MAX - 100_000] {
                let forged = sent.flags(flags).ahead(ahead);
                let _ = gateway.outside(&forged).forwarded_somehow();
                machine.borrow().wait(2 * HOUR);
                gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
            }
            machine.borrow().wait(2 * HOUR);
            gateway.outside(&sent).forwarded(Side::Inside, &arrived);
            assert_eq!(opened(gateway), 1);
        });
    }
}

/// After a reset its flow is kept for 4 minutes, in which either end may show that it lives (RFC 7857 §2.2).
#[test]
fn a_reset_leaves_four_minutes() {
    tell(|gateway, machine| {
        gateway.apply(FORWARD);
        let (sent, arrived) = establish(gateway, machine);
        gateway.outside(&sent.flags(RST)).forwarded(Side::Inside, &arrived.flags(RST));
        machine.borrow().wait(4 * MINUTE - 1);
        gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
        gateway.outside(&sent).forwarded(Side::Inside, &arrived);
        machine.borrow().wait(2 * HOUR);
        gateway.outside(&sent.flags(RST)).forwarded(Side::Inside, &arrived.flags(RST));
        machine.borrow().wait(4 * MINUTE + 2);
        is_forgotten(gateway, &sent, &arrived);
    });
}

/// UDP: 2 minutes unanswered, 5 minutes answered (RFC 4787 REQ-5); echoes 60 s (RFC 5508 REQ-2).
#[test]
fn datagrams_and_echoes() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(&format!("{FORWARD}[masquerade]\nfrom = [\"lan\"]\n"));
        let query = Packet::udp(world.at("client", 4000), world.at("master", 2201));
        let arrived = gateway.outside(&query).forwarded_somehow();
        machine.borrow().wait(2 * MINUTE - 1);
        gateway.inside(&arrived.answer()).forwarded(Side::Outside, &query.answer().hop());
        machine.borrow().wait(5 * MINUTE - 1);
        gateway.outside(&query).forwarded(Side::Inside, &arrived);
        assert_eq!(opened(gateway), 1);
        machine.borrow().wait(5 * MINUTE + 2);
        let before = gateway.counters();
        let late = gateway.inside(&arrived.answer()).forwarded_somehow();
        assert_eq!(late.source.ip(), world.host("master"));
        assert_eq!(
            gateway.counters().since(&before).translation("").flows_opened,
            1,
            "no answer but a question"
        );
        let other = query.from(world.at("client", 4001));
        let _ = gateway.outside(&other).forwarded_somehow();
        machine.borrow().wait(2 * MINUTE + 2);
        let _ = gateway.outside(&other).forwarded_somehow();
        assert_eq!(opened(gateway), 3);

        let ping = Packet::echo(world.at("worker1", 0), world.at("client", 0), 7);
        let left = gateway.inside(&ping).forwarded_somehow();
        machine.borrow().wait(MINUTE - 1);
        gateway.outside(&left.answer()).forwarded(Side::Inside, &ping.answer().hop());
        machine.borrow().wait(MINUTE + 2);
        gateway.outside(&left.answer()).dropped("icmp-unrelated");
    });
}

/// A port-forward's own timeout, longer or shorter, stands in for the general one of what was answered, and of nothing else.
#[test]
fn a_forwards_own_timeout() {
    for own in [24 * HOUR, 30] {
        tell(|gateway, machine| {
            let world = gateway.world;
            gateway.apply(&format!("{FORWARD}idle-timeout = \"{own}s\"\n"));
            let (sent, arrived) = establish(gateway, machine);
            machine.borrow().wait(own - 1);
            gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
            machine.borrow().wait(own + 2);
            is_forgotten(gateway, &sent, &arrived);

            let syn = sent.flags(SYN).from(world.at("client", 4001));
            let query = Packet::udp(world.at("client", 4002), world.at("master", 2201));
            for (unanswered, life) in [(syn, 4 * MINUTE), (query, 2 * MINUTE)] {
                let before = opened(gateway);
                let _ = gateway.outside(&unanswered).forwarded_somehow();
                machine.borrow().wait(life - 1);
                let _ = gateway.outside(&unanswered).forwarded_somehow();
                assert_eq!(opened(gateway), before + 1, "it still waits");
                machine.borrow().wait(life + 2);
                let _ = gateway.outside(&unanswered).forwarded_somehow();
                assert_eq!(opened(gateway), before + 2, "nobody waits so long");
            }
        });
    }
}

/// Ports that ran out come back with the timeout. (Scenario 4.)
#[test]
fn exhaustion_heals() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply("[masquerade]\nfrom = [\"lan\"]\nports = \"20000-20001\"\n");
        let ask = |name| Packet::udp(world.at(name, 5000), world.at("client", 53));
        let _ = gateway.inside(&ask("worker1")).forwarded_somehow();
        let _ = gateway.inside(&ask("worker2")).forwarded_somehow();
        gateway.inside(&ask("worker3")).dropped("no-free-port");
        machine.borrow().wait(2 * MINUTE + 2);
        let _ = gateway.inside(&ask("worker3")).forwarded_somehow();
    });
}

/// The port of a connection that is over is free at once. (Scenario 4.)
#[test]
fn a_closed_connection_holds_no_port() {
    tell(|gateway, _| {
        let world = gateway.world;
        gateway.apply("[masquerade]\nfrom = [\"lan\"]\nports = \"20000\"\n");
        let syn = |name| Packet::tcp(world.at(name, 5000), world.at("client", 80), SYN);
        let sent = syn("worker1");
        let left = gateway.inside(&sent).forwarded_somehow();
        let _ = gateway.outside(&left.answer().flags(SYN | ACK)).forwarded_somehow();
        let _ = gateway.inside(&sent.flags(ACK)).forwarded_somehow();
        gateway.inside(&syn("worker2")).dropped("no-free-port");
        let _ = gateway.inside(&sent.flags(FIN | ACK)).forwarded_somehow();
        gateway.inside(&syn("worker2")).dropped("no-free-port");
        let _ = gateway.outside(&left.answer().flags(FIN | ACK)).forwarded_somehow();
        assert_eq!(gateway.inside(&syn("worker2")).forwarded_somehow().source, left.source);
    });
}

/// A packet from either side keeps a datagram flow, and both its directions (RFC 4787 REQ-6).
#[test]
fn either_direction_keeps_a_flow() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply("[masquerade]\nfrom = [\"lan\"]\n");
        for (port, only) in [(5000, Side::Inside), (5001, Side::Outside)] {
            let query = Packet::udp(world.at("worker1", port), world.at("client", 53));
            let left = gateway.inside(&query).forwarded_somehow();
            gateway.outside(&left.answer()).forwarded(Side::Inside, &query.answer().hop());
            for _ in 0..5 {
                machine.borrow().wait(5 * MINUTE - 1);
                if only == Side::Inside {
                    gateway.inside(&query).forwarded(Side::Outside, &left);
                } else {
                    gateway.outside(&left.answer()).forwarded(Side::Inside, &query.answer().hop());
                }
            }
            machine.borrow().wait(5 * MINUTE - 1);
            gateway.outside(&left.answer()).forwarded(Side::Inside, &query.answer().hop());
            machine.borrow().wait(5 * MINUTE + 2);
            gateway.outside(&left.answer()).dropped("policy-input");
        }
        assert_eq!(gateway.counters().translation("").flows_opened, 2);
    });
}

/// An error of any kind about a flow neither ends it nor keeps it (RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6).
#[test]
fn errors_neither_end_nor_refresh_a_flow() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply("[masquerade]\nfrom = [\"lan\"]\n");
        let datagram = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
        let echo = Packet::echo(world.at("worker1", 0), world.at("client", 0), 7);
        for (sent, life) in [(datagram, 5 * MINUTE), (echo, MINUTE)] {
            let left = gateway.inside(&sent).forwarded_somehow();
            gateway.outside(&left.answer()).forwarded(Side::Inside, &sent.answer().hop());
            machine.borrow().wait(life / 2);
            for error in errors(&left) {
                let _ = gateway.outside(&error).forwarded_somehow();
            }
            machine.borrow().wait(life / 2 - 1);
            gateway.outside(&left.answer()).forwarded(Side::Inside, &sent.answer().hop());
            machine.borrow().wait(life - 1);
            let _ = gateway.outside(&errors(&left)[0]).forwarded_somehow();
            machine.borrow().wait(3);
            gateway.outside(&errors(&left)[0]).dropped("icmp-unrelated");
        }
        let syn = Packet::tcp(world.at("worker1", 5000), world.at("client", 80), SYN);
        let left = gateway.inside(&syn).forwarded_somehow();
        let answer = |flags| (left.answer().flags(flags), syn.answer().flags(flags).hop());
        gateway.outside(&answer(SYN | ACK).0).forwarded(Side::Inside, &answer(SYN | ACK).1);
        gateway.inside(&syn.flags(ACK)).forwarded(Side::Outside, &left.flags(ACK));
        for error in errors(&left.flags(ACK)) {
            let _ = gateway.outside(&error).forwarded_somehow();
        }
        machine.borrow().wait(2 * HOUR);
        gateway.outside(&answer(ACK).0).forwarded(Side::Inside, &answer(ACK).1);
    });
}

/// Every kind of error that a router outside may report about a packet that left.
fn errors(left: &Packet) -> Vec<Packet> {
    let world = if left.is_v6() { V6 } else { V4 };
    let kinds: &[(u8, u8)] = if left.is_v6() {
        &[(1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (3, 0), (4, 1)]
    } else {
        &[(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0)]
    };
    let error = |&(kind, code): &(u8, u8)| {
        let body = Body::Icmp { kind, code, detail: 0 };
        let to = SocketAddr::new(left.source.ip(), 0);
        Packet { payload: left.hop().datagram(), ..Packet::new(world.at("router", 0), to, body) }
    };
    kinds.iter().map(error).collect()
}

/// Each key of `[timeouts]` is the time that its kind of flow lives (RFC 4787 REQ-5b, RFC 5382 REQ-5a, RFC 5508 REQ-2a).
#[test]
fn every_timeout_can_be_set() {
    let timeouts = "[timeouts]\ntcp-established = \"50s\"\ntcp-opening = \"40s\"\ntcp-closed = \"45s\"\nudp = \"30s\"\n\
                    udp-unanswered = \"20s\"\nicmp = \"10s\"\nother = \"60s\"\n";
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(&format!("[masquerade]\nfrom = [\"lan\"]\n{timeouts}"));
        let (inside, outside) = (world.at("worker1", 5000), world.at("client", 80));
        let raw = Packet::new(world.at("worker1", 0), world.at("client", 0), Body::Raw(47));
        let cases: [(Packet, &[u8], bool, u64); 7] = [
            (Packet::tcp(inside, outside, SYN), &[SYN | ACK, ACK], true, 50),
            (Packet::tcp(inside, outside, SYN).from(world.at("worker1", 5001)), &[SYN | ACK], true, 40),
            (
                Packet::tcp(inside, outside, SYN).from(world.at("worker1", 5003)),
                &[SYN | ACK, ACK, RST],
                true,
                45,
            ),
            (Packet::udp(inside, outside), &[], true, 30),
            (Packet::udp(world.at("worker1", 5002), outside), &[], false, 20),
            (Packet::echo(world.at("worker1", 0), world.at("client", 0), 9), &[], true, 10),
            (raw, &[], true, 60),
        ];
        for (sent, handshake, answered, life) in cases {
            let left = gateway.inside(&sent).forwarded_somehow();
            let mut answer = left.answer();
            if let [answer_flags, rest @ ..] = handshake {
                answer = answer.flags(*answer_flags);
                let _ = gateway.outside(&answer).forwarded_somehow();
                for flags in rest {
                    let _ = gateway.inside(&sent.flags(*flags)).forwarded_somehow();
                }
            } else if answered {
                let _ = gateway.outside(&answer).forwarded_somehow();
            }
            machine.borrow().wait(life - 1);
            assert_eq!(gateway.outside(&answer).fate, Fate::Forwarded, "{sent:?} lived too short");
            let life = if sent.protocol() == 17 { 30 } else { life };
            machine.borrow().wait(life + 2);
            assert_ne!(gateway.outside(&answer).fate, Fate::Forwarded, "{sent:?} lived too long");
        }
    });
}
