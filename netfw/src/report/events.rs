//! `netfw watch`, and the log of flows.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use netfw_common::{
    event::{DROPPED, Event, LEAVING, TRANSLATED, V6},
    family::{Addr4, Addr6, Address as _},
    reason::Reason,
    tuple::Tuple,
    wire::{SCTP, TCP, UDP},
};
use serde::Serialize;

use super::protocol_name;
use crate::{daemon::state::State, kernel::wall_time};

/// A packet that was dropped or a flow that was admitted, with the names of what decided.
#[derive(Debug, Serialize)]
pub struct Told {
    at: String,
    event: &'static str,
    reason: Option<&'static str>,
    interface: String,
    direction: &'static str,
    protocol: Option<String>,
    source: Option<String>,
    destination: Option<String>,
    translated: Option<Translated>,
    chain: Option<String>,
    rule: Option<String>,
    port_forward: Option<String>,
    packets: u32,
    bytes: u32,
}

#[derive(Debug, Serialize)]
struct Translated {
    source: String,
    destination: String,
}

/// Events that were left out, because they came too fast.
#[derive(Debug, Serialize)]
pub struct LeftOut {
    at: String,
    event: &'static str,
    of: &'static str,
    reason: Option<&'static str>,
    events: u64,
}

impl Told {
    /// With the names of `state`.
    pub fn new(event: &Event, state: &State) -> Self {
        let known = event.arriving != Tuple::default();
        let ends = ends(event, &event.arriving);
        let rule = event.rule.checked_sub(1).map(|id| rule(state, id));
        let (chain, rule) = rule.unzip();
        let forward = event.forward.checked_sub(1);
        Self {
            at: timestamp(wall_time(event.at)),
            event: kind(event.kind),
            reason: (event.kind == DROPPED).then(|| reason(event.reason)),
            interface: interface(state, event.interface),
            direction: if event.flags & LEAVING == 0 { "in" } else { "out" },
            protocol: known.then(|| protocol_name(event.arriving.protocol)),
            source: known.then(|| ends[0].clone()),
            destination: known.then(|| ends[1].clone()),
            translated: (event.flags & TRANSLATED != 0).then(|| Translated::new(event)),
            chain: chain.flatten(),
            rule,
            port_forward: forward.map(|id| port_forward(state, id)),
            packets: event.packets,
            bytes: event.bytes,
        }
    }

    /// A line for people, with the time.
    pub fn render(&self) -> String {
        format!("{} {self}\n", self.at)
    }
}

impl Translated {
    fn new(event: &Event) -> Self {
        let [source, destination] = ends(event, &event.leaving);
        Self { source, destination }
    }
}

impl fmt::Display for Told {
    /// Without the time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, direction, interface, .. } = self;
        match self.reason {
            Some(reason) => write!(f, "{event} {reason}, {direction} {interface}:")?,
            None => write!(f, "{event} flow, {direction} {interface}:")?,
        }
        match (&self.protocol, &self.source, &self.destination) {
            (Some(protocol), Some(source), Some(destination)) => {
                write!(f, " {protocol} {source} -> {destination}")?;
            }
            _ => write!(f, " {} bytes", self.bytes)?,
        }
        if let Some(Translated { source, destination }) = &self.translated {
            write!(f, ", leaving as {source} -> {destination}")?;
        }
        if let Some(name) = &self.port_forward {
            write!(f, ", port-forward \"{name}\"")?;
        }
        if let Some(name) = &self.rule {
            write!(f, ", rule \"{name}\"")?;
        }
        Ok(())
    }
}

impl LeftOut {
    /// Drops for a reason, or (none) new flows.
    pub fn new(reason: Option<Reason>, events: u64) -> Self {
        Self {
            at: timestamp(SystemTime::now()),
            event: "left-out",
            of: if reason.is_some() { "drop" } else { "new" },
            reason: reason.map(Reason::word),
            events,
        }
    }

    /// A line for people.
    pub fn render(&self) -> String {
        let Self { at, events, .. } = self;
        match self.reason {
            Some(reason) => {
                format!("{at} {events} more drops for {reason}, left out because they came too fast\n")
            }
            None => format!("{at} {events} more new flows, left out because they came too fast\n"),
        }
    }
}

/// A point in time, in milliseconds (RFC 3339).
fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn kind(kind: u32) -> &'static str {
    if kind == DROPPED { "drop" } else { "new" }
}

fn reason(number: u32) -> &'static str {
    let known = Reason::ALL.iter().find(|reason| **reason as u32 == number);
    known.map_or("unknown", |reason| reason.word())
}

fn ends(event: &Event, tuple: &Tuple<Addr6>) -> [String; 2] {
    [(tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port)].map(|(address, port)| {
        let address: IpAddr =
            if event.flags & V6 == 0 { Addr4::narrow(address).to_ip() } else { address.to_ip() };
        let has_ports = [TCP, UDP, SCTP].iter().any(|&protocol| u32::from(protocol) == tuple.protocol);
        if has_ports { SocketAddr::new(address, port).to_string() } else { address.to_string() }
    })
}

fn interface(state: &State, slot: u32) -> String {
    let name = state.slots.iter().find(|(_, known)| **known == slot).map(|(name, _)| name.clone());
    name.unwrap_or_else(|| format!("interface {slot}"))
}

/// Chain and name of a rule.
fn rule(state: &State, id: u32) -> (Option<String>, String) {
    let known = u16::try_from(id).ok().and_then(|id| state.ids.rule_name(id));
    match known {
        Some((chain, name)) => (Some(chain.to_owned()), name.to_owned()),
        None => (None, format!("number {id}")),
    }
}

fn port_forward(state: &State, id: u32) -> String {
    let known = u16::try_from(id).ok().and_then(|id| state.ids.port_forward_name(id));
    known.map_or_else(|| format!("number {id}"), str::to_owned)
}
