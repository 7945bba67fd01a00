//! ICMP errors belong to the flow that they quote. (Scenario 10.)

use super::malformed::{DESTINATION_OPTIONS, PADDING};
use crate::packet::{
    Body, Fate, Gateway, Packet, Side, extended, fragments,
    wire::{ETHERNET, checksum},
};

const BOTH: &str = "[masquerade]\nfrom = [\"lan\"]\n[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 53\n\
                    to = [\"worker1:5353\"]\n[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = [\"worker1:22\"]\n";

/// The width that the errors tell of.
const MTU: u32 = 1300;

/// An error from `reporter` to the sender of `about` with `bytes` of its transport header and payload quoted.
pub(super) fn error(about: &Packet, reporter: std::net::SocketAddr, bytes: usize) -> Packet {
    let (kind, code) = if about.is_v6() { (2, 0) } else { (3, 4) };
    let mut reporter = reporter;
    reporter.set_port(0);
    let mut to = about.source;
    to.set_port(0);
    let header = if about.is_v6() { 40 } else { 20 };
    let mut payload = about.datagram();
    payload.truncate(header + bytes);
    Packet { payload, ..Packet::new(reporter, to, Body::Icmp { kind, code, detail: MTU }) }
}

/// What arrives must be about what its receiver once sent, which the master has carried on: every byte of the quote is as it was
/// but for that hop.
#[track_caller]
pub(super) fn tells(arrived: &Packet, about: &Packet) {
    let header = if about.is_v6() { 40 } else { 20 };
    let quoted = arrived.payload.len() - header;
    assert_eq!(*arrived, error(&about.hop(), arrived.source, quoted).hop());
}

/// About a masqueraded packet, from the server itself and from a router on the way, whatever is quoted.
pub fn about_a_masqueraded_packet(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(BOTH);
    for (port, tcp) in [(5353, false), (5000, true), (5001, false)] {
        let sent = match tcp {
            true => Packet::tcp(world.at("worker2", port), world.at("client", 53), crate::packet::SYN),
            false => Packet::udp(world.at("worker2", port), world.at("client", 53)),
        };
        let left = gateway.inside(&sent).forwarded_somehow();
        for (reporter, bytes) in [("client", 8), ("client", 33), ("router", 8), ("router", 28)] {
            let reporter = world.at(reporter, 0);
            let outcome = gateway.outside(&error(&left, reporter, bytes));
            let arrived = outcome.forwarded_somehow();
            tells(&arrived, &sent);
            assert_eq!(arrived.source, reporter, "a router outside is nobody to hide");
        }
    }
}

/// About a masqueraded echo: the identifier in the quote is the inner one.
pub fn about_a_masqueraded_echo(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(BOTH);
    let first = Packet::echo(world.at("worker1", 0), world.at("client", 0), 7);
    let second = Packet::echo(world.at("worker2", 0), world.at("client", 0), 7);
    for sent in [first, second] {
        let left = gateway.inside(&sent).forwarded_somehow();
        let arrived = gateway.outside(&error(&left, world.at("router", 0), 8)).forwarded_somehow();
        tells(&arrived, &sent);
    }
}

/// About an answer through a port-forward, and about what was forwarded.
pub fn about_a_forwarded_packet(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(BOTH);
    let sent = Packet::udp(world.at("client", 4000), world.at("master", 53));
    let arrived = gateway.outside(&sent).forwarded_somehow();
    // The worker refuses: the client must believe that the master did.
    for bytes in [8, 33] {
        let refusal = gateway.inside(&error(&arrived, world.at("worker1", 0), bytes)).forwarded_somehow();
        tells(&refusal, &sent);
        assert_eq!(refusal.source, world.at("master", 0));
    }
    // Somebody outside refuses the answer.
    let answer = arrived.answer();
    let left = gateway.inside(&answer).forwarded_somehow();
    for bytes in [8, 33] {
        let refusal = gateway.outside(&error(&left, world.at("router", 0), bytes)).forwarded_somehow();
        tells(&refusal, &answer);
        assert_eq!(refusal.source, world.at("router", 0));
    }
}

/// About what the master sent itself.
pub fn about_the_masters_own(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(BOTH);
    let own = Packet::udp(world.at("master", 40_000), world.at("client", 53));
    gateway.send(&own).accepted(&own);
    let refusal = error(&own, world.at("router", 0), 8);
    gateway.outside(&refusal).accepted(&refusal);
}

/// About what a LAN host sent to another by the outside address, in both directions: each believes that the master said it (RFC 5508
/// REQ-7).
pub fn about_a_hairpinned_packet(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(BOTH);
    let question = Packet::udp(world.at("worker2", 4000), world.at("master", 53));
    let arrived = gateway.inside(&question).forwarded_somehow();
    let refusal = gateway.inside(&error(&arrived, world.at("worker1", 0), 8)).forwarded_somehow();
    tells(&refusal, &question);
    assert_eq!(refusal.source, world.at("master", 0));

    let answer = arrived.answer();
    let returned = gateway.inside(&answer).forwarded_somehow();
    let refusal = gateway.inside(&error(&returned, world.at("worker2", 0), 8)).forwarded_somehow();
    tells(&refusal, &answer);
    assert_eq!(refusal.source, world.at("gateway", 0));
}

