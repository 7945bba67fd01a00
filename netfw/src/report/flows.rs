//! `netfw flows`.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use netfw_common::{image::Policy, tcp::State as Progress, tick::Tick};
use serde::Serialize;

use super::{protocol_name, table::table, timestamp};
use crate::{image::Ids, kernel::Pair};

/// The document.
#[derive(Debug, Serialize)]
pub struct Flows {
    flows: Vec<Flow>,
}

#[derive(Debug, Serialize)]
struct Flow {
    protocol: String,
    state: &'static str,
    client: SocketAddr,
    original_destination: SocketAddr,
    target: SocketAddr,
    source_nat: Option<SocketAddr>,
    port_forward: Option<String>,
    packets: u64,
    bytes: u64,
    idle_seconds: u64,
    expires_seconds: u64,
    created_at: String,
}

/// Which flows are meant: those that fit everything that is set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Translated by this port-forward.
    pub port_forward: Option<String>,
    /// Opened from an address in here.
    pub from: Option<IpNet>,
    /// Leading to an address in here, before or after translation.
    pub to: Option<IpNet>,
    /// In this state.
    pub state: Option<String>,
}

impl Filter {
    /// Whether a flow is meant.
    pub fn selects(&self, pair: &Pair, ids: &Ids) -> bool {
        let [client, destination] = pair.ends(&pair.key);
        let target = pair.ends(&pair.original.leaving)[1];
        let name = || port_forward(pair, ids);
        self.port_forward.as_ref().is_none_or(|wanted| name().as_ref() == Some(wanted))
            && self.from.is_none_or(|net| net.contains(&client.ip()))
            && self.to.is_none_or(|net| net.contains(&destination.ip()) || net.contains(&target.ip()))
            && self.state.as_ref().is_none_or(|wanted| state_word(pair.state()) == wanted)
    }
}

/// The words for states, in their order.
pub const STATES: [&str; 4] = ["opening", "established", "closing", "closed"];

fn state_word(state: Progress) -> &'static str {
    match state {
        Progress::Opening => STATES[0],
        Progress::Established => STATES[1],
        Progress::Closing => STATES[2],
        Progress::Closed => STATES[3],
    }
}

fn port_forward(pair: &Pair, ids: &Ids) -> Option<String> {
    let id = pair.original.forward.checked_sub(1)?;
    ids.port_forward_name(id).map(str::to_owned)
}

fn seconds(ticks: u32) -> u64 {
    (u64::from(ticks) << Tick::SHIFT) / 1_000_000_000
}

impl Flows {
    /// Of these flows, under the policy in force.
    pub fn new(pairs: &[Pair], ids: &Ids, policy: &Policy, now: Tick) -> Self {
        let mut flows: Vec<Flow> = pairs.iter().map(|pair| flow(pair, ids, policy, now)).collect();
        flows.sort_by_key(|flow| (flow.idle_seconds, flow.client));
        Self { flows }
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        let headings = [
            "protocol",
            "state",
            "client",
            "to",
            "target",
            "seen as",
            "port-forward",
            "packets ",
            "bytes ",
            "idle ",
            "left ",
        ];
        let rows = self.flows.iter().map(|flow| {
            let optional = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            vec![
                flow.protocol.clone(),
                flow.state.into(),
                flow.client.to_string(),
                flow.original_destination.to_string(),
                flow.target.to_string(),
                optional(flow.source_nat.map(|address| address.to_string())),
                optional(flow.port_forward.clone()),
                flow.packets.to_string(),
                flow.bytes.to_string(),
                format!("{}s", flow.idle_seconds),
                format!("{}s", flow.expires_seconds),
            ]
        });
        table(&headings, rows.collect())
    }
}

fn flow(pair: &Pair, ids: &Ids, policy: &Policy, now: Tick) -> Flow {
    let [client, original_destination] = pair.ends(&pair.key);
    let [source, target] = pair.ends(&pair.original.leaving);
    let (packets, bytes) = pair.count();
    let idle = pair.idle(now);
    let age = Duration::from_secs(seconds(now.since(Tick(pair.original.created))));
    Flow {
        protocol: protocol_name(pair.key.protocol),
        state: state_word(pair.state()),
        client,
        original_destination,
        target,
        source_nat: (source != client).then_some(source),
        port_forward: port_forward(pair, ids),
        packets,
        bytes,
        idle_seconds: seconds(idle),
        expires_seconds: seconds(pair.limit(policy).saturating_sub(idle)),
        created_at: timestamp(SystemTime::now() - age),
    }
}
