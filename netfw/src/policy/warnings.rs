//! What is valid but probably not meant.

use ipnet::IpNet;

use super::{
    Action, AddressMatch, Chain, Check, Endpoint, HostFacts, ICMP, ICMPV6, Masquerade, PortForward, Rule,
    SSH, TCP, UDP, ValidPolicy, address::AddressRanges, facts::ListeningPort, shadow,
};
use crate::config::{
    model::{self, Model},
    problems::Problems,
};

/// Looks at a valid policy. Rules and port-forwards are those of `model`, in the same order.
pub(super) fn look(policy: &ValidPolicy, model: &Model, facts: &HostFacts, problems: &mut Problems) {
    warn_about_lock_out(policy, model, problems);
    shadow::look(policy, model, problems);
    for (masquerade, written) in policy.masquerades.iter().zip(&model.masquerades) {
        problems.about("masquerade", |problems| {
            warn_about_foreign_addresses(masquerade, written, facts, problems);
            warn_if_ports_are_few(masquerade, written, problems);
            warn_if_ports_are_taken(masquerade, written, policy, problems);
        });
    }
    for (rule, written) in policy.rules.iter().zip(&model.rules) {
        problems.about(&written.title.label, |problems| {
            warn_if_families_differ(rule, written, problems);
            warn_if_never_translated(rule, written, policy, facts, problems);
            warn_if_limit_is_idle(rule, written, problems);
        });
    }
    for (forward, written) in policy.port_forwards.iter().zip(&model.port_forwards) {
        problems.about(&written.title.label, |problems| {
            warn_if_nobody_reaches(forward, written, problems);
            warn_about_listeners(forward, written, facts, problems);
            warn_if_for_the_host_itself(forward, written, facts, problems);
            warn_if_checks_are_refused(forward, written, policy, problems);
        });
    }
}

fn warn_about_lock_out(policy: &ValidPolicy, model: &Model, problems: &mut Problems) {
    if !policy.admits_ssh() {
        let help =
            "add [failsafe] with ssh-port = 22 and from = [your network], or a [[rule]] that accepts it";
        problems.warning(
            &model.default_actions.span,
            "nothing admits SSH to this host: you may lock yourself out",
            help,
        );
    }
}

