//! The filter over the keys of flows is made anew while flows come and go: no packet of one is taken for a stranger's, and strangers are forgotten.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, thread};

use anyhow::{Result, ensure};
use netfw::kernel::Maps;
use netfw_tests::packet::{
    Engine, Gateway, Packet, Side,
    world::{V4, V6, World},
};

use crate::loaded::{Datapath, Loaded};

/// Flows that make the filter of the smallest table anything but sparse.
const MANY: u16 = 1000;
/// Flows between a question and its answer: so few that the filter is hardly made anew twice meanwhile, which would mend what once went wrong.
const RECENT: usize = 8;
const RENEWALS: usize = 20;
/// Ports that flows come from, one after the other.
const FIRST: u16 = 10_000;
const LAST: u16 = 49_999;
/// In the place of bits that were left: one that never are.
const NONE_LEFT: usize = 1;

/// In both families and engines.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    for (engine, world) in [(Engine::Tc, V4), (Engine::Tc, V6), (Engine::Xdp, V4), (Engine::Xdp, V6)] {
        renew(loaded, engine, world).map_err(|error| format!("{engine:?} {world:?}: {error:?}"))?;
    }
    Ok(())
}

fn renew(loaded: &Rc<RefCell<Loaded>>, engine: Engine, world: World) -> Result<()> {
    loaded.borrow_mut().empty()?;
    let maps = Maps::open(loaded.borrow().pins())?;
    let mut flows = Flows { gateway: gateway(loaded, engine, world), world, recent: VecDeque::new() };
    (0..MANY).for_each(|_| flows.turn());
    thread::scope(|scope| {
        let renewals = scope.spawn(|| (0..RENEWALS).try_for_each(|_| renewed(&maps).map(drop)));
        while !renewals.is_finished() {
            flows.turn();
        }
        renewals.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    (0..RECENT).for_each(|_| flows.turn());
    loaded.borrow().forget_flows()?;
    let left = renewed(&maps)?;
    ensure!(left == 0, "{left} bits of flows that are gone");
    Ok(())
}

/// Bits that are left.
fn renewed(maps: &Maps) -> Result<usize> {
    let left = maps.renew_filter(NONE_LEFT)?;
    ensure!(left != NONE_LEFT, "the filter was not made anew");
    Ok(left)
}

fn gateway(loaded: &Rc<RefCell<Loaded>>, engine: Engine, world: World) -> Gateway {
    let mut gateway = Gateway::new(Box::new(Datapath::brisk(loaded)), engine, world);
    gateway.apply("[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 53\nto = \"worker1\"\n");
    gateway
}

/// Flows through a port-forward, of which the oldest of the recent ones is answered when another is opened. An answer without its flow would be a
/// question of the worker's own.
struct Flows {
    gateway: Gateway,
    world: World,
    recent: VecDeque<(Packet, Packet)>,
}

impl Flows {
    fn turn(&mut self) {
        let last = self.recent.back().map_or(LAST, |(asked, _)| asked.source.port());
        let port = if last == LAST { FIRST } else { last + 1 };
        let asked = Packet::udp(self.world.at("client", port), self.world.at("master", 53));
        let arrived = self.gateway.outside(&asked).forwarded_somehow();
        self.recent.push_back((asked, arrived));
        if self.recent.len() > RECENT
            && let Some((asked, arrived)) = self.recent.pop_front()
        {
            self.gateway.inside(&arrived.answer()).forwarded(Side::Outside, &asked.answer().hop());
        }
    }
}
