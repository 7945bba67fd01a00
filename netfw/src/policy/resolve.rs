//! Names become addresses, contradictions become errors: [`Model`] → [`ValidPolicy`].

use super::{
    HostFacts, Interface, PortForward, ValidPolicy,
    address::AddressRanges,
    forward::{self, families},
    names::Names,
    rule, warnings,
};
use crate::config::{
    Diagnostic, Severity,
    model::{self, Model, Title},
    problems::Problems,
};

/// Judges the whole file. `None` if anything is wrong, here or before.
pub(crate) fn resolve(model: &Model, facts: &HostFacts, problems: &mut Problems) -> Option<ValidPolicy> {
    let names = Names::new(model, problems);
    let interfaces = interfaces(model, problems);
    check_unique("port-forward", model.port_forwards.iter().map(|forward| &forward.title), problems);
    check_unique("rule", model.rules.iter().map(|rule| &rule.title), problems);
    let masquerades = model.masquerades.iter().map(|m| rule::masquerade(m, &names, problems)).collect();
    let forwards: Vec<_> =
        model.port_forwards.iter().map(|forward| forward::port_forward(forward, &names, problems)).collect();
    check_overlaps(model, &forwards, problems);
    let rules: Vec<_> = model.rules.iter().map(|rule| rule::rule(rule, model, &names, problems)).collect();
    if problems.error_count() > 0 {
        return None;
    }
    let actions = &model.default_actions;
    let policy = ValidPolicy {
        interfaces,
        anti_spoof: model.anti_spoof,
        default_actions: [actions.input, actions.forward, actions.output],
        port_forwards: forwards.into_iter().flatten().collect(),
        masquerades,
        rules: rules.into_iter().flatten().collect(),
        timeouts: model.timeouts.clone(),
        capacity: model.flows.capacity,
        on_change: model.flows.on_change,
        engine: model.engine.mode,
        mss_clamp: model.engine.mss_clamp,
        watch: model.watch,
        files: model.sources.iter().map(|source| source.path().to_owned()).collect(),
    };
    warnings::look(&policy, model, facts, problems);
    Some(policy)
}

fn interfaces(model: &Model, problems: &mut Problems) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for model::Interface { name, role } in &model.interfaces {
        if interfaces.iter().any(|known| known.name == name.value) {
            let help = "name each interface once: either external or internal";
            problems.error(&name.span, format!("interface {} is named twice", name.value), help);
        }
        interfaces.push(Interface { name: name.value.clone(), role: *role });
    }
    interfaces
}

fn check_unique<'m>(kind: &str, titles: impl Iterator<Item = &'m Title>, problems: &mut Problems) {
    let mut seen: Vec<&Title> = Vec::new();
    for title in titles {
        if let Some(first) = seen.iter().find(|other| other.name == title.name) {
            let message = format!("{} is also called \"{}\"", first.head.place(), title.name.escape_debug());
            let error = Diagnostic::at(
                Severity::Error,
                &title.span,
                message,
                format!("give each {kind} its own name"),
            );
            problems
                .about(&title.label, |problems| problems.push(error.and_at(&first.span, "the first one")));
        }
        seen.push(title);
    }
}

/// Two port-forwards that both want the same packet.
fn check_overlaps(model: &Model, forwards: &[Option<PortForward>], problems: &mut Problems) {
    let built: Vec<(&PortForward, &model::PortForward, AddressRanges)> = forwards
        .iter()
        .zip(&model.port_forwards)
        .filter_map(|(built, model)| {
            let built = built.as_ref()?;
            let (v4, v6) = families(built);
            Some((built, model, AddressRanges::of(&built.from).of_families(v4, v6)))
        })
        .collect();
    for (index, (later, later_model, later_from)) in built.iter().enumerate() {
        for (earlier, earlier_model, earlier_from) in &built[..index] {
            if let Some(what) = common(earlier, later)
                && earlier_from.overlaps(later_from)
            {
                report_overlap(&what, earlier_model, later_model, problems);
            }
        }
    }
}

/// The first protocol and ports that both forwards take, such as `tcp port 2201`.
fn common(earlier: &PortForward, later: &PortForward) -> Option<String> {
    let address = |forward: &PortForward| forward.addresses.is_empty();
    let same_address = address(earlier)
        || address(later)
        || earlier.addresses.iter().any(|address| later.addresses.contains(address));
    let protocol = earlier.protocols.iter().find(|protocol| later.protocols.contains(protocol))?;
    let pairs = earlier.ports.iter().flat_map(|left| later.ports.iter().map(move |right| (left, right)));
    let ports = pairs
        .filter(|(left, right)| left.overlaps(**right))
        .map(|(left, right)| left.common(*right))
        .next()?;
    let protocol = if *protocol == super::TCP { "tcp" } else { "udp" };
    same_address.then(|| format!("{protocol} port {ports}"))
}

fn report_overlap(
    what: &str,
    earlier: &model::PortForward,
    later: &model::PortForward,
    problems: &mut Problems,
) {
    let span = later.ports.first().map_or(&later.title.span, |port| &port.span);
    let first = earlier.ports.first().map_or(&earlier.title.span, |port| &port.span);
    let message = format!("{what} is also forwarded by {} at {}", earlier.title.label, first.place());
    let help = "give each port to one port-forward, or make their \"from\" or \"address\" exclude each other";
    let error = Diagnostic::at(Severity::Error, span, message, help).and_at(first, "the other one");
    problems.about(&later.title.label, |problems| problems.push(error));
}
