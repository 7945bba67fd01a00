//! Port-forwards, as the datapath looks them up: an entry for each contiguous range of ports in each family.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use netfw_common::{
    health::{DRAINS, UNCHECKED},
    image::{
        Forward, MAX_BALANCED, MAX_FORWARDS, MAX_TARGETS, ONE_TO_ONE, RANDOM, ROUND_ROBIN, SOURCE_HASH,
        SOURCE_NAT_ALWAYS, SOURCE_NAT_AUTO, SOURCE_NAT_NEVER, SYN_PROXY, Target,
    },
};

use super::{
    Ids,
    error::{self, CompileError},
    header, masquerades,
    vectors::Vectors,
};
use crate::policy::{self, Endpoint, PortForward, PortRange, Rule, SourceNat, Spread, SynProxy, ValidPolicy};

/// A range of outside ports with the targets that serve it.
pub(super) struct Entry<'a> {
    /// The port-forward it belongs to.
    pub(super) forward: &'a PortForward,
    /// Where that stands in the rules file.
    origin: usize,
    /// Whether it is the IPv6 half.
    pub(super) v6: bool,
    /// Outside ports.
    pub(super) ports: PortRange,
    /// Of one family and never empty; one-to-one: as many as there are ports.
    targets: Vec<Place<'a>>,
}

/// Where a port goes to, and whose target that is.
type Place<'a> = (SocketAddr, &'a policy::Target);

impl Entry<'_> {
    /// Where it leads to.
    pub(super) fn target_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.targets.iter().map(|(at, _)| at.ip())
    }

    /// The ports there, of each target.
    pub(super) fn target_ports(&self) -> impl Iterator<Item = PortRange> {
        let more = if self.shifts() { self.ports.last - self.ports.first } else { 0 };
        self.targets.iter().map(move |(at, _)| PortRange { first: at.port(), last: at.port() + more })
    }

    /// Whether the n-th outside port goes to the target's port plus n.
    fn shifts(&self) -> bool {
        self.forward.spread != Spread::OneToOne && self.forward.targets.iter().all(is_shifted)
    }

    /// The addresses of its family that it listens on; none: any.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.forward.addresses.iter().copied().filter(|address| address.is_ipv6() == self.v6)
    }
}

/// All entries of all port-forwards, in order.
pub(super) fn expand(forwards: &[PortForward]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for (origin, forward) in forwards.iter().enumerate() {
        for v6 in [false, true] {
            if forward.addresses.is_empty() || forward.addresses.iter().any(|a| a.is_ipv6() == v6) {
                let parts = ranges(forward).flat_map(|(ports, offset)| parts(forward, ports, offset, v6));
                entries.extend(parts.map(|(ports, targets)| Entry { forward, origin, v6, ports, targets }));
            }
        }
    }
    entries
}

/// The daemon asks each of them again and again.
const MAX_CHECKED: usize = 1024;

