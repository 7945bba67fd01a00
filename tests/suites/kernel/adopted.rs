//! Conversations that the master was having before netfw came go on, whoever else knocks.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Context as _, Result};
use netfw::kernel::Conversation;
use netfw_common::wire::{TCP, TCP_ACK};
use netfw_tests::packet::{
    Engine, Gateway, Packet, Side,
    world::{V4, V6, World},
};

use crate::loaded::{Datapath, Loaded};

/// In both families, with both hooks.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    for (engine, world) in [(Engine::Tc, V4), (Engine::Tc, V6), (Engine::Xdp, V4), (Engine::Xdp, V6)] {
        go_on(loaded, engine, world).map_err(|error| format!("{engine:?} {world:?}: {error:?}"))?;
    }
    Ok(())
}

/// After a stranger's packet the filter over the keys of flows is asked first: it must know those, too.
fn go_on(loaded: &Rc<RefCell<Loaded>>, engine: Engine, world: World) -> Result<()> {
    loaded.borrow_mut().empty()?;
    let mut gateway = Gateway::new(Box::new(Datapath::thorough(loaded)), engine, world);
    gateway.apply("");
    let (local, remote) = (world.at("master", 40_000), world.at("client", 443));
    let conversation =
        Conversation { protocol: TCP, local, remote, incoming: false, interface: Side::Outside.slot() as u8 };
    let loaded = loaded.borrow();
    let policy = loaded.maps().policy()?.context("there are rules")?;
    loaded.maps().adopt(&[conversation], policy.generation)?;
    drop(loaded);
    let stranger = Packet::udp(world.at("client", 5000), world.at("master", 9));
    let answer = Packet::tcp(remote, local, TCP_ACK);
    for _ in 0..2 {
        gateway.outside(&stranger).dropped("policy-input");
        gateway.outside(&answer).accepted(&answer);
    }
    Ok(())
}
