//! Ring 1: the datapath on byte buffers, with tables in memory, a clock that is set by hand and chance that repeats.

mod answers;
mod capacity;
mod changes;
mod clock;
mod fragments;
mod life;
mod limits;
mod mappings;
#[path = "../memory/mod.rs"]
mod memory;
mod merged;
#[path = "../model/mod.rs"]
mod model;
#[expect(dead_code, reason = "lives are told under small rules files")]
#[path = "../naive/mod.rs"]
mod naive;
mod picked_up;
mod ports;
mod pressure;
mod properties;
mod races;
mod sketch;
mod surroundings;
mod watching;

use std::{cell::RefCell, rc::Rc};

use memory::{Machine, Memory};
use netfw_tests::packet::{
    Engine, Gateway,
    stories::*,
    world::{V4, V6},
};

/// A gateway in memory, and the machine beneath it.
fn gateway(engine: Engine, world: netfw_tests::packet::world::World) -> (Gateway, Rc<RefCell<Machine>>) {
    let machine = Rc::new(RefCell::new(Machine::new(64, 64)));
    (Gateway::new(Box::new(Memory::new(Rc::clone(&machine))), engine, world), machine)
}

/// Tells a story in both families, with XDP and without.
fn tell(story: impl Fn(&mut Gateway, &RefCell<Machine>)) {
    for world in [V4, V6] {
        for engine in [Engine::Tc, Engine::Xdp] {
            println!("{world:?}, {engine:?}");
            let (mut gateway, machine) = gateway(engine, world);
            story(&mut gateway, &machine);
        }
    }
}

macro_rules! told_in_memory {
    ($($module:ident :: $story:ident),* $(,)?) => {
        $(
            #[test]
            fn $story() {
                tell(|gateway, _| $module::$story(gateway));
            }
        )*
    };
}
netfw_tests::for_each_story!(told_in_memory);
