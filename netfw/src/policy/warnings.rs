//! What is valid but probably not meant.

use super::{
    Action, AddressMatch, Chain, HostFacts, ICMP, ICMPV6, PortForward, PortRange, Rule, TCP, ValidPolicy,
    address::AddressRanges, facts::ListeningPort,
};
use crate::config::{
    Diagnostic, Severity,
    model::{self, Model},
    problems::Problems,
};

const SSH: u16 = 22;

/// Looks at a valid policy. Rules and port-forwards are those of `model`, in the same order.
pub(super) fn look(policy: &ValidPolicy, model: &Model, facts: &HostFacts, problems: &mut Problems) {
    warn_about_lock_out(policy, model, problems);
    warn_about_shadows(policy, model, problems);
    for (rule, written) in policy.rules.iter().zip(&model.rules) {
        problems.about(&written.title.label, |problems| {
            warn_if_families_differ(rule, written, problems);
            warn_if_never_translated(rule, written, policy, facts, problems);
        });
    }
    for (forward, written) in policy.port_forwards.iter().zip(&model.port_forwards) {
        problems
            .about(&written.title.label, |problems| warn_about_listeners(forward, written, facts, problems));
    }
}

fn warn_about_lock_out(policy: &ValidPolicy, model: &Model, problems: &mut Problems) {
    if !admits_ssh(policy) {
        let help = "add a [[rule]] with action = \"accept\", protocol = \"tcp\", port = 22 and from = [your network]";
        problems.warning(
            &model.default_actions.span,
            "nothing admits SSH to this host: you may lock yourself out",
            help,
        );
    }
}

/// Whether somebody may open a connection to the host's SSH port.
fn admits_ssh(policy: &ValidPolicy) -> bool {
    for rule in policy.rules.iter().filter(|rule| may_match_ssh(rule)) {
        let for_everyone =
            rule.from.is_any() && rule.to.is_any() && rule.interface.is_none() && rule.from_ports.is_empty();
        match rule.action {
            Action::Accept => return true,
            Action::Drop | Action::Reject if for_everyone => return false,
            Action::Drop | Action::Reject => {}
        }
    }
    policy.default_action(Chain::Input) == Action::Accept
}

fn may_match_ssh(rule: &Rule) -> bool {
    let tcp = rule.protocols.is_empty() || rule.protocols.contains(&TCP);
    let port = rule.ports.is_empty() || rule.ports.iter().any(|range| range.contains(SSH));
    let somebody = !AddressRanges::of(&rule.from).is_empty();
    rule.chain == Chain::Input && tcp && port && somebody && rule.port_forward.is_none()
}

/// What a rule matches, in a form that can be compared; also what reaches a port-forward's targets.
struct Reach<'a> {
    protocols: &'a [u8],
    from: AddressRanges,
    to: AddressRanges,
    ports: &'a [PortRange],
    from_ports: &'a [PortRange],
    icmp_types: &'a [u8],
    interface: Option<&'a str>,
    port_forward: Option<usize>,
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
            interface: rule.interface.as_deref(),
            port_forward: rule.port_forward,
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
            interface: None,
            port_forward: Some(index),
        }
    }

    /// Whether everything that `other` matches is matched here too.
    fn contains(&self, other: &Self) -> bool {
        among(self.protocols, other.protocols)
            && within(self.ports, other.ports)
            && within(self.from_ports, other.from_ports)
            && among(self.icmp_types, other.icmp_types)
            && (self.interface.is_none() || self.interface == other.interface)
            && (self.port_forward.is_none() || self.port_forward == other.port_forward)
            && self.from.contains(&other.from)
            && self.to.contains(&other.to)
    }
}

/// Whether `outer` (empty: any) has all of `inner`.
fn among(outer: &[u8], inner: &[u8]) -> bool {
    outer.is_empty() || (!inner.is_empty() && inner.iter().all(|value| outer.contains(value)))
}

/// Whether each range of `inner` lies within one of `outer` (empty: any).
fn within(outer: &[PortRange], inner: &[PortRange]) -> bool {
    let inside =
        |range: &PortRange| outer.iter().any(|wide| wide.first <= range.first && range.last <= wide.last);
    outer.is_empty() || (!inner.is_empty() && inner.iter().all(inside))
}

fn warn_about_shadows(policy: &ValidPolicy, model: &Model, problems: &mut Problems) {
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

/// A rule whose source, destination and protocol have no family in common.
fn warn_if_families_differ(rule: &Rule, written: &model::Rule, problems: &mut Problems) {
    let any =
        |protocol: u8| rule.protocols.is_empty() || rule.protocols.iter().any(|known| *known != protocol);
    let (from, to) = (AddressRanges::of(&rule.from).families(), AddressRanges::of(&rule.to).families());
    let v4 = from.0 && to.0 && any(ICMPV6);
    let v6 = from.1 && to.1 && any(ICMP);
    let somebody = (from.0 || from.1) && (to.0 || to.1);
    if somebody && !v4 && !v6 {
        let message = "never matches: its source, destination and protocol are not all IPv4 or all IPv6";
        problems.warning(
            &written.title.span,
            message,
            "write addresses of one family, and icmp or icmpv6 to match",
        );
    }
}

/// A rule for translated packets in chain input, where they only come if the target is the host itself.
fn warn_if_never_translated(
    rule: &Rule,
    written: &model::Rule,
    policy: &ValidPolicy,
    facts: &HostFacts,
    problems: &mut Problems,
) {
    let Some(forward) = rule.port_forward.and_then(|index| policy.port_forwards.get(index)) else { return };
    let mut targets = forward.targets.iter().flat_map(|target| &target.addresses);
    let known = !facts.addresses.is_empty();
    if rule.chain == Chain::Input && known && !targets.any(|address| facts.addresses.contains(address)) {
        let span = written.port_forward.as_ref().map_or(&written.title.span, |name| &name.span);
        let message = format!("never matches: no target of \"{}\" is this host", forward.name);
        problems.warning(span, message, "write chain = \"forward\"");
    }
}

fn warn_about_listeners(
    forward: &PortForward,
    written: &model::PortForward,
    facts: &HostFacts,
    problems: &mut Problems,
) {
    let mut ports: Vec<u16> =
        facts.listening.iter().filter(|socket| hides(forward, socket)).map(|socket| socket.port).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        let range = written.ports.iter().find(|range| range.value.contains(port));
        let span = range.map_or(&written.title.span, |range| &range.span);
        let message = format!(
            "a program of this host also listens on port {port}: it will not be reached from outside"
        );
        problems.warning(span, message, "forward another port, or stop that program");
    }
}

/// Whether the forward takes packets that would otherwise reach the socket.
fn hides(forward: &PortForward, socket: &ListeningPort) -> bool {
    let address = forward.addresses.is_empty()
        || socket.address.is_unspecified()
        || forward.addresses.contains(&socket.address);
    let ports = forward.ports.iter().any(|range| range.contains(socket.port));
    address && ports && !socket.address.is_loopback() && forward.protocols.contains(&socket.protocol)
}
