//! The LAN reaches the outside as the master.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use netfw_common::counters::Count;

use crate::packet::{ACK, Gateway, Packet, RST, SYN, Side, Translated, world::World};

const LAN: &str = "[masquerade]\nfrom = [\"lan\"]\n";

/// Both sides see the translated address; the source port is kept where it is free. (Scenario 1.)
pub fn the_lan_goes_out(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(LAN);
    let before = gateway.counters();
    let syn = Packet::tcp(world.at("worker1", 40_000), world.at("client", 443), SYN);
    let outside = syn.from(world.at("master", 40_000));
    gateway.inside(&syn).forwarded(Side::Outside, &outside.hop());
    let answer = outside.answer().flags(SYN | ACK);
    gateway.outside(&answer).forwarded(Side::Inside, &answer.to(syn.source).hop());

    let one = Count { packets: 1, bytes: if world.is_v6() { 60 } else { 40 } };
    let expected = Translated { flows_opened: 1, forth: one, back: one };
    assert_eq!(gateway.counters().since(&before).translation(""), expected);
}

/// Who is not in `from` is not hidden, and not admitted either.
pub fn others_do_not(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[masquerade]\nfrom = [\"worker1\"]\n");
    let syn = Packet::tcp(world.at("worker2", 40_000), world.at("client", 443), SYN);
    gateway.inside(&syn).dropped("policy-forward");
}

/// A host of the LAN by its last number.
fn lan_host(world: World, last: u16, port: u16) -> SocketAddr {
    SocketAddr::new(world.address(&format!("192.168.80.{last}"), &format!("fd00:80::{last:x}")), port)
}

/// Several outside addresses share the LAN; each host has one of them, for whatever it does (RFC 4787 REQ-2). A host whose
/// address leaves the list is cut off from its conversations, no other is.
pub fn several_addresses(gateway: &mut Gateway) {
    const BOTH: &str = r#"to = ["192.0.2.1", "2001:db8::1", "192.0.2.9", "2001:db8::9"]"#;
    const FIRST: &str = r#"to = ["192.0.2.1", "2001:db8::1"]"#;
    let world = gateway.world;
    gateway.apply(&format!("{LAN}{BOTH}\n"));
    let mut sent = Vec::new();
    for last in 3..11 {
        let ask = |port, to| Packet::udp(lan_host(world, last, port), to);
        let first = ask(5000, world.at("client", 53));
        let address = gateway.inside(&first).forwarded_somehow().source.ip();
        let expected = |packet: &Packet| packet.from((address, packet.source.port()).into());
        for other in [ask(5000 + last, world.at("client", 54)), ask(6000 + last, world.at("stranger", 53))] {
            gateway.inside(&other).forwarded(Side::Outside, &expected(&other).hop());
            let answer = expected(&other).answer();
            gateway.outside(&answer).forwarded(Side::Inside, &answer.to(other.source).hop());
            sent.push((other.clone(), address));
        }
    }
    let used: BTreeSet<IpAddr> = sent.iter().map(|(_, address)| *address).collect();
    assert_eq!(used, ["master", "second"].map(|name| world.host(name)).into());

    gateway.apply(&format!("{LAN}{FIRST}\n"));
    for (packet, address) in sent {
        let outcome = gateway.inside(&packet);
        if address == world.host("master") {
            let expected = packet.from((address, packet.source.port()).into());
            outcome.forwarded(Side::Outside, &expected.hop());
        } else {
            outcome.dropped("flow-cut");
        }
    }
}

/// A host whose outside address has no port left gets none of another address (RFC 7857 §4).
pub fn no_port_of_another_address(gateway: &mut Gateway) {
    const BOTH: &str = r#"to = ["192.0.2.1", "2001:db8::1", "192.0.2.9", "2001:db8::9"]"#;
    let world = gateway.world;
    let ask = |last, to| Packet::udp(lan_host(world, last, 5000), world.at(to, 53));
    gateway.apply(&format!("{LAN}{BOTH}\n"));
    let own =
        |gateway: &mut Gateway, last| gateway.inside(&ask(last, "stranger")).forwarded_somehow().source.ip();
    let address = own(gateway, 3);
    let other = (4..20).find(|&last| own(gateway, last) == address).expect("two hosts share an address");
    gateway.apply(&format!("{LAN}{BOTH}\nports = \"20000\"\n"));
    assert_eq!(gateway.inside(&ask(3, "client")).forwarded_somehow().source, (address, 20_000).into());
    gateway.inside(&ask(other, "client")).dropped("no-free-port");
}

