//! What the rules file means once every name is resolved and every contradiction refused.
//!
//! [`ValidPolicy`] can only be made by [`config::load`](crate::config::load): holding one is the proof that
//! there is nothing left to check, so the compiler (`crate::image`) cannot fail on content, only on size.

mod address;
mod check;
pub mod facts;
mod forward;
mod icmp;
mod masquerade;
mod names;
mod ports;
pub(crate) mod resolve;
mod rule;
mod shadow;
mod warnings;

use ipnet::IpNet;
use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    address::AddressMatch,
    check::{Check, Endpoint, Probe},
    facts::HostFacts,
    ports::PortRange,
};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
/// Where SSH servers listen unless told otherwise.
pub(crate) const SSH: u16 = 22;

/// Where a thing was written, for reports (`file:line`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Place {
    /// Rules file or included file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Towards which side an interface looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Towards the outside.
    External,
    /// Towards the LAN.
    Internal,
}

/// An interface that netfw manages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Kernel name, such as `eth0`.
    pub name: String,
    /// Its side.
    pub role: Role,
}

/// `anti-spoof`: how far the route back to a packet's source must agree with the way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AntiSpoof {
    /// The route back uses the arriving interface (external interfaces count as one).
    #[default]
    Strict,
    /// Some route back exists.
    Loose,
    /// Not checked.
    Off,
}

/// The netfilter chain a new flow belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// To the master itself.
    Input,
    /// Through the master.
    Forward,
    /// From the master itself.
    Output,
}

/// What a rule or a policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let the flow in.
    Accept,
    /// Drop silently.
    Drop,
    /// Drop and tell the sender (TCP reset, else ICMP unreachable).
    Reject,
}

/// One host that a port-forward may choose, in both families.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its addresses: at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Its port, or as many ports as the forward has (then the n-th goes to the n-th).
    pub ports: PortRange,
    /// Gets no new flows.
    pub drains: bool,
}

/// How several targets share the flows of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    /// The n-th outside port belongs to the n-th target.
    OneToOne,
    /// In turn.
    RoundRobin,
    /// By a hash of the source address.
    SourceHash,
    /// By chance.
    Random,
}

/// When the master puts its own address in place of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SourceNat {
    /// When the answer would otherwise bypass the master.
    #[default]
    Auto,
    /// For every flow.
    Always,
    /// For none.
    Never,
}

/// Whether sources must prove to be there before they open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SynProxy {
    /// Never.
    #[default]
    Off,
    /// While too many connections are being opened.
    Auto,
}

/// A `[[port-forward]]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortForward {
    /// Unique name (`port-forward#line` when the file gives none).
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// IP protocol numbers: 6, 17 or both.
    pub protocols: Vec<u8>,
    /// Outside ports in the order written; the n-th port counts through all ranges. No overlaps.
    pub ports: Vec<PortRange>,
    /// Only for these local addresses; empty: any address of the external interfaces.
    pub addresses: Vec<IpAddr>,
    /// Who may use it.
    pub from: Arc<AddressMatch>,
    /// Where it leads, in order; never empty.
    pub targets: Vec<Target>,
    /// How targets are chosen.
    pub spread: Spread,
    /// `source-nat`.
    pub source_nat: SourceNat,
    /// Overrides `[timeouts]`.
    pub idle_timeout: Option<Duration>,
    /// How it is found out which targets are up; none: all are taken to be.
    pub check: Option<Check>,
    /// `syn-proxy`: of TCP alone.
    pub syn_proxy: SynProxy,
}

/// `[failsafe]`: who always reaches the SSH server of the master.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failsafe {
    /// TCP port of the server.
    pub port: u16,
    /// Who.
    pub from: Arc<AddressMatch>,
}

/// What a NAT's behaviour towards an inside end depends on (RFC 4787 §4.1, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Dependence {
    /// Nothing: it is the same towards everyone outside.
    Independent,
    /// Address and port of the outside end: each conversation stands for itself.
    #[default]
    AddressAndPort,
}

/// A `[masquerade]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Masquerade {
    /// Where it is written.
    pub place: Place,
    /// Inside sources it applies to.
    pub from: Arc<AddressMatch>,
    /// Outside addresses, shared out over the sources; in a family without any, that of the interface.
    pub to: Vec<IpAddr>,
    /// Source ports it may use; a source port outside them is not kept.
    pub ports: Option<PortRange>,
    /// What the outside port of an inside end depends on.
    pub mapping: Dependence,
    /// Who may send to it.
    pub filtering: Dependence,
}

