//! The loaded programs and the pipeline in memory agree on random sequences of packets.

use std::{cell::RefCell, rc::Rc};

use netfw_tests::packet::{Counters, Engine, Fate, Gateway, Packet, world::V4};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    loaded::{Datapath, Loaded},
    memory::{Machine, Memory},
    sketch::{RULES, Sketch, sketch},
};

/// What became of each packet (its fate and, where nothing was drawn by chance, as what it left), and the counters that
/// moved.
type Told = (Vec<(Fate, Option<Packet>)>, Counters);

fn tell(gateway: &mut Gateway, sketches: &[Sketch]) -> Told {
    gateway.apply(RULES);
    let before = gateway.counters();
    let fates = sketches.iter().map(|sketch| {
        let outcome = gateway.receive(sketch.side, &Gateway::framed(sketch.side, &sketch.packet()));
        let left = matches!(outcome.fate, Fate::Forwarded).then(|| outcome.packet());
        let own_port = left.filter(|left| left.source.port() == sketch.packet().source.port());
        (outcome.fate, own_port)
    });
    let fates = fates.collect();
    (fates, gateway.counters().since(&before).by_either_engine())
}

/// Tells random stories to all three and compares.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let story = |sketches: Vec<Sketch>| {
        let machine = Rc::new(RefCell::new(Machine::new(1024, 1024)));
        let expected = tell(&mut Gateway::new(Box::new(Memory::new(machine)), Engine::Tc, V4), &sketches);
        for engine in [Engine::Tc, Engine::Xdp] {
            loaded.borrow_mut().empty().map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
            let mut gateway = Gateway::new(Box::new(Datapath::thorough(loaded)), engine, V4);
            prop_assert_eq!(&tell(&mut gateway, &sketches), &expected, "{:?}", engine);
        }
        Ok(())
    };
    runner.run(&vec(sketch(), 1..30), story).map_err(|error| error.to_string())
}
