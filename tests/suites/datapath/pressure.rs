//! When too many connections are being opened, and for how long a proof is good.

use std::{cell::RefCell, net::SocketAddr};

use netfw_common::tick::Tick;
use netfw_tests::packet::{Body, Fate, Gateway, Packet, RST, SYN, world::World};

use crate::{memory::Machine, tell};

const RULES: &str = "[[port-forward]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 8080\nto = \"worker1:80\"\nsyn-proxy = \"auto\"\n";
const BEARABLE: u16 = 10;

/// A stranger whom nobody has seen yet.
fn stranger(world: World, number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::new(world.address(&format!("100.64.{high}.{low}"), &format!("2001:db8:5::{number:x}")), 4000)
}

/// Whether the `number`th stranger is let in; else he must be challenged.
#[track_caller]
fn is_let_in(gateway: &mut Gateway, number: u16) -> bool {
    let world = gateway.world;
    let syn = Packet::tcp(stranger(world, number), world.at("master", 8080), SYN);
    match gateway.outside(&syn).fate {
        Fate::Forwarded => true,
        Fate::Answered("syn-challenged") => false,
        other => panic!("{other:?}"),
    }
}

fn begin(gateway: &mut Gateway, machine: &RefCell<Machine>) {
    machine.borrow_mut().bearable = BEARABLE.into();
    gateway.apply(RULES);
}

/// Strangers are let in until there are too many, and again when there have been few for long enough.
#[test]
fn from_the_excess_until_it_is_over() {
    tell(|gateway, machine| {
        begin(gateway, machine);
        // The last of these is one too many.
        assert!((0..=BEARABLE).all(|number| is_let_in(gateway, number)));
        assert!(!is_let_in(gateway, 100));
        // At the same rate it stays so, though no flow is opened.
        for second in 1..6 {
            machine.borrow().wait(1);
            assert!((0..2 * BEARABLE).all(|n| !is_let_in(gateway, second * 100 + n)), "second {second}");
        }
        machine.borrow().wait(1);
        assert!(!is_let_in(gateway, 1000), "the last excess was a second ago");
        machine.borrow().wait(2);
        assert!(is_let_in(gateway, 1001));
    });
}

/// As many as are bearable, for however long.
#[test]
fn a_busy_day() {
    tell(|gateway, machine| {
        begin(gateway, machine);
        for second in 0..20 {
            assert!((0..BEARABLE).all(|number| is_let_in(gateway, second * 100 + number)), "second {second}");
            machine.borrow().wait(2);
        }
    });
}

/// What other packets open, and connections that are opened from inside, press nobody.
#[test]
fn others_do_not_count() {
    tell(|gateway, machine| {
        begin(gateway, machine);
        let world = gateway.world;
        for port in 4000..4000 + 3 * BEARABLE {
            let out = Packet::tcp(world.at("worker1", port), world.at("client", 80), SYN);
            let _ = gateway.inside(&out).dropped("policy-forward");
            let _ = gateway.outside(&Packet::udp(world.at("client", port), world.at("master", 8080)));
            let refused = Packet::tcp(world.at("client", port), world.at("master", 22), SYN);
            let _ = gateway.outside(&refused).dropped("policy-input");
        }
        assert!(is_let_in(gateway, 0));
    });
}

/// A proof is good for five minutes, however many connections are opened with it.
#[test]
fn for_how_long_a_proof_is_good() {
    tell(|gateway, machine| {
        begin(gateway, machine);
        let world = gateway.world;
        let syn = |port| Packet::tcp(world.at("client", port), world.at("master", 8080), SYN);
        gateway.press();
        let challenge = gateway.outside(&syn(4000)).answered("syn-challenged");
        let Body::Tcp { acknowledged, .. } = challenge.body else { panic!("{challenge:?}") };
        let body = Body::Tcp { flags: RST, sequence: acknowledged, acknowledged: 0 };
        gateway.outside(&Packet { body, ..syn(4000) }).dropped("challenge-met");
        machine.borrow().wait_ticks(Tick::ticks(300));
        gateway.press();
        let _ = gateway.outside(&syn(4001)).forwarded_somehow();
        machine.borrow().wait_ticks(1);
        gateway.press();
        let _ = gateway.outside(&syn(4002)).answered("syn-challenged");
    });
}
