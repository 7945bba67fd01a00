//! The rules change while flows live, and each goes on or is cut as a naive gateway has it. (Scenario 20.)

use std::{cell::RefCell, collections::BTreeSet};

use netfw_tests::packet::{Engine, world::V4};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    gateway,
    model::{
        self,
        life::{Life, files, step},
    },
};

/// Ticks from one step to the next: a quarter of a second, in which nobody forgets the way out that XDP goes by.
const PASSES: u32 = 16;

/// Random lives: flows of both families, answered and proven or not, under rules of which some parts change.
#[test]
fn as_a_naive_gateway_makes_them() {
    let seen = RefCell::new(BTreeSet::new());
    let life = (files(), vec(step(), 30..50), any::<bool>());
    let config = Config { cases: 150, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let told = TestRunner::new(config).run(&life, |(files, steps, xdp)| {
        let engine = if xdp { Engine::Xdp } else { Engine::Tc };
        let (mut gateway, machine) = gateway(engine, V4);
        let pass = || machine.borrow().wait_ticks(PASSES);
        let mut life = Life::new(&mut gateway, &files[0], Some(&pass));
        steps.iter().try_for_each(|step| life.live(&files, step)).map_err(TestCaseError::fail)?;
        seen.borrow_mut().append(&mut life.seen);
        Ok(())
    });
    told.unwrap_or_else(|error| panic!("{}", model::reason(error)));
    model::all_seen(&seen.into_inner(), KINDS).unwrap_or_else(|what| panic!("{what}"));
}

/// What those lives show.
const KINDS: [&str; 16] = [
    "plain goes on",
    "plain is cut",
    "forwarded goes on",
    "forwarded is cut",
    "masqueraded goes on",
    "masqueraded is cut",
    "v4 Forth goes on",
    "v4 Forth is cut",
    "v4 Back goes on",
    "v4 Back is cut",
    "v6 Forth goes on",
    "v6 Forth is cut",
    "v6 Back goes on",
    "v6 Back is cut",
    "Forth anew",
    "Back anew",
];
