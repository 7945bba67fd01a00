//! Limits while time passes, and when cores meet at one bucket.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use netfw_tests::packet::{
    Action, Engine, Fate, Gateway, Hook, Packet, Side,
    world::{V4, V6, World},
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    gateway,
    memory::{Machine, Memory},
    tell,
};

const SECOND: u64 = 1_000_000_000;

fn rules(rate: &str, burst: u32, per: &str) -> String {
    format!(
        "[[rule]]\naction = \"accept\"\nlimit = {{ rate = \"{rate}\", burst = {burst}, per = \"{per}\" }}\n"
    )
}

fn ask(world: World, host: &str, port: u16) -> Packet {
    Packet::udp(world.at(host, port), world.at("master", 53))
}

/// Whether a packet was admitted; else it must have been the limit.
fn admitted(gateway: &mut Gateway, packet: &Packet) -> bool {
    let outcome = gateway.outside(packet);
    match outcome.fate {
        Fate::Dropped(reason) => assert_eq!(reason, "rate-limited"),
        _ => assert_eq!(outcome.fate, Fate::Accepted),
    }
    outcome.fate == Fate::Accepted
}

/// Ten seconds at twice the rate: the burst and the rate get through, exactly, for each unit. (Scenario 22.)
#[test]
fn exact_over_ten_seconds() {
    for (rate, expected) in [("100/second", 20 + 1000), ("600/minute", 20 + 100), ("36000/hour", 20 + 100)] {
        let (mut gateway, machine) = gateway(Engine::Tc, V4);
        gateway.apply(&rules(rate, 20, "rule"));
        let mut through = 0;
        for packet in 0..2000_u16 {
            through += u32::from(admitted(&mut gateway, &ask(V4, "client", 10_000 + packet)));
            machine.borrow().wait_nanos(SECOND / 200);
        }
        assert!((expected - 1..=expected).contains(&through), "{rate}: {through}");
    }
}

/// Rates faster than the coarse clock moves. (Scenario 22.)
#[test]
fn a_thousand_a_second() {
    tell(|gateway, machine| {
        let world = gateway.world;
        gateway.apply(&rules("1000/second", 1, "rule"));
        let mut through = 0;
        for packet in 0..100 {
            through += u32::from(admitted(gateway, &ask(world, "client", 10_000 + packet)));
            machine.borrow().wait_nanos(SECOND / 2000);
        }
        assert_eq!(through, 50);
    });
}

/// A rule keeps its bucket while the rules around it change, and its tokens come back with time. (Scenario 22.)
#[test]
fn a_bucket_belongs_to_a_name() {
    tell(|gateway, machine| {
        let world = gateway.world;
        let named = |more: &str| format!("{more}{}name = \"asked\"\n", rules("1/minute", 2, "source"));
        gateway.apply(&named(""));
        assert!(admitted(gateway, &ask(world, "client", 1)) && admitted(gateway, &ask(world, "client", 2)));
        gateway.apply(&named("[[rule]]\naction = \"drop\"\nprotocol = \"tcp\"\n"));
        assert!(!admitted(gateway, &ask(world, "client", 3)));
        machine.borrow().wait(60);
        assert!(admitted(gateway, &ask(world, "client", 3)) && !admitted(gateway, &ask(world, "client", 4)));
    });
}

/// 100,000 sources, half of them of each family, each exactly at its own limit. (Scenario 22.)
#[test]
fn a_hundred_thousand_sources() {
    for world in [V4, V6] {
        let machine = Rc::new(RefCell::new(Machine::new(64, 64)));
        let mut memory = Memory::new(Rc::clone(&machine));
        let text = rules("1/minute", 1, "source");
        machine.borrow_mut().apply(&netfw_tests::rules::two_armed(&text));
        let source = |number: u32| -> SocketAddr {
            let [_, a, b, c] = number.to_be_bytes();
            let v6 = format!("2001:db8:5:{a:x}::{b:x}:{c:x}");
            SocketAddr::new(world.address(&format!("100.{a}.{b}.{c}"), &v6), 4000)
        };
        for round in 0..2_u16 {
            for number in 0..50_000 {
                let mut packet = ask(world, "client", 4000).from(source(number));
                packet.source.set_port(4000 + round);
                let frame = Gateway::framed(Side::Outside, &packet);
                let (_, ran) = memory.run_merged(Hook::Ingress, Side::Outside, &frame, 1);
                let through = ran.action == Action::Next;
                assert_eq!(through, round == 0, "packet {round} of source {number}");
            }
        }
    }
}

/// A rule with a limit, which decides about datagrams to a port of its own.
#[derive(Clone, Debug)]
struct Limited {
    chain: &'static str,
    action: &'static str,
    rate: u32,
    burst: u32,
    per_source: bool,
}

