//! Names become addresses, contradictions become errors: [`Model`] → [`ValidPolicy`].

use super::{
    AddressMatch, Failsafe, HostFacts, Interface, PortForward, ValidPolicy, address::AddressRanges, forward,
    masquerade::masquerade, names::Names, rule, warnings,
};
use crate::config::{
    Diagnostic, Severity,
    model::{self, Model, Title},
    problems::Problems,
};

/// Judges the whole file; takes out of `model` what is switched off. `None` if anything is wrong, here or before.
pub(crate) fn resolve(model: &mut Model, facts: &HostFacts, problems: &mut Problems) -> Option<ValidPolicy> {
    let names = Names::new(model, problems);
    let interfaces = interfaces(model, problems);
    check_unique("port-forward", model.port_forwards.iter().map(|forward| &forward.title), problems);
    check_unique("rule", model.rules.iter().map(|rule| &rule.title), problems);
    let failsafe = model.failsafe.as_ref().map(|failsafe| door(failsafe, model, &names, problems));
    let (block, _) = problems.about("block", |problems| {
        let from = model.block.as_ref().map(|from| names.select_once(from, problems));
        from.map(AddressMatch::into_networks).unwrap_or_default().into()
    });
    let masquerades = model.masquerades.iter().map(|m| masquerade(m, &names, problems)).collect();
    let forwards: Vec<_> = model
        .port_forwards
        .iter()
        .map(|forward| forward::port_forward(forward, &names, facts, problems))
        .collect();
    check_overlaps(model, &forwards, problems);
    let rules: Vec<_> = model.rules.iter().map(|rule| rule::rule(rule, model, &names, problems)).collect();
    if problems.error_count() > 0 {
        return None;
    }
    let port_forwards = enabled(forwards, &model.port_forwards, |forward| forward.enabled);
    let rules = enabled(rules, &model.rules, |rule| rule.enabled);
    model.port_forwards.retain(|forward| forward.enabled);
    model.rules.retain(|rule| rule.enabled);
    let actions = &model.default_actions;
    let policy = ValidPolicy {
        interfaces,
        anti_spoof: model.anti_spoof,
        default_actions: [actions.input, actions.forward, actions.output],
        failsafe,
        block,
        port_forwards,
        masquerades,
        rules,
        timeouts: model.timeouts.clone(),
        capacity: model.flows.capacity,
        on_change: model.flows.on_change,
        engine: model.engine.mode,
        mss_clamp: model.engine.mss_clamp,
        watch: model.reload.watch,
        confirm: model.reload.confirm,
        files: model.sources.iter().map(|source| source.path().to_owned()).collect(),
    };
    warnings::look(&policy, model, facts, problems);
    Some(policy)
}

/// What takes part of all that was looked at.
fn enabled<T, M>(built: Vec<Option<T>>, written: &[M], takes_part: impl Fn(&M) -> bool) -> Vec<T> {
    let all = built.into_iter().zip(written);
    all.filter(|(_, written)| takes_part(written)).filter_map(|(built, _)| built).collect()
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

/// The fail-safe door, which no port-forward may lead away from.
fn door<'m>(
    failsafe: &'m model::Failsafe,
    model: &Model,
    names: &Names<'m>,
    problems: &mut Problems,
) -> Failsafe {
    for forward in model.port_forwards.iter().filter(|forward| forward.enabled) {
        let tcp = forward.protocols.iter().any(|protocol| protocol.value == super::TCP);
        let port = forward.ports.iter().find(|range| range.value.contains(failsafe.port));
        if let Some(port) = port.filter(|_| tcp) {
            let message = format!("tcp port {} belongs to the fail-safe door", failsafe.port);
            let help =
                "forward another port, or give [failsafe] the port on which this host's SSH server listens";
            let error = Diagnostic::at(Severity::Error, &port.span, message, help);
            let error = error.and_at(&failsafe.head, "the door");
            problems.about(&forward.title.label, |problems| problems.push(error));
        }
    }
    let (from, _) = problems.about("failsafe", |problems| names.select(Some(&failsafe.from), problems));
    Failsafe { port: failsafe.port, from }
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
        .filter(|(_, model)| model.enabled)
        .filter_map(|(built, model)| {
            let built = built.as_ref()?;
            let (v4, v6) = built.families();
            Some((built, model, AddressRanges::of(&built.from).of_families(v4, v6)))
        })
        .collect();
    for (index, (later, later_model, later_from)) in built.iter().enumerate() {
        for (earlier, earlier_model, earlier_from) in &built[..index] {
            if same_address(earlier, later) && earlier_from.overlaps(later_from) {
                check_ports(earlier_model, later_model, problems);
            }
        }
    }
}

fn same_address(earlier: &PortForward, later: &PortForward) -> bool {
    let (left, right) = (&earlier.addresses, &later.addresses);
    left.is_empty() || right.is_empty() || left.iter().any(|address| right.contains(address))
}

/// Reports the first port that both forwards take.
fn check_ports(earlier: &model::PortForward, later: &model::PortForward, problems: &mut Problems) {
    let protocols = || earlier.protocols.iter().map(|protocol| protocol.value);
    let shared = protocols().find(|protocol| later.protocols.iter().any(|other| other.value == *protocol));
    let pairs = earlier.ports.iter().flat_map(|left| later.ports.iter().map(move |right| (left, right)));
    let clash = pairs
        .filter(|(left, right)| left.value.overlaps(right.value))
        .min_by_key(|(_, right)| right.span.range.start);
    let Some((protocol, (first, second))) = shared.zip(clash) else { return };
    let protocol = if protocol == super::TCP { "tcp" } else { "udp" };
    let ports = first.value.common(second.value);
    let other = format!("{} at {}", earlier.title.label, first.span.place());
    let message = format!("{protocol} port {ports} is also forwarded by {other}");
    let help = "give each port to one port-forward, or make their \"from\" or \"address\" exclude each other";
    let error =
        Diagnostic::at(Severity::Error, &second.span, message, help).and_at(&first.span, "the other one");
    problems.about(&later.title.label, |problems| problems.push(error));
}
