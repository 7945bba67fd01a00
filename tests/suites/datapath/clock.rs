//! Time passes: flows live as long as the RFCs say, and no longer.

use netfw_tests::packet::{ACK, FIN, Gateway, Packet, SYN, Side};

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
        gateway.outside(&sent.flags(FIN | ACK)).forwarded(Side::Inside, &arrived.flags(FIN | ACK));
        machine.borrow().wait(4 * MINUTE - 1);
        gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
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
