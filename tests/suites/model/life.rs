//! What a change of the rules means for the flows that live: each is judged as if it were new, with the translation that it has.

use std::collections::BTreeSet;

use netfw_common::image::ACCEPT;
use netfw_tests::packet::{ACK, Fate, Gateway, Outcome, Packet, SYN, world::side_of};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    arrival::{Arrival, answer, arrival, called_port, echoes},
    verdict::{End, FORWARD, Verdict, check, is_about_another},
};
use crate::naive::{self, RulesFile, generate};

/// A direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// As the packet that opened it.
    Forth,
    /// Answers.
    Back,
}

use Direction::{Back, Forth};

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Some parts of another rules file take the place of the present ones; and flows that are refused may go on, or not.
    Change(Index, [bool; 5], bool),
    /// Somebody opens a flow.
    Open(Arrival),
    /// An end of a flow says something.
    Speak(Index, Direction),
}

/// The rules files of a life.
pub(crate) fn files() -> impl Strategy<Value = Vec<RulesFile>> {
    vec(generate::small_rules_file(), 3)
}

/// Any step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let change = (any::<Index>(), any::<[bool; 5]>(), prop::bool::weighted(0.2));
    let direction = prop_oneof![Just(Forth), Just(Back)];
    prop_oneof![
        1 => change.prop_map(|(file, parts, keep)| Step::Change(file, parts, keep)),
        6 => arrival().prop_map(|arrival| Step::Open(arrival.answered())),
        12 => (any::<Index>(), direction).prop_map(|(flow, direction)| Step::Speak(flow, direction)),
    ]
}

/// Source ports of the flows of a life, each for one of them; none is a destination port, so that no two flows meet.
fn own_port(number: usize) -> u16 {
    let ports = [1..=12_u16, 133..=65_535];
    ports.into_iter().flatten().nth(number).expect("a short life")
}

/// Lets time pass, so much that each packet is looked at closely, where the gateway's clock is set by hand.
pub(crate) type Clock<'life> = Option<&'life dyn Fn()>;

/// A gateway under rules that change, and what is known of its flows.
pub(crate) struct Life<'life> {
    gateway: &'life mut Gateway,
    clock: Clock<'life>,
    rules: RulesFile,
    flows: Vec<Flow>,
    opened: usize,
    changed: bool,
    /// What was met on the way.
    pub(crate) seen: BTreeSet<String>,
}

/// A flow that was opened.
#[derive(Clone, Debug)]
struct Flow {
    arrival: Arrival,
    verdict: Verdict,
    sent: Packet,
    left: Packet,
    /// Whether the gateway still has the entry of each direction.
    entries: [bool; 2],
    answered: bool,
    /// Whether its originator has answered the answer: then neither direction needs the other.
    proven: bool,
}

impl<'life> Life<'life> {
    /// Begins with rules in force.
    pub(crate) fn new(gateway: &'life mut Gateway, rules: &RulesFile, clock: Clock<'life>) -> Self {
        gateway.apply_file(&rules.to_string());
        let rules = rules.clone();
        Self { gateway, clock, rules, flows: Vec::new(), opened: 0, changed: false, seen: BTreeSet::new() }
    }

    /// Lets something happen. Fails, with the rules, where the gateway does something else than it should.
    pub(crate) fn live(&mut self, files: &[RulesFile], step: &Step) -> Result<(), String> {
        self.clock.iter().for_each(|pass| pass());
        let lived = match step {
            Step::Change(file, parts, keep) => {
                self.change(file.get(files), *parts, *keep);
                Ok(())
            }
            Step::Open(arrival) => self.open(*arrival),
            Step::Speak(_, _) if self.flows.is_empty() => Ok(()),
            Step::Speak(flow, direction) => self.speak(flow.index(self.flows.len()), *direction),
        };
        lived.map_err(|what| format!("{what}\n{}", self.rules))
    }

    fn change(&mut self, other: &RulesFile, parts: [bool; 5], keep: bool) {
        self.rules = mixed(&self.rules, other, parts, keep);
        self.gateway.apply_file(&self.rules.to_string());
        self.changed = true;
    }

    /// What has no ports is told apart by its addresses alone: one flow of each such protocol.
    fn open(&mut self, mut arrival: Arrival) -> Result<(), String> {
        let packet = &mut arrival.packet;
        if packet.has_ports() {
            (packet.source_port, packet.detail) = (own_port(self.opened), called_port(packet.detail));
        } else if arrival.is_request() {
            arrival.packet.source_port = own_port(self.opened);
        } else if self.flows.iter().any(|flow| flow.is_like(&arrival)) {
            return Ok(());
        }
        self.opened += 1;
        let opened = self.first(&arrival)?;
        self.flows.extend(opened);
        Ok(())
    }

