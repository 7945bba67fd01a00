//! Frames that lie. (Scenario 30.)

use std::net::{IpAddr, SocketAddr};

use crate::packet::{Body, Fate, Gateway, Packet, SYN, Side, checksum, extended};

const OPEN: &str = "[policy]\ninput = \"accept\"\nforward = \"accept\"\n";

fn ip(gateway: &Gateway) -> usize {
    if gateway.world.is_v6() { 40 } else { 20 }
}

/// One of each kind, through the master and to it.
fn samples(gateway: &Gateway) -> Vec<Packet> {
    let world = gateway.world;
    let (client, master) = (world.at("client", 4000), world.at("master", 80));
    let mut all = Vec::new();
    for to in [world.at("worker1", 80), master] {
        all.push(Packet::tcp(client, to, SYN).sized(30));
        all.push(Packet::udp(client, to));
        all.push(Packet::echo(client, to, 99));
    }
    all
}

/// A frame that ends before its packet does: at every length. (The kernel doesn't run TC programs on less than an IP
/// header.)
pub fn cut_off(gateway: &mut Gateway) {
    gateway.apply(OPEN);
    for packet in samples(gateway) {
        let frame = Gateway::framed(Side::Outside, &packet);
        for length in 14 + ip(gateway)..frame.len() {
            gateway.receive(Side::Outside, &frame[..length]).dropped("malformed");
        }
    }
}

/// A packet whose header announces an end within the transport header: at every length.
pub fn ends_early(gateway: &mut Gateway) {
    gateway.apply(OPEN);
    for packet in samples(gateway) {
        let least = if matches!(packet.body, Body::Tcp { .. }) { 20 } else { 8 };
        for length in 0..least {
            let frame = announcing(gateway, &packet, length);
            gateway.receive(Side::Outside, &frame).dropped("malformed");
        }
    }
}

