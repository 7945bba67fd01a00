//! Rules and port-forwards that never get to decide, because an earlier rule matches all that they match.

use std::borrow::Cow;

use super::{Action, AddressMatch, Chain, PortForward, PortRange, Rule, ValidPolicy, address::AddressRanges};
use crate::config::{
    Diagnostic, Severity,
    model::{self, Model},
    problems::Problems,
};

/// What a rule matches, in a form that can be compared; also what reaches a port-forward's targets.
struct Reach<'a> {
    protocols: &'a [u8],
    from: AddressRanges,
    to: AddressRanges,
    ports: &'a [PortRange],
    from_ports: &'a [PortRange],
    icmp_types: &'a [u8],
    interfaces: &'a [String],
    port_forwards: Option<Cow<'a, [usize]>>,
}

impl<'a> Reach<'a> {
    fn of_rule(rule: &'a Rule) -> Self {
        Self {
            protocols: &rule.protocols,
            from: AddressRanges::of(&rule.from),
            to: AddressRanges::of(&rule.to),
            ports: &rule.ports,
            from_ports: &rule.from_ports,
            icmp_types: &rule.icmp_types,
            interfaces: &rule.interfaces,
            port_forwards: rule.port_forwards.as_deref().map(Cow::Borrowed),
        }
    }

    /// `ports` are those of the forward's targets.
    fn of_forward(forward: &'a PortForward, index: usize, ports: &'a [PortRange]) -> Self {
        let hosts = forward.targets.iter().flat_map(|target| &target.addresses);
        let hosts: Vec<_> = hosts.copied().map(ipnet::IpNet::from).collect();
        Self {
            protocols: &forward.protocols,
            from: AddressRanges::of(&forward.from),
            to: AddressRanges::of(&AddressMatch::new(&hosts, &[], true)),
            ports,
            from_ports: &[],
            icmp_types: &[],
            interfaces: &[],
            port_forwards: Some(Cow::Owned(vec![index])),
        }
    }

    /// Whether everything that `other` matches is matched here too. A limit makes no difference: what is above it is
    /// dropped, not handed on.
    fn contains(&self, other: &Self) -> bool {
        among(self.protocols, other.protocols)
            && within(self.ports, other.ports)
            && within(self.from_ports, other.from_ports)
            && among(self.icmp_types, other.icmp_types)
            && among(self.interfaces, other.interfaces)
            && translated_among(self.port_forwards.as_deref(), other.port_forwards.as_deref())
            && self.from.contains(&other.from)
            && self.to.contains(&other.to)
    }
}

/// Whether `outer` (empty: any) has all of `inner`.
fn among<T: PartialEq>(outer: &[T], inner: &[T]) -> bool {
    outer.is_empty() || (!inner.is_empty() && inner.iter().all(|value| outer.contains(value)))
}

/// As [`among`], of port-forwards: an empty list is that of a rule that matches nothing.
fn translated_among(outer: Option<&[usize]>, inner: Option<&[usize]>) -> bool {
    outer.is_none_or(|outer| !outer.is_empty() && inner.is_some_and(|inner| among(outer, inner)))
}

/// Whether each range of `inner` lies within one of `outer` (empty: any).
fn within(outer: &[PortRange], inner: &[PortRange]) -> bool {
    let inside =
        |range: &PortRange| outer.iter().any(|wide| wide.first <= range.first && range.last <= wide.last);
    outer.is_empty() || (!inner.is_empty() && inner.iter().all(inside))
}

/// Looks for rules that an earlier rule leaves nothing to, and port-forwards that a rule shuts.
pub(super) fn look(policy: &ValidPolicy, model: &Model, problems: &mut Problems) {
    let reaches: Vec<_> = policy.rules.iter().map(Reach::of_rule).collect();
    for (later, rule) in policy.rules.iter().enumerate() {
        let shadows = |earlier: &usize| {
            policy.rules[*earlier].chain == rule.chain && reaches[*earlier].contains(&reaches[later])
        };
        if let Some(earlier) = (0..later).find(shadows) {
            warn_about_rule_shadow(&model.rules[earlier], &model.rules[later], problems);
        }
    }
    for (index, forward) in policy.port_forwards.iter().enumerate() {
        let ports: Vec<_> = forward.targets.iter().map(|target| target.ports).collect();
        let reach = Reach::of_forward(forward, index, &ports);
        let shuts = |rule: &Rule| rule.chain == Chain::Forward && rule.action != Action::Accept;
        let shadow =
            policy.rules.iter().zip(&reaches).position(|(rule, rules)| shuts(rule) && rules.contains(&reach));
        if let Some(rule) = shadow {
            warn_about_forward_shadow(&model.rules[rule], &model.port_forwards[index], problems);
        }
    }
}

fn warn_about_rule_shadow(earlier: &model::Rule, later: &model::Rule, problems: &mut Problems) {
    let message = format!(
        "never decides: {} at {} matches all of it first",
        earlier.title.label,
        earlier.title.head.place()
    );
    let warning = Diagnostic::at(
        Severity::Warning,
        &later.title.span,
        message,
        "move it above that rule, or take it out",
    );
    problems.about(&later.title.label, |problems| {
        problems.push(warning.and_at(&earlier.title.span, "decides first"));
    });
}

fn warn_about_forward_shadow(rule: &model::Rule, forward: &model::PortForward, problems: &mut Problems) {
    let message =
        format!("leads nowhere: {} at {} stops all of it", rule.title.label, rule.title.head.place());
    let help = format!("accept it above that rule: port-forward = \"{}\"", forward.title.name);
    let warning = Diagnostic::at(Severity::Warning, &forward.title.span, message, help);
    problems
        .about(&forward.title.label, |problems| problems.push(warning.and_at(&rule.title.span, "stops it")));
}
