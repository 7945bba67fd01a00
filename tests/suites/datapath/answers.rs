//! What the sender of a refused packet is told, and how often. (Scenarios 9 and 10.)

use netfw_tests::packet::{Body, Fate, Packet};

use crate::tell;

const OPEN: &str = "[policy]\ninput = \"accept\"\nforward = \"accept\"\n";

/// The sender is told by the interface that the packet came in on, whatever it was addressed to.
#[test]
fn the_arriving_interface_speaks() {
    tell(|gateway, _| {
        let world = gateway.world;
        gateway.apply(&format!("{OPEN}[masquerade]\nfrom = [\"lan\"]\n"));
        let probe = Packet::udp(world.at("worker1", 4000), world.at("client", 33_434)).ttl(1);
        let answer = gateway.inside(&probe).answered("ttl-exceeded");
        assert_eq!(answer.source.ip(), world.host("gateway"));
        let probe = Packet::udp(world.at("client", 4000), world.at("worker1", 33_434)).ttl(1);
        let answer = gateway.outside(&probe).answered("ttl-exceeded");
        assert_eq!(answer.source.ip(), world.host("master"));
    });
}

/// A program of the master whose packet is refused hears it from the far end: an address of the master's own that came in from
/// outside would be a martian.
#[test]
fn to_its_own_programs_the_far_end_speaks() {
    tell(|gateway, _| {
        let world = gateway.world;
        gateway.apply("[policy]\noutput = \"reject\"\n");
        let sent = Packet::udp(world.at("master", 4000), world.at("client", 53));
        let answer = gateway.send(&sent).answered("rejected");
        assert_eq!((answer.source.ip(), answer.destination.ip()), (sent.destination.ip(), sent.source.ip()));
    });
}

/// Nobody is told of the end of what went to many (RFC 1122 §3.2.2, RFC 4443 §2.4e.3).
#[test]
fn never_about_a_group() {
    tell(|gateway, _| {
        let world = gateway.world;
        gateway.apply("[policy]\ninput = \"reject\"\n");
        let to = |address| Packet::udp(world.at("client", 4000), (address, 53).into());
        gateway.outside(&to(world.address("224.0.1.1", "ff0e::1"))).dropped("rejected");
        let _ = gateway.outside(&to(world.host("master"))).answered("rejected");
    });
}

/// Only so many at once, and only so many a second; resets are no errors.
#[test]
fn not_too_often() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(&format!(
            "{OPEN}[[rule]]\naction = \"reject\"\nprotocol = \"tcp\"\nchain = \"forward\"\n"
        ));
        let probe = Packet::udp(world.at("client", 4000), world.at("worker1", 33_434)).ttl(1);
        let mut told =
            || (0..100).filter(|_| gateway.outside(&probe).fate == Fate::Answered("ttl-exceeded")).count();
        assert_eq!(told(), 64);
        assert_eq!(machine.borrow().errors.borrow().suppressed, 36);
        machine.borrow().wait(2);
        assert_eq!(told(), 64);
        let syn = Packet::tcp(world.at("client", 4000), world.at("worker1", 80), netfw_tests::packet::SYN);
        gateway.outside(&syn).answered("rejected");
    });
}

/// Nobody is told of the end of a redirect (RFC 1122 §3.2.2, RFC 4443 §2.4e.2).
#[test]
fn never_about_a_redirect() {
    tell(|gateway, _| {
        let world = gateway.world;
        gateway.apply(OPEN);
        let (kind, other) = if world.is_v6() { (137, 144) } else { (5, 9) };
        for (kind, answered) in [(kind, false), (other, true)] {
            let body = Body::Icmp { kind, code: 0, detail: 0 };
            let packet = Packet::new(world.at("client", 0), world.at("worker1", 0), body).ttl(1);
            let fate = gateway.outside(&packet).fate;
            assert_eq!(matches!(fate, Fate::Answered(_)), answered, "{kind}: {fate:?}");
        }
    });
}
