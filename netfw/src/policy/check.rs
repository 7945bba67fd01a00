//! `check`: how it is found out whether the targets of a port-forward serve.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{OnChange, PortForward, TCP, Target};
use crate::config::{model, problems::Problems};

/// What a target must do to be up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Accept a connection.
    Tcp,
    /// Answer a GET of this path with 2xx or 3xx.
    Http(String),
    /// Begin to speak with these words.
    Banner(String),
}

/// `check`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// The test.
    pub probe: Probe,
    /// Port to ask; none: the one that flows go to.
    pub port: Option<u16>,
    /// From one test to the next.
    pub interval: Duration,
    /// Good tests in a row after which a target is up.
    pub rise: u32,
    /// Bad tests in a row after which it is down.
    pub fall: u32,
    /// What becomes of the flows of a target that went down.
    pub on_down: OnChange,
}

impl Target {
    /// How reports and stable ids call the target at one of its addresses: `192.168.80.3:22`, `[fd00::3]:4040-4049`.
    pub fn label(&self, address: IpAddr) -> String {
        let first = SocketAddr::new(address, self.ports.first);
        if self.ports.count() == 1 { first.to_string() } else { format!("{first}-{}", self.ports.last) }
    }
}

/// A target at one of its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// The port-forward that it belongs to.
    pub forward: &'a PortForward,
    /// The target.
    pub target: &'a Target,
    /// One of its addresses.
    pub address: IpAddr,
}

impl Endpoint<'_> {
    /// [`Target::label`].
    pub fn label(&self) -> String {
        self.target.label(self.address)
    }

    /// Whether its health is looked at: one that drains gets no new flows anyway.
    pub fn is_checked(&self) -> bool {
        self.forward.check.is_some() && !self.target.drains
    }
}

impl PortForward {
    /// All its targets at all their addresses, each once.
    pub fn endpoints(&self) -> Vec<Endpoint<'_>> {
        let mut endpoints: Vec<Endpoint<'_>> = Vec::new();
        for target in &self.targets {
            for &address in &target.addresses {
                let known = |other: &Endpoint<'_>| other.target == target && other.address == address;
                if !endpoints.iter().any(known) {
                    endpoints.push(Endpoint { forward: self, target, address });
                }
            }
        }
        endpoints
    }
}

/// Whether each target of `forward` has one port that can be asked.
pub(super) fn judge(forward: &PortForward, model: &model::PortForward, problems: &mut Problems) {
    if forward.targets.iter().all(|target| target.drains) {
        let message = "every target drains: new flows are refused";
        problems.warning(&model.title.span, message, "take drain = true out of one of them");
    }
    let Some(check) = model.check.as_ref().filter(|check| check.check.port.is_none()) else { return };
    if !forward.protocols.contains(&TCP) {
        let message = "a check opens TCP connections, and this port-forward carries none";
        problems.error(&check.span, message, "write port = 22 in it: a TCP port of the targets to ask");
    }
    let several = |target: &&Target| !target.drains && target.ports.count() > 1;
    if let Some(target) = forward.targets.iter().find(several) {
        let message = format!("which of the ports {} a check asks is not said", target.ports);
        problems.error(&check.span, message, format!("write port = {} in it", target.ports.first));
    }
}