impl Limited {
    /// The `number`-th rule; its rate is meant for `unit`.
    fn text(&self, number: usize, unit: &str) -> String {
        let Self { chain, action, rate, burst, per_source } = self;
        let per = if *per_source { "source" } else { "rule" };
        format!(
            "[[rule]]\nname = \"{number}\"\nchain = \"{chain}\"\naction = \"{action}\"\nprotocol = \"udp\"\nport = {}\n\
             limit = {{ rate = \"{rate}/{unit}\", burst = {burst}, per = \"{per}\" }}\n",
            PORT + number as u16
        )
    }
}

/// Port of the first rule with a limit.
const PORT: u16 = 53;

/// To the master, which XDP leaves to TC, or through it, which XDP does by itself.
fn limited() -> impl Strategy<Value = Limited> {
    let action = prop_oneof![3 => Just("accept"), 1 => Just("reject")];
    (select(vec!["input", "forward"]), action, 1..50_u32, 1..8_u32, any::<bool>()).prop_map(
        |(chain, action, rate, burst, per_source)| Limited { chain, action, rate, burst, per_source },
    )
}

/// A datagram that a rule is asked about.
#[derive(Clone, Copy, Debug)]
struct Ask {
    /// Of which rule.
    rule: usize,
    /// By which host, in which family.
    host: &'static str,
    v6: bool,
    /// How long after the one before: in billionths of the unit.
    wait: u64,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask =
        (0..2_usize, select(vec!["client", "neighbour", "stranger"]), any::<bool>(), 0..100_000_000_u64);
    vec(ask.prop_map(|(rule, host, v6, wait)| Ask { rule, host, v6, wait }), 1..120)
}

impl Ask {
    /// The datagram, from a port that no other has.
    fn packet(&self, rule: &Limited, number: usize) -> Packet {
        let world = if self.v6 { V6 } else { V4 };
        let to = if rule.chain == "input" { "master" } else { "worker1" };
        Packet::udp(world.at(self.host, 4000 + number as u16), world.at(to, PORT + self.rule as u16))
    }
}

/// Buckets as one would explain them: so many tokens, which grow as time passes. A rule has one for all, of both families, or one for
/// each address.
struct Buckets<'rule> {
    rule: &'rule Limited,
    tokens: BTreeMap<Option<IpAddr>, f64>,
}

impl<'rule> Buckets<'rule> {
    fn new(rule: &'rule Limited) -> Self {
        Self { rule, tokens: BTreeMap::new() }
    }

    /// Lets billionths of the rate's unit pass.
    fn wait(&mut self, wait: u64) {
        let grown = wait as f64 * f64::from(self.rule.rate) / SECOND as f64;
        let burst = f64::from(self.rule.burst);
        self.tokens.values_mut().for_each(|tokens| *tokens = (*tokens + grown).min(burst));
    }

    /// The bucket that a source draws from, full at first.
    fn of(&mut self, source: IpAddr) -> &mut f64 {
        let key = self.rule.per_source.then_some(source);
        self.tokens.entry(key).or_insert(f64::from(self.rule.burst))
    }
}

/// Whether the limit let a packet through, to whatever its rule says.
fn paid(gateway: &mut Gateway, packet: &Packet, rule: &Limited) -> Result<bool, TestCaseError> {
    let expected = match rule {
        Limited { action: "reject", .. } => None,
        Limited { chain: "input", .. } => Some(Fate::Accepted),
        _ => Some(Fate::Forwarded),
    };
    match gateway.outside(packet).fate {
        Fate::Dropped("rate-limited") => return Ok(false),
        // So many are not answered any more.
        Fate::Answered("rejected") | Fate::Dropped("rejected") => prop_assert_eq!(expected, None),
        fate => prop_assert_eq!(Some(fate), expected),
    }
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random packets of some sources, in both families and past both hooks, at random times, under two random limits, against naive
    /// buckets. (Scenario 22.)
    #[test]
    fn like_naive_buckets(
        rules in [limited(), limited()],
        (unit, seconds) in select(vec![("second", 1), ("minute", 60), ("hour", 3600)]),
        xdp in any::<bool>(),
        asks in asks(),
    ) {
        let (mut gateway, machine) = gateway(if xdp { Engine::Xdp } else { Engine::Tc }, V4);
        gateway.apply(&(rules[0].text(0, unit) + &rules[1].text(1, unit)));
        let mut buckets = rules.each_ref().map(Buckets::new);
        for (number, ask) in asks.iter().enumerate() {
            machine.borrow().wait_nanos(ask.wait * seconds);
            buckets.iter_mut().for_each(|buckets| buckets.wait(ask.wait));
            let packet = ask.packet(&rules[ask.rule], number);
            let through = paid(&mut gateway, &packet, &rules[ask.rule])?;
            let tokens = buckets[ask.rule].of(packet.source.ip());
            // At the very edge the last bits of a fraction decide.
            if (*tokens - 1.0).abs() > 1e-6 {
                prop_assert_eq!(through, *tokens > 1.0, "packet {} with {} tokens", number, *tokens);
            }
            *tokens -= f64::from(u8::from(through));
        }
    }
}
