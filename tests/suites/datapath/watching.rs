//! Events where there are too many, and where nobody asks for them any more.

use netfw_common::{
    event::{FLOWS, LOGS},
    reason::Reason,
    tuple::Tuple,
};
use netfw_tests::packet::{Gateway, Packet, Side, stories::events::EVERYTHING};

use crate::tell;

fn query(gateway: &Gateway, host: &str, port: u16) -> Packet {
    Packet::udp(gateway.world.at(host, port), gateway.world.at("master", 53))
}

/// A flood of one kind hides no other, and what is left out is counted.
#[test]
fn a_flood_is_told_in_part() {
    tell(|gateway, machine| {
        gateway.apply(
            "[[rule]]\naction = \"drop\"\nprotocol = \"tcp\"\n[[rule]]\naction = \"accept\"\nlog = true\n",
        );
        gateway.watch(&EVERYTHING);
        for port in 0..1100 {
            let query = query(gateway, "client", 10_000 + port);
            gateway.outside(&query).accepted(&query);
        }
        let refused = Packet::tcp(gateway.world.at("client", 1), gateway.world.at("master", 1), 2);
        gateway.outside(&refused).dropped("rule");
        let [told, logged] = gateway.told();
        assert_eq!((told.len(), logged.len()), (500 + 1, 1000));
        assert_eq!(told[500].reason, Reason::Rule as u32);
        let left_out = machine.borrow().left_out.borrow().clone();
        assert_eq!(left_out, [(FLOWS, 600), (LOGS + 1, 100)].into());
        machine.borrow().wait_nanos(5_000_000);
        let later = query(gateway, "client", 9999);
        gateway.outside(&later).accepted(&later);
        let [told, logged] = gateway.told();
        assert_eq!((told.len(), logged.len()), (1, 0), "room comes back with time");
    });
}

/// A watcher that was killed is told nothing more after a while, and a later one everything.
#[test]
fn a_watcher_is_killed() {
    tell(|gateway, machine| {
        gateway.apply("");
        gateway.watch(&EVERYTHING);
        gateway.outside(&query(gateway, "client", 1)).dropped("policy-input");
        machine.borrow().wait(11);
        gateway.outside(&query(gateway, "client", 2)).dropped("policy-input");
        assert_eq!(gateway.told()[0].len(), 1);
        assert!(machine.borrow().watch_ended.get(), "its time would come again in two years");
        gateway.watch(&EVERYTHING);
        gateway.outside(&query(gateway, "client", 3)).dropped("policy-input");
        assert_eq!(gateway.told()[0].len(), 1);
    });
}

/// A frame that ends within its header has no addresses to tell, and not those of the one before it.
#[test]
fn a_frame_that_is_too_short() {
    tell(|gateway, _| {
        gateway.apply("");
        gateway.watch(&EVERYTHING);
        let before = query(gateway, "client", 99);
        gateway.outside(&before).dropped("policy-input");
        let frame = Gateway::framed(Side::Outside, &before);
        gateway.receive(Side::Outside, &frame[..30]).dropped("malformed");
        let [told, _] = gateway.told();
        assert_eq!(told.len(), 2);
        assert_eq!((told[1].reason, told[1].arriving), (Reason::Malformed as u32, Tuple::default()));
    });
}
