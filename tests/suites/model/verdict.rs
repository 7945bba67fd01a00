//! What becomes of the first packet of a flow.

use std::net::SocketAddr;

use netfw_common::image::{ACCEPT, REJECT};
use netfw_tests::packet::{Fate, Gateway, Outcome, Side, world::side_of};

use super::arrival::{Arrival, echoes, is_own, world};
use crate::naive::{self, Packet, RulesFile};

/// The end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// To the master's own stack, or out if that sent it.
    Accepted,
    /// Out of another interface, or back.
    Forwarded,
    /// Dropped for a reason, whether the sender is told or not.
    Refused(&'static str),
}

/// What becomes of a packet, and of the flow that it opens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    /// Its end.
    pub(crate) end: End,
    /// The rule that decides, by its number in the file.
    pub(crate) rule: Option<usize>,
    /// As the rules see it.
    pub(crate) leaving: Packet,
    /// The port-forward that translates it, by its number in the file.
    pub(crate) forward: Option<usize>,
    /// Whether a masquerade hides its source.
    pub(crate) masqueraded: bool,
}

const INPUT: usize = 0;
pub(super) const FORWARD: usize = 1;
const OUTPUT: usize = 2;

impl Verdict {
    /// What is decided before any rule is asked.
    fn without_rules(end: End, packet: &Packet) -> Self {
        Self { end, rule: None, leaving: *packet, forward: None, masqueraded: false }
    }
}

/// What may become of a packet that no flow is known of: one thing for each target that its port-forward may choose.
pub(crate) fn judge(rules: &RulesFile, arrival: &Arrival) -> Vec<Verdict> {
    let packet = &arrival.packet;
    let Some(side) = arrival.side else { return vec![sent(rules, arrival)] };
    if let Some(reason) = untrue(rules, arrival, side) {
        return vec![Verdict::without_rules(End::Refused(reason), packet)];
    }
    let called = [world(packet.source).host("master"), world(packet.source).host("second")];
    match naive::forward(rules, packet).filter(|_| called.contains(&packet.destination)) {
        None => vec![planned(rules, *packet, None)],
        Some((number, targets)) => {
            let leaving =
                |target: SocketAddr| Packet { destination: target.ip(), detail: target.port(), ..*packet };
            targets.into_iter().map(|target| planned(rules, leaving(target), Some(number))).collect()
        }
    }
}

/// Why a packet that comes in belongs to nothing, whatever the rules say.
fn untrue(rules: &RulesFile, arrival: &Arrival, side: Side) -> Option<&'static str> {
    let packet = &arrival.packet;
    let astray = rules.anti_spoof == "strict" && side_of(packet.source) != side;
    if packet.source == packet.destination {
        Some("martian")
    } else if is_about_another(arrival) {
        Some("icmp-unrelated")
    } else {
        astray.then_some("spoofed")
    }
}

/// Whether the packet is an ICMP error or answer, which open no flow.
pub(super) fn is_about_another(arrival: &Arrival) -> bool {
    let kinds: &[u16] =
        if arrival.packet.source.is_ipv6() { &[1, 2, 3, 4, 129, 140] } else { &[0, 3, 4, 11, 14, 18] };
    kinds.iter().any(|&kind| arrival.is_icmp(kind))
}

/// What becomes of a packet that the master sends.
fn sent(rules: &RulesFile, arrival: &Arrival) -> Verdict {
    if is_about_another(arrival) {
        return Verdict::without_rules(End::Accepted, &arrival.packet);
    }
    decided(rules, Packet { chain: OUTPUT, ..arrival.packet }, None, false)
}

/// What becomes of a packet that comes in, with the destination that it gets.
fn planned(rules: &RulesFile, leaving: Packet, forward: Option<usize>) -> Verdict {
    let chain = if is_own(leaving.destination) { INPUT } else { FORWARD };
    let leaves = chain == FORWARD && side_of(leaving.destination) == Side::Outside;
    let masqueraded = leaves && forward.is_none() && naive::masquerade(rules, &leaving).is_some();
    decided(rules, Packet { chain, ..leaving }, forward, masqueraded)
}

