//! So many sources under a limit that the kernel's own table of buckets must hold them all.

use std::{
    cell::RefCell,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
};

use netfw_tests::packet::{Action, Engine, Gateway, Hook, Packet, Side, world::V4};

use crate::loaded::{Datapath, Loaded};

const SOURCES: u32 = 100_000;

/// Each of 100,000 sources has its own tokens, and none gets one back because others came. (Scenario 22.)
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    loaded.borrow_mut().empty().map_err(|error| format!("{error:?}"))?;
    let mut gateway = Gateway::new(Box::new(Datapath::thorough(loaded)), Engine::Tc, V4);
    gateway
        .apply("[[rule]]\naction = \"accept\"\nlimit = { rate = \"1/day\", burst = 1, per = \"source\" }\n");
    for (round, expected) in [Action::Next, Action::Shot].into_iter().enumerate() {
        for number in 0..SOURCES {
            let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + number);
            let source = SocketAddr::from((source, 4000 + round as u16));
            let frame = Gateway::framed(Side::Outside, &Packet::udp(source, V4.at("master", 53)));
            let (ran, _) = loaded
                .borrow_mut()
                .run_often(Hook::Ingress, Side::Outside, &frame, 1)
                .map_err(|error| format!("{error:?}"))?;
            assert_eq!(ran.action, expected, "packet {round} of source {number}");
        }
    }
    loaded.borrow_mut().empty().map_err(|error| format!("{error:?}"))
}
