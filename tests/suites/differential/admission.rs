//! Random rules for netfw and the same for nftables: both admit the same new flows, and the same rule decides. (Scenario 18.)

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab},
    netfw::Netfw,
    packet::{
        Packet, SYN, Side,
        world::{V4, V6},
    },
    rules,
};
use proptest::{collection::vec, option, prelude::*, sample::select, strategy::ValueTree as _};

use super::{
    chance,
    normal::Ports,
    twin::{self, Twin, side_of_sender},
};

/// Rule sets that are tried in each engine, one after the other.
const SETS: usize = 10;
/// New flows that each of them judges.
const FLOWS: usize = 60;
/// Source ports: each flow has another.
const FIRST_PORT: u16 = 10_000;
const LAST_PORT: u16 = FIRST_PORT + (SETS * FLOWS) as u16 - 1;

/// Before the rules: what the test itself needs.
const HEAD: &str = r#"
[flows]
on-change = "keep"
[masquerade]
from = ["lan"]
[[port-forward]]
name = "fence"
protocol = "udp"
port = 9
to = ["worker1:9"]
[[port-forward]]
name = "forward"
protocol = ["tcp", "udp"]
port = "50-51"
to = ["worker1:60", "worker2:60"]
spread = "one-to-one"
[[rule]]
chain = "forward"
action = "accept"
protocol = "udp"
port = 9
"#;

/// A word in `from` or `to`: as netfw has it, and what it means in each family.
#[derive(Clone, Copy, Debug)]
struct Word(&'static str, [&'static str; 2]);

const WORDS: [Word; 12] = [
    Word("office", ["203.0.113.0/24", "2001:db8:1::/48"]),
    Word("lan", ["192.168.80.0/24", "fd00:80::/64"]),
    Word("worker1", ["192.168.80.3", "fd00:80::3"]),
    Word("master", ["192.168.80.2", "fd00:80::2"]),
    Word("192.0.2.1", ["192.0.2.1", ""]),
    Word("2001:db8::/64", ["", "2001:db8::/64"]),
    Word("203.0.113.10", ["203.0.113.10", ""]),
    Word("192.168.80.4/31", ["192.168.80.4/31", ""]),
    Word("2001:db8:1::11", ["", "2001:db8:1::11"]),
    Word("fd00:80::4/126", ["", "fd00:80::4/126"]),
    Word("0.0.0.0/0", ["0.0.0.0/0", ""]),
    Word("::/0", ["", "::/0"]),
];

/// Words, each of which may be excluded.
type Selection = Vec<(bool, Word)>;

#[derive(Clone, Debug)]
struct Rule {
    chain: &'static str,
    action: &'static str,
    protocols: Vec<&'static str>,
    from: Selection,
    to: Selection,
    ports: Option<(u16, u16)>,
    from_ports: Option<(u16, u16)>,
    interface: Option<&'static str>,
}

fn selection() -> impl Strategy<Value = Selection> {
    vec((prop::bool::weighted(0.3), select(WORDS.to_vec())), 0..3)
}

fn rule() -> impl Strategy<Value = Rule> {
    let with_ports = (
        select(vec![vec!["tcp"], vec!["udp"], vec!["tcp", "udp"]]),
        option::weighted(0.7, (50..61_u16, 0..4_u16).prop_map(|(first, more)| (first, first + more))),
        option::weighted(
            0.3,
            (FIRST_PORT..LAST_PORT, 100..800_u16).prop_map(|(first, more)| (first, first + more)),
        ),
    );
    let others = (select(vec![vec![], vec!["icmp"], vec!["icmpv6"]]), Just(None), Just(None));
    (
        select(vec!["input", "forward", "forward"]),
        select(vec!["accept", "drop"]),
        prop_oneof![3 => with_ports, 1 => others],
        (selection(), selection()),
        option::weighted(0.2, select(vec!["eth0", "eth1"])),
    )
        .prop_map(|(chain, action, (protocols, ports, from_ports), (from, to), interface)| Rule {
            chain,
            action,
            protocols,
            from,
            to,
            ports,
            from_ports,
            interface,
        })
}

