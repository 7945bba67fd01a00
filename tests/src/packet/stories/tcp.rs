//! The lives of connections.

use crate::packet::{ACK, Body, FIN, Gateway, Packet, RST, SYN, Side};

const SSH: &str = "[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = [\"worker1:22\", \"worker2:22\"]\n";

/// A connection through the balanced forward: what the client sends, and what the worker gets.
struct Connection {
    sent: Packet,
    arrived: Packet,
}

impl Connection {
    fn open(gateway: &mut Gateway, port: u16) -> Self {
        let world = gateway.world;
        let sent = Packet::tcp(world.at("client", port), world.at("master", 2201), SYN);
        let arrived = gateway.outside(&sent).forwarded_somehow();
        Self { sent, arrived }
    }

    #[track_caller]
    fn client_sends(&self, gateway: &mut Gateway, flags: u8) {
        gateway.outside(&self.sent.flags(flags)).forwarded(Side::Inside, &self.arrived.flags(flags));
    }

    #[track_caller]
    fn worker_sends(&self, gateway: &mut Gateway, flags: u8) {
        let answer = self.arrived.answer().flags(flags);
        let restored = self.sent.answer().flags(flags).hop();
        gateway.inside(&answer).forwarded(Side::Outside, &restored);
    }

    fn establish(gateway: &mut Gateway, port: u16) -> Self {
        let connection = Self::open(gateway, port);
        connection.worker_sends(gateway, SYN | ACK);
        connection.client_sends(gateway, ACK);
        connection
    }
}

/// A repeated SYN goes where the first went, though a turn of the balance has passed. (Scenario 15.)
pub fn a_syn_is_repeated(gateway: &mut Gateway) {
    gateway.apply(SSH);
    let connection = Connection::open(gateway, 4000);
    let other = Connection::open(gateway, 4001);
    assert_ne!(connection.arrived.destination, other.arrived.destination);
    connection.client_sends(gateway, SYN);
    connection.worker_sends(gateway, SYN | ACK);
    connection.client_sends(gateway, SYN);
    connection.worker_sends(gateway, SYN | ACK);
    connection.client_sends(gateway, ACK);
}

/// A SYN into a live connection is the worker's business, who answers it; nothing breaks. (Scenario 15.)
pub fn a_syn_into_a_live_connection(gateway: &mut Gateway) {
    gateway.apply(SSH);
    let connection = Connection::establish(gateway, 4000);
    connection.client_sends(gateway, SYN);
    connection.worker_sends(gateway, ACK);
    connection.client_sends(gateway, ACK);
}

/// Half-close, and both ends closing at once. (Scenario 15.)
pub fn closing(gateway: &mut Gateway) {
    gateway.apply(SSH);
    let half = Connection::establish(gateway, 4000);
    half.client_sends(gateway, FIN | ACK);
    for _ in 0..3 {
        half.worker_sends(gateway, ACK);
        half.client_sends(gateway, ACK);
    }
    half.worker_sends(gateway, FIN | ACK);
    half.client_sends(gateway, ACK);

    let both = Connection::establish(gateway, 4001);
    both.client_sends(gateway, FIN | ACK);
    both.worker_sends(gateway, FIN | ACK);
    both.client_sends(gateway, ACK);
    both.worker_sends(gateway, ACK);
}

/// A new connection may reuse the ports of one that is closed: it is a new flow, with the next turn. (Scenario 15.)
pub fn ports_are_used_again(gateway: &mut Gateway) {
    gateway.apply(SSH);
    let old = Connection::establish(gateway, 4000);
    old.client_sends(gateway, FIN | ACK);
    old.worker_sends(gateway, FIN | ACK);
    old.client_sends(gateway, ACK);
    let before = gateway.counters();
    let new = Connection::establish(gateway, 4000);
    assert_ne!(new.arrived.destination, old.arrived.destination, "the balance has moved on");
    assert_eq!(gateway.counters().since(&before).translation("ssh").flows_opened, 1);
    new.worker_sends(gateway, ACK);
}

/// A reset ends a connection; one that the receiver refuses does not. (Scenario 15.)
pub fn resets(gateway: &mut Gateway) {
    gateway.apply(SSH);
    let connection = Connection::establish(gateway, 4000);
    connection.client_sends(gateway, RST);
    // Out of window: the worker asks, the client goes on.
    connection.worker_sends(gateway, ACK);
    connection.client_sends(gateway, ACK);
    let before = gateway.counters();
    connection.client_sends(gateway, SYN);
    assert_eq!(gateway.counters().since(&before).translation("ssh").flows_opened, 0, "it lives");

    connection.worker_sends(gateway, RST);
    let before = gateway.counters();
    drop(Connection::establish(gateway, 4000));
    assert_eq!(gateway.counters().since(&before).translation("ssh").flows_opened, 1, "it was dead");
}

