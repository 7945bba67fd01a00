//! What watchers and the log are told.

use std::net::IpAddr;

use netfw_common::{
    event::{ANY_PROTOCOL, BOTH_FAMILIES, DROPPED, Event, LEAVING, OPENED, Prefix, TRANSLATED, V6, Watch},
    family::{Addr6, addr4, addr6},
    reason::Reason,
    tuple::Tuple,
};

use crate::packet::{ACK, Gateway, Packet, SYN, Side};

/// A watcher that wants everything.
pub const EVERYTHING: Watch = Watch {
    until: 0,
    kinds: 1 << DROPPED | 1 << OPENED,
    reasons: u64::MAX,
    protocol: ANY_PROTOCOL,
    families: BOTH_FAMILIES,
    from: ANYWHERE,
    to: ANYWHERE,
};
const ANYWHERE: Prefix = Prefix { address: [0; 4], mask: [0; 4] };

const RULES: &str = r#"
    [[port-forward]]
    name = "echo"
    protocol = "udp"
    port = 7000
    to = "worker1:7"
    [[rule]]
    name = "not the stranger"
    action = "drop"
    from = ["198.51.100.10", "2001:db8:2::10"]
    log = true
    [[rule]]
    name = "ssh"
    action = "accept"
    protocol = "tcp"
    port = 22
    log = true
    [[rule]]
    name = "silent"
    action = "accept"
    protocol = "udp"
    port = 53
"#;

fn wide(address: IpAddr) -> Addr6 {
    match address {
        IpAddr::V4(address) => [addr4(address), 0, 0, 0],
        IpAddr::V6(address) => addr6(address),
    }
}

fn tuple(packet: &Packet, protocol: u32) -> Tuple<Addr6> {
    Tuple {
        source: wide(packet.source.ip()),
        destination: wide(packet.destination.ip()),
        source_port: packet.source.port(),
        destination_port: packet.destination.port(),
        protocol,
    }
}

fn knock(gateway: &Gateway, host: &str, port: u16) -> Packet {
    Packet::tcp(gateway.world.at(host, 4000), gateway.world.at("master", port), SYN)
}

fn query(gateway: &Gateway, host: &str, port: u16) -> Packet {
    Packet::udp(gateway.world.at(host, 4000), gateway.world.at("master", port))
}

/// Without a watcher nothing is told.
pub fn nobody_watches(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let (dropped, opened) = (query(gateway, "client", 99), query(gateway, "client", 53));
    gateway.outside(&dropped).dropped("policy-input");
    gateway.outside(&opened).accepted(&opened);
    assert_eq!(gateway.told(), [vec![], vec![]]);
}

/// Drops with their reason, new flows with their translation, and nothing of the other packets of a flow.
pub fn what_is_told(gateway: &mut Gateway) {
    let v6 = if gateway.world.is_v6() { V6 } else { 0 };
    gateway.apply(RULES);
    gateway.watch(&EVERYTHING);
    let dropped = query(gateway, "client", 99);
    gateway.outside(&dropped).dropped("policy-input");
    let forwarded = query(gateway, "client", 7000);
    let arrived = gateway.outside(&forwarded).forwarded_somehow();
    gateway.outside(&forwarded).forwarded(Side::Inside, &arrived);
    gateway.inside(&arrived.answer()).forwarded(Side::Outside, &forwarded.answer().hop());
    let sent = Packet::tcp(gateway.world.at("master", 40_000), gateway.world.at("client", 443), SYN);
    gateway.send(&sent).accepted(&sent);
    let [told, logged] = gateway.told();
    let length = Gateway::framed(Side::Outside, &dropped).len() as u32 - 14;
    let [drop, open, own] = &told[..] else { panic!("{told:?}") };
    assert_eq!((drop.kind, drop.reason, drop.flags), (DROPPED, Reason::Input as u32, v6));
    assert_eq!((drop.rule, drop.forward, drop.arriving), (0, 0, tuple(&dropped, 17)));
    assert_eq!((drop.interface, drop.packets, drop.bytes), (Side::Outside.slot(), 1, length));
    assert_eq!((open.kind, open.flags), (OPENED, v6 | TRANSLATED));
    assert_eq!((open.arriving, open.leaving), (tuple(&forwarded, 17), tuple(&arrived, 17)));
    assert!(open.forward > 0 && open.rule == 0 && open.at >= drop.at);
    assert_eq!((own.kind, own.flags, own.arriving), (OPENED, v6 | LEAVING, tuple(&sent, 6)));
    assert_eq!(logged, []);
}

/// The datapath itself looks for what was asked for.
pub fn what_was_asked_for(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let host = |address| Prefix { address: wide(address), mask: [u32::MAX; 4] };
    let from = host(gateway.world.host("client"));
    let to = host(gateway.world.host("worker1"));
    let wanted = [
        (Watch { kinds: 1 << DROPPED, ..EVERYTHING }, vec![99, 7001]),
        (Watch { kinds: 1 << OPENED, ..EVERYTHING }, vec![53, 7000]),
        (Watch { reasons: 1 << Reason::Martian as u32, ..EVERYTHING }, vec![53, 7000]),
        (Watch { protocol: 6, ..EVERYTHING }, vec![]),
        (Watch { families: if gateway.world.is_v6() { 1 } else { 2 }, ..EVERYTHING }, vec![]),
        (Watch { from, ..EVERYTHING }, vec![99, 53, 7000, 7001]),
        (Watch { from: to, ..EVERYTHING }, vec![]),
        (Watch { to, ..EVERYTHING }, vec![7000]),
    ];
    for (number, (watch, expected)) in wanted.into_iter().enumerate() {
        gateway.watch(&watch);
        for port in [99, 53, 7000, 7001] {
            let source = gateway.world.at("client", 5000 + number as u16);
            let _ = gateway.outside(&query(gateway, "client", port).from(source));
        }
        let [told, _] = gateway.told();
        let ports: Vec<u16> = told.iter().map(|event| event.arriving.destination_port).collect();
        assert_eq!(ports, expected, "{watch:?}");
    }
}

/// Rules with `log` tell of each new flow that they decide about, without a watcher.
pub fn what_is_logged(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let admitted = knock(gateway, "client", 22);
    gateway.outside(&admitted).accepted(&admitted);
    let ack = admitted.flags(ACK);
    gateway.outside(&ack).accepted(&ack);
    let silent = query(gateway, "client", 53);
    gateway.outside(&silent).accepted(&silent);
    let refused = knock(gateway, "stranger", 22);
    gateway.outside(&refused).dropped("rule");
    let [told, logged] = gateway.told();
    assert_eq!(told, []);
    let summary = |event: &Event| (event.kind, event.rule, event.arriving);
    let logged: Vec<_> = logged.iter().map(summary).collect();
    assert_eq!(logged, [(OPENED, 2, tuple(&admitted, 6)), (DROPPED, 1, tuple(&refused, 6))]);
}
