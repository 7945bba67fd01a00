//! Time passes: flows live as long as the RFCs say, and no longer.

use netfw_tests::packet::{ACK, FIN, Gateway, Packet, RST, SYN, Side};

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
        gateway.inside(&arrived.answer()).dropped("policy-forward");

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
        gateway.inside(&arrived.answer()).dropped("policy-forward");
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
        gateway.inside(&arrived.answer()).dropped("policy-forward");
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

/// A port-forward's own timeout stands in for the general one.
#[test]
fn a_forwards_own_timeout() {
    tell(|gateway, machine| {
        gateway.apply(&format!("{FORWARD}idle-timeout = \"24h\"\n"));
        let (sent, arrived) = establish(gateway, machine);
        machine.borrow().wait(24 * HOUR - 1);
        gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
        machine.borrow().wait(24 * HOUR + 2);
        gateway.inside(&arrived.answer()).dropped("policy-forward");
    });
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
