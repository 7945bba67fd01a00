//! `[[rule]]`: names looked up, contradictions refused.

use std::collections::BTreeSet;

use super::{Chain, Rule, SCTP, TCP, UDP, icmp, names::Names};
use crate::config::{
    model::{self, IcmpType, Model},
    problems::Problems,
    source::{Span, Spanned},
    suggest,
};

/// Resolves one rule; `None` if something is wrong with it.
pub(super) fn rule<'m>(
    rule: &'m model::Rule,
    model: &Model,
    names: &Names<'m>,
    problems: &mut Problems,
) -> Option<Rule> {
    let (built, sound) = problems.about(&rule.title.label, |problems| build(rule, model, names, problems));
    built.filter(|_| sound && rule.sound)
}

fn build<'m>(
    rule: &'m model::Rule,
    model: &Model,
    names: &Names<'m>,
    problems: &mut Problems,
) -> Option<Rule> {
    let from = names.select(rule.from.as_ref(), problems);
    let to = names.select(rule.to.as_ref(), problems);
    rule.interfaces.iter().for_each(|interface| check_interface(interface, model, problems));
    let port_forwards = port_forwards(rule, model, problems);
    if rule.sound {
        check_ports(rule, problems);
    }
    let mut built = Rule {
        name: rule.title.name.clone(),
        place: rule.title.head.place(),
        chain: rule.chain,
        action: rule.action?,
        protocols: values(&rule.protocols),
        from,
        to,
        ports: values(&rule.ports),
        from_ports: values(&rule.from_ports),
        icmp_types: icmp_types(rule, problems),
        interfaces: rule.interfaces.iter().map(|interface| interface.value.clone()).collect(),
        port_forwards,
        limit: rule.limit.as_ref().map(|limit| limit.value),
        log: rule.log,
    };
    built.protocols.sort_unstable();
    built.protocols.dedup();
    built.interfaces.sort_unstable();
    built.interfaces.dedup();
    Some(built)
}

fn values<T: Copy>(list: &[Spanned<T>]) -> Vec<T> {
    list.iter().map(|spanned| spanned.value).collect()
}

fn check_interface(interface: &Spanned<String>, model: &Model, problems: &mut Problems) {
    let known = || model.interfaces.iter().map(|known| known.name.value.as_str());
    if known().any(|name| name == interface.value) {
        return;
    }
    let help = match suggest::nearest(&interface.value, known()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("write one of {}, or add it to [interfaces]", known().collect::<Vec<_>>().join(", ")),
    };
    problems.error(&interface.span, format!("\"{}\" is not in [interfaces]", interface.value), help);
}

fn port_forwards(rule: &model::Rule, model: &Model, problems: &mut Problems) -> Option<Vec<usize>> {
    if let Some(first) = rule.port_forwards.first().filter(|_| rule.chain == Chain::Output) {
        let message = "a port-forward is never met in chain \"output\"";
        problems.error(&first.span, message, "write chain = \"forward\"");
    }
    let numbers = rule.port_forwards.iter().filter_map(|name| port_forward(name, model, problems));
    let numbers: BTreeSet<usize> = numbers.collect();
    (!rule.port_forwards.is_empty()).then(|| numbers.into_iter().collect())
}

/// Where the port-forward of a name stands among those that are enabled, if it is one.
fn port_forward(name: &Spanned<String>, model: &Model, problems: &mut Problems) -> Option<usize> {
    let names = || model.port_forwards.iter().map(|forward| forward.title.name.as_str());
    if !names().any(|known| known == name.value) {
        let help = match suggest::nearest(&name.value, names()) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => "write the name of a [[port-forward]]".to_owned(),
        };
        problems.error(&name.span, format!("no port-forward is called \"{}\"", name.value), help);
    }
    let mut enabled = model.port_forwards.iter().filter(|forward| forward.enabled);
    enabled.position(|forward| forward.title.name == name.value)
}

fn check_ports(rule: &model::Rule, problems: &mut Problems) {
    let has_ports = |protocol: &Spanned<u8>| [TCP, UDP, SCTP].contains(&protocol.value);
    for (key, ports) in [("port", &rule.ports), ("from-port", &rule.from_ports)] {
        let Some(first) = ports.first() else { continue };
        if rule.protocols.is_empty() {
            let help = "write protocol = \"tcp\" (or udp, sctp) beside it";
            problems.error(&first.span, format!("\"{key}\" without a protocol"), help);
        } else if let Some(other) = rule.protocols.iter().find(|protocol| !has_ports(protocol)) {
            let help = format!("take \"{key}\" out, or write a rule of its own for {}", other.span.text());
            problems.error(&first.span, format!("{} has no ports", other.span.text()), help);
        }
    }
}

fn icmp_types(rule: &model::Rule, problems: &mut Problems) -> Vec<u8> {
    let Some(first) = rule.icmp_types.first() else { return Vec::new() };
    let names = match rule.protocols.as_slice() {
        [only] => icmp::types_of(only.value),
        _ => None,
    };
    let Some(names) = names else {
        if rule.sound {
            let help = "write protocol = \"icmp\" or protocol = \"icmpv6\"; their types differ, so one rule for each";
            problems.error(&first.span, "\"icmp-type\" without one ICMP protocol", help);
        }
        return Vec::new();
    };
    let types = rule.icmp_types.iter();
    types.filter_map(|word| icmp_type(&word.value, &word.span, names, problems)).collect()
}

fn icmp_type(word: &IcmpType, span: &Span, names: &[(&str, u8)], problems: &mut Problems) -> Option<u8> {
    let name = match word {
        IcmpType::Number(number) => return Some(*number),
        IcmpType::Name(name) => name,
    };
    let found = names.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
    if found.is_none() {
        let known: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
        let help = match suggest::nearest(name, known.iter().copied()) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => format!("write a number, {}", suggest::one_of(&known)),
        };
        problems.error(span, format!("\"{}\" is not a type of that protocol", name.escape_debug()), help);
    }
    found
}
