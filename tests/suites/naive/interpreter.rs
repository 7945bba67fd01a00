//! What a rules file means, by walking through it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use netfw_common::image::{ACCEPT, DROP, REJECT};

use super::rules_file::{Forward, Rule, RulesFile, Selection, Word, host};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) chain: usize,
    /// Slot of the interface; 0: not managed.
    pub(crate) interface: usize,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    /// Destination port, or ICMP type.
    pub(crate) detail: u16,
}

impl Packet {
    pub(crate) fn has_ports(&self) -> bool {
        [6, 17, 132].contains(&self.protocol)
    }
}

/// Number of the port-forward that takes a packet, among those that are enabled, and all targets that it may go to.
pub(crate) fn forward(rules: &RulesFile, packet: &Packet) -> Option<(usize, BTreeSet<SocketAddr>)> {
    let takes = |(number, forward): (usize, &Forward)| {
        let here = forward.addresses.is_empty() || forward.addresses.contains(&packet.destination);
        let asked =
            forward.protocols.contains(&packet.protocol) && selects(rules, &forward.from, packet.source);
        let outside = forward.ports.iter().flat_map(|&[first, last]| first..=last);
        let nth = outside.into_iter().position(|port| port == packet.detail).filter(|_| here && asked)?;
        let targets = targets(forward, nth, packet.source.is_ipv4());
        (!targets.is_empty()).then_some((number, targets))
    };
    rules.forwards.iter().filter(|forward| forward.enabled).enumerate().find_map(takes)
}

/// Targets of the n-th outside port.
fn targets(forward: &Forward, nth: usize, v4: bool) -> BTreeSet<SocketAddr> {
    let chosen =
        forward.targets.iter().enumerate().filter(|(number, _)| !forward.one_to_one || *number == nth);
    let ends = chosen.flat_map(|(_, &(name, [first, last]))| {
        let port = if first == last { first } else { first + nth as u16 };
        host(name).map(move |address| SocketAddr::new(address, port))
    });
    ends.filter(|end| end.is_ipv4() == v4).collect()
}

/// Number of the masquerade that a source would get.
pub(crate) fn masquerade(rules: &RulesFile, packet: &Packet) -> Option<usize> {
    rules.masquerades.iter().position(|from| selects(rules, from, packet.source))
}

/// The rule that decides, if one does, by its number among those that are enabled, and the action. What is translated, by a
/// port-forward or a masquerade, is allowed unless a rule says otherwise.
pub(crate) fn decide(
    rules: &RulesFile,
    packet: &Packet,
    forward: Option<usize>,
    masqueraded: bool,
) -> (Option<usize>, u32) {
    let mut enabled = rules.rules.iter().filter(|rule| rule.enabled).enumerate();
    let decides = enabled.find(|(_, rule)| matches(rules, rule, packet, forward));
    let word = match decides {
        Some((_, rule)) => rule.action,
        None if forward.is_some() || masqueraded => "accept",
        None => rules.default_actions[packet.chain],
    };
    let action = match word {
        "accept" => ACCEPT,
        "reject" => REJECT,
        _ => DROP,
    };
    (decides.map(|(number, _)| number), action)
}

fn matches(rules: &RulesFile, rule: &Rule, packet: &Packet, forward: Option<usize>) -> bool {
    let within = |ranges: &[[u16; 2]], port: u16| {
        ranges.is_empty() || ranges.iter().any(|[first, last]| (first..=last).contains(&&port))
    };
    let icmp_type = u8::try_from(packet.detail);
    rule.chain == packet.chain
        && (rule.interfaces.is_empty() || rule.interfaces.contains(&packet.interface))
        && (rule.protocols.is_empty() || rule.protocols.contains(&packet.protocol))
        && selects(rules, &rule.from, packet.source)
        && selects(rules, &rule.to, packet.destination)
        && within(&rule.ports, packet.detail)
        && within(&rule.from_ports, packet.source_port)
        && (rule.icmp_types.is_empty() || icmp_type.is_ok_and(|kind| rule.icmp_types.contains(&kind)))
        && (rule.port_forwards.is_empty() || forward.is_some_and(|taken| names(rules, rule, taken)))
}

/// Whether a rule names a port-forward that has that number among those that are enabled.
fn names(rules: &RulesFile, rule: &Rule, forward: usize) -> bool {
    let mut enabled = (0..rules.forwards.len()).filter(|&number| rules.forwards[number].enabled);
    enabled.nth(forward).is_some_and(|number| rule.port_forwards.contains(&number))
}

fn selects(rules: &RulesFile, selection: &Selection, address: IpAddr) -> bool {
    let named = |wanted: bool| {
        selection.iter().any(|(excluded, word)| *excluded == wanted && contains(rules, word, address))
    };
    let positive = selection.iter().any(|(excluded, _)| !excluded);
    (!positive || named(false)) && !named(true)
}

fn contains(rules: &RulesFile, word: &Word, address: IpAddr) -> bool {
    match word {
        Word::Network(network) => network.contains(&address),
        Word::Host(name) => host(*name).any(|own| own == address),
        Word::Set(number) => rules.sets[*number].iter().any(|word| contains(rules, word, address)),
    }
}
