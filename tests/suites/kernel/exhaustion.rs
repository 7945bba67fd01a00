//! What a packet costs that finds no free port: the longest search there is, and nobody may use it to stop the gateway.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use netfw_tests::packet::{Engine, Fate, Gateway, Hook, Packet, Side, world::V4};

use crate::loaded::{Datapath, Loaded};

const RANGE: usize = 500;
const ROUNDS: u32 = 20_000;

/// Uses up a range, then sends one packet again and again; prints what it cost, beside one that has its flow.
pub(crate) fn measure(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    loaded.borrow_mut().empty().map_err(|error| format!("{error:?}"))?;
    let mut gateway = Gateway::new(Box::new(Datapath::thorough(loaded)), Engine::Tc, V4);
    gateway.apply("[masquerade]\nfrom = [\"lan\"]\nports = \"20000-20499\"\n");
    let ask = |port| Packet::udp(V4.at("worker1", port), V4.at("client", 53));
    let frame = |port| Gateway::framed(Side::Inside, &ask(port));
    let mut used = BTreeSet::new();
    for port in 1024.. {
        if used.len() == RANGE {
            break;
        }
        let ran = loaded.borrow_mut().run_often(Hook::Ingress, Side::Inside, &frame(port), 1);
        let (sent, _) = ran.map_err(|error| format!("{error:?}"))?;
        used.extend(netfw_tests::packet::read(&sent.frame).ok().map(|packet| packet.source.port()));
        used.retain(|port| (20_000..20_500).contains(port));
    }
    assert_eq!(gateway.inside(&ask(1023)).fate, Fate::Dropped("no-free-port"));
    for (name, hook) in [("TC", Hook::Ingress), ("XDP", Hook::Xdp)] {
        let before = gateway.counters();
        let ran = loaded.borrow_mut().run_often(hook, Side::Inside, &frame(1023), ROUNDS);
        let (_, each) = ran.map_err(|error| format!("{error:?}"))?;
        let dropped = gateway.counters().since(&before).drops["no-free-port"];
        assert_eq!(dropped.packets, u64::from(ROUNDS));
        println!("{name}: a packet that finds no free port among {RANGE} costs {each:?}");
    }
    Ok(())
}
