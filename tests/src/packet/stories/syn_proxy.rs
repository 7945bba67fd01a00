//! `syn-proxy`: while too many connections are being opened, sources have to prove that they are there.

use crate::packet::{ACK, Body, Fate, Gateway, Packet, RST, SYN, Side};

const RULES: &str = r#"
[[port-forward]]
name = "guarded"
protocol = ["tcp", "udp"]
port = 8080
to = "worker1:80"
syn-proxy = "auto"

[[port-forward]]
name = "plain"
protocol = "tcp"
port = 8081
to = "worker1:81"
"#;

fn knock(gateway: &Gateway, host: &str, port: u16) -> Packet {
    Packet::tcp(gateway.world.at(host, port), gateway.world.at("master", 8080), SYN)
}

/// The number that a challenge acknowledges, which must look as one.
#[track_caller]
fn number(syn: &Packet, challenge: &Packet) -> u32 {
    assert_eq!((challenge.source, challenge.destination), (syn.destination, syn.source));
    assert!(challenge.payload.is_empty());
    let (Body::Tcp { flags, acknowledged, .. }, Body::Tcp { sequence, .. }) = (&challenge.body, &syn.body)
    else {
        panic!("no TCP segment: {challenge:?}");
    };
    assert_eq!(*flags, ACK);
    let believed = sequence.wrapping_add(1)..=sequence.wrapping_add(1 + syn.payload.len() as u32);
    assert!(!believed.contains(acknowledged), "its sender would believe it");
    *acknowledged
}

/// What a client in SYN-SENT answers (RFC 9293 §3.10.7.3): its sequence number is what was acknowledged.
fn reset(syn: &Packet, sequence: u32) -> Packet {
    let body = Body::Tcp { flags: RST, sequence, acknowledged: 0 };
    Packet { body, payload: Vec::new(), ..syn.clone() }
}

/// A SYN is challenged.
#[track_caller]
fn challenged(gateway: &mut Gateway, syn: &Packet) -> u32 {
    gateway.press();
    let outcome = gateway.outside(syn);
    assert_eq!(outcome.moved.translation("guarded").flows_opened, 0);
    number(syn, &outcome.answered("syn-challenged"))
}

/// The source of a SYN proves that it is there.
#[track_caller]
fn prove(gateway: &mut Gateway, syn: &Packet) {
    let number = challenged(gateway, syn);
    gateway.outside(&reset(syn, number)).dropped("challenge-met");
}

/// As it is at worker1.
fn arrived(gateway: &Gateway, syn: &Packet) -> Packet {
    syn.hop().to(gateway.world.at("worker1", 80))
}

/// A SYN opens its connection.
#[track_caller]
fn opens(gateway: &mut Gateway, syn: &Packet) {
    gateway.press();
    let expected = arrived(gateway, syn);
    gateway.outside(syn).forwarded(Side::Inside, &expected);
}

/// Nobody is challenged but while too many connections are being opened; then everybody is, with and without data.
pub fn under_pressure_alone(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let syn = knock(gateway, "client", 4000);
    gateway.outside(&syn).forwarded(Side::Inside, &arrived(gateway, &syn));
    for host in ["client", "neighbour", "stranger"] {
        let syn = knock(gateway, host, 4001);
        challenged(gateway, &syn);
        challenged(gateway, &syn.sized(9));
        challenged(gateway, &syn.sized(300));
    }
    gateway.relieve();
    let syn = knock(gateway, "client", 4001);
    gateway.outside(&syn).forwarded(Side::Inside, &arrived(gateway, &syn));
}

/// Whoever answers the challenge may open connections, and nobody else.
pub fn who_answers_may_open(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let syn = knock(gateway, "client", 4000);
    prove(gateway, &syn);
    opens(gateway, &syn);
    let another = knock(gateway, "client", 4001);
    opens(gateway, &another);
    let neighbour = knock(gateway, "neighbour", 4000);
    challenged(gateway, &neighbour);
}

/// Another number, the number of another connection, and a reset that says more than it should prove nothing.
pub fn no_other_answer_counts(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let syn = knock(gateway, "client", 4000);
    let number = challenged(gateway, &syn);
    let right = reset(&syn, number);
    let acknowledging = Body::Tcp { flags: RST | ACK, sequence: number, acknowledged: 1 };
    let wrong = [
        // The next three tell another segment size, which nobody asks for.
        reset(&syn, number.wrapping_add(4)),
        reset(&syn, number.wrapping_sub(1)),
        reset(&syn, number ^ 0x8000_0000),
        reset(&syn, 0),
        right.from(gateway.world.at("client", 4001)),
        right.from(gateway.world.at("neighbour", 4000)),
        right.to(gateway.world.at("second", 8080)),
        Packet { body: acknowledging, ..right.clone() },
    ];
    for wrong in wrong {
        gateway.press();
        let fate = gateway.outside(&wrong).fate;
        assert_ne!(fate, Fate::Dropped("challenge-met"), "{wrong:?}");
        challenged(gateway, &Packet { body: syn.body.clone(), ..wrong });
    }
    challenged(gateway, &syn);
}