impl Rule {
    fn toml(&self) -> String {
        let words = |selection: &Selection| {
            selection.iter().map(|(not, word)| format!("{}{}", if *not { "!" } else { "" }, word.0)).collect()
        };
        let range = |(first, last): (u16, u16)| vec![format!("{first}-{last}")];
        let protocols = self.protocols.iter().map(|name| (*name).to_owned()).collect();
        let mut text = format!("[[rule]]\nchain = \"{}\"\naction = \"{}\"\n", self.chain, self.action);
        let lists: [(&str, Vec<String>); 5] = [
            ("protocol", protocols),
            ("from", words(&self.from)),
            ("to", words(&self.to)),
            ("port", self.ports.map(range).unwrap_or_default()),
            ("from-port", self.from_ports.map(range).unwrap_or_default()),
        ];
        for (key, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
            let _ = writeln!(text, "{key} = {list:?}");
        }
        if let Some(interface) = self.interface {
            let _ = writeln!(text, "interface = \"{interface}\"");
        }
        text
    }

    /// Lines of nftables: one for each family and pair of words, because either word may match.
    fn nft(&self) -> Vec<String> {
        let families = [0, 1].into_iter().flat_map(|family| {
            let sources = conditions(&self.from, family, "saddr");
            let destinations = conditions(&self.to, family, "daddr");
            sources.into_iter().flat_map(move |source| {
                let nfproto = ["ipv4", "ipv6"][family];
                destinations
                    .clone()
                    .into_iter()
                    .map(move |destination| format!("meta nfproto {nfproto} {source} {destination}"))
            })
        });
        families.map(|addresses| format!("{addresses} {} {}", self.transport(), self.action)).collect()
    }

    fn transport(&self) -> String {
        let names: Vec<&str> =
            self.protocols.iter().map(|name| if *name == "icmpv6" { "ipv6-icmp" } else { name }).collect();
        let mut text = String::new();
        if !names.is_empty() {
            let _ = write!(text, "meta l4proto {{ {} }}", names.join(", "));
        }
        for (field, range) in [("dport", self.ports), ("sport", self.from_ports)] {
            if let Some((first, last)) = range {
                let _ = write!(text, " th {field} {first}-{last}");
            }
        }
        if let Some(interface) = self.interface {
            let _ = write!(text, " iifname {interface}");
        }
        text
    }
}

/// What must hold of an address of this family, one text for each word that selects it; none: no address is selected.
fn conditions(selection: &Selection, family: usize, field: &str) -> Vec<String> {
    let key = format!("{} {field}", ["ip", "ip6"][family]);
    let of =
        |excluded| selection.iter().filter(move |(not, _)| *not == excluded).map(|(_, word)| word.1[family]);
    let excluded: String =
        of(true).filter(|word| !word.is_empty()).map(|word| format!("{key} != {word} ")).collect();
    if of(false).next().is_none() {
        return vec![excluded];
    }
    of(false).filter(|word| !word.is_empty()).map(|word| format!("{excluded}{key} {word}")).collect()
}

fn nftables(rules: &[Rule]) -> String {
    let chain = |name: &str| -> String {
        let lines = rules.iter().filter(|rule| rule.chain == name).flat_map(Rule::nft);
        lines.map(|line| format!("        {line}\n")).collect()
    };
    format!(
        "table inet gateway
delete table inet gateway
table inet gateway {{
    chain translate {{
        type nat hook prerouting priority dstnat;
        ip daddr 192.0.2.1 udp dport 9 dnat ip to 192.168.80.3:9
        ip daddr 192.0.2.1 meta l4proto {{ tcp, udp }} th dport 50 dnat ip to 192.168.80.3:60
        ip daddr 192.0.2.1 meta l4proto {{ tcp, udp }} th dport 51 dnat ip to 192.168.80.4:60
        ip6 daddr 2001:db8::1 meta l4proto {{ tcp, udp }} th dport 50 dnat ip6 to [fd00:80::3]:60
        ip6 daddr 2001:db8::1 meta l4proto {{ tcp, udp }} th dport 51 dnat ip6 to [fd00:80::4]:60
    }}
    chain hide {{
        type nat hook postrouting priority srcnat;
        iifname \"eth1\" oifname \"eth0\" masquerade
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        icmpv6 type {{ nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }} accept
        ct state established,related accept
{}    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        udp dport 9 accept
{}        ct status dnat accept
        iifname \"eth1\" oifname \"eth0\" accept
    }}
}}
",
        chain("input"),
        chain("forward")
    )
}

