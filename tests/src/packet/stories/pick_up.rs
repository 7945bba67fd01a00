//! All flows are lost, and the target of a port-forward speaks before its client does. (Scenario 17.)

use netfw_common::{counters::Count, event::OPENED};

use super::events::EVERYTHING;
use crate::packet::{ACK, FIN, Gateway, Hook, Packet, RST, SYN, Side, Translated};

/// What hides a target that is taken for a LAN host that calls out.
const LAN: &str = "[masquerade]\nfrom = [\"lan\"]\n";

const SSH: &str = r#"
    [masquerade]
    from = ["lan"]
    [[port-forward]]
    name = "ssh"
    protocol = "tcp"
    port = "2201-2202"
    to = ["worker1:22", "worker2:22"]
    spread = "one-to-one"
"#;

/// Rules with a masquerade and a port-forward of these further lines.
fn forward(lines: &str) -> String {
    format!("{LAN}[[port-forward]]\nname = \"web\"\nprotocol = \"tcp\"\n{lines}\n")
}

/// A segment of a target, to the client's port 4000.
fn word(gateway: &Gateway, target: &str, port: u16) -> Packet {
    let world = gateway.world;
    Packet::tcp(world.at(target, port), world.at("client", 4000), ACK).sized(100)
}

/// The client hears the word from where he had called, and goes on with the same target.
#[track_caller]
fn goes_on(gateway: &mut Gateway, word: &Packet, master: &str, port: u16) {
    let heard = word.from(gateway.world.at(master, port));
    gateway.inside(word).forwarded(Side::Outside, &heard.hop());
    let answer = heard.answer();
    gateway.outside(&answer).forwarded(Side::Inside, &answer.to(word.source).hop());
    gateway.inside(word).forwarded(Side::Outside, &heard.hop());
    gateway.outside(&answer).forwarded(Side::Inside, &answer.to(word.source).hop());
}

/// The flow is the client's, as if he had spoken; the target's words count as answers.
pub fn by_the_target(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(SSH);
    gateway.watch(&EVERYTHING);
    let before = gateway.counters();
    let said = word(gateway, "worker2", 22);
    let heard = said.from(world.at("master", 2202));
    gateway.inside(&said).forwarded(Side::Outside, &heard.hop());
    let one = Count { packets: 1, bytes: if world.is_v6() { 160 } else { 140 } };
    let moved = gateway.counters().since(&before);
    let first = Translated { flows_opened: 1, forth: Count::default(), back: one };
    assert_eq!((moved.translation("ssh"), moved.translation("").flows_opened), (first, 0));
    assert_eq!(gateway.flows(), 2);
    let [told, _] = gateway.told();
    let ends: Vec<_> =
        told.iter().map(|event| (event.kind, event.interface, event.leaving.destination_port)).collect();
    assert_eq!(ends, [(OPENED, Side::Outside.slot(), 22)]);
    assert_eq!((told[0].arriving.source_port, told[0].arriving.destination_port), (4000, 2202));

    let answer = heard.answer();
    gateway.outside(&answer).forwarded(Side::Inside, &answer.to(said.source).hop());
    gateway.inside(&said).forwarded(Side::Outside, &heard.hop());
    gateway.outside(&answer).forwarded(Side::Inside, &answer.to(said.source).hop());
    assert_eq!(gateway.counters().since(&before).translation("ssh").flows_opened, 1);
    // What no rule admits any more is the client's flow.
    gateway.apply(LAN);
    assert_eq!(gateway.outside(&answer).answered("flow-cut").source, answer.destination);
}

/// Whatever a target says but for a call of its own.
pub fn by_any_word(gateway: &mut Gateway) {
    for flags in [FIN | ACK, RST, RST | ACK] {
        gateway.apply(SSH);
        let said = word(gateway, "worker1", 22).sized(0).flags(flags);
        let said = said.to(gateway.world.at("client", 4000 + u16::from(flags)));
        let heard = said.from(gateway.world.at("master", 2201));
        gateway.inside(&said).forwarded(Side::Outside, &heard.hop());
    }
}

