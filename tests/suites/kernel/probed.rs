//! Ways expire, so that the kernel is given a packet for each neighbour and probes it: one for all flows that lead there.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Result, ensure};
use netfw_tests::{
    packet::{
        Action, Gateway, Hook, Hooks as _, Packet, Side,
        world::{V4, V6, World},
    },
    rules::two_armed,
    wait,
};

use crate::loaded::{Datapath, Loaded};

/// In both families.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    [V4, V6]
        .into_iter()
        .try_for_each(|world| renew(loaded, world).map_err(|error| format!("{world:?}: {error:?}")))
}

fn renew(loaded: &Rc<RefCell<Loaded>>, world: World) -> Result<()> {
    loaded.borrow_mut().empty()?;
    let mut datapath = Datapath::brisk(loaded);
    datapath.apply(&two_armed(
        "[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 53\nto = \"worker1\"\n",
    ));
    let mut leaves = |hook, port| {
        let query = Packet::udp(world.at("client", port), world.at("master", 53));
        let ran = datapath.run(hook, Side::Outside, &Gateway::framed(Side::Outside, &query));
        ran.action == Action::Transmit
    };
    let [one, other] = [4000, 4001];
    ensure!(leaves(Hook::Xdp, one) && leaves(Hook::Xdp, other), "XDP opens flows");
    wait::until("XDP leaves a packet to TC", || (!leaves(Hook::Xdp, other)).then_some(()))?;
    // At once, but where the machine is so slow that a second passes meanwhile.
    wait::until("XDP renews the way of another flow", || {
        (leaves(Hook::Ingress, one) && leaves(Hook::Xdp, other)).then_some(())
    })
}
