//! A pressure that nobody has set by hand: SYNs that come too fast are challenged, in the end.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use anyhow::Result;
use netfw_tests::packet::{
    Engine, Gateway, Hook, Packet, SYN, Side,
    world::{V4, V6, World},
};

use crate::loaded::{Datapath, Loaded};

/// More than all the flows for which there is room, so more than any core may see.
const MANY: u32 = 4096;
const RULES: &str = "[[port-forward]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 8080\nto = \"worker1:80\"\nsyn-proxy = \"auto\"\n";

/// In both families, at both hooks; one family does not press the other.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    for (hook, engine) in [(Hook::Ingress, Engine::Tc), (Hook::Xdp, Engine::Xdp)] {
        for (world, other) in [(V4, V6), (V6, V4)] {
            let challenged = flood(loaded, hook, engine, world).map_err(|error| format!("{error:?}"))?;
            assert!((1..u64::from(MANY)).contains(&challenged), "{hook:?} {world:?}: {challenged}");
            let pressed = loaded.borrow().maps().pressed().map_err(|error| format!("{error:?}"))?;
            assert_eq!(pressed, [V4, V6].map(|family| family == world), "{hook:?}");
            let mut gateway = Gateway::new(Box::new(Datapath::brisk(loaded)), engine, other);
            let _ = gateway.outside(&syn(other, 0)).forwarded_somehow();
        }
    }
    Ok(())
}

/// How many of as many strangers were challenged, as fast as they can be made: an emulated processor has no time to look at each.
fn flood(loaded: &Rc<RefCell<Loaded>>, hook: Hook, engine: Engine, world: World) -> Result<u64> {
    loaded.borrow_mut().empty()?;
    Gateway::new(Box::new(Datapath::brisk(loaded)), engine, world).apply(RULES);
    let mut loaded = loaded.borrow_mut();
    let before = loaded.count()?;
    for number in 0..MANY {
        let frame = Gateway::framed(Side::Outside, &syn(world, number));
        let _ = loaded.run_often(hook, Side::Outside, &frame, 1)?;
    }
    Ok(loaded.count()?.since(&before).drops.get("syn-challenged").map_or(0, |count| count.packets))
}

fn syn(world: World, number: u32) -> Packet {
    let [_, _, high, low] = number.to_be_bytes();
    let source = world.address(&format!("100.64.{high}.{low}"), &format!("2001:db8:5::{number:x}"));
    Packet::tcp(SocketAddr::new(source, 4000), world.at("master", 8080), SYN)
}