    /// The first packet of a flow, and the flow if there is one then.
    fn first(&mut self, arrival: &Arrival) -> Result<Option<Flow>, String> {
        let (verdict, outcome) = check(self.gateway, &self.rules, arrival)?;
        let opened = !matches!(verdict.end, End::Refused(_)) && !is_about_another(arrival);
        Ok(opened.then(|| Flow {
            arrival: *arrival,
            verdict,
            sent: arrival.wire(),
            left: outcome.packet(),
            entries: [true; 2],
            answered: false,
            proven: false,
        }))
    }

    fn speak(&mut self, number: usize, direction: Direction) -> Result<(), String> {
        let flow = &self.flows[number];
        if !flow.lives(direction) {
            return self.speak_anew(number, direction);
        }
        let admitted = admits(&self.rules, flow);
        if self.changed {
            self.seen.extend(flow.kinds(direction, admitted));
        }
        let (packet, expected) = flow.packets(direction);
        let outcome = flow.place(direction).show(self.gateway, &packet);
        if admitted {
            flow.check_carried(&outcome, &expected)?;
            self.flows[number].hear(direction);
            return Ok(());
        }
        flow.check_cut(&outcome)?;
        self.cut(number, direction)
    }

    /// Forgets a direction that was cut. Of a proven flow the other is told at once, as the daemon does; that of an unproven one is
    /// nothing by itself. Where no time passes between packets the gateway may not know yet which of both it is.
    fn cut(&mut self, number: usize, direction: Direction) -> Result<(), String> {
        let other = if direction == Forth { Back } else { Forth };
        let flow = &mut self.flows[number];
        if self.clock.is_none() && !(flow.proven && flow.is_tcp()) {
            self.flows.swap_remove(number);
        } else if flow.proven {
            let (packet, _) = flow.packets(other);
            let outcome = flow.place(other).show(self.gateway, &packet);
            flow.check_cut(&outcome)?;
            flow.entries = [false; 2];
        } else {
            flow.entries[direction as usize] = false;
        }
        Ok(())
    }

    /// A packet of a flow that the gateway does not know any more: the first of another.
    fn speak_anew(&mut self, number: usize, direction: Direction) -> Result<(), String> {
        self.flows[number].entries[direction as usize] = false;
        let place = self.flows[number].place(direction);
        if let Some(flow) = self.first(&place)? {
            self.flows[number] = flow;
        }
        self.seen.insert(format!("{direction:?} anew"));
        Ok(())
    }
}

/// Rules with some parts of others.
fn mixed(rules: &RulesFile, other: &RulesFile, parts: [bool; 5], keep: bool) -> RulesFile {
    let from = |part: usize| if parts[part] { other } else { rules };
    let mut mixed = RulesFile {
        anti_spoof: from(0).anti_spoof,
        keep,
        default_actions: from(0).default_actions,
        sets: from(1).sets.clone(),
        forwards: from(2).forwards.clone(),
        masquerades: from(3).masquerades.clone(),
        rules: from(4).rules.clone(),
    };
    let known = mixed.forwards.len();
    mixed.rules.iter_mut().for_each(|rule| rule.port_forwards.retain(|&forward| forward < known));
    mixed
}

/// Whether the rules admit a live flow.
fn admits(rules: &RulesFile, flow: &Flow) -> bool {
    let Verdict { leaving, forward, masqueraded, .. } = flow.verdict;
    if rules.keep {
        return true;
    }
    let now = forward.and_then(|_| naive::forward(rules, &flow.arrival.packet));
    let target = flow.left.destination;
    let leads = |(number, targets): &(usize, BTreeSet<_>)| {
        rules.forward_in_file(*number) == forward && targets.contains(&target)
    };
    let translated = forward.is_none() || now.as_ref().is_some_and(leads);
    let hidden = !masqueraded || naive::masquerade(rules, &leaving).is_some();
    let number = now.map(|(number, _)| number);
    translated && hidden && naive::decide(rules, &leaving, number, masqueraded).1 == ACCEPT
}

impl Arrival {
    /// The same, or an echo request in the place of ICMP that nobody answers.
    fn answered(mut self) -> Self {
        let [request, _] = echoes(&self.packet);
        if self.is_icmp(self.packet.detail) && !self.is_query() {
            self.packet.detail = request;
        }
        self
    }

    /// Whether it is ICMP, but for echoes, to which there is an answer: the next type.
    fn is_query(&self) -> bool {
        let kinds: &[u16] = if self.packet.source.is_ipv6() { &[139] } else { &[13, 17] };
        kinds.iter().any(|&kind| self.is_icmp(kind))
    }

