//! `netfw explain`.

mod steps;

use std::{net::SocketAddr, path::Path};

use netfw_common::{
    explain::{Account, Note},
    family::{Addr4, Addr6, Address as _},
    flow::{MASQUERADED, UNASKED},
    image::{FORWARD, Policy},
    reason::Reason,
    tick::Tick,
    tuple::Tuple,
};
use netfw_ebpf::datapath::{Verdict, work::NONE};
use serde::Serialize;

use super::{
    flows::{Flow, Teller, port_forward},
    protocol_name,
};
use crate::{
    daemon::explain::{Packet, Place},
    image::Ids,
    kernel::{Hook, Pair},
    policy::{Rule, ValidPolicy},
};
use steps::{Step, steps};

/// What an explanation is made of.
pub struct Facts<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// Where it was asked about.
    pub place: &'a Place,
    /// The hook that decided.
    pub hook: Hook,
    /// What that said.
    pub account: &'a Account,
    /// A flow under its tuple.
    pub flow: Option<&'a Pair>,
    /// The rules that were asked.
    pub policy: &'a ValidPolicy,
    /// Head of the image in force, by whose timeouts flows live.
    pub head: &'a Policy,
    /// Names of the rules that were asked.
    pub ids: &'a Ids,
    /// The file that they are in, if they are not in force.
    pub with: Option<&'a Path>,
    /// Now.
    pub now: Tick,
    /// Name of an interface by kernel index.
    pub interface: &'a dyn Fn(u32) -> String,
}

/// The document.
#[derive(Debug, Serialize)]
pub struct Explanation {
    verdict: &'static str,
    reason: &'static str,
    rule: Option<Written>,
    port_forward: Option<String>,
    translated: Option<Ends>,
    out_interface: Option<String>,
    in_interface: Option<String>,
    hook: &'static str,
    generation: u32,
    with: Option<String>,
    packet: Described,
    flow: Option<Flow>,
    steps: Vec<Step>,
}

/// A rule and where it is written.
#[derive(Debug, Serialize)]
struct Written {
    name: String,
    file: String,
    line: u32,
}

/// Both ends of a packet.
#[derive(Debug, Serialize)]
struct Ends {
    source: String,
    destination: String,
}

#[derive(Debug, Serialize)]
struct Described {
    protocol: String,
    #[serde(flatten)]
    ends: Ends,
}

impl Explanation {
    /// Of what the datapath said.
    pub fn new(facts: &Facts<'_>) -> Self {
        Self {
            verdict: facts.verdict(),
            reason: facts.reason(),
            rule: facts.rule().map(|rule| Written {
                name: rule.name.clone(),
                file: rule.place.file.display().to_string(),
                line: rule.place.line,
            }),
            port_forward: facts.port_forward(),
            translated: facts.is_translated().then(|| facts.ends(&facts.account.leaving)),
            out_interface: facts.out().map(facts.interface),
            in_interface: facts.arrived().map(facts.interface),
            hook: if facts.hook == Hook::Xdp { "xdp" } else { "tc" },
            generation: facts.account.generation,
            with: facts.with.map(|file| file.display().to_string()),
            packet: Described {
                protocol: protocol_name(facts.packet.protocol.into()),
                ends: facts.ends(&facts.packet.tuple()),
            },
            flow: facts.carried().map(|pair| Teller::new(facts.ids, facts.head, facts.now).flow(pair)),
            steps: steps(facts),
        }
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        let Described { protocol, ends } = &self.packet;
        let place = match (&self.in_interface, &self.out_interface) {
            (Some(name), _) => format!("arriving on {name}"),
            (None, _) => "from this host".to_owned(),
        };
        let rules =
            self.with.as_ref().map_or_else(String::new, |file| format!(", under the rules in {file}"));
        let mut text = format!("{protocol} {} → {}, {place}{rules}\n\n", ends.source, ends.destination);
        let width = self.steps.iter().map(|step| step.step.len()).max().unwrap_or(0);
        for step in &self.steps {
            text += &format!("  {:width$}  {}\n", step.step, step.outcome);
        }
        text
    }
}

impl Facts<'_> {
    fn is(&self, verdict: Verdict) -> bool {
        self.account.verdict == verdict as u32 + 1
    }

    /// The word for what becomes of it.
    fn verdict(&self) -> &'static str {
        let routed = self.hook == Hook::Egress && self.judged() && self.account.chain == FORWARD;
        match () {
            () if self.is(Verdict::Drop) => "drop",
            () if self.is(Verdict::Answer) => "reject",
            () if self.is(Verdict::Forward) || routed => "forward",
            () => "accept",
        }
    }

    fn passes(&self) -> bool {
        matches!(self.verdict(), "accept" | "forward")
    }

    /// Why it is dropped.
    fn dropped(&self) -> Option<Reason> {
        let reason = Reason::ALL.iter().find(|reason| **reason as u32 == self.account.reason);
        reason.copied().filter(|_| !self.passes())
    }

    /// The word for why.
    fn reason(&self) -> &'static str {
        let said = |note| self.account.note(note).is_some();
        match self.dropped() {
            Some(reason) => reason.word(),
            None if said(Note::Door) => "failsafe",
            None if said(Note::Flow) => "flow",
            None if said(Note::Link) => "link",
            None if !self.judged() => "unjudged",
            None if self.rule().is_some() => "rule",
            None if self.account.forward != NONE => "port-forward",
            None if self.account.has(MASQUERADED | UNASKED) => "masquerade",
            None => "policy",
        }
    }

    fn judged(&self) -> bool {
        self.account.note(Note::Judged).is_some()
    }

    /// The rule that decided.
    fn rule(&self) -> Option<&Rule> {
        self.policy.rules().get(self.account.rule as usize).filter(|_| self.judged())
    }

    /// Name of the port-forward that translates it.
    fn port_forward(&self) -> Option<String> {
        if let Some(pair) = self.carried() {
            return port_forward(pair, self.ids);
        }
        let id = u16::try_from(self.account.forward_id.checked_sub(1)?).ok()?;
        self.ids.port_forward_name(id).map(str::to_owned)
    }

    /// The flow that carries it.
    fn carried(&self) -> Option<&Pair> {
        self.flow.filter(|_| self.account.note(Note::Flow).is_some())
    }

    fn is_translated(&self) -> bool {
        let known = self.judged() || self.account.note(Note::Flow).is_some();
        known && self.passes() && self.account.leaving != self.account.arriving
    }

    /// Kernel index of the interface by which it leaves.
    fn out(&self) -> Option<u32> {
        let out = match self.hook {
            Hook::Egress => self.place.index,
            _ if self.verdict() == "forward" => self.account.out,
            _ => 0,
        };
        (self.passes() && out != 0).then_some(out)
    }

    /// Kernel index of the interface by which it came.
    fn arrived(&self) -> Option<u32> {
        match (self.hook, self.place.arrived) {
            (Hook::Egress, 0) => None,
            (Hook::Egress, index) => Some(index),
            _ => Some(self.place.index),
        }
    }

    fn ends(&self, tuple: &Tuple<Addr6>) -> Ends {
        Ends {
            source: self.end(tuple.source, tuple.source_port),
            destination: self.end(tuple.destination, tuple.destination_port),
        }
    }

    /// An address, with its port where it has one.
    fn end(&self, address: Addr6, port: u16) -> String {
        let ip = if self.packet.source.is_ipv6() { address.to_ip() } else { Addr4::narrow(address).to_ip() };
        if port == 0 { ip.to_string() } else { SocketAddr::new(ip, port).to_string() }
    }
}
