//! Limits while time passes, and when cores meet at one bucket.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use netfw_tests::packet::{
    Action, Engine, Fate, Gateway, Hook, Packet, Side,
    world::{V4, V6, World},
};
use proptest::{collection::vec, prelude::*};

use crate::{
    gateway,
    memory::{Machine, Memory},
    tell,
};

const SECOND: u64 = 1_000_000_000;

fn rules(rate: &str, burst: u32, per: &str) -> String {
    format!(
        "[[rule]]\naction = \"accept\"\nlimit = {{ rate = \"{rate}\", burst = {burst}, per = \"{per}\" }}\n"
    )
}

fn ask(world: World, host: &str, port: u16) -> Packet {
    Packet::udp(world.at(host, port), world.at("master", 53))
}

/// Whether a packet was admitted; else it must have been the limit.
fn admitted(gateway: &mut Gateway, packet: &Packet) -> bool {
    let outcome = gateway.outside(packet);
    match outcome.fate {
        Fate::Dropped(reason) => assert_eq!(reason, "rate-limited"),
        _ => assert_eq!(outcome.fate, Fate::Accepted),
    }
    outcome.fate == Fate::Accepted
}

/// Ten seconds at twice the rate: the burst and the rate get through, exactly, for each unit. (Scenario 22.)
#[test]
fn exact_over_ten_seconds() {
    for (rate, expected) in [("100/second", 20 + 1000), ("600/minute", 20 + 100), ("36000/hour", 20 + 100)] {
        let (mut gateway, machine) = gateway(Engine::Tc, V4);
        gateway.apply(&rules(rate, 20, "rule"));
        let mut through = 0;
        for packet in 0..2000_u16 {
            through += u32::from(admitted(&mut gateway, &ask(V4, "client", 10_000 + packet)));
            machine.borrow().wait_nanos(SECOND / 200);
        }
        assert!((expected - 1..=expected).contains(&through), "{rate}: {through}");
    }
}

/// Rates faster than the coarse clock moves. (Scenario 22.)
#[test]
fn a_thousand_a_second() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(&rules("1000/second", 1, "rule"));
        let mut through = 0;
        for packet in 0..100 {
            through += u32::from(admitted(gateway, &ask(world, "client", 10_000 + packet)));
            machine.borrow().wait_nanos(SECOND / 2000);
        }
        assert_eq!(through, 50);
    });
}

/// A rule keeps its bucket while the rules around it change, and its tokens come back with time. (Scenario 22.)
#[test]
fn a_bucket_belongs_to_a_name() {
    tell(|gateway, machine| {
        let world = gateway.world;
        let named = |more: &str| format!("{more}{}name = \"asked\"\n", rules("1/minute", 2, "source"));
        gateway.apply(&named(""));
        assert!(admitted(gateway, &ask(world, "client", 1)) && admitted(gateway, &ask(world, "client", 2)));
        gateway.apply(&named("[[rule]]\naction = \"drop\"\nprotocol = \"tcp\"\n"));
        assert!(!admitted(gateway, &ask(world, "client", 3)));
        machine.borrow().wait(60);
        assert!(admitted(gateway, &ask(world, "client", 3)) && !admitted(gateway, &ask(world, "client", 4)));
    });
}

/// 100,000 sources, half of them of each family, each exactly at its own limit. (Scenario 22.)
#[test]
fn a_hundred_thousand_sources() {
    for world in [V4, V6] {
        let machine = Rc::new(RefCell::new(Machine::new(64, 64)));
        let mut memory = Memory::new(Rc::clone(&machine));
        let text = rules("1/minute", 1, "source");
        machine.borrow_mut().apply(&netfw_tests::rules::two_armed(&text));
        let source = |number: u32| -> SocketAddr {
            let [_, a, b, c] = number.to_be_bytes();
            let v6 = format!("2001:db8:5:{a:x}::{b:x}:{c:x}");
            SocketAddr::new(world.address(&format!("100.{a}.{b}.{c}"), &v6), 4000)
        };
        for round in 0..2_u16 {
            for number in 0..50_000 {
                let mut packet = ask(world, "client", 4000).from(source(number));
                packet.source.set_port(4000 + round);
                let frame = Gateway::framed(Side::Outside, &packet);
                let (_, ran) = memory.run_merged(Hook::Ingress, Side::Outside, &frame, 1);
                let through = ran.action == Action::Next;
                assert_eq!(through, round == 0, "packet {round} of source {number}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random packets of some sources at random times, against a naive bucket for each. (Scenario 22.)
    #[test]
    fn like_naive_buckets(
        per_source in any::<bool>(),
        rate in 1..50_u32,
        burst in 1..8_u32,
        packets in vec((0..3_usize, 0..SECOND / 10), 1..120),
    ) {
        let (mut gateway, machine) = gateway(Engine::Xdp, V4);
        gateway.apply(&rules(&format!("{rate}/second"), burst, if per_source { "source" } else { "rule" }));
        let mut tokens = [f64::from(burst); 3];
        for (number, (source, wait)) in packets.into_iter().enumerate() {
            machine.borrow().wait_nanos(wait);
            for bucket in &mut tokens {
                *bucket = (*bucket + wait as f64 * f64::from(rate) / SECOND as f64).min(f64::from(burst));
            }
            let host = ["client", "neighbour", "stranger"][source];
            let through = admitted(&mut gateway, &ask(V4, host, 4000 + number as u16));
            let bucket = &mut tokens[if per_source { source } else { 0 }];
            // At the very edge the last bits of a fraction decide.
            if (*bucket - 1.0).abs() > 1e-6 {
                prop_assert_eq!(through, *bucket > 1.0, "packet {} with {} tokens", number, *bucket);
            }
            if through {
                *bucket -= 1.0;
            }
        }
    }
}
