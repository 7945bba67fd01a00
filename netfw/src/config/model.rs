//! The rules file as it is written: words understood one by one, names not yet looked up.
//!
//! Every part that can later prove wrong keeps its place. A part in which something was already wrong is not
//! `sound`: what is missing there is then not reported again.

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::source::{Source, Span, Spanned};
use crate::policy::{
    self, Action, AntiSpoof, Chain, Dependence, EngineMode, Limit, OnChange, PortRange, Role, SourceNat,
    Spread, SynProxy, Timeouts,
};

/// The whole file.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) anti_spoof: AntiSpoof,
    pub(crate) hosts: Vec<Host>,
    pub(crate) sets: Vec<Set>,
    pub(crate) default_actions: DefaultActions,
    pub(crate) failsafe: Option<Failsafe>,
    /// `[block] from`.
    pub(crate) block: Option<Selection>,
    pub(crate) masquerades: Vec<Masquerade>,
    pub(crate) port_forwards: Vec<PortForward>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) timeouts: Timeouts,
    pub(crate) flows: Flows,
    pub(crate) engine: Engine,
    pub(crate) reload: Reload,
    /// The rules file, then what it includes.
    pub(crate) sources: Vec<Arc<Source>>,
}

/// A word of `[interfaces]`.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) name: Spanned<String>,
    pub(crate) role: Role,
}

/// A line of `[hosts]`.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: Spanned<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) sound: bool,
}

/// A line of `[sets]`.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) name: Spanned<String>,
    pub(crate) members: Members,
}

/// Who is in a set.
#[derive(Debug)]
pub(crate) enum Members {
    /// As written in the rules file.
    Written(Vec<Spanned<Selector>>),
    /// From an included file, which may have a million lines; each was judged when it was read.
    Included(Arc<[IpNet]>),
}

/// What one word selects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Selector {
    Network(IpNet),
    Name(String),
}

/// A `from` or `to`: each word excludes or not.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) words: Vec<Spanned<(bool, Selector)>>,
}

/// A host where exactly one is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostWord {
    Address(IpAddr),
    Name(String),
}

/// One word of a port-forward's `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetWord {
    pub(crate) host: HostWord,
    /// `None`: the outside ports are kept.
    pub(crate) ports: Option<PortRange>,
    /// Gets no new flows.
    pub(crate) drains: bool,
}

/// A port-forward's `check`.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) check: policy::Check,
    pub(crate) span: Span,
}

/// `[policy]`; `span` is where it stands, or would.
#[derive(Debug)]
pub(crate) struct DefaultActions {
    pub(crate) input: Action,
    pub(crate) forward: Action,
    pub(crate) output: Action,
    pub(crate) span: Span,
}

/// What a rule or port-forward is called, and where.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    /// As written, or made from the line.
    pub(crate) name: String,
    /// The name if there is one, else the head of the table.
    pub(crate) span: Span,
    /// The head of the table.
    pub(crate) head: Span,
    /// How errors call it: `rule "ssh"`.
    pub(crate) label: String,
}

/// `[failsafe]`.
#[derive(Debug)]
pub(crate) struct Failsafe {
    pub(crate) head: Span,
    pub(crate) port: u16,
    pub(crate) from: Selection,
}

/// A `[masquerade]`.
#[derive(Debug)]
pub(crate) struct Masquerade {
    pub(crate) head: Span,
    pub(crate) from: Selection,
    pub(crate) to: Vec<Spanned<HostWord>>,
    pub(crate) ports: Option<PortRange>,
    pub(crate) mapping: Dependence,
    pub(crate) filtering: Spanned<Dependence>,
}

/// A `[[port-forward]]`.
#[derive(Debug)]
pub(crate) struct PortForward {
    pub(crate) title: Title,
    pub(crate) sound: bool,
    /// Else it is looked at for mistakes, and has no other part.
    pub(crate) enabled: bool,
    pub(crate) protocols: Vec<Spanned<u8>>,
    pub(crate) ports: Vec<Spanned<PortRange>>,
    pub(crate) to: Vec<Spanned<TargetWord>>,
    pub(crate) from: Option<Selection>,
    pub(crate) one_to_one: Option<Span>,
    pub(crate) balance: Option<Spanned<Spread>>,
    pub(crate) addresses: Vec<Spanned<HostWord>>,
    pub(crate) source_nat: SourceNat,
    pub(crate) idle_timeout: Option<Spanned<Duration>>,
    pub(crate) check: Option<Check>,
    pub(crate) syn_proxy: Spanned<SynProxy>,
}

/// A `[[rule]]`.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) title: Title,
    pub(crate) sound: bool,
    /// Else it is looked at for mistakes, and has no other part.
    pub(crate) enabled: bool,
    pub(crate) chain: Chain,
    pub(crate) action: Option<Action>,
    pub(crate) protocols: Vec<Spanned<u8>>,
    pub(crate) from: Option<Selection>,
    pub(crate) to: Option<Selection>,
    pub(crate) ports: Vec<Spanned<PortRange>>,
    pub(crate) from_ports: Vec<Spanned<PortRange>>,
    pub(crate) icmp_types: Vec<Spanned<IcmpType>>,
    pub(crate) interfaces: Vec<Spanned<String>>,
    pub(crate) port_forwards: Vec<Spanned<String>>,
    pub(crate) limit: Option<Spanned<Limit>>,
    pub(crate) log: bool,
}

/// A word of `icmp-type`; what a name means depends on the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IcmpType {
    Number(u8),
    Name(String),
}

/// `[flows]`.
#[derive(Debug)]
pub(crate) struct Flows {
    pub(crate) capacity: u32,
    pub(crate) on_change: OnChange,
}

/// `[engine]`.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) mode: EngineMode,
    pub(crate) mss_clamp: bool,
}

/// `[reload]`.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) watch: bool,
    pub(crate) confirm: Option<Duration>,
}