    fn is_request(&self) -> bool {
        self.is_icmp(echoes(&self.packet)[0])
    }
}

impl Flow {
    /// Whether both are of a protocol, and have no ports.
    fn is_like(&self, arrival: &Arrival) -> bool {
        self.arrival.packet.protocol == arrival.packet.protocol && !self.arrival.is_request()
    }

    fn is_tcp(&self) -> bool {
        self.arrival.packet.protocol == 6
    }

    /// Whether the gateway has an entry for the direction, and believes it.
    fn lives(&self, direction: Direction) -> bool {
        self.entries[direction as usize] && (self.proven || self.entries == [true; 2])
    }

    /// A packet of a direction, and how it leaves. The first ones of a connection shake hands.
    fn packets(&self, direction: Direction) -> (Packet, Packet) {
        let ends = match direction {
            Forth => [self.sent.clone(), self.left.clone()],
            Back => [self.left.clone(), self.sent.clone()],
        };
        let [packet, leaves] = ends.map(|packet| self.said(direction, &packet));
        let forwarded = self.verdict.leaving.chain == FORWARD;
        let leaves = Packet { ttl: packet.ttl - u8::from(forwarded), ..leaves };
        (packet, leaves)
    }

    /// What is said in a direction, by the first packet there or as it left.
    fn said(&self, direction: Direction, first: &Packet) -> Packet {
        match direction {
            Forth if self.is_tcp() && self.answered => first.flags(ACK),
            Forth => first.clone(),
            Back if self.is_tcp() && self.proven => answer(&first.flags(ACK)),
            Back if self.is_tcp() => answer(first).flags(SYN | ACK),
            Back => answer(first),
        }
    }

    /// Where packets of a direction are seen, as the first of a flow of their own.
    fn place(&self, direction: Direction) -> Arrival {
        if direction == Forth {
            return self.arrival;
        }
        let (left, packet) = (answer(&self.left), self.arrival.packet);
        let port_or = |port: u16, other: u16| if port == 0 { other } else { port };
        let (source_port, detail) = if self.arrival.is_request() {
            (left.destination.port(), echoes(&packet)[1])
        } else if packet.has_ports() {
            (port_or(left.source.port(), packet.detail), port_or(left.destination.port(), packet.source_port))
        } else {
            (0, packet.detail + u16::from(self.arrival.is_query()))
        };
        let (source, destination) = (left.source.ip(), left.destination.ip());
        let packet = naive::Packet { source, destination, source_port, detail, ..packet };
        let by_the_master = self.arrival.side.is_some() && self.verdict.leaving.chain != FORWARD;
        if by_the_master { Arrival::sent(packet) } else { Arrival::coming(side_of(source), packet) }
    }

    fn hear(&mut self, direction: Direction) {
        self.proven |= direction == Forth && self.answered;
        self.answered |= direction == Back;
    }

    /// The packet went on as it should, and no rule was asked.
    fn check_carried(&self, outcome: &Outcome, expected: &Packet) -> Result<(), String> {
        let fate = if self.verdict.leaving.chain == FORWARD { Fate::Forwarded } else { Fate::Accepted };
        if outcome.fate != fate || !outcome.moved.rules.is_empty() {
            return Err(format!("{:?} instead of {fate:?}: {self:?}; {:?}", outcome.fate, outcome.moved));
        }
        let packet = outcome.packet();
        if packet == *expected {
            Ok(())
        } else {
            Err(format!("{packet:?} instead of {expected:?}: {self:?}"))
        }
    }

    /// The flow was cut: whoever has a connection is told.
    fn check_cut(&self, outcome: &Outcome) -> Result<(), String> {
        let fate = if self.is_tcp() { Fate::Answered("flow-cut") } else { Fate::Dropped("flow-cut") };
        if outcome.fate == fate {
            Ok(())
        } else {
            Err(format!("{:?} instead of {fate:?}: {self:?}", outcome.fate))
        }
    }

    /// What a packet of a live flow shows, after a change of the rules.
    fn kinds(&self, direction: Direction, admitted: bool) -> [String; 2] {
        let end = if admitted { "goes on" } else { "is cut" };
        let family = if self.sent.is_v6() { "v6" } else { "v4" };
        let translation = match self.verdict {
            Verdict { forward: Some(_), .. } => "forwarded",
            Verdict { masqueraded: true, .. } => "masqueraded",
            _ => "plain",
        };
        [format!("{translation} {end}"), format!("{family} {direction:?} {end}")]
    }
}