/// Whether the datapath has room for the entries.
pub(super) fn check_size(entries: &[Entry<'_>]) -> Result<(), CompileError> {
    let what = "port ranges of port-forwards";
    error::at_most(MAX_FORWARDS as usize, entries.len(), what, error::FEWER_RANGES)?;
    let checked = entries.iter().filter(|entry| entry.forward.check.is_some());
    let checked = checked.map(|entry| entry.targets.len()).sum();
    error::at_most(MAX_CHECKED, checked, "targets with a check", error::FEWER_CHECKS)?;
    let balanced = entries.iter().filter(|entry| entry.forward.spread != Spread::OneToOne);
    let most = balanced.map(|entry| entry.targets.len()).max().unwrap_or(0);
    error::at_most(MAX_BALANCED as usize, most, "targets of one port-forward", error::FEWER_BALANCED)
}

/// Each range with the number of ports before it.
fn ranges(forward: &PortForward) -> impl Iterator<Item = (PortRange, usize)> {
    forward.ports.iter().scan(0, |offset, &range| {
        let before = *offset;
        *offset += range.count();
        Some((range, before))
    })
}

/// Cuts a range where the way to find the target changes.
fn parts(
    forward: &PortForward,
    ports: PortRange,
    offset: usize,
    v6: bool,
) -> Vec<(PortRange, Vec<Place<'_>>)> {
    if forward.spread == Spread::OneToOne {
        return runs(forward.targets.get(offset..).unwrap_or_default(), ports, v6);
    }
    // Where only some targets shift, each port is a range of its own: then nothing is left to shift.
    let step = if is_mixed(forward) { 1 } else { ports.count() };
    let starts = (0..ports.count()).step_by(step);
    let part = |start: usize| {
        let targets: Vec<_> =
            forward.targets.iter().filter_map(|target| place(target, v6, offset + start)).collect();
        let first = ports.first + start as u16;
        (PortRange { first, last: first + (step - 1) as u16 }, targets)
    };
    starts.map(part).filter(|(_, targets)| !targets.is_empty()).collect()
}

fn is_mixed(forward: &PortForward) -> bool {
    forward.targets.iter().any(is_shifted) && !forward.targets.iter().all(is_shifted)
}

/// Longest runs of ports whose targets have an address of the family (a target without one leaves a gap) and are not too many to
/// be looked through.
fn runs(targets: &[policy::Target], ports: PortRange, v6: bool) -> Vec<(PortRange, Vec<Place<'_>>)> {
    let mut runs: Vec<(PortRange, Vec<Place<'_>>)> = Vec::new();
    for (port, target) in (ports.first..=ports.last).zip(targets) {
        let Some(target) = place(target, v6, 0) else { continue };
        match runs.last_mut() {
            Some((range, targets)) if range.last + 1 == port && targets.len() < MAX_BALANCED as usize => {
                range.last = port;
                targets.push(target);
            }
            _ => runs.push((PortRange { first: port, last: port }, vec![target])),
        }
    }
    runs
}

/// Where the port with `offset` ports before it goes to.
fn place(target: &policy::Target, v6: bool, offset: usize) -> Option<Place<'_>> {
    let address = target.addresses.iter().find(|address| address.is_ipv6() == v6)?;
    let port = if is_shifted(target) { target.ports.first + offset as u16 } else { target.ports.first };
    Some((SocketAddr::new(*address, port), target))
}

/// Whether a target has a port for each outside port.
fn is_shifted(target: &policy::Target) -> bool {
    target.ports.first != target.ports.last
}

/// The tables of entries and of targets. Entries that share their targets share the place.
pub(super) fn lay_out(
    policy: &ValidPolicy,
    entries: &[Entry<'_>],
    numbers: &[u16],
    ids: &Ids,
    vectors: &mut Vectors,
) -> Result<(Vec<Forward>, Vec<Target>), CompileError> {
    let mut targets = Vec::new();
    let mut places: HashMap<Vec<Target>, u32> = HashMap::new();
    let mut forwards = Vec::with_capacity(entries.len());
    let mut place_of = |own: Vec<Target>| {
        let next = targets.len() as u32;
        *places.entry(own).or_insert_with_key(|own| {
            targets.extend(own);
            next
        })
    };
    for entry in entries {
        let own = entry.targets.iter().map(|place| target(entry.forward, place, ids)).collect();
        let first_target = place_of(own);
        let own = entry.addresses().map(|address| masquerades::target(address, 0)).collect();
        let first_address = place_of(own);
        let accepts = |rule: &Rule| match &rule.port_forwards {
            Some(wanted) => wanted.contains(&entry.origin),
            None => true,
        };
        let rules = vectors.index(&header::numbers(policy, accepts))?;
        let id = numbers[entry.origin];
        forwards.push(Forward { first_target, id, rules, first_address, ..describe(entry) });
    }
    error::at_most(MAX_TARGETS as usize, targets.len(), "targets of port-forwards", error::FEWER_TARGETS)?;
    Ok((forwards, targets))
}

/// What an entry says by itself.
fn describe(entry: &Entry<'_>) -> Forward {
    let forward = entry.forward;
    Forward {
        targets: entry.targets.len() as u32,
        spread: spread(forward.spread),
        source_nat: source_nat(forward.source_nat),
        first_port: entry.ports.first,
        shift: entry.shifts().into(),
        idle_timeout: forward.idle_timeout.map_or(0, header::ticks),
        ports: entry.ports.count() as u16,
        addresses: entry.addresses().count() as u16,
        flags: if forward.syn_proxy == SynProxy::Auto { SYN_PROXY } else { 0 },
        ..Forward::default()
    }
}

fn spread(spread: Spread) -> u32 {
    match spread {
        Spread::OneToOne => ONE_TO_ONE,
        Spread::RoundRobin => ROUND_ROBIN,
        Spread::SourceHash => SOURCE_HASH,
        Spread::Random => RANDOM,
    }
}

fn source_nat(source_nat: SourceNat) -> u32 {
    match source_nat {
        SourceNat::Auto => SOURCE_NAT_AUTO,
        SourceNat::Always => SOURCE_NAT_ALWAYS,
        SourceNat::Never => SOURCE_NAT_NEVER,
    }
}

fn target(forward: &PortForward, (at, target): &Place<'_>, ids: &Ids) -> Target {
    let endpoint = Endpoint { forward, target, address: at.ip() };
    let health = match ids.target(&endpoint) {
        _ if target.drains => DRAINS,
        Some(number) if endpoint.is_checked() => number,
        _ => UNCHECKED,
    };
    Target { health, ..masquerades::target(at.ip(), at.port()) }
}
