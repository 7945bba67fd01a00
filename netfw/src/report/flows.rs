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

pub(super) fn port_forward(pair: &Pair, ids: &Ids) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use netfw_common::{
        family::{Address as _, addr4},
        flow::Flow as Half,
        tuple::Tuple,
    };

    use super::*;

    fn translated() -> Pair {
        let address = |last: [u8; 4]| addr4(last.into()).widen();
        let key = Tuple {
            source: address([203, 0, 113, 9]),
            destination: address([192, 0, 2, 1]),
            source_port: 4000,
            destination_port: 2201,
            protocol: 6,
        };
        let leaving = Tuple {
            source: address([192, 168, 80, 2]),
            destination: address([192, 168, 80, 3]),
            destination_port: 22,
            ..key
        };
        Pair::for_test(false, key, Half { leaving, packets: 3, bytes: 180, ..Half::default() })
    }

    #[test]
    fn a_flow_shows_who_asked_whom_and_who_answers() {
        let document = Flows::new(&[translated()], &Ids::default(), &Policy::default(), Tick(120));
        let document = serde_json::to_value(&document).expect("a document");
        let flow = &document["flows"][0];
        assert_eq!(flow["client"], "203.0.113.9:4000");
        assert_eq!(flow["original_destination"], "192.0.2.1:2201");
        assert_eq!(flow["target"], "192.168.80.3:22");
        assert_eq!(flow["source_nat"], "192.168.80.2:4000");
        assert_eq!(flow["port_forward"], serde_json::Value::Null);
        assert_eq!((&flow["packets"], &flow["bytes"]), (&3.into(), &180.into()));
        assert_eq!(flow["idle_seconds"], 2);
    }

    #[test]
    fn every_word_of_a_filter_must_fit() {
        let selects = |filter: &Filter| filter.selects(&translated(), &Ids::default());
        let net = |text: &str| text.parse().ok();
        assert!(selects(&Filter::default()));
        assert!(selects(&Filter {
            from: net("203.0.113.0/24"),
            to: net("192.168.80.3/32"),
            ..Filter::default()
        }));
        assert!(selects(&Filter { to: net("192.0.2.1/32"), ..Filter::default() }));
        assert!(!selects(&Filter {
            from: net("203.0.113.0/24"),
            to: net("10.0.0.0/8"),
            ..Filter::default()
        }));
        assert!(!selects(&Filter { port_forward: Some("ssh".into()), ..Filter::default() }));
        assert!(selects(&Filter { state: Some("opening".into()), ..Filter::default() }));
        assert!(!selects(&Filter { state: Some("closed".into()), ..Filter::default() }));
    }
}