/// The outside port follows from every port-forward in which one alone leads to the target.
pub fn where_one_port_leads_there(gateway: &mut Gateway) {
    gateway.apply(&forward("port = 80\nto = \"worker1:8080\""));
    goes_on(gateway, &word(gateway, "worker1", 8080), "master", 80);
    gateway.apply(&forward("port = \"4040-4049\"\nto = \"worker1:8040-8049\""));
    goes_on(gateway, &word(gateway, "worker1", 8049), "master", 4049);
    gateway.apply(&forward("port = [81, \"90-91\"]\nto = [\"worker1:8081\", \"worker2:8081\", \"worker1:8091\"]\nspread = \"one-to-one\""));
    goes_on(gateway, &word(gateway, "worker1", 8081), "master", 81);
    goes_on(gateway, &word(gateway, "worker1", 8091), "master", 91);
    // The target that speaks is the one that was chosen.
    gateway.apply(&forward("port = 82\nto = [\"worker1:82\", \"worker2:82\", \"worker3:82\"]"));
    goes_on(gateway, &word(gateway, "worker3", 82), "master", 82);
    let lines = r#"port = 83
        to = "worker1:83"
        address = ["192.0.2.9", "2001:db8::9"]"#;
    gateway.apply(&forward(lines));
    goes_on(gateway, &word(gateway, "worker1", 83), "second", 83);
    // Two lead to its address and two to its port, but to both together only one.
    gateway.apply(&format!(
        "{}[[port-forward]]\nname = \"other\"\nprotocol = \"tcp\"\nport = [86, 87]\nto = [\"worker2:85\", \"worker1:84\"]\nspread = \"one-to-one\"\n",
        forward("port = [84, 85]\nto = [\"worker1:85\", \"worker2:84\"]\nspread = \"one-to-one\"")
    ));
    goes_on(gateway, &word(gateway, "worker1", 85), "master", 84);
    goes_on(gateway, &word(gateway, "worker1", 84), "master", 87);
}

/// Where the outside port cannot be told, the target waits for the client.
pub fn once_the_client_has_spoken(gateway: &mut Gateway) {
    let twice = format!(
        "{}[[port-forward]]\nname = \"again\"\nprotocol = \"tcp\"\nport = 81\nto = \"worker1:8080\"\n",
        forward("port = 80\nto = \"worker1:8080\"")
    );
    let one = r#"port = "80-81"
        to = "worker1:8080""#;
    let addresses = r#"port = 81
        to = "worker1:8080"
        address = ["192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::9"]"#;
    let overlapping = r#"port = "80-89"
        to = ["worker1:8080-8089", "worker1:8079-8088"]
        balance = "source-hash""#;
    let same = r#"port = "80-81"
        to = ["worker1:8080", "worker1:8080"]
        spread = "one-to-one""#;
    let all = [twice, forward(one), forward(addresses), forward(overlapping), forward(same)];
    for (port, rules) in (4000..).zip(all) {
        let world = gateway.world;
        gateway.apply(&rules);
        let flows = gateway.flows();
        let said = word(gateway, "worker1", 8080).to(world.at("client", port));
        for _ in 0..3 {
            gateway.inside(&said).dropped("answers-unknown");
        }
        assert_eq!(gateway.flows(), flows);
        let asked = Packet::tcp(said.destination, world.at("master", 81), ACK);
        let arrived = gateway.outside(&asked).forwarded_somehow();
        let said = said.from(arrived.destination);
        gateway.inside(&said).forwarded(Side::Outside, &said.from(asked.destination).hop());
    }
}

/// The rules decide as about the client's own segment.
pub fn as_the_rules_say(gateway: &mut Gateway) {
    let rule = |action: &str, more: &str| {
        format!(
            "{SSH}[[rule]]\nname = \"r\"\nchain = \"forward\"\naction = \"{action}\"\nto = [\"worker1\"]\nprotocol = \"tcp\"\nport = 22\nport-forward = \"ssh\"\nfrom = [\"office\"]\ninterface = \"eth0\"\n{more}"
        )
    };
    gateway.apply(&rule("drop", ""));
    let said = word(gateway, "worker1", 22);
    gateway.inside(&said).dropped("rule");
    gateway.apply(&rule("reject", ""));
    assert_eq!(gateway.inside(&said).answered("rejected").destination, said.source);
    gateway.apply(&rule("accept", "limit = { rate = \"1/hour\", burst = 1 }\n"));
    let before = gateway.counters();
    let heard = said.from(gateway.world.at("master", 2201));
    gateway.inside(&said).forwarded(Side::Outside, &heard.hop());
    assert_eq!(gateway.counters().since(&before).rules["r"].packets, 1);
    gateway.inside(&said).forwarded(Side::Outside, &heard.hop());
    let other = said.to(gateway.world.at("client", 4001));
    gateway.inside(&other).dropped("rate-limited");
    gateway
        .inside(&word(gateway, "worker2", 22))
        .forwarded(Side::Outside, &word(gateway, "worker2", 22).from(gateway.world.at("master", 2202)).hop());
}