/// The packet's frame, announcing `length` bytes behind the IP header.
fn announcing(gateway: &Gateway, packet: &Packet, length: usize) -> Vec<u8> {
    let mut frame = Gateway::framed(Side::Outside, packet);
    if gateway.world.is_v6() {
        frame[18..20].copy_from_slice(&(length as u16).to_be_bytes());
    } else {
        frame[16..18].copy_from_slice(&(length as u16 + 20).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// Wrong versions, header lengths and checksums of the IP header.
pub fn broken_ip_headers(gateway: &mut Gateway) {
    gateway.apply(OPEN);
    let first_bytes: &[u8] =
        if gateway.world.is_v6() { &[0x00, 0x40, 0x50, 0xf0] } else { &[0x05, 0x55, 0x65, 0x44, 0x40] };
    for packet in samples(gateway) {
        let frame = Gateway::framed(Side::Outside, &packet);
        for &first in first_bytes {
            let mut frame = frame.clone();
            frame[14] = first;
            gateway.receive(Side::Outside, &frame).dropped("malformed");
        }
        if !gateway.world.is_v6() {
            for at in 14..34 {
                let mut frame = frame.clone();
                frame[at] ^= 0x10;
                let fate = gateway.receive(Side::Outside, &frame).fate;
                assert!(matches!(fate, Fate::Dropped("malformed" | "bad-checksum")), "byte {at}: {fate:?}");
            }
        }
    }
}

/// Transport headers that say more than there is.
pub fn broken_transport_headers(gateway: &mut Gateway) {
    gateway.apply(OPEN);
    let world = gateway.world;
    let at = 14 + ip(gateway);
    for to in ["worker1", "master"] {
        let tcp = Packet::tcp(world.at("client", 4000), world.at(to, 80), SYN);
        for words in (0..5).chain(6..16) {
            let mut frame = Gateway::framed(Side::Outside, &tcp);
            frame[at + 12] = words << 4;
            gateway.receive(Side::Outside, &frame).dropped("malformed");
        }
        let udp = Packet::udp(world.at("client", 4000), world.at(to, 80));
        let length = udp.payload.len() as u16 + 8;
        for says in [0, 1, 7, length + 1, u16::MAX] {
            let mut frame = Gateway::framed(Side::Outside, &udp);
            frame[at + 4..at + 6].copy_from_slice(&says.to_be_bytes());
            gateway.receive(Side::Outside, &frame).dropped("malformed");
        }
    }
}

/// Who cannot have sent this: not anybody, many, the host itself, or the receiver.
pub fn martians(gateway: &mut Gateway) {
    gateway.apply(OPEN);
    let world = gateway.world;
    let senders: &[&str] = if world.is_v6() {
        &["::", "::1", "ff02::1", "ff0e::1", "::ffff:192.0.2.7", "::192.0.2.7"]
    } else {
        &[
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "224.0.0.1",
            "239.1.2.3",
            "240.0.0.1",
            "255.255.255.255",
        ]
    };
    for to in ["worker1", "master"] {
        let to = world.at(to, 80);
        let sources = senders.iter().map(|text| text.parse::<IpAddr>().expect("an address"));
        for source in sources.chain([to.ip()]) {
            let packet = Packet::udp(SocketAddr::new(source, 80), to);
            gateway.outside(&packet).dropped("martian");
        }
    }
    let loopback = SocketAddr::new(world.address("127.0.0.1", "::1"), 80);
    gateway.outside(&Packet::udp(world.at("client", 4000), loopback)).dropped("martian");
}

/// Inside addresses from outside, the master's own, and the other way round.
pub fn spoofed(gateway: &mut Gateway) {
    gateway.apply(OPEN);
    let world = gateway.world;
    for to in ["worker1", "master"] {
        for from in ["worker2", "gateway", "second"] {
            let packet = Packet::udp(world.at(from, 4000), world.at(to, 80));
            gateway.outside(&packet).dropped("spoofed");
        }
    }
    let packet = Packet::udp(world.at("stranger", 4000), world.at("client", 80));
    gateway.inside(&packet).dropped("spoofed");
}

const FLOWS: &str = "[masquerade]\nfrom = [\"lan\"]\n[[rule]]\naction = \"accept\"\n[[port-forward]]\nname = \"web\"\n\
                     protocol = \"udp\"\nport = 80\nto = [\"worker1:8080\"]\n";

/// Who knows a flow's addresses and ports but stands on the other side does not get into it, in either direction, whoever has
/// opened it; those whose it is go on.
pub fn spoofed_into_a_live_flow(gateway: &mut Gateway) {
    gateway.apply(FLOWS);
    let world = gateway.world;
    let [client, master, worker] =
        [("client", 4000), ("master", 80), ("worker1", 8080)].map(|(host, port)| world.at(host, port));
    let question = Packet::udp(client, master);
    let hidden = Packet::udp(world.at("worker2", 5000), world.at("client", 53));
    let left = hidden.from(world.at("master", 5000));
    let own = Packet::udp(world.at("master", 6000), world.at("client", 53));
    let asked = Packet::udp(world.at("client", 4000), world.at("master", 22));
    for _ in 0..2 {
        gateway.outside(&question).forwarded(Side::Inside, &question.to(worker).hop());
        gateway.inside(&question).dropped("spoofed");
        let answer = question.to(worker).answer();
        gateway.inside(&answer).forwarded(Side::Outside, &question.answer().hop());
        gateway.outside(&answer).dropped("spoofed");

        gateway.inside(&hidden).forwarded(Side::Outside, &left.hop());
        gateway.outside(&hidden).dropped("spoofed");
        gateway.outside(&left.answer()).forwarded(Side::Inside, &hidden.answer().hop());
        gateway.inside(&left.answer()).dropped("spoofed");

        gateway.send(&own).accepted(&own);
        gateway.outside(&own.answer()).accepted(&own.answer());
        gateway.inside(&own.answer()).dropped("spoofed");

        gateway.outside(&asked).accepted(&asked);
        gateway.inside(&asked).dropped("spoofed");
        gateway.send(&asked.answer()).accepted(&asked.answer());
    }
}

/// Where `anti-spoof` does not mind, a flow may come in on both sides in turn; where it minds again, only where its source is.
pub fn a_flow_that_changes_sides(gateway: &mut Gateway) {
    let world = gateway.world;
    let rules = |mode: &str| {
        let hosts = crate::rules::two_armed(FLOWS);
        hosts.replacen("[interfaces]", &format!("[interfaces]\nanti-spoof = \"{mode}\""), 1)
    };
    let question = Packet::udp(world.at("client", 4000), world.at("master", 80));
    let arrived = question.to(world.at("worker1", 8080)).hop();
    for mode in ["off", "loose", "strict"] {
        gateway.apply_whole(&rules(mode));
        for _ in 0..2 {
            gateway.outside(&question).forwarded(Side::Inside, &arrived);
            let elsewhere = gateway.inside(&question);
            match mode {
                "strict" => elsewhere.dropped("spoofed"),
                _ => elsewhere.forwarded(Side::Inside, &arrived),
            };
        }
    }
}

/// `anti-spoof`: loose asks for any route back, off for none.
pub fn spoofing_allowed(gateway: &mut Gateway) {
    let world = gateway.world;
    let packet = Packet::udp(world.at("worker2", 4000), world.at("worker1", 80));
    for mode in ["loose", "off"] {
        gateway.apply_whole(&format!(
            "[interfaces]\nexternal = [\"eth0\"]\ninternal = [\"eth1\"]\nanti-spoof = \"{mode}\"\n{OPEN}"
        ));
        gateway.outside(&packet).forwarded(Side::Inside, &packet.hop());
        // No route back leads to the master itself.
        let own = packet.from(world.at("gateway", 4000));
        let outcome = gateway.outside(&own);
        match mode {
            "loose" => outcome.dropped("spoofed"),
            _ => outcome.forwarded(Side::Inside, &own.hop()),
        };
    }
}

/// Link-local addresses don't pass a router.
pub fn link_local(gateway: &mut Gateway) {
    gateway.apply(OPEN);
    let world = gateway.world;
    let near = SocketAddr::new(world.address("169.254.7.7", "fe80::7"), 80);
    let fate = gateway.inside(&Packet::udp(near, world.at("client", 80))).fate;
    // Linux has no IPv6 route for such: then its stack may refuse it.
    let refused = if world.is_v6() { Fate::Accepted } else { Fate::Dropped("martian") };
    assert_eq!(fate, refused);
}

/// IPv4 options are for the master's own stack, if for anybody. (Scenario 14.)
pub fn ip_options(gateway: &mut Gateway) {
    if gateway.world.is_v6() {
        return;
    }
    gateway.apply(OPEN);
    let world = gateway.world;
    for (to, forwarded) in [("worker1", true), ("master", false)] {
        let plain = Gateway::framed(Side::Outside, &Packet::udp(world.at("client", 4000), world.at(to, 80)));
        // Record route, and an end of options.
        let mut frame = [&plain[..34], &[7, 7, 4, 0, 0, 0, 0, 0], &plain[34..]].concat();
        frame[14] = 0x47;
        let length = (frame.len() as u16 - 14).to_be_bytes();
        frame[16..18].copy_from_slice(&length);
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..42]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let outcome = gateway.receive(Side::Outside, &frame);
        if forwarded {
            outcome.dropped("ip-options");
        } else {
            assert_eq!(outcome.fate, Fate::Accepted);
        }
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(super) const DESTINATION_OPTIONS: u8 = 60;
/// Six bytes of padding, as an option.
pub(super) const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];

/// Extension headers that are as RFC 8200 allows are walked over; rules see the transport behind them.
pub fn extension_headers(gateway: &mut Gateway) {
    if !gateway.world.is_v6() {
        return;
    }
    gateway.apply("[[rule]]\nchain = \"forward\"\naction = \"accept\"\nprotocol = \"udp\"\nport = 80\n");
    let world = gateway.world;
    let packet = Packet::udp(world.at("client", 4000), world.at("worker1", 80));
    let frame = Gateway::framed(Side::Outside, &packet);
    let long = [PADDING, &[1, 6, 0, 0, 0, 0, 0, 0]].concat();
    for headers in [&[(DESTINATION_OPTIONS, PADDING)][..], &[(DESTINATION_OPTIONS, &long)]] {
        let outcome = gateway.receive(Side::Outside, &extended(&frame, headers));
        assert_eq!(outcome.forwarded_somehow(), packet.hop());
    }
    let shut = Gateway::framed(Side::Outside, &packet.to(world.at("worker1", 81)));
    let hidden = extended(&shut, &[(DESTINATION_OPTIONS, PADDING)]);
    gateway.receive(Side::Outside, &hidden).dropped("policy-forward");
    // What a router would have to look into is not forwarded.
    for kind in [HOP_BY_HOP, ROUTING] {
        gateway.receive(Side::Outside, &extended(&frame, &[(kind, PADDING)])).dropped("ip-options");
    }
}

/// The longest chain that RFC 8200 §4.1 lists reaches the master.
pub fn the_longest_chain(gateway: &mut Gateway) {
    if !gateway.world.is_v6() {
        return;
    }
    gateway.apply(OPEN);
    let world = gateway.world;
    let packet = Packet::udp(world.at("client", 4000), world.at("master", 80));
    let frame = Gateway::framed(Side::Outside, &packet);
    let chain = [
        (HOP_BY_HOP, PADDING),
        (DESTINATION_OPTIONS, PADDING),
        (ROUTING, PADDING),
        // An atomic fragment: the whole packet in one (RFC 6946).
        (44, &[0, 0, 0, 0, 0, 7][..]),
        (DESTINATION_OPTIONS, PADDING),
    ];
    let outcome = gateway.receive(Side::Outside, &extended(&frame, &chain));
    assert_eq!(outcome.fate, Fate::Accepted);
}

/// Chains that never end, or lead beyond the packet's end.
pub fn lying_extension_headers(gateway: &mut Gateway) {
    if !gateway.world.is_v6() {
        return;
    }
    gateway.apply(OPEN);
    let world = gateway.world;
    for to in ["worker1", "master"] {
        let packet = Packet::udp(world.at("client", 4000), world.at(to, 80));
        let frame = Gateway::framed(Side::Outside, &packet);
        for length in 6..=30 {
            let endless = vec![(DESTINATION_OPTIONS, PADDING); length];
            gateway.receive(Side::Outside, &extended(&frame, &endless)).dropped("malformed");
        }
        for kind in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS] {
            // Nothing, GRE, or UDP "behind" a header that reaches further than the packet.
            for next in [59, 47, 17] {
                for units in [5, 6, 30, 255] {
                    let mut frame = extended(&frame, &[(kind, PADDING)]);
                    frame[54] = next;
                    frame[55] = units;
                    gateway.receive(Side::Outside, &frame).dropped("malformed");
                }
            }
        }
    }
}
