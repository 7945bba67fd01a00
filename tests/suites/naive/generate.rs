//! Random rules files and packets, from so small a world that they meet often.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use ipnet::IpNet;
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
};

use super::{
    interpreter::Packet,
    rules_file::{Forward, HOSTS, Rule, RulesFile, Selection, Word, host},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const GRE: u8 = 47;

/// Local addresses that a port-forward may listen on.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Hosts of the LAN, those outside, and the master's own address there.
fn address4() -> impl Strategy<Value = IpAddr> {
    let near = (2u8..10).prop_map(|last| IpAddr::from([192, 168, 80, last]));
    let far = (8u8..12).prop_map(|last| IpAddr::from([203, 0, 113, last]));
    prop_oneof![5 => near, 2 => far, 1 => Just(IpAddr::from([198, 51, 100, 10])), 1 => Just(OUTSIDE[0])]
}

/// The same.
fn address6() -> impl Strategy<Value = IpAddr> {
    let near = (2u16..10).prop_map(|last| IpAddr::from([0xfd00, 0x80, 0, 0, 0, 0, 0, last]));
    let far = (0xeu16..0x12).prop_map(|last| IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, last]));
    let further = Just(IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10]));
    prop_oneof![5 => near, 2 => far, 1 => further, 1 => Just(OUTSIDE[1])]
}

fn network() -> impl Strategy<Value = IpNet> {
    let v4 = (address4(), select(vec![0, 8, 24, 28, 29, 30, 31, 32]));
    let v6 = (address6(), select(vec![0, 16, 32, 48, 64, 124, 125, 126, 127, 128]));
    prop_oneof![v4, v6]
        .prop_map(|(address, length)| IpNet::new(address, length).expect("a length of the family").trunc())
}

/// A word that may name the first `sets` sets.
fn word(sets: usize) -> BoxedStrategy<Word> {
    let plain =
        prop_oneof![4 => network().prop_map(Word::Network), 2 => (0..HOSTS.len()).prop_map(Word::Host)];
    if sets == 0 {
        plain.boxed()
    } else {
        prop_oneof![6 => plain, 2 => (0..sets).prop_map(Word::Set)].boxed()
    }
}

fn words() -> impl Strategy<Value = Selection> {
    vec((prop::bool::weighted(0.3), word(SETS)), 1..4)
}

fn any_or_words() -> impl Strategy<Value = Selection> {
    prop_oneof![Just(Vec::new()), words()]
}

const SETS: usize = 3;

fn sets() -> impl Strategy<Value = Vec<Vec<Word>>> {
    (vec(word(0), 0..3), vec(word(1), 0..3), vec(word(2), 0..3)).prop_map(|(a, b, c)| vec![a, b, c])
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![3 => 1u16..12, 6 => 98u16..132, 1 => Just(u16::MAX)]
}

fn ports() -> impl Strategy<Value = Vec<[u16; 2]>> {
    let range = (port(), port()).prop_map(|(a, b)| [a.min(b), a.max(b)]);
    prop_oneof![vec(range, 0..3), port().prop_map(|port| vec![[port, port]])]
}

/// Protocols with what may be asked of them: ports, source ports, ICMP types.
type Transport = (Vec<u8>, Vec<[u16; 2]>, Vec<[u16; 2]>, Vec<u8>);

fn transport() -> impl Strategy<Value = Transport> {
    let none = || Just(Vec::new());
    let with_ports = (subsequence(vec![TCP, UDP, SCTP], 1..=3), ports(), ports(), Just(Vec::new()));
    let queries = select(vec![13u8, 17, 139]);
    let icmp_type = prop_oneof![4 => 0u8..12, 1 => 128u8..130, 2 => queries];
    let types = btree_set(icmp_type, 0..4).prop_map(|types| types.into_iter().collect());
    let icmp = (select(vec![vec![ICMP], vec![ICMPV6]]), none(), none(), types);
    let others = subsequence(vec![TCP, UDP, SCTP, ICMP, ICMPV6, GRE], 0..=4);
    prop_oneof![3 => with_ports, 1 => icmp, 2 => (others, none(), none(), Just(Vec::new()))]
}

fn enabled() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.85)
}

fn action() -> impl Strategy<Value = &'static str> {
    select(vec!["accept", "drop", "reject"])
}

/// Where the master's own packets are judged: no port-forward is met there.
const OUTPUT: usize = 2;

/// Now and then one or more of these.
fn some_of(all: Vec<usize>) -> BoxedStrategy<Vec<usize>> {
    if all.is_empty() {
        return Just(all).boxed();
    }
    let length = 1..=all.len();
    option::weighted(0.4, subsequence(all, length)).prop_map(Option::unwrap_or_default).boxed()
}

