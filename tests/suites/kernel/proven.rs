//! The maps of the flow table, which a story does not see: a flow moves, whole, with the client's answer to the answer.

use std::{cell::RefCell, rc::Rc};

use netfw::kernel::{Maps, Pair};
use netfw_common::wire::{TCP_ACK, TCP_SYN};
use netfw_tests::packet::{
    Engine, Gateway, Packet,
    world::{V4, V6},
};

use crate::loaded::{Datapath, Loaded};

/// Opens a connection and looks where its halves are.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    for (engine, world) in [(Engine::Tc, V4), (Engine::Tc, V6), (Engine::Xdp, V4), (Engine::Xdp, V6)] {
        loaded.borrow_mut().empty().map_err(|error| format!("{error:?}"))?;
        let mut gateway = Gateway::new(Box::new(Datapath::thorough(loaded)), engine, world);
        gateway.apply(
            "[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = \"worker1:22\"\n",
        );
        let syn = Packet::tcp(world.at("client", 4000), world.at("master", 2201), TCP_SYN);
        let arrived = gateway.outside(&syn).forwarded_somehow();
        let _ = gateway.inside(&arrived.answer().flags(TCP_SYN | TCP_ACK)).forwarded_somehow();
        assert_eq!(halves(loaded), (2, 0), "{engine:?} {world:?}");
        let _ = gateway.outside(&syn.flags(TCP_ACK)).forwarded_somehow();
        assert_eq!(halves(loaded), (0, 2), "{engine:?} {world:?}");
    }
    Ok(())
}

/// Looks through all flows while one proves itself: it is seen all the same.
pub(crate) fn while_somebody_looks(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    loaded.borrow_mut().empty().map_err(|error| format!("{error:?}"))?;
    let mut gateway = Gateway::new(Box::new(Datapath::thorough(loaded)), Engine::Tc, V4);
    gateway.apply("[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = \"worker1:22\"\n");
    let [proven, other] = [4000, 4001].map(|port| {
        let syn = Packet::tcp(V4.at("client", port), V4.at("master", 2201), TCP_SYN);
        let arrived = gateway.outside(&syn).forwarded_somehow();
        let _ = gateway.inside(&arrived.answer().flags(TCP_SYN | TCP_ACK)).forwarded_somehow();
        syn.flags(TCP_ACK)
    });
    let _ = gateway.outside(&proven).forwarded_somehow();
    let maps = Maps::open(loaded.borrow().pins()).map_err(|error| format!("{error:?}"))?;
    let (gateway, mut seen) = (RefCell::new(gateway), Vec::new());
    let prove = |_: &Pair| {
        // With the first flow that is looked at, whichever that is; then it is proven, which changes nothing.
        let _ = gateway.borrow_mut().outside(&other).forwarded_somehow();
        true
    };
    let note = |pair: &Pair| {
        seen.push(pair.key.source_port);
        Ok(())
    };
    maps.each_flow_once(prove, note).map_err(|error| format!("{error:?}"))?;
    seen.sort_unstable();
    assert_eq!(seen, [4000, 4001], "each once");
    Ok(())
}

/// Entries of flows from outside, and of proven ones.
fn halves(loaded: &Rc<RefCell<Loaded>>) -> (usize, usize) {
    let list = loaded.borrow().list().expect("listing the tables");
    let of = |part: &str| list.iter().filter(|entry| entry.starts_with(part)).count();
    (of("OUTSIDE"), of("PROVEN"))
}
