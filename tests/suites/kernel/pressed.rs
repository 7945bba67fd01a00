//! A pressure that nobody has set by hand: SYNs that come too fast are challenged, in the end.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use netfw_tests::packet::{
    Engine, Fate, Gateway, Packet, SYN,
    world::{V4, V6, World},
};

use crate::loaded::{Datapath, Loaded};

/// More than all the flows for which there is room, so more than any core may see.
const MANY: u32 = 4096;

/// In both families, at both hooks; one family does not press the other.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    for engine in [Engine::Tc, Engine::Xdp] {
        for (world, other) in [(V4, V6), (V6, V4)] {
            loaded.borrow_mut().empty().map_err(|error| format!("{error:?}"))?;
            let mut gateway = Gateway::new(Box::new(Datapath::brisk(loaded)), engine, world);
            gateway.apply(
                "[[port-forward]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 8080\nto = \"worker1:80\"\nsyn-proxy = \"auto\"\n",
            );
            let mut fates = (0..MANY).map(|number| gateway.outside(&syn(world, number)).fate);
            let challenged = fates.find(|fate| *fate != Fate::Forwarded);
            assert_eq!(challenged, Some(Fate::Answered("syn-challenged")), "{engine:?} {world:?}");
            let pressed = loaded.borrow().maps().pressed().map_err(|error| format!("{error:?}"))?;
            assert_eq!(pressed, [V4, V6].map(|family| family == world), "{engine:?}");
            gateway.world = other;
            let _ = gateway.outside(&syn(other, 0)).forwarded_somehow();
        }
    }
    Ok(())
}

fn syn(world: World, number: u32) -> Packet {
    let [_, _, high, low] = number.to_be_bytes();
    let source = world.address(&format!("100.64.{high}.{low}"), &format!("2001:db8:5::{number:x}"));
    Packet::tcp(SocketAddr::new(source, 4000), world.at("master", 8080), SYN)
}
