//! Rules and port-forwards that never get to decide, because an earlier rule matches all that they match.

use std::{borrow::Cow, collections::HashMap, ptr, rc::Rc};

use super::{Action, AddressMatch, Chain, PortForward, PortRange, Rule, ValidPolicy, address::AddressRanges};
use crate::config::{
    Diagnostic, Severity,
    model::{self, Model},
    problems::Problems,
};

/// What a rule matches, in a form that can be compared; also what reaches a port-forward's targets.
struct Reach<'a> {
    protocols: &'a [u8],
    from: Rc<AddressRanges>,
    to: Rc<AddressRanges>,
    /// None: any.
    ports: Vec<PortRange>,
    /// None: any.
    from_ports: Vec<PortRange>,
    icmp_types: &'a [u8],
    interfaces: &'a [String],
    port_forwards: Option<Cow<'a, [usize]>>,
}

impl<'a> Reach<'a> {
    fn of_rule(rule: &'a Rule, known: &mut Known) -> Self {
        Self {
            protocols: &rule.protocols,
            from: known.ranges(&rule.from),
            to: known.ranges(&rule.to),
            ports: joined(&rule.ports),
            from_ports: joined(&rule.from_ports),
            icmp_types: &rule.icmp_types,
            interfaces: &rule.interfaces,
            port_forwards: rule.port_forwards.as_deref().map(Cow::Borrowed),
        }
    }

    fn of_forward(forward: &'a PortForward, index: usize, known: &mut Known) -> Self {
        let ports: Vec<_> = forward.targets.iter().map(|target| target.ports).collect();
        let hosts = forward.targets.iter().flat_map(|target| &target.addresses);
        let hosts: Vec<_> = hosts.copied().map(ipnet::IpNet::from).collect();
        Self {
            protocols: &forward.protocols,
            from: known.ranges(&forward.from),
            to: Rc::new(AddressRanges::of(&AddressMatch::new(hosts, Vec::new(), true))),
            ports: joined(&ports),
            from_ports: Vec::new(),
            icmp_types: &[],
            interfaces: &[],
            port_forwards: Some(Cow::Owned(vec![index])),
        }
    }

    /// Whether everything that `other` matches is matched here too. A limit makes no difference: what is above it is
    /// dropped, not handed on.
    fn contains(&self, other: &Self) -> bool {
        among(self.protocols, other.protocols)
            && within(&self.ports, &other.ports)
            && within(&self.from_ports, &other.from_ports)
            && among(self.icmp_types, other.icmp_types)
            && among(self.interfaces, other.interfaces)
            && translated_among(self.port_forwards.as_deref(), other.port_forwards.as_deref())
            && covers([(&self.from, &other.from), (&self.to, &other.to)])
    }
}

/// Ranges of selections, made once for all that are written alike.
#[derive(Default)]
struct Known(HashMap<*const AddressMatch, Rc<AddressRanges>>);

impl Known {
    /// Of a selection that stays where it is.
    fn ranges(&mut self, selection: &AddressMatch) -> Rc<AddressRanges> {
        let ranges = || Rc::new(AddressRanges::of(selection));
        Rc::clone(self.0.entry(ptr::from_ref(selection)).or_insert_with(ranges))
    }
}

/// Whether the first of each pair has all addresses of the second. There are millions of pairs of rules, so the short
/// lists come first, and none is compared with itself.
fn covers(mut pairs: [(&Rc<AddressRanges>, &Rc<AddressRanges>); 2]) -> bool {
    pairs.sort_by_key(|(_, inner)| inner.len());
    pairs.into_iter().all(|(outer, inner)| Rc::ptr_eq(outer, inner) || outer.contains(inner))
}

/// Sorted ranges, neighbours joined; none where they are all ports, which is to say any: only what has ports is asked for one.
fn joined(ports: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut().filter(|last| range.first <= last.last.saturating_add(1)) {
            Some(last) => last.last = last.last.max(range.last),
            None => joined.push(range),
        }
    }
    if joined == [ALL_PORTS] { Vec::new() } else { joined }
}

const ALL_PORTS: PortRange = PortRange { first: 1, last: u16::MAX };

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
    let mut known = Known::default();
    let reaches: Vec<_> = policy.rules.iter().map(|rule| Reach::of_rule(rule, &mut known)).collect();
    for (later, rule) in policy.rules.iter().enumerate() {
        let shadows = |earlier: &usize| {
            policy.rules[*earlier].chain == rule.chain && reaches[*earlier].contains(&reaches[later])
        };
        if let Some(earlier) = (0..later).find(shadows) {
            warn_about_rule_shadow(&model.rules[earlier], &model.rules[later], problems);
        }
    }
    for (index, forward) in policy.port_forwards.iter().enumerate() {
        let reach = Reach::of_forward(forward, index, &mut known);
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
