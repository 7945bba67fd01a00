//! `[[port-forward]]`: which outside port leads where.

use std::net::IpAddr;

use super::{HostFacts, PortForward, PortRange, Spread, SynProxy, TCP, Target, check, names::Names};
use crate::config::{
    Diagnostic, Severity,
    model::{self, TargetWord},
    problems::Problems,
    source::Spanned,
};

/// Resolves one port-forward; `None` if something is wrong with it.
pub(super) fn port_forward<'m>(
    model: &'m model::PortForward,
    names: &Names<'m>,
    facts: &HostFacts,
    problems: &mut Problems,
) -> Option<PortForward> {
    let (built, sound) = problems.about(&model.title.label, |problems| match model.enabled {
        true => build(model, names, facts, problems),
        false => problems.without_warnings(|problems| build(model, names, facts, problems)),
    });
    built.filter(|_| sound && model.sound)
}

fn build<'m>(
    model: &'m model::PortForward,
    names: &Names<'m>,
    facts: &HostFacts,
    problems: &mut Problems,
) -> Option<PortForward> {
    let from = names.select(model.from.as_ref(), problems);
    let hosts: Option<Vec<_>> = lookup_all(&model.to, names, problems);
    let addresses = model.addresses.iter();
    let addresses: Vec<_> = addresses.map(|word| names.host(&word.value, &word.span, problems)).collect();
    let addresses: Option<Vec<_>> = addresses.into_iter().collect();
    if !model.sound {
        return None;
    }
    let ports = ports(model, problems)?;
    let spread = spread(model, &ports, problems);
    let targets = targets(model, hosts?, &ports, problems)?;
    let mut forward = PortForward {
        name: model.title.name.clone(),
        place: model.title.head.place(),
        protocols: model.protocols.iter().map(|protocol| protocol.value).collect(),
        ports,
        addresses: addresses?.concat(),
        from,
        targets,
        spread,
        source_nat: model.source_nat,
        idle_timeout: model.idle_timeout.as_ref().map(|time| time.value),
        check: model.check.as_ref().map(|check| check.check.clone()),
        syn_proxy: model.syn_proxy.value,
    };
    forward.protocols.sort_unstable();
    forward.protocols.dedup();
    check_families(&forward, model, problems);
    check::judge(&forward, model, problems);
    check_syn_proxy(&forward, model, facts, problems);
    warn_if_short(&forward, model, problems);
    Some(forward)
}

/// Looks up every target, so that every unknown one is reported.
fn lookup_all(
    words: &[Spanned<TargetWord>],
    names: &Names<'_>,
    problems: &mut Problems,
) -> Option<Vec<Vec<IpAddr>>> {
    let lookup = |word: &Spanned<TargetWord>| names.host(&word.value.host, &word.span, problems);
    let found: Vec<_> = words.iter().map(lookup).collect();
    found.into_iter().collect()
}

/// The outside ports, none of them twice.
fn ports(model: &model::PortForward, problems: &mut Problems) -> Option<Vec<PortRange>> {
    for (index, later) in model.ports.iter().enumerate() {
        if let Some(earlier) = model.ports[..index].iter().find(|range| range.value.overlaps(later.value)) {
            let message = format!("port {} is in the list twice", later.value.common(earlier.value));
            problems.error(&later.span, message, "write each port once");
            return None;
        }
    }
    Some(model.ports.iter().map(|range| range.value).collect())
}

/// How many ports the ranges are.
fn count(ports: &[PortRange]) -> usize {
    ports.iter().map(|range| range.count()).sum()
}

fn spread(model: &model::PortForward, ports: &[PortRange], problems: &mut Problems) -> Spread {
    let several = model.to.len() > 1;
    let Some(span) = &model.one_to_one else {
        if several && model.balance.is_none() && model.to.len() == count(ports) {
            let message = format!("each of the {0} ports is balanced over all {0} targets", model.to.len());
            let help = "write spread = \"one-to-one\" to give each port its own target, or balance = \"round-robin\"";
            problems.warning(&model.title.span, message, help);
        }
        return model.balance.as_ref().map_or(Spread::RoundRobin, |balance| balance.value);
    };
    if let Some(balance) = &model.balance {
        let message = "\"balance\" contradicts spread = \"one-to-one\": each port has one target";
        problems.error(&balance.span, message, "take one of them out");
    }
    if model.to.len() != count(ports) {
        let message = format!("one-to-one with {} ports and {} targets", count(ports), model.to.len());
        let help = "write as many targets as ports: the n-th port leads to the n-th target";
        let error = Diagnostic::at(Severity::Error, span, message, help);
        let target = model.to.first().map_or(span, |target| &target.span);
        problems.push(error.and_at(target, "the first target"));
    }
    Spread::OneToOne
}

