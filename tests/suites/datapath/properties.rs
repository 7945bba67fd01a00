//! Whatever arrives: random packets and random bytes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
};

use netfw_tests::packet::{
    Engine, Fate, Gateway, Packet, Side, extended, plausible,
    world::{V4, V6, World},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use crate::{
    memory::{Machine, Memory},
    sketch::{RULES, sketch},
    tell,
};

fn gateway(engine: Engine, world: World) -> Gateway {
    let machine = Rc::new(RefCell::new(Machine::new(32, 32)));
    let mut gateway = Gateway::new(Box::new(Memory::new(machine)), engine, world);
    gateway.apply(RULES);
    gateway
}

/// A frame that once was a packet: some bytes changed, cut or lengthened; or extension headers put in.
fn mangled() -> impl Strategy<Value = (Side, Vec<u8>)> {
    let changes = vec((any::<Index>(), any::<u8>()), 0..6);
    let headers = vec((select(vec![0u8, 43, 44, 60]), vec(any::<u8>(), 6..7)), 0..4);
    (
        sketch(),
        headers,
        changes,
        any::<Index>(),
        prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)],
    )
        .prop_map(|(sketch, headers, changes, _, cut)| {
            let mut frame = Gateway::framed(sketch.side, &sketch.packet());
            if sketch.v6 {
                let headers: Vec<_> = headers.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
                frame = extended(&frame, &headers);
            }
            for (index, byte) in changes {
                // The link addresses stay, else the frame isn't for us.
                let at = 12 + index.index(frame.len() - 12);
                frame[at] = byte;
            }
            if let Some(cut) = cut {
                frame.truncate(14 + cut.index(frame.len() - 14));
            }
            (sketch.side, frame)
        })
}

/// Whether a forwarded frame was one that a careful receiver could have taken.
fn check_forwarded(frame: &[u8], fate: Fate) -> Result<(), TestCaseError> {
    if let Fate::Forwarded | Fate::Routed = fate
        && let Err(error) = plausible(frame)
    {
        return Err(TestCaseError::fail(format!("forwarded, but {error}: {frame:02x?}")));
    }
    Ok(())
}

/// A frame that ends within its IP header, at every length. (Scenario 30.)
#[test]
fn cut_off_within_the_ip_header() {
    tell(|gateway, _| {
        let world = gateway.world;
        let packet = Packet::udp(world.at("client", 4000), world.at("master", 54));
        let frame = Gateway::framed(Side::Outside, &packet);
        for length in 14..14 + if world.is_v6() { 40 } else { 20 } {
            gateway.receive(Side::Outside, &frame[..length]).dropped("malformed");
        }
    });
}

proptest! {
    // Cases that once failed are told as stories instead of being kept as seeds.
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever sequence of packets: each that leaves is right in every length and checksum, and XDP and TC agree.
    #[test]
    fn what_leaves_is_right(sketches in vec(sketch(), 1..40)) {
        let mut by_engine = Vec::new();
        for engine in [Engine::Tc, Engine::Xdp] {
            let mut gateway = gateway(engine, V4);
            let outcomes: Vec<_> = sketches.iter().map(|sketch| {
                let outcome = gateway.receive(sketch.side, &Gateway::framed(sketch.side, &sketch.packet()));
                if let Fate::Forwarded | Fate::Accepted | Fate::Answered(_) = outcome.fate {
                    let left = outcome.packet();
                    if outcome.fate == Fate::Forwarded {
                        assert_eq!(left.ttl, sketch.ttl - 1);
                        assert_eq!(left.payload, sketch.packet().payload);
                    }
                }
                outcome.fate
            }).collect();
            by_engine.push((outcomes, gateway.counters().by_either_engine()));
        }
        prop_assert_eq!(&by_engine[0], &by_engine[1]);
    }

    /// Mangled packets never panic, and no malformed one is forwarded. (Scenario 30.)
    #[test]
    fn nothing_malformed_is_forwarded(frames in vec(mangled(), 1..60)) {
        for engine in [Engine::Tc, Engine::Xdp] {
            let mut gateway = gateway(engine, V4);
            gateway.apply("[policy]\nforward = \"accept\"\ninput = \"accept\"\n");
            for (side, frame) in &frames {
                let outcome = gateway.receive(*side, frame);
                check_forwarded(frame, outcome.fate)?;
            }
        }
    }

    /// Noise behind an Ethernet header neither.
    #[test]
    fn noise_is_not_forwarded(
        bytes in vec(any::<u8>(), 0..120),
        first in select(vec![0x45u8, 0x46, 0x60]),
        v6 in any::<bool>(),
    ) {
        for engine in [Engine::Tc, Engine::Xdp] {
            let mut gateway = gateway(engine, V4);
            gateway.apply("[policy]\nforward = \"accept\"\n");
            let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
            let mut frame = [&Side::Outside.mac()[..], &[2; 6], &ethertype, &bytes].concat();
            if let Some(byte) = frame.get_mut(14) {
                *byte = first;
            }
            let outcome = gateway.receive(Side::Outside, &frame);
            check_forwarded(&frame, outcome.fate)?;
        }
    }

    /// Masquerade against a naive model: no two conversations with one server share a port, every answer finds its way
    /// back, and what nobody asked for gets nowhere.
    #[test]
    fn masquerade_keeps_conversations_apart(
        steps in vec((0..4usize, 0..2usize, 0..3u16, any::<bool>(), any::<bool>()), 1..60),
        v6 in any::<bool>(),
    ) {
        let world = if v6 { V6 } else { V4 };
        let mut gateway = gateway(Engine::Tc, world);
        gateway.apply("[masquerade]\nfrom = [\"lan\"]\nports = \"20000-20005\"\n");
        let mut known: BTreeMap<(SocketAddr, SocketAddr), SocketAddr> = BTreeMap::new();
        for (worker, server, port, stray, answered) in steps {
            let server = world.at(["client", "stranger"][server], 53);
            let inside = world.at(["worker1", "worker2", "worker3", "worker4"][worker], 5000 + port);
            let taken: BTreeSet<_> = known.iter().filter(|((_, to), _)| *to == server).map(|(_, port)| *port).collect();
            if stray {
                let at = world.at("master", 20_000 + port);
                if !taken.contains(&at) {
                    gateway.outside(&Packet::udp(server, at)).dropped("policy-input");
                }
                continue;
            }
            let sent = Packet::udp(inside, server);
            let outcome = gateway.inside(&sent);
            if let Fate::Dropped(reason) = outcome.fate {
                prop_assert_eq!(reason, "no-free-port");
                prop_assert!(taken.len() > 2, "twelve tries among many free ports");
                continue;
            }
            let left = outcome.forwarded_somehow();
            match known.get(&(inside, server)) {
                Some(outside) => prop_assert_eq!(left.source, *outside, "a conversation keeps its port"),
                None => {
                    prop_assert!(!taken.contains(&left.source), "a port for two");
                    prop_assert_eq!(left.source.ip(), world.host("master"));
                    prop_assert!((20_000..=20_005).contains(&left.source.port()));
                    known.insert((inside, server), left.source);
                }
            }
            prop_assert_eq!(&sent.from(left.source).hop(), &left);
            if answered {
                gateway.outside(&left.answer()).forwarded(Side::Inside, &sent.answer().hop());
            }
        }
    }
}