/// Who knows the ports but not the numbers neither ends a session nor lets its ports be used again, whatever is sent.
/// (Scenario 15.)
pub fn forged_packets(gateway: &mut Gateway) {
    gateway.apply(SSH);
    let connection = Connection::establish(gateway, 4000);
    connection.worker_sends(gateway, ACK);
    for ahead in [100_000, 1 << 31, u32::MAX - 100_000] {
        for flags in [RST, RST | ACK, FIN | ACK, SYN, SYN | ACK, ACK] {
            let sent = connection.sent.flags(flags).ahead(ahead);
            gateway.outside(&sent).forwarded(Side::Inside, &connection.arrived.flags(flags).ahead(ahead));
            let before = gateway.counters();
            connection.client_sends(gateway, SYN);
            let opened = gateway.counters().since(&before).translation("ssh").flows_opened;
            assert_eq!(opened, 0, "dead after {flags:#x}");
        }
    }
    connection.worker_sends(gateway, ACK);
    connection.client_sends(gateway, ACK);
}

/// A connection that is refused leaves nothing that could be in the way of the next.
pub fn a_refusal(gateway: &mut Gateway) {
    gateway.apply(SSH);
    let connection = Connection::open(gateway, 4000);
    let answer = |packet: &Packet| {
        let Body::Tcp { acknowledged, .. } = packet.answer().body else { unreachable!() };
        Packet { body: Body::Tcp { flags: RST | ACK, sequence: 0, acknowledged }, ..packet.answer() }
    };
    let (refusal, restored) = (answer(&connection.arrived), answer(&connection.sent).hop());
    gateway.inside(&refusal).forwarded(Side::Outside, &restored);
    let before = gateway.counters();
    drop(Connection::establish(gateway, 4000));
    assert_eq!(gateway.counters().since(&before).translation("ssh").flows_opened, 1);
}

/// Both ends open at once (RFC 5382 REQ-2, REQ-4): their SYNs cross behind a masquerade, also where the one from outside came
/// too early.
pub fn both_open_at_once(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[masquerade]\nfrom = [\"lan\"]\n");
    let syn = Packet::tcp(world.at("worker1", 4000), world.at("client", 5000), SYN);
    let early = syn.from(world.at("master", 4000)).answer();
    gateway.outside(&early).dropped("policy-input");
    let left = gateway.inside(&syn).forwarded_somehow();
    for flags in [SYN, SYN | ACK, ACK] {
        let answer = left.answer().flags(flags);
        gateway.outside(&answer).forwarded(Side::Inside, &syn.answer().flags(flags).hop());
        if flags & ACK == 0 {
            gateway.inside(&syn.flags(SYN | ACK)).forwarded(Side::Outside, &left.flags(SYN | ACK));
        }
    }
    gateway.inside(&syn.flags(ACK)).forwarded(Side::Outside, &left.flags(ACK));
}

/// State lost: one-to-one forwards pick connections up in the middle. (Scenario 17.)
pub fn picked_up_in_the_middle(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway
        .apply("[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = [\"worker1:22\"]\n");
    let data = Packet::tcp(world.at("client", 4000), world.at("master", 2201), ACK).sized(100);
    let arrived = data.to(world.at("worker1", 22));
    gateway.outside(&data).forwarded(Side::Inside, &arrived.hop());
    let answer = arrived.answer();
    gateway.inside(&answer).forwarded(Side::Outside, &data.answer().hop());
    gateway.outside(&data).forwarded(Side::Inside, &arrived.hop());
}

/// Flags that contradict each other, as only scans send them.
pub fn flags_of_scans(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply("[policy]\ninput = \"accept\"\nforward = \"accept\"\n");
    for to in ["master", "worker1"] {
        let packet = Packet::tcp(world.at("client", 4000), world.at(to, 80), SYN);
        for flags in [0, FIN, SYN | FIN, SYN | RST, FIN | RST | ACK, 0x29, 0x3f] {
            gateway.outside(&packet.flags(flags)).dropped("bad-tcp-flags");
            let mut padded = Gateway::framed(Side::Outside, &packet.flags(flags));
            padded.extend([0; 6]);
            gateway.receive(Side::Outside, &padded).dropped("bad-tcp-flags");
        }
        for flags in [SYN, ACK, RST, RST | ACK, FIN | ACK, SYN | ACK, 0xc2, 0x18] {
            let fate = gateway.outside(&packet.flags(flags)).fate;
            assert!(!matches!(fate, crate::packet::Fate::Dropped(_)), "{flags:#x}: {fate:?}");
        }
    }
}

