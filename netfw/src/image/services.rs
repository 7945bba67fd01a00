//! What protocol, port and ICMP type say: a table with an entry for every value.
//!
//! Ranges are not unfolded: a sweep over the table meets their edges and keeps the set of those that are open.

use std::borrow::Cow;

use netfw_common::{
    image::{MAX_RULES, SERVICES, Service, Vector, service_index},
    wire::{ICMP, ICMPV6, SCTP, TCP, UDP},
};

use super::{
    error::CompileError,
    forwards::Entry,
    vectors::{SetOperations, Vectors},
};
use crate::policy::{PortRange, Rule, ValidPolicy};

const ALL: &[PortRange] = &[PortRange { first: 0, last: u16::MAX }];

/// The whole table.
pub(super) fn table(
    policy: &ValidPolicy,
    entries: &[Entry<'_>],
    vectors: &mut Vectors,
) -> Result<Vec<Service>, CompileError> {
    let mut services = vec![Service::default(); SERVICES as usize];
    for protocol in 0..=u8::MAX {
        let start = service_index(protocol.into(), 0) as usize;
        let part = &mut services[start..start + details(protocol)];
        let rules = numbered(policy.rules(), |rule| accepted(rule, protocol));
        sweep(part, &rules, vectors, |service, index| service.rules = index)?;
        let sources = numbered(policy.rules(), |rule| accepted_sources(rule, protocol));
        sweep(part, &sources, vectors, |service, index| service.source_rules = index)?;
        let forwards = numbered(entries, |entry| listening(entry, protocol));
        sweep(part, &forwards, vectors, |service, index| service.forwards = index)?;
        let targets = numbered(entries, |entry| answering(entry, protocol));
        sweep(part, &targets, vectors, |service, index| service.targets = index)?;
    }
    Ok(services)
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

/// How many entries a protocol has.
fn details(protocol: u8) -> usize {
    match protocol {
        TCP | UDP | SCTP => 65_536,
        ICMP | ICMPV6 => 256,
        _ => 1,
    }
}

/// Destination ports or ICMP types of `protocol` that a rule accepts. What has no ports has none that a rule
/// could ask for, so a rule with ports does not match it; likewise ICMP types.
fn accepted(rule: &Rule, protocol: u8) -> Cow<'_, [PortRange]> {
    let any_port = rule.ports.is_empty();
    let any_type = rule.icmp_types.is_empty();
    let asked = rule.protocols.is_empty() || rule.protocols.contains(&protocol);
    match protocol {
        _ if !asked => Cow::Borrowed(&[]),
        _ if any_port && any_type => Cow::Borrowed(ALL),
        TCP | UDP | SCTP if any_type => Cow::Borrowed(&rule.ports),
        ICMP | ICMPV6 if any_port => rule.icmp_types.iter().map(|&kind| single(kind.into())).collect(),
        _ => Cow::Borrowed(&[]),
    }
}

fn single(port: u16) -> PortRange {
    PortRange { first: port, last: port }
}

fn accepted_sources(rule: &Rule, protocol: u8) -> Cow<'_, [PortRange]> {
    Cow::Borrowed(match rule.from_ports.as_slice() {
        [] => ALL,
        ports if has_ports(protocol) => ports,
        _ => &[],
    })
}

fn listening<'a>(entry: &'a Entry<'_>, protocol: u8) -> Cow<'a, [PortRange]> {
    let listens = has_ports(protocol) && entry.forward.protocols.contains(&protocol);
    Cow::Borrowed(if listens { std::slice::from_ref(&entry.ports) } else { &[] })
}

/// Ports from which its targets answer. Only of TCP does the datapath ask who speaks there.
fn answering(entry: &Entry<'_>, protocol: u8) -> Cow<'static, [PortRange]> {
    if protocol == TCP && entry.forward.protocols.contains(&TCP) {
        entry.target_ports().collect()
    } else {
        Cow::Borrowed(&[])
    }
}

/// Where a range begins or (`opens` false) has ended.
struct Edge {
    position: usize,
    number: usize,
    opens: bool,
}

/// The edges of what `ranges` says of each item, in order.
fn numbered<'a, T>(items: &'a [T], ranges: impl Fn(&'a T) -> Cow<'a, [PortRange]>) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (number, item) in items.iter().enumerate() {
        for range in ranges(item).iter() {
            edges.push(Edge { position: range.first.into(), number, opens: true });
            edges.push(Edge { position: usize::from(range.last) + 1, number, opens: false });
        }
    }
    edges.sort_by_key(|edge| edge.position);
    edges
}

/// Gives each entry of `part` the set of numbers whose ranges are open there.
fn sweep(
    part: &mut [Service],
    edges: &[Edge],
    vectors: &mut Vectors,
    set: impl Fn(&mut Service, u16),
) -> Result<(), CompileError> {
    let mut depth = [0u32; MAX_RULES as usize];
    let mut open = Vector::default();
    let mut edges = edges.iter().peekable();
    let mut index = 0;
    for (position, service) in part.iter_mut().enumerate() {
        if edges.peek().is_some_and(|edge| edge.position == position) {
            while let Some(edge) = edges.next_if(|edge| edge.position == position) {
                cross(edge, &mut depth, &mut open);
            }
            index = vectors.index(&open)?;
        }
        set(service, index);
    }
    Ok(())
}

/// Ranges of one number may overlap: it stays in the set until the last of them has ended.
fn cross(edge: &Edge, depth: &mut [u32], open: &mut Vector) {
    let depth = &mut depth[edge.number];
    if edge.opens {
        *depth += 1;
        open.insert(edge.number);
    } else {
        *depth -= 1;
        if *depth == 0 {
            open.remove(edge.number);
        }
    }
}