/// Who calls out is hidden as ever: with a call, to a server, from another port, to somebody whom no port-forward serves, or where
/// the clients of the port-forward are hidden themselves.
pub fn no_caller_is_taken_for_a_target(gateway: &mut Gateway) {
    let world = gateway.world;
    let office = format!("{SSH}from = [\"office\"]\n");
    let hidden = format!("{SSH}source-nat = \"always\"\n");
    let udp = SSH.replace("\"tcp\"", "[\"tcp\", \"udp\"]");
    let at = |name, port| world.at(name, port);
    let calls = [
        (SSH, Packet::tcp(at("worker1", 22), at("client", 4000), SYN)),
        (SSH, Packet::tcp(at("worker1", 22), at("client", 4004), SYN | ACK)),
        (SSH, Packet::tcp(at("worker1", 22), at("client", 443), ACK)),
        (SSH, Packet::tcp(at("worker1", 2201), at("client", 4001), ACK)),
        (SSH, Packet::tcp(at("worker3", 22), at("client", 4002), ACK)),
        (office.as_str(), Packet::tcp(at("worker1", 22), at("stranger", 4000), ACK)),
        (hidden.as_str(), Packet::tcp(at("worker1", 22), at("client", 4003), ACK)),
        (udp.as_str(), Packet::udp(at("worker1", 22), at("client", 4000))),
    ];
    for (rules, packet) in calls {
        gateway.apply(rules);
        let left = packet.from(at("master", packet.source.port()));
        let before = gateway.counters();
        let outcome = gateway.inside(&packet);
        if left.source.port() == 2201 {
            assert_ne!(outcome.forwarded_somehow().source.port(), 2201, "a forwarded port");
        } else {
            outcome.forwarded(Side::Outside, &left.hop());
        }
        let moved = gateway.counters().since(&before);
        assert_eq!((moved.translation("").flows_opened, moved.translation("ssh").flows_opened), (1, 0));
    }
}

/// A client who talks with another target by now hears nothing from the old one.
pub fn another_target_by_now(gateway: &mut Gateway) {
    gateway.apply(&forward("port = 82\nto = [\"worker1:82\", \"worker2:82\"]"));
    let asked = word(gateway, "worker1", 82).answer().to(gateway.world.at("master", 82));
    let arrived = gateway.outside(&asked).forwarded_somehow();
    let chosen = arrived.destination;
    for target in ["worker1", "worker2"] {
        let said = word(gateway, target, 82);
        if said.source == chosen {
            gateway.inside(&said).forwarded(Side::Outside, &said.from(asked.destination).hop());
        } else {
            gateway.inside(&said).dropped("answers-unknown");
        }
    }
    gateway.outside(&asked).forwarded(Side::Inside, &arrived);
}

/// A target that nothing hides may have been called by its own address, where the rules allow it.
pub fn where_nobody_calls_directly(gateway: &mut Gateway) {
    let rules = "[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = \"worker1:22\"\n";
    let direct =
        "[[rule]]\nchain = \"forward\"\naction = \"accept\"\nto = [\"lan\"]\nprotocol = \"tcp\"\nport = 22\n";
    gateway.apply(&format!("{rules}{direct}"));
    let said = word(gateway, "worker1", 22);
    gateway.inside(&said).dropped("answers-unknown");
    let asked = said.answer();
    gateway.outside(&asked).forwarded(Side::Inside, &asked.hop());
    gateway.inside(&said).forwarded(Side::Outside, &said.hop());
    gateway.apply(rules);
    let said = said.to(gateway.world.at("client", 4001));
    goes_on(gateway, &said, "master", 2201);
}

/// A target behind an interface that isn't managed: the stack has routed its word.
pub fn a_target_elsewhere(gateway: &mut Gateway) {
    let world = gateway.world;
    let container = std::net::SocketAddr::new(world.address("172.17.0.2", "fd00:17::2"), 80);
    gateway.apply(
        "[masquerade]\nfrom = [\"172.17.0.0/16\", \"fd00:17::/64\"]\n[[port-forward]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 8080\nto = [\"172.17.0.2:80\", \"[fd00:17::2]:80\"]\nsource-nat = \"never\"\nbalance = \"source-hash\"\n"
    );
    let said = Packet::tcp(container, world.at("client", 4000), ACK);
    let heard = said.from(world.at("master", 8080));
    gateway.leave(Hook::Routed, &said).accepted(&heard);
    gateway.leave(Hook::Routed, &said).accepted(&heard);
    // No route leads to the bridge here: the way out is the default one.
    let answer = heard.answer();
    gateway.outside(&answer).forwarded(Side::Outside, &answer.to(container).hop());
    let own = Packet::tcp(world.at("master", 80), world.at("client", 4000), ACK);
    gateway.send(&own).accepted(&own);
}