/// The quoted header has options: the ports stand behind them (RFC 5508 REQ-3b).
pub fn options_in_the_quote(gateway: &mut Gateway) {
    let world = gateway.world;
    if world.is_v6() {
        return;
    }
    gateway.apply(BOTH);
    let sent = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let left = gateway.inside(&sent).forwarded_somehow();
    let plain = error(&left, world.at("router", 0), 8);
    let arrived = gateway.outside(&optioned(&plain)).forwarded_somehow();
    assert_eq!(arrived.payload, optioned(&error(&sent.ttl(63), world.at("router", 0), 8)).payload);
}

/// The first fragment of a packet is quoted: it tells the ports. What a later one tells in their place is none.
pub fn a_fragment_in_the_quote(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(BOTH);
    let sent = Packet::udp(world.at("worker1", 5000), world.at("client", 53)).divisible().sized(3000);
    let first = &fragments(&Gateway::framed(Side::Inside, &sent), 1400)[0];
    let outcome = gateway.receive(Side::Inside, first);
    assert_eq!(outcome.fate, Fate::Forwarded);
    let [first, mut left] = [first, outcome.frame()].map(|frame| frame[ETHERNET..ETHERNET + 64].to_vec());
    let about = error(&sent.from(world.at("master", 5000)), world.at("router", 0), 8);
    let told = gateway.outside(&Packet { payload: left.clone(), ..about.clone() }).forwarded_somehow();
    assert_eq!(told.payload, older(&first));
    // Its place in the packet: the low byte of the offset.
    left[if world.is_v6() { 43 } else { 7 }] |= 0x80;
    gateway.outside(&Packet { payload: left, ..about }).dropped("icmp-unrelated");
}

/// IPv6 options that only the receiver looks at stand before the ports.
pub fn extensions_in_the_quote(gateway: &mut Gateway) {
    let world = gateway.world;
    if !world.is_v6() {
        return;
    }
    gateway.apply(BOTH);
    let sent = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let frame = extended(&Gateway::framed(Side::Inside, &sent), &[(DESTINATION_OPTIONS, PADDING)]);
    let outcome = gateway.receive(Side::Inside, &frame);
    assert_eq!(outcome.fate, Fate::Forwarded);
    let left = outcome.frame()[ETHERNET..ETHERNET + 56].to_vec();
    let about = error(&sent.from(world.at("master", 5000)), world.at("router", 0), 8);
    let told = gateway.outside(&Packet { payload: left, ..about }).forwarded_somehow();
    assert_eq!(told.payload, older(&frame[ETHERNET..ETHERNET + 56]));
}

/// A quoted datagram one hop further.
fn older(datagram: &[u8]) -> Vec<u8> {
    let mut datagram = datagram.to_vec();
    if datagram[0] >> 4 == 6 {
        datagram[7] -= 1;
        return datagram;
    }
    datagram[8] -= 1;
    datagram[10..12].fill(0);
    let sum = checksum(&datagram[..20]).to_be_bytes();
    datagram[10..12].copy_from_slice(&sum);
    datagram
}

/// The same error, with two words of no operation at the end of the header that it quotes.
fn optioned(error: &Packet) -> Packet {
    let mut header = [&error.payload[..20], &[1; 8][..]].concat();
    header[0] = 0x47;
    header[3] += 8;
    header[10..12].fill(0);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    Packet { payload: [&header[..], &error.payload[20..]].concat(), ..error.clone() }
}

/// About nothing that was ever sent, about another's packet, or without enough of a quote.
pub fn about_nothing(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("[policy]\nforward = \"accept\"\ninput = \"accept\"\n{BOTH}"));
    let never = Packet::udp(world.at("master", 40_000), world.at("client", 53));
    gateway.outside(&error(&never, world.at("router", 0), 8)).dropped("icmp-unrelated");
    let sent = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let left = gateway.inside(&sent).forwarded_somehow();
    // To somebody else than the sender.
    let mut astray = error(&left, world.at("router", 0), 8);
    astray.destination = world.at("second", 0);
    gateway.outside(&astray).dropped("icmp-unrelated");
    for bytes in 0..8 {
        gateway.outside(&error(&left, world.at("router", 0), bytes)).dropped("icmp-unrelated");
    }
}

/// Replies to pings that nobody sent, through the master and to it.
pub fn unasked_replies(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("[policy]\nforward = \"accept\"\ninput = \"accept\"\n{BOTH}"));
    for worker in ["worker1", "worker2"] {
        let reply = Packet::echo(world.at("client", 0), world.at(worker, 0), 7).answer();
        gateway.inside(&reply).dropped("icmp-unrelated");
        gateway
            .outside(&Packet::echo(world.at(worker, 0), world.at("client", 0), 7).answer())
            .dropped("icmp-unrelated");
    }
    let reply = Packet::echo(world.at("master", 0), world.at("client", 0), 7).answer();
    gateway.outside(&reply).dropped("icmp-unrelated");
}

/// A quote that lies in the padding behind the packet is none.
pub fn a_quote_in_the_padding(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(BOTH);
    let sent = Packet::udp(world.at("worker1", 5000), world.at("client", 53));
    let left = gateway.inside(&sent).forwarded_somehow();
    let whole = error(&left, world.at("router", 0), 8);
    let bare = Packet { payload: Vec::new(), ..whole.clone() };
    let mut frame = Gateway::framed(Side::Outside, &bare);
    frame.extend(&whole.payload);
    let outcome = gateway.receive(Side::Outside, &frame);
    assert!(matches!(outcome.fate, Fate::Dropped(_)), "{:?}", outcome.fate);
}