/// Many LAN hosts use the same source port to the same server: each gets its own, and its own answers. (Scenario 4.)
pub fn the_same_source_port(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(LAN);
    let workers = ["worker1", "worker2", "worker3", "worker4"];
    let ask = |name| Packet::udp(world.at(name, 5000), world.at("client", 53));
    let outside: Vec<_> = workers.map(|name| gateway.inside(&ask(name)).forwarded_somehow()).into();
    let ports: BTreeSet<_> = outside.iter().map(|packet| packet.source.port()).collect();
    assert_eq!(ports.len(), 4);
    assert!(ports.contains(&5000), "the first one keeps its port");
    for (name, left) in workers.into_iter().zip(outside) {
        assert_eq!(left.source.ip(), world.host("master"));
        let answer = left.answer();
        gateway.outside(&answer).forwarded(Side::Inside, &ask(name).answer().hop());
    }
}

/// The same port towards different servers needs no change.
pub fn one_port_for_many_servers(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(LAN);
    for (from, to) in [("worker1", "client"), ("worker2", "stranger"), ("worker3", "neighbour")] {
        let packet = Packet::udp(world.at(from, 5000), world.at(to, 53));
        let expected = packet.from(world.at("master", 5000)).hop();
        gateway.inside(&packet).forwarded(Side::Outside, &expected);
    }
}

/// Ports outside the given range are not kept; when none is left, that is a clean failure. (Scenario 4.)
pub fn ports_run_out(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[masquerade]\nfrom = [\"lan\"]\nports = \"20000-20001\"\n");
    let ask = |name, port| Packet::udp(world.at(name, port), world.at("client", 53));
    let first = gateway.inside(&ask("worker1", 5000)).forwarded_somehow().source;
    let second = gateway.inside(&ask("worker2", first.port())).forwarded_somehow().source;
    let used: BTreeSet<_> = [first, second].map(|end| end.port()).into();
    assert_eq!(used, [20_000, 20_001].into());
    gateway.inside(&ask("worker3", 5000)).dropped("no-free-port");
    // Elsewhere they are free.
    let elsewhere = Packet::udp(world.at("worker3", 20_001), world.at("stranger", 53));
    let expected = elsewhere.from(world.at("master", 20_001)).hop();
    gateway.inside(&elsewhere).forwarded(Side::Outside, &expected);
}

/// A small range is used up to its last port, and holds one conversation a port. (Scenario 4.)
pub fn every_port_of_a_small_range(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("{LAN}ports = \"20000-20019\"\n"));
    let ask = |n: u16| Packet::udp(lan_host(world, 3 + n % 4, 5000 + n), world.at("client", 53));
    let used: BTreeSet<_> =
        (0..20).map(|n| gateway.inside(&ask(n)).forwarded_somehow().source.port()).collect();
    assert_eq!(used, (20_000..=20_019).collect());
    gateway.inside(&ask(20)).dropped("no-free-port");
}

/// What a server says after the end of a connection reaches whom it means: the port goes to another host only where there is no
/// other. (Scenario 4.)
pub fn the_port_of_a_closed_connection(gateway: &mut Gateway) {
    let world = gateway.world;
    let ask = |name| Packet::tcp(world.at(name, 20_000), world.at("client", 53), SYN);
    for (server, range, is_spared) in [("client", "", true), ("stranger", "ports = \"20000-20000\"\n", false)]
    {
        gateway.apply(&format!("{LAN}{range}"));
        let ask = |name| ask(name).to(world.at(server, 53));
        let left = gateway.inside(&ask("worker1")).forwarded_somehow();
        let refused = left.answer().flags(RST | ACK);
        gateway.outside(&refused).forwarded(Side::Inside, &ask("worker1").answer().flags(RST | ACK).hop());
        let other = gateway.inside(&ask("worker2")).forwarded_somehow();
        assert_eq!(other.source.port() != 20_000, is_spared);
        let owner = if is_spared { "worker1" } else { "worker2" };
        gateway.outside(&refused).forwarded(Side::Inside, &ask(owner).answer().flags(RST | ACK).hop());
    }
}