fn decided(rules: &RulesFile, leaving: Packet, forward: Option<usize>, masqueraded: bool) -> Verdict {
    let (rule, action) = naive::decide(rules, &leaving, forward, masqueraded);
    let end = match action {
        ACCEPT if masqueraded && is_sealed(&leaving) => End::Refused("untranslatable"),
        ACCEPT if leaving.chain == FORWARD => End::Forwarded,
        ACCEPT => End::Accepted,
        REJECT => End::Refused("rejected"),
        _ if rule.is_some() => End::Refused("rule"),
        _ => End::Refused(["policy-input", "policy-forward", "policy-output"][leaving.chain]),
    };
    let rule = rule.and_then(|number| nth_enabled(rules.rules.iter().map(|rule| rule.enabled), number));
    let forward = forward.and_then(|number| rules.forward_in_file(number));
    Verdict { end, rule, leaving, forward, masqueraded }
}

/// Whether a checksum covers the addresses that is not mended: that of ICMPv6 other than echoes.
fn is_sealed(packet: &Packet) -> bool {
    packet.source.is_ipv6() && packet.protocol == 58 && !echoes(packet).contains(&packet.detail)
}

/// The place in the file of what has that number among what is enabled.
fn nth_enabled(enabled: impl Iterator<Item = bool>, number: usize) -> Option<usize> {
    enabled.enumerate().filter(|(_, enabled)| *enabled).nth(number).map(|(place, _)| place)
}

impl RulesFile {
    /// The place in the file of the port-forward with that number among those that are enabled.
    pub(super) fn forward_in_file(&self, number: usize) -> Option<usize> {
        nth_enabled(self.forwards.iter().map(|forward| forward.enabled), number)
    }
}

/// Shows the packet to the gateway, which must know no flow of it, and says what has become of it. Fails where that is none of what may.
pub(crate) fn check(
    gateway: &mut Gateway,
    rules: &RulesFile,
    arrival: &Arrival,
) -> Result<(Verdict, Outcome), String> {
    let outcome = arrival.show(gateway, &arrival.wire());
    let expected = judge(rules, arrival);
    match expected.iter().find(|verdict| verdict.is(arrival, &outcome)) {
        Some(verdict) => Ok((*verdict, outcome)),
        None => Err(format!("{arrival:?}: {:?}, {:?}; expected: {expected:?}", outcome.fate, outcome.moved)),
    }
}

impl Verdict {
    /// Whether this is what has become of a packet, by the gateway's word, by the counters of its rules, and by what left.
    fn is(&self, arrival: &Arrival, outcome: &Outcome) -> bool {
        let end = match outcome.fate {
            Fate::Accepted => End::Accepted,
            Fate::Forwarded => End::Forwarded,
            Fate::Dropped(reason) | Fate::Answered(reason) => End::Refused(reason),
            _ => return false,
        };
        let matched: Vec<_> = outcome.moved.rules.keys().cloned().collect();
        end == self.end
            && matched == Vec::from_iter(self.rule.map(|number| format!("rule{number}")))
            && (matches!(end, End::Refused(_)) || self.translates(arrival, outcome))
    }

    /// Whether the packet has left with the addresses that it should.
    fn translates(&self, arrival: &Arrival, outcome: &Outcome) -> bool {
        let (came, left) = (arrival.wire(), outcome.packet());
        let to = if self.forward.is_some() { self.leaving.detail } else { came.destination.port() };
        let hidden = self.masqueraded.then(|| world(came.source.ip()).host("master"));
        // Whom a port-forward hides from its target is told elsewhere.
        let from = self.forward.is_some() || left.source.ip() == hidden.unwrap_or(came.source.ip());
        from && left.destination == SocketAddr::new(self.leaving.destination, to)
    }
}
