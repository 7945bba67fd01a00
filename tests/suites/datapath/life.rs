//! Long random lives of a gateway: packets, errors about them, fragments, its own traffic, changes of the rules, and time.

use std::{cell::RefCell, rc::Rc};

use netfw_tests::packet::{
    Body, Engine, Fate, Gateway, Packet, Side, fragments, reassemble,
    world::{V4, V6, side_of},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use crate::{
    memory::{Machine, Memory},
    sketch::{RULES, Sketch, sketch},
};

const SHUT: &str = "[policy]\noutput = \"reject\"\n";

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A packet comes in.
    Packet(Sketch),
    /// The receiver of one that left answers.
    Answer(Index),
    /// Somebody tells of an error about one that left, quoting so much.
    Error(Index, &'static str, usize),
    /// A packet comes in in fragments of this size.
    Fragments(Sketch, usize),
    /// The master sends.
    Own(Sketch),
    /// Seconds pass.
    Wait(u64),
    /// The rules change.
    Rules(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => sketch().prop_map(Step::Packet),
        6 => any::<Index>().prop_map(Step::Answer),
        3 => (any::<Index>(), select(vec!["client", "router", "worker1", "worker3"]), 8..60usize)
            .prop_map(|(about, from, bytes)| Step::Error(about, from, bytes)),
        1 => (sketch(), select(vec![8usize, 24, 64])).prop_map(|(sketch, size)| Step::Fragments(sketch, size)),
        2 => sketch().prop_map(Step::Own),
        2 => select(vec![0, 1, 70, 150, 400, 8000]).prop_map(Step::Wait),
        1 => select(vec![RULES, RULES, SHUT, ""]).prop_map(Step::Rules),
    ]
}

/// What left the gateway, and at which side.
type Left = Vec<(Side, Packet)>;

fn live(gateway: &mut Gateway, machine: &RefCell<Machine>, step: &Step, left: &mut Left) {
    match step {
        Step::Packet(sketch) => receive(gateway, sketch.side, &sketch.packet(), left),
        Step::Answer(index) => {
            if let Some((side, packet)) = pick(left, index) {
                receive(gateway, side, &packet.answer(), left);
            }
        }
        Step::Error(index, from, bytes) => {
            if let Some((side, about)) = pick(left, index) {
                receive(gateway, side, &error(&about, from, *bytes), left);
            }
        }
        Step::Fragments(sketch, size) => receive_fragments(gateway, sketch, *size),
        Step::Own(sketch) => send(gateway, sketch, left),
        Step::Wait(seconds) => machine.borrow().wait(*seconds),
        Step::Rules(rules) => gateway.apply(rules),
    }
}

fn pick(left: &Left, index: &Index) -> Option<(Side, Packet)> {
    (!left.is_empty()).then(|| index.get(left).clone())
}

fn receive(gateway: &mut Gateway, side: Side, packet: &Packet, left: &mut Left) {
    let outcome = gateway.receive(side, &Gateway::framed(side, packet));
    match outcome.fate {
        Fate::Forwarded => {
            let packet = outcome.packet();
            left.push((side_of(packet.destination.ip()), packet));
        }
        Fate::Accepted | Fate::Answered(_) => drop(outcome.packet()),
        _ => {}
    }
}

fn receive_fragments(gateway: &mut Gateway, sketch: &Sketch, size: usize) {
    let packet = Packet { ttl: 64, ..sketch.packet().divisible() };
    let parts = fragments(&Gateway::framed(sketch.side, &packet), size);
    let outcomes: Vec<_> = parts.iter().map(|part| gateway.receive(sketch.side, part)).collect();
    if !outcomes.is_empty() && outcomes.iter().all(|outcome| outcome.fate == Fate::Forwarded) {
        let frames: Vec<_> = outcomes.iter().map(|outcome| outcome.frame().to_vec()).collect();
        let whole = reassemble(&frames).expect("all of them are right together");
        assert_eq!(whole.payload, packet.payload);
    }
}

fn send(gateway: &mut Gateway, sketch: &Sketch, left: &mut Left) {
    let world = if sketch.v6 { V6 } else { V4 };
    let from = if side_of(world.host(sketch.ends.0)) == Side::Inside { "gateway" } else { "master" };
    let packet = Sketch { ends: (from, sketch.ends.0), ..*sketch }.packet();
    let outcome = gateway.send(&packet);
    if outcome.fate == Fate::Accepted {
        let packet = outcome.packet();
        left.push((side_of(packet.destination.ip()), packet));
    }
}

/// Packet too big, port unreachable, whatever: of `about`, from somebody on its way.
fn error(about: &Packet, from: &str, bytes: usize) -> Packet {
    let world = if about.is_v6() { V6 } else { V4 };
    let (kind, code) = if about.is_v6() { (1, 4) } else { (3, 3) };
    let mut payload = about.datagram();
    payload.truncate(bytes + if about.is_v6() { 40 } else { 20 });
    let body = Body::Icmp { kind, code, detail: 0 };
    let mut to = about.source;
    to.set_port(0);
    Packet { payload, ..Packet::new(world.at(from, 0), to, body) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order, each packet is counted once and each that leaves is right.
    #[test]
    fn a_random_life(steps in vec(step(), 1..80), xdp in any::<bool>(), proven in 2..20usize) {
        let machine = Rc::new(RefCell::new(Machine::new(proven, 16)));
        let engine = if xdp { Engine::Xdp } else { Engine::Tc };
        let mut gateway = Gateway::new(Box::new(Memory::new(Rc::clone(&machine))), engine, V4);
        gateway.apply(RULES);
        let mut left = Vec::new();
        for step in &steps {
            live(&mut gateway, &machine, step, &mut left);
        }
    }
}