/// A `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Unique name (`chain#line` when the file gives none).
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// Its chain.
    pub chain: Chain,
    /// What it decides.
    pub action: Action,
    /// IP protocol numbers; empty: any.
    pub protocols: Vec<u8>,
    /// Source before source translation. Those that are written alike are one, here and everywhere.
    pub from: Arc<AddressMatch>,
    /// Destination after destination translation.
    pub to: Arc<AddressMatch>,
    /// Destination ports; empty: any. Only beside TCP, UDP or SCTP.
    pub ports: Vec<PortRange>,
    /// Source ports; empty: any.
    pub from_ports: Vec<PortRange>,
    /// ICMP types; empty: any.
    pub icmp_types: Vec<u8>,
    /// Arriving on one of these (input, forward) or leaving by one (output); empty: any.
    pub interfaces: Vec<String>,
    /// Matches packets translated by one of these forwards (indices into [`ValidPolicy::port_forwards`]); none: also what is
    /// not translated. Empty where all that the rule names are switched off: then nothing matches.
    pub port_forwards: Option<Vec<usize>>,
    /// Above it, flows are dropped instead.
    pub limit: Option<Limit>,
    /// Whether the log is told of the new flows that it decides about.
    pub log: bool,
}

/// A rule's `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// So many flows ...
    pub flows: u32,
    /// ... in this time.
    pub period: Duration,
    /// So many at once.
    pub burst: u32,
    /// Counted together or apart.
    pub scope: LimitScope,
}

/// What a limit holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LimitScope {
    /// All flows that the rule decides about.
    #[default]
    Rule,
    /// Those of each source address.
    Source,
}

/// `[timeouts]`: idle time after which a flow is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// Both ends have spoken and not both have closed (RFC 5382 REQ-5: at least 2 h 4 min).
    pub tcp_established: Duration,
    /// Opening (RFC 5382 REQ-5: at least 4 min).
    pub tcp_opening: Duration,
    /// Closed (RFC 5382 REQ-5, RFC 7857 §2.2: at least 4 min).
    pub tcp_closed: Duration,
    /// UDP that was answered (RFC 4787 REQ-5: 5 min recommended).
    pub udp: Duration,
    /// UDP that nobody answered yet.
    pub udp_unanswered: Duration,
    /// ICMP queries (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Duration,
    /// Every other protocol.
    pub other: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_opening: Duration::from_secs(4 * 60),
            tcp_closed: Duration::from_secs(4 * 60),
            udp: Duration::from_secs(5 * 60),
            udp_unanswered: Duration::from_secs(2 * 60),
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(10 * 60),
        }
    }
}

/// `[engine] mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum EngineMode {
    /// The fastest that pays, per interface.
    #[default]
    Auto,
    /// Native XDP or an error.
    Xdp,
    /// XDP in the kernel's generic form.
    XdpGeneric,
    /// TC only.
    Tc,
}

/// What `[flows] on-change` does with flows that a change no longer admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnChange {
    /// End them.
    #[default]
    Cut,
    /// Let them end by themselves.
    Keep,
}

/// A rules file in which nothing is wrong. Lists are in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValidPolicy {
    interfaces: Vec<Interface>,
    anti_spoof: AntiSpoof,
    default_actions: [Action; 3],
    failsafe: Option<Failsafe>,
    block: Arc<Vec<IpNet>>,
    port_forwards: Vec<PortForward>,
    masquerades: Vec<Masquerade>,
    rules: Vec<Rule>,
    timeouts: Timeouts,
    capacity: u32,
    on_change: OnChange,
    engine: EngineMode,
    mss_clamp: bool,
    watch: bool,
    confirm: Option<Duration>,
    files: Vec<PathBuf>,
}

impl ValidPolicy {
    /// Managed interfaces.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// `anti-spoof`.
    pub fn anti_spoof(&self) -> AntiSpoof {
        self.anti_spoof
    }

    /// What happens to a new flow of `chain` that nothing else decided.
    pub fn default_action(&self, chain: Chain) -> Action {
        self.default_actions[chain as usize]
    }

    /// `[failsafe]`.
    pub fn failsafe(&self) -> Option<&Failsafe> {
        self.failsafe.as_ref()
    }

    /// Whether somebody may open a connection to the host's SSH server.
    pub fn admits_ssh(&self) -> bool {
        self.failsafe.is_some() || warnings::admits_ssh(self)
    }

    /// Prefixes of `[block]`, sorted, without overlaps: the vector that they were put together in, as a million are not copied for
    /// nothing.
    pub fn block(&self) -> &Arc<Vec<IpNet>> {
        &self.block
    }

    /// `[[port-forward]]`s.
    pub fn port_forwards(&self) -> &[PortForward] {
        &self.port_forwards
    }

    /// `[masquerade]`s.
    pub fn masquerades(&self) -> &[Masquerade] {
        &self.masquerades
    }

    /// `[[rule]]`s.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// `[timeouts]`.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// `[flows] capacity`, in flows (pairs of entries).
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// `[flows] on-change`.
    pub fn on_change(&self) -> OnChange {
        self.on_change
    }

    /// `[engine] mode`.
    pub fn engine(&self) -> EngineMode {
        self.engine
    }

    /// `[engine] mss-clamp`.
    pub fn mss_clamp(&self) -> bool {
        self.mss_clamp
    }

    /// `[reload] watch`.
    pub fn watch(&self) -> bool {
        self.watch
    }

    /// `[reload] confirm`.
    pub fn confirm(&self) -> Option<Duration> {
        self.confirm
    }

    /// The rules file and every file it includes: what must be watched.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}