/// The segment with these options, padded.
pub fn with_options(packet: &Packet, options: &[u8]) -> Packet {
    let mut segment = packet.datagram()[if packet.is_v6() { 40 } else { 20 }..].to_vec();
    segment.extend(options);
    segment.resize(segment.len().next_multiple_of(4), 0);
    segment[12] = (segment.len() as u8 / 4) << 4;
    segment[16..18].fill(0);
    Packet { body: Body::Raw(6), payload: segment, ..packet.clone() }.with_checksum(16)
}

/// A SYN with one option: the largest segment that its sender takes.
pub fn announcing(packet: &Packet, size: u16) -> Packet {
    let [high, low] = size.to_be_bytes();
    with_options(packet, &[2, 4, high, low])
}

/// The segment size that a SYN announces is clamped to what fits both interfaces, in both directions, and never
/// raised; not where nobody wants it. (Scenario 11.)
pub fn the_segment_size(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(SSH);
    let limit = if world.is_v6() { 1440 } else { 1460 };
    for (port, size) in [(4000, 1460), (4001, 8960), (4002, 1200), (4003, 536)] {
        announce(gateway, port, size, size.min(limit));
    }
    gateway.apply(&format!("{SSH}[engine]\nmss-clamp = false\n"));
    announce(gateway, 4004, 8960, 8960);
}

/// Both ends announce `size`; each learns of `expected`.
#[track_caller]
fn announce(gateway: &mut Gateway, port: u16, size: u16, expected: u16) {
    let world = gateway.world;
    let syn = Packet::tcp(world.at("client", port), world.at("master", 2201), SYN);
    let frame = Gateway::framed(Side::Outside, &announcing(&syn, size));
    let arrived = gateway.receive(Side::Outside, &frame).forwarded_somehow();
    // The reader takes options for data.
    assert_eq!(arrived.payload[2..], expected.to_be_bytes());
    let answer = Packet { payload: Vec::new(), ..arrived.answer().flags(SYN | ACK) };
    let frame = Gateway::framed(Side::Inside, &announcing(&answer, size));
    let restored = gateway.receive(Side::Inside, &frame).forwarded_somehow();
    assert_eq!(restored.payload[2..], expected.to_be_bytes());
}

/// The segment size is found among other options, at an odd place too, and nothing else is taken for it. (Scenario 11.)
pub fn the_segment_size_among_other_options(gateway: &mut Gateway) {
    const SIZE: [u8; 4] = [2, 4, 0x23, 0];
    const SELECTIVE: [u8; 2] = [4, 2];
    const NOTHING: [u8; 1] = [1];
    const END: [u8; 1] = [0];
    /// With a length that it cannot have.
    const BROKEN: [u8; 5] = [2, 5, 0x23, 0, 0];
    let world = gateway.world;
    gateway.apply(SSH);
    let clamped = if world.is_v6() { 1440_u16 } else { 1460 }.to_be_bytes();
    let cases: [(&[&[u8]], bool); 6] = [
        (&[&NOTHING, &SIZE], true),
        (&[&NOTHING, &NOTHING, &SIZE], true),
        (&[&SELECTIVE, &SIZE, &NOTHING], true),
        (&[&SELECTIVE, &NOTHING, &SIZE], true),
        (&[&END, &SIZE], false),
        (&[&BROKEN], false),
    ];
    for (port, (options, found)) in (4000..).zip(cases) {
        let sent = options.concat();
        let mut expected = sent.clone();
        if found {
            let at = expected.windows(2).position(|two| two == &SIZE[2..]).expect("a size");
            expected[at..at + 2].copy_from_slice(&clamped);
        }
        expected.resize(expected.len().next_multiple_of(4), 0);
        let syn = Packet::tcp(world.at("client", port), world.at("master", 2201), SYN);
        let frame = Gateway::framed(Side::Outside, &with_options(&syn, &sent));
        let arrived = gateway.receive(Side::Outside, &frame).forwarded_somehow();
        assert_eq!(arrived.payload, expected, "{sent:?}");
    }
}