fn targets(
    model: &model::PortForward,
    hosts: Vec<Vec<IpAddr>>,
    ports: &[PortRange],
    problems: &mut Problems,
) -> Option<Vec<Target>> {
    let one_to_one = model.one_to_one.is_some();
    let mut outside = ports.iter().flat_map(|range| range.first..=range.last);
    let mut targets = Vec::new();
    for (word, addresses) in model.to.iter().zip(hosts) {
        let own = outside.next().filter(|_| one_to_one).map(|port| PortRange { first: port, last: port });
        match target_ports(word.value.ports, own.as_slice(), ports, one_to_one) {
            Ok(ports) => targets.push(Target { addresses, ports, drains: word.value.drains }),
            Err((message, help)) => problems.error(&word.span, message, help),
        }
    }
    (targets.len() == model.to.len()).then_some(targets)
}

/// The ports of one target: one, as many as the outside ports (`all`), or, where none is written, those kept.
fn target_ports(
    written: Option<PortRange>,
    own: &[PortRange],
    all: &[PortRange],
    one_to_one: bool,
) -> Result<PortRange, (String, String)> {
    let outside = if one_to_one { own } else { all };
    let wanted = count(outside);
    match (written, outside) {
        (Some(range), _) if range.count() == 1 || range.count() == wanted => Ok(range),
        (Some(range), _) if one_to_one => {
            let message =
                format!("{range} are {} ports, but one-to-one gives each target one", range.count());
            Err((message, format!("write the one port, such as :{}", range.first)))
        }
        (Some(range), _) => {
            let message = format!("{range} are {} ports, but \"port\" has {wanted}", range.count());
            Err((message, same_length(range, wanted)))
        }
        (None, [kept]) => Ok(*kept),
        // One-to-one with more targets than ports: reported where the counts are compared.
        (None, []) => Ok(PortRange { first: 1, last: 1 }),
        (None, _) => {
            let message = "the target has no port, and \"port\" is more than one range";
            Err((
                message.into(),
                "write the port behind the target, or one port-forward for each range".into(),
            ))
        }
    }
}

fn same_length(range: PortRange, wanted: usize) -> String {
    let last = usize::from(range.first) + wanted - 1;
    match u16::try_from(last) {
        Ok(last) => format!("write as many: :{}", PortRange { first: range.first, last }),
        Err(_) => format!("write {wanted} ports that end before 65536"),
    }
}

impl PortForward {
    /// The families that its targets and its own addresses have in common: IPv4, IPv6.
    pub fn families(&self) -> (bool, bool) {
        let has = |wanted: fn(&IpAddr) -> bool| {
            let here = self.addresses.is_empty() || self.addresses.iter().any(wanted);
            here && self.targets.iter().any(|target| target.addresses.iter().any(wanted))
        };
        (has(IpAddr::is_ipv4), has(IpAddr::is_ipv6))
    }
}

/// An outside address for which no target has an address of the same family.
fn check_families(forward: &PortForward, model: &model::PortForward, problems: &mut Problems) {
    let reachable = |address: &IpAddr| {
        let same = |other: &IpAddr| other.is_ipv4() == address.is_ipv4();
        forward.targets.iter().any(|target| target.addresses.iter().any(same))
    };
    let Some(address) = forward.addresses.iter().find(|address| !reachable(address)) else { return };
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let span = model.addresses.first().map_or(&model.title.span, |word| &word.span);
    let help = format!("give a target an {family} address below [hosts], or take {address} out");
    problems.error(span, format!("no target has an {family} address for {address}"), help);
}

/// Only TCP opens connections by a SYN, and the challenge to its sender is a SYN cookie of the kernel's.
fn check_syn_proxy(
    forward: &PortForward,
    model: &model::PortForward,
    facts: &HostFacts,
    problems: &mut Problems,
) {
    let span = &model.syn_proxy.span;
    if forward.syn_proxy == SynProxy::Off {
        return;
    }
    if !forward.protocols.contains(&TCP) {
        let message = "\"syn-proxy\" is about TCP, which this port-forward does not carry";
        problems.error(span, message, "take \"syn-proxy\" out, or write protocol = \"tcp\"");
    } else if facts.lacks_syn_cookies {
        let message = "\"syn-proxy\" needs SYN cookies, and this kernel makes none (CONFIG_SYN_COOKIES)";
        problems.error(span, message, "take \"syn-proxy\" out, or boot a kernel that has them");
    }
}

fn warn_if_short(forward: &PortForward, model: &model::PortForward, problems: &mut Problems) {
    let Some(time) = &model.idle_timeout else { return };
    let tcp = forward.protocols.contains(&TCP);
    let (least, rfc) = if tcp { (7440, "RFC 5382 REQ-5") } else { (120, "RFC 4787 REQ-5") };
    if time.value.as_secs() < least {
        let message = format!(
            "{}s is less than the {least}s of {rfc}: idle connections will break",
            time.value.as_secs()
        );
        problems.warning(&time.span, message, format!("write \"{least}s\" or more, or take it out"));
    }
}