/// A rule in a file with `forwards` port-forwards.
fn rule(forwards: usize) -> impl Strategy<Value = Rule> {
    let place = (0usize..3, some_of(vec![1, 2]), some_of((0..forwards).collect()));
    (enabled(), place, action(), transport(), any_or_words(), any_or_words()).prop_map(
        |(enabled, (chain, interfaces, forwards), action, transport, from, to)| {
            let (protocols, ports, from_ports, icmp_types) = transport;
            let port_forwards = if chain == OUTPUT { Vec::new() } else { forwards };
            Rule {
                enabled,
                chain,
                action,
                protocols,
                from,
                to,
                ports,
                from_ports,
                icmp_types,
                interfaces,
                port_forwards,
            }
        },
    )
}

/// The `number`-th port-forward: it has ports of its own, so that none overlap.
fn forward(number: u16) -> impl Strategy<Value = Forward> {
    let first = 100 + 10 * number;
    let ports = select(vec![
        vec![[first, first]],
        vec![[first, first + 3]],
        vec![[first + 4, first + 5], [first, first], [first + 7, first + 9]],
    ]);
    let hosts = vec((0..HOSTS.len(), 1u16..12, any::<bool>()), 8);
    let protocols = subsequence(vec![TCP, UDP], 1..=2);
    (enabled(), ports, hosts, 1usize..4, any::<bool>(), protocols, any_or_words(), any::<bool>()).prop_map(
        |(enabled, ports, hosts, balanced, one_to_one, protocols, from, bound)| {
            let count = ports.iter().map(|[first, last]| last - first + 1).sum::<u16>();
            let last =
                |first: u16, shifted: bool| if shifted && !one_to_one { first + count - 1 } else { first };
            let targets = hosts.iter().map(|&(host, port, shifted)| (host, [port, last(port, shifted)]));
            let targets: Vec<_> = targets.take(if one_to_one { count.into() } else { balanced }).collect();
            let addresses = if bound { outside(&targets) } else { Vec::new() };
            Forward { enabled, protocols, ports, from, addresses, targets, one_to_one }
        },
    )
}

/// Outside addresses of the families that the targets have.
fn outside(targets: &[(usize, [u16; 2])]) -> Vec<IpAddr> {
    let served = |outside: &IpAddr| {
        targets.iter().any(|(name, _)| host(*name).any(|target| target.is_ipv4() == outside.is_ipv4()))
    };
    OUTSIDE.into_iter().filter(served).collect()
}

/// A valid rules file. Now and then it has more than 64 rules, which fill more than one word of a vector.
pub(crate) fn rules_file() -> impl Strategy<Value = RulesFile> {
    prop_oneof![4 => with_rules(0..16), 1 => with_rules(60..140)]
}

/// A valid rules file that is soon compiled.
pub(crate) fn small_rules_file() -> impl Strategy<Value = RulesFile> {
    with_rules(0..16)
}

fn with_rules(count: Range<usize>) -> impl Strategy<Value = RulesFile> {
    let forwards = prop_oneof![
        Just(Vec::new()).boxed(),
        forward(0).prop_map(|forward| vec![forward]).boxed(),
        (forward(0), forward(1), forward(2)).prop_map(|(a, b, c)| vec![a, b, c]).boxed(),
    ];
    forwards.prop_flat_map(move |forwards| {
        let rules = vec(rule(forwards.len()), count.clone());
        let default_actions = [action(), action(), action()];
        let anti_spoof = select(vec!["strict", "strict", "loose", "off"]);
        (sets(), default_actions, Just(forwards), vec(words(), 0..3), rules, anti_spoof).prop_map(
            |(sets, default_actions, forwards, masquerades, rules, anti_spoof)| RulesFile {
                anti_spoof,
                keep: false,
                sets,
                default_actions,
                forwards,
                masquerades,
                rules,
            },
        )
    })
}

/// A packet as it arrives.
pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    let ends = prop_oneof![(address4(), address4()), (address6(), address6())];
    let protocol = select(vec![TCP, TCP, TCP, UDP, UDP, UDP, SCTP, ICMP, ICMPV6, GRE]);
    (0usize..3, 0usize..3, ends, protocol, port(), port()).prop_map(
        |(chain, interface, (source, destination), protocol, source_port, port)| {
            let (source_port, detail) = match protocol {
                ICMP if source.is_ipv4() => (source_port, type4(port % 12)),
                ICMPV6 if source.is_ipv6() => (source_port, type6(port % 12)),
                // The ICMP of the other family is a protocol like any other.
                ICMP | ICMPV6 | GRE => (0, 0),
                _ => (source_port, port),
            };
            Packet { chain, interface, source, destination, protocol, source_port, detail }
        },
    )
}

/// An ICMP type; timestamps and address masks, asked for and told, in the place of some that nobody answers.
fn type4(kind: u16) -> u16 {
    match kind {
        1 => 13,
        2 => 14,
        6 => 17,
        7 => 18,
        other => other,
    }
}

/// An ICMPv6 type, with echoes as often as in ICMP, and node information.
fn type6(kind: u16) -> u16 {
    match kind {
        8 => 128,
        0 => 129,
        6 => 139,
        7 => 140,
        other => other,
    }
}