/// Where the source port cannot be kept, a privileged one becomes a privileged one and any other becomes another (RFC 4787
/// REQ-3); they are drawn by chance (RFC 6056).
pub fn privileged_ports_stay_privileged(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(LAN);
    for (port, range) in [(123, 512..=1023), (1023, 512..=1023), (1024, 1024..=65_535)] {
        let drawn: BTreeSet<_> = (3..8)
            .map(|last| {
                let ask = Packet::udp(lan_host(world, last, port), world.at("client", port));
                gateway.inside(&ask).forwarded_somehow().source.port()
            })
            .filter(|&drawn| drawn != port)
            .collect();
        assert_eq!(drawn.len(), 4, "one keeps {port}");
        assert!(drawn.iter().all(|drawn| range.contains(drawn)), "{port} became {drawn:?}");
        assert!(drawn.last().zip(drawn.first()).is_some_and(|(last, first)| last - first > 4), "in a row");
    }
}

/// A port that is drawn for a flow of the master itself is nobody else's either. (Scenario 2.)
pub fn what_the_master_draws_is_not_forwarded(gateway: &mut Gateway) {
    let world = gateway.world;
    let range = "protocol = \"udp\"\nport = \"1024-50000\"\nto = [\"worker2:53\"]\n";
    gateway.apply(&format!("{LAN}[[port-forward]]\nname = \"most\"\n{range}"));
    for port in 50_001..50_008 {
        let lan = Packet::udp(world.at("worker1", port), world.at("client", 53));
        gateway.inside(&lan).forwarded(Side::Outside, &lan.from(world.at("master", port)).hop());
        let own = gateway.send(&Packet::udp(world.at("master", port), world.at("client", 53))).packet();
        assert!(own.source.port() > 50_000 && own.source.port() != port, "{}", own.source);
    }
}

/// A LAN host cannot take over a forwarded port by sending from it, nor a conversation that the forward has. (Scenario 2.)
pub fn no_port_shadowing(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!(
        "{LAN}[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 5353\nto = [\"worker2:53\"]\n"
    ));
    let shadow = Packet::udp(world.at("worker1", 5353), world.at("client", 4000));
    let left = gateway.inside(&shadow).forwarded_somehow();
    assert_ne!(left.source.port(), 5353);
    let query = Packet::udp(world.at("client", 4000), world.at("master", 5353));
    let arrived = query.to(world.at("worker2", 53)).hop();
    gateway.outside(&query).forwarded(Side::Inside, &arrived);
    let late = gateway.inside(&shadow.from(world.at("worker3", 5353))).forwarded_somehow();
    assert_ne!(late.source.port(), 5353);
    gateway.outside(&query).forwarded(Side::Inside, &arrived);
    gateway.inside(&arrived.answer()).forwarded(Side::Outside, &query.answer().hop());
}

/// Two LAN hosts ping with the same identifier. (Scenario 14.)
pub fn the_same_echo_identifier(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(LAN);
    let ping = |name| Packet::echo(world.at(name, 0), world.at("client", 0), 77);
    let first = gateway.inside(&ping("worker1")).forwarded_somehow();
    let second = gateway.inside(&ping("worker2")).forwarded_somehow();
    assert_eq!(first.source, world.at("master", 77));
    assert_eq!(second.source.ip(), world.host("master"));
    assert_ne!(second.source.port(), 77);
    for (name, left) in [("worker1", first), ("worker2", second)] {
        gateway.outside(&left.answer()).forwarded(Side::Inside, &ping(name).answer().hop());
    }
}

/// The master's own datagram from a port that a LAN host uses already: both get their answers. (Scenario 4.)
pub fn the_master_shares_its_address(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(LAN);
    let lan = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    gateway.inside(&lan).forwarded(Side::Outside, &lan.from(world.at("master", 5000)).hop());
    let own = Packet::udp(world.at("master", 5000), world.at("client", 53));
    let left = gateway.send(&own).packet();
    assert_ne!(left.source, own.source, "the answers could not be told apart");
    assert_eq!(left, own.from(left.source));
    gateway.outside(&left.answer()).accepted(&own.answer());
    let answer = own.answer();
    gateway.outside(&answer).forwarded(Side::Inside, &answer.to(lan.source).hop());
}

/// Protocols whose checksum covers the addresses, and cannot be mended, are not translated; untranslated they pass.
pub fn what_cannot_be_translated(gateway: &mut Gateway) {
    const DCCP: u8 = 33;
    const UDP_LITE: u8 = 136;
    let world = gateway.world;
    for protocol in [DCCP, UDP_LITE] {
        let body = crate::packet::Body::Raw(protocol);
        let packet = Packet::new(world.at("worker1", 0), world.at("client", 0), body);
        gateway.apply(LAN);
        gateway.inside(&packet).dropped("untranslatable");
        gateway.apply("[policy]\nforward = \"accept\"\n");
        gateway.inside(&packet).forwarded(Side::Outside, &packet.hop());
    }
}