/// Whether the rules let somebody open a connection to the host's SSH port.
pub(super) fn admits_ssh(policy: &ValidPolicy) -> bool {
    for rule in policy.rules.iter().filter(|rule| may_match_ssh(rule)) {
        let for_everyone = rule.from.is_any()
            && rule.to.is_any()
            && rule.interfaces.is_empty()
            && rule.from_ports.is_empty();
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
    let somebody = families_of(rule) != (false, false);
    rule.chain == Chain::Input && tcp && port && somebody && rule.port_forwards.is_none()
}

/// Whether a rule can match IPv4 and IPv6 packets.
fn families_of(rule: &Rule) -> (bool, bool) {
    let not_only =
        |protocol| rule.protocols.is_empty() || rule.protocols.iter().any(|known| *known != protocol);
    let (from, to) = (rule.from.families(), rule.to.families());
    (from.0 && to.0 && not_only(ICMPV6), from.1 && to.1 && not_only(ICMP))
}

/// A rule whose source, destination and protocol have no family in common.
fn warn_if_families_differ(rule: &Rule, written: &model::Rule, problems: &mut Problems) {
    let empty = |selection: &AddressMatch| selection.families() == (false, false);
    if families_of(rule) == (false, false) && !empty(&rule.from) && !empty(&rule.to) {
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
    let Some(first) = written.port_forwards.first().filter(|_| rule.chain == Chain::Input) else { return };
    let Some(numbers) = rule.port_forwards.as_ref().filter(|numbers| !numbers.is_empty()) else { return };
    let forwards = numbers.iter().filter_map(|&index| policy.port_forwards.get(index));
    let targets = forwards.flat_map(|forward| &forward.targets);
    let mut addresses = targets.flat_map(|target| &target.addresses);
    if !facts.addresses.is_empty() && !addresses.any(|address| facts.addresses.contains(address)) {
        let names: Vec<_> = written.port_forwards.iter().map(|name| format!("\"{}\"", name.value)).collect();
        let message = format!("never matches: no target of {} is this host", names.join(" or "));
        problems.warning(&first.span, message, "write chain = \"forward\"");
    }
}

/// A limit on a rule that drops in any case.
fn warn_if_limit_is_idle(rule: &Rule, written: &model::Rule, problems: &mut Problems) {
    if let Some(limit) = written.limit.as_ref().filter(|_| rule.action == Action::Drop) {
        let message = "the limit changes nothing: what is above it is dropped too";
        problems.warning(&limit.span, message, "take it out, or write action = \"accept\"");
    }
}

/// A port-forward whose clients have addresses of one family and whose targets have the other.
fn warn_if_nobody_reaches(forward: &PortForward, written: &model::PortForward, problems: &mut Problems) {
    let clients = AddressRanges::of(&forward.from);
    let (v4, v6) = forward.families();
    if !clients.is_empty() && clients.of_families(v4, v6).is_empty() {
        let message = "never used: \"from\" and \"to\" have no family of addresses in common";
        problems.warning(&written.title.span, message, "write IPv4 addresses in both, or IPv6 addresses");
    }
}

/// Outside addresses that this host does not have.
fn warn_about_foreign_addresses(
    masquerade: &Masquerade,
    written: &model::Masquerade,
    facts: &HostFacts,
    problems: &mut Problems,
) {
    if facts.addresses.is_empty() {
        return;
    }
    for address in masquerade.to.iter().filter(|address| !facts.addresses.contains(address)) {
        let span = written.to.first().map_or(&written.head, |word| &word.span);
        let message = format!("{address} is not an address of this host: answers to it may never come here");
        let help = "give it to an external interface, or have the router in front send it here";
        problems.warning(span, message, help);
    }
}

/// Fewer ports than hosts: while all of them talk to one server, some get none.
fn warn_if_ports_are_few(masquerade: &Masquerade, written: &model::Masquerade, problems: &mut Problems) {
    let Some(ports) = masquerade.ports else { return };
    let addresses = masquerade.to.iter().filter(|address| address.is_ipv4()).count().max(1);
    let (room, hosts) = (ports.count() * addresses, AddressRanges::of(&masquerade.from).count_v4());
    if (room as u128) < hosts {
        let message = format!("{room} ports for up to {hosts} hosts: they may run out");
        problems.warning(&written.head, message, "write a wider range, or more addresses in \"to\"");
    }
}

/// Ports that all lead somewhere else: none of them is ever used for the LAN.
fn warn_if_ports_are_taken(
    masquerade: &Masquerade,
    written: &model::Masquerade,
    policy: &ValidPolicy,
    problems: &mut Problems,
) {
    let Some(ports) = masquerade.ports else { return };
    for (protocol, name) in [(TCP, "TCP"), (UDP, "UDP")] {
        let everywhere = |forward: &&PortForward| {
            forward.addresses.is_empty() && forward.from.is_any() && forward.protocols.contains(&protocol)
        };
        let forwards: Vec<_> = policy.port_forwards.iter().filter(everywhere).collect();
        let taken =
            |port| forwards.iter().any(|forward| forward.ports.iter().any(|range| range.contains(port)));
        if (ports.first..=ports.last).all(taken) {
            let message = format!("every port of \"ports\" is forwarded: nothing leaves by {name}");
            problems.warning(&written.head, message, "write a range that no port-forward uses");
        }
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

/// A port-forward for the host's own programs: what they send to the host's own addresses travels over `lo`, past netfw. Said only
/// where `from` names the host by an address of its own, not where it is one of a network's.
fn warn_if_for_the_host_itself(
    forward: &PortForward,
    written: &model::PortForward,
    facts: &HostFacts,
    problems: &mut Problems,
) {
    let whole = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
    let mut named = forward.from.include.iter().filter(|network| whole(network)).map(IpNet::addr);
    let Some(own) = named.find(|address| facts.addresses.contains(address)) else { return };
    let message = format!(
        "\"from\" names {own}, which is this host: what it sends to itself never passes a port-forward"
    );
    let help = "on this host, connect to the target itself";
    problems.warning(&written.title.span, message, help);
}

/// Checks are connections of the host itself: chain output must let them through.
fn warn_if_checks_are_refused(
    forward: &PortForward,
    written: &model::PortForward,
    policy: &ValidPolicy,
    problems: &mut Problems,
) {
    let Some(check) = &written.check else { return };
    let endpoints = forward.endpoints();
    let mut checked = endpoints.iter().filter(|endpoint| endpoint.is_checked());
    let Some(refused) = checked.find(|endpoint| !admits_check(endpoint, &check.check, policy)) else {
        return;
    };
    let message =
        format!("chain output keeps this host from asking {}: it will count as down", refused.label());
    let help = "add a [[rule]] with chain = \"output\", action = \"accept\", protocol = \"tcp\" and to = [the targets]";
    problems.warning(&check.span, message, help);
}

/// Whether some rule or the policy may let the host open a connection for a check.
fn admits_check(endpoint: &Endpoint<'_>, check: &Check, policy: &ValidPolicy) -> bool {
    let port = check.port.unwrap_or(endpoint.target.ports.first);
    let concerns = |rule: &&Rule| {
        let tcp = rule.protocols.is_empty() || rule.protocols.contains(&TCP);
        let to = rule.ports.is_empty() || rule.ports.iter().any(|range| range.contains(port));
        rule.chain == Chain::Output
            && tcp
            && to
            && rule.to.matches(endpoint.address)
            && rule.port_forwards.is_none()
    };
    let surely = |rule: &Rule| rule.from.is_any() && rule.from_ports.is_empty() && rule.interfaces.is_empty();
    for rule in policy.rules.iter().filter(concerns) {
        match rule.action {
            Action::Accept => return true,
            Action::Drop | Action::Reject if surely(rule) => return false,
            Action::Drop | Action::Reject => {}
        }
    }
    policy.default_action(Chain::Output) == Action::Accept
}

/// Whether the forward takes packets that would otherwise reach the socket.
fn hides(forward: &PortForward, socket: &ListeningPort) -> bool {
    let address = forward.addresses.is_empty()
        || socket.address.is_unspecified()
        || forward.addresses.contains(&socket.address);
    let ports = forward.ports.iter().any(|range| range.contains(socket.port));
    address && ports && !socket.address.is_loopback() && forward.protocols.contains(&socket.protocol)
}