/// What goes through no port-forward with `syn-proxy`, or is no SYN, takes its way as ever.
pub fn only_where_it_is_asked_for(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&format!("[policy]\ninput = \"accept\"\n{RULES}"));
    gateway.press();
    let syn = knock(gateway, "client", 4000);
    let plain = syn.to(world.at("master", 8081));
    gateway.outside(&plain).forwarded(Side::Inside, &plain.hop().to(world.at("worker1", 81)));
    let own = syn.to(world.at("master", 22));
    gateway.outside(&own).accepted(&own);
    let datagram = Packet::udp(syn.source, syn.destination);
    gateway.outside(&datagram).forwarded(Side::Inside, &datagram.hop().to(world.at("worker1", 80)));
    gateway.press();
    let segment = syn.flags(ACK);
    gateway.outside(&segment).forwarded(Side::Inside, &segment.hop().to(world.at("worker1", 80)));
    let hairpin = syn.from(world.at("worker2", 4000));
    let _ = gateway.inside(&hairpin).forwarded_somehow();
}

/// Who would not be let in is not answered: what is blocked, banned, spoofed, ruled out, not meant, or without a target.
pub fn never_who_is_refused(gateway: &mut Gateway) {
    let world = gateway.world;
    let rules = RULES.replace("\"auto\"", "\"auto\"\nfrom = [\"!203.0.113.11\", \"!2001:db8:1::11\"]");
    gateway.apply(&format!(
        "[block]\nfrom = [\"198.51.100.0/24\", \"2001:db8:2::/48\"]\n{rules}[[rule]]\nchain = \"forward\"\n\
         action = \"drop\"\nprotocol = \"tcp\"\nfrom-port = 4999\nport-forward = \"guarded\"\n"
    ));
    let refused = [
        (knock(gateway, "stranger", 4000), "blocked"),
        (knock(gateway, "worker3", 4000), "spoofed"),
        (knock(gateway, "client", 4999), "rule"),
        (knock(gateway, "neighbour", 4000), "policy-input"),
    ];
    for (syn, reason) in refused {
        gateway.press();
        gateway.outside(&syn).dropped(reason);
    }
    let syn = knock(gateway, "client", 4000);
    gateway.press();
    let _ = gateway.outside(&syn.ttl(1)).answered("ttl-exceeded");
    challenged(gateway, &syn);
    gateway.ban(world.host("client"));
    gateway.press();
    gateway.outside(&syn).dropped("banned");
    gateway.unban(world.host("client"));
}

/// A challenge costs no token, and is not sent where there is none left.
pub fn a_challenge_costs_no_token(gateway: &mut Gateway) {
    gateway.apply(&format!(
        "{RULES}[[rule]]\nchain = \"forward\"\naction = \"accept\"\nprotocol = \"tcp\"\n\
         limit = {{ rate = \"1/day\", burst = 1, per = \"rule\" }}\n"
    ));
    for port in 4000..4005 {
        let syn = knock(gateway, "stranger", port);
        challenged(gateway, &syn);
    }
    let syn = knock(gateway, "client", 4000);
    prove(gateway, &syn);
    opens(gateway, &syn);
    let above = knock(gateway, "stranger", 4000);
    gateway.press();
    gateway.outside(&above).dropped("rate-limited");
}

/// A live connection does not notice: neither its own segments nor what somebody sends in its name.
pub fn a_live_connection_goes_on(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let syn = knock(gateway, "client", 4000);
    let at_target = gateway.outside(&syn).forwarded_somehow();
    let answer = at_target.answer().flags(SYN | ACK);
    let _ = gateway.inside(&answer).forwarded_somehow();
    let ack = syn.flags(ACK);
    let _ = gateway.outside(&ack).forwarded_somehow();
    challenged(gateway, &syn);
    gateway.press();
    gateway.outside(&ack.sized(100)).forwarded(Side::Inside, &arrived(gateway, &ack.sized(100)));
    let back = answer.flags(ACK).sized(100);
    let _ = gateway.inside(&back).forwarded_somehow();
    let end = ack.flags(RST);
    gateway.outside(&end).forwarded(Side::Inside, &arrived(gateway, &end));
}

/// Whose SYN was carried just before, and is repeated, answers the challenge and goes on with the same flow.
pub fn a_repeated_syn(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let syn = knock(gateway, "client", 4000);
    gateway.outside(&syn).forwarded(Side::Inside, &arrived(gateway, &syn));
    prove(gateway, &syn);
    gateway.press();
    let again = gateway.outside(&syn);
    again.forwarded(Side::Inside, &arrived(gateway, &syn));
    assert_eq!(again.moved.translation("guarded").flows_opened, 0, "it is there already");
}

/// To switch it off, or on, holds at once.
pub fn a_change_holds_at_once(gateway: &mut Gateway) {
    gateway.apply(RULES);
    let syn = knock(gateway, "client", 4000);
    challenged(gateway, &syn);
    gateway.apply(&RULES.replace("\"auto\"", "\"off\""));
    opens(gateway, &syn);
    gateway.apply(RULES);
    challenged(gateway, &knock(gateway, "client", 4001));
}

/// A port-forward to the master itself.
pub fn a_guarded_master(gateway: &mut Gateway) {
    gateway.apply(&RULES.replace("worker1:80\"\nsyn", "master:80\"\nsyn"));
    let syn = knock(gateway, "client", 4000);
    prove(gateway, &syn);
    gateway.press();
    gateway.outside(&syn).accepted(&syn.to(gateway.world.at("gateway", 80)));
}