/// The first packet of a flow, but for its source port.
#[derive(Clone, Debug)]
struct Opening {
    from: &'static str,
    to: &'static str,
    port: u16,
    kind: u8,
    v6: bool,
}

fn opening() -> impl Strategy<Value = Opening> {
    let outside = || select(vec!["client", "neighbour", "stranger"]);
    let inside = || select(vec!["worker1", "worker2", "worker3", "worker4"]);
    let ends = prop_oneof![
        3 => (outside(), Just("master")),
        3 => (outside(), inside()),
        2 => (inside(), outside()),
        2 => (inside(), Just("gateway")),
    ];
    (ends, 50..62_u16, 0..5_u8, any::<bool>()).prop_map(|((from, to), port, kind, v6)| Opening {
        from,
        to,
        port,
        kind,
        v6,
    })
}

impl Opening {
    fn packet(&self, source_port: u16) -> Packet {
        let world = if self.v6 { V6 } else { V4 };
        let (from, to) = (world.at(self.from, source_port), world.at(self.to, self.port));
        match self.kind {
            0 | 1 => Packet::tcp(from, to, SYN),
            2 | 3 => Packet::udp(from, to),
            _ => Packet::echo(from, to, source_port),
        }
    }
}

#[test]
fn the_same_flows_are_admitted() -> Result<()> {
    for &engine in Engine::chosen()? {
        for seed in chance::seeds()? {
            play(seed, engine).with_context(|| format!("{}={seed}, engine {engine}", chance::VARIABLE))?;
        }
    }
    Ok(())
}

fn play(seed: u64, engine: Engine) -> Result<()> {
    let mut runner = chance::runner(seed);
    let mut draw = || {
        let set = (vec(rule(), 1..10), vec(opening(), FLOWS));
        set.new_tree(&mut runner).expect("nothing is filtered").current()
    };
    let labs = [Lab::two_armed(engine)?, Lab::two_armed(engine)?];
    labs.iter().try_for_each(twin::tell_every_error)?;
    let netfw = Netfw::up(&labs[0], &rules::two_armed(HEAD))?;
    twin::forward_with_nftables(&labs[1], &nftables(&[]))?;
    let mut twins = [Twin::open(&labs[0])?, Twin::open(&labs[1])?];
    let mut admitted = 0;
    for (set, first) in (FIRST_PORT..=LAST_PORT).step_by(FLOWS).enumerate() {
        let (rules, openings) = draw();
        let text: String = rules.iter().map(Rule::toml).collect();
        netfw.reload(&rules::two_armed(&format!("{HEAD}{text}")))?;
        twin::forward_with_nftables(&labs[1], &nftables(&rules))?;
        let flows = openings.iter().zip(first..).map(|(opening, port)| opening.packet(port));
        admitted += compare(&mut twins, flows).with_context(|| format!("rule set {set}:\n{text}"))?;
    }
    let all = SETS * FLOWS;
    println!("{admitted} of {all} flows were admitted");
    ensure!(
        (all / 10..all - all / 10).contains(&admitted),
        "the rules are no test: {admitted} of {all} admitted"
    );
    for reason in ["policy-input", "policy-forward", "rule"] {
        netfw.expect_drops(reason, 1..);
    }
    netfw.finish()
}

/// Sends each to both gateways; how many were admitted.
fn compare(twins: &mut [Twin; 2], flows: impl Iterator<Item = Packet>) -> Result<usize> {
    let mut ports = [Ports::default(), Ports::default()];
    let mut admitted = 0;
    for flow in flows {
        let side = side_of_sender(flow.source.ip());
        let mut seen = [Vec::new(), Vec::new()];
        for (n, twin) in twins.iter_mut().enumerate() {
            let left = twin.pass(side, &flow)?;
            ports[n].learn(&flow, &left, side == Side::Inside);
            seen[n] = ports[n].normal(&left);
        }
        ensure!(seen[0] == seen[1], "{flow:?}\nnetfw: {:?}\nnftables: {:?}", seen[0], seen[1]);
        admitted += usize::from(!seen[0].is_empty());
    }
    Ok(admitted)
}
