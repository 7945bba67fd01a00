//! Datagrams: checksums at their edges, lengths.

use crate::packet::{Body, Gateway, Packet, Side};

const DNS: &str =
    "[[port-forward]]\nname = \"dns\"\nprotocol = \"udp\"\nport = 53\nto = [\"worker1:5353\"]\n";

/// A datagram to the forward, and what the worker must get.
fn question(gateway: &Gateway) -> (Packet, Packet) {
    let world = gateway.world;
    let sent = Packet::udp(world.at("client", 4000), world.at("master", 53));
    let arrived = sent.to(world.at("worker1", 5353)).hop();
    (sent, arrived)
}

/// No checksum stays none over IPv4; over IPv6 there is no such thing. (Scenario 8.)
pub fn without_a_checksum(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let (sent, arrived) = question(gateway);
    let bare = |packet: &Packet| Packet { body: Body::Udp { checksum: false }, ..packet.clone() };
    if gateway.world.is_v6() {
        gateway.outside(&bare(&sent)).dropped("bad-checksum");
        return;
    }
    gateway.outside(&bare(&sent)).forwarded(Side::Inside, &bare(&arrived));
    let answer = bare(&arrived).answer();
    gateway.inside(&answer).forwarded(Side::Outside, &bare(&sent).answer().hop());
}

/// A checksum that comes out as 0 is sent as 0xffff. (Scenario 8.)
pub fn a_checksum_of_zero(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let (sent, arrived) = question(gateway);
    let checksum_at = if gateway.world.is_v6() { 60 } else { 40 };
    let mut met = false;
    for word in 0..=u16::MAX {
        let payload = word.to_be_bytes().to_vec();
        let arrived = Packet { payload, ..arrived.clone() };
        let bytes = arrived.frame([0; 6], [0; 6]);
        if bytes[checksum_at..checksum_at + 2] != [0xff, 0xff] {
            continue;
        }
        let sent = Packet { payload: arrived.payload.clone(), ..sent.clone() };
        let outcome = gateway.outside(&sent);
        outcome.forwarded(Side::Inside, &arrived);
        assert_eq!(outcome.frame()[checksum_at..checksum_at + 2], [0xff, 0xff]);
        met = true;
    }
    assert!(met, "one word of all must give this sum");
}

/// Empty, odd and full datagrams, with and without padding behind them. (Scenario 8.)
pub fn lengths(gateway: &mut Gateway) {
    gateway.apply(DNS);
    let (sent, arrived) = question(gateway);
    let full = if gateway.world.is_v6() { 1452 } else { 1472 };
    for length in [0, 1, 2, 3, 17, 18, 19, 999, full - 1, full] {
        let outcome = gateway.outside(&sent.sized(length));
        outcome.forwarded(Side::Inside, &arrived.sized(length));
        let mut padded = Gateway::framed(Side::Outside, &sent.sized(length));
        padded.extend([0xa5; 7]);
        gateway.receive(Side::Outside, &padded).forwarded(Side::Inside, &arrived.sized(length));
    }
}
