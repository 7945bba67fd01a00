//! `netfw flows`.

mod filter;
mod page;

use std::{
    collections::HashMap,
    io::{self, Write},
    net::SocketAddr,
};

use anyhow::Result;
use netfw_common::{image::Policy, tcp::State as Progress, tick::Tick};
use serde::Serialize;

pub use filter::{Filter, Selection, Sort};
pub use page::{Page, Wanted};

use super::{protocol_name, table::table, timestamp};
use crate::{
    image::Ids,
    kernel::{Pair, tick_began},
};

/// A flow as documents show it.
#[derive(Debug, Serialize)]
pub(super) struct Flow {
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

/// Flows inside another report.
#[derive(Debug, Serialize)]
pub(super) struct List {
    flows: Vec<Flow>,
    /// For the terminal.
    #[serde(skip)]
    pub(super) text: String,
}

/// Name of the port-forward that translates a flow.
pub(super) fn port_forward(pair: &Pair, ids: &Ids) -> Option<String> {
    let id = pair.original.forward.checked_sub(1)?;
    ids.port_forward_names().find(|(known, _)| *known == id).map(|(_, name)| name.to_owned())
}

/// The words for states, in their order.
pub const STATES: [&str; 4] = ["opening", "established", "closing", "closed"];

/// The word for a state.
pub(super) fn state_word(state: Progress) -> &'static str {
    match state {
        Progress::Opening => STATES[0],
        Progress::Established => STATES[1],
        Progress::Closing => STATES[2],
        Progress::Closed => STATES[3],
    }
}

fn seconds(ticks: u32) -> u64 {
    (u64::from(ticks) << Tick::SHIFT) / 1_000_000_000
}

/// What is needed to tell of a flow.
pub struct Teller<'a> {
    names: HashMap<u16, &'a str>,
    policy: &'a Policy,
    now: Tick,
}

impl<'a> Teller<'a> {
    /// Under the policy in force.
    pub fn new(ids: &'a Ids, policy: &'a Policy, now: Tick) -> Self {
        Self { names: ids.port_forward_names().collect(), policy, now }
    }

    /// One flow, as a part of another report.
    pub(super) fn flow(&self, pair: &Pair) -> Flow {
        let [client, original_destination] = pair.ends(&pair.key);
        let [source, target] = pair.ends(&pair.original.leaving);
        let (packets, bytes) = pair.count();
        let idle = pair.idle(self.now);
        let id = pair.original.forward.checked_sub(1);
        Flow {
            protocol: protocol_name(pair.key.protocol),
            state: state_word(pair.state()),
            client,
            original_destination,
            target,
            source_nat: (source != client).then_some(source),
            port_forward: id.and_then(|id| self.names.get(&id)).map(|&name| name.to_owned()),
            packets,
            bytes,
            idle_seconds: seconds(idle),
            expires_seconds: seconds(pair.limit(self.policy).saturating_sub(idle)),
            created_at: timestamp(tick_began(Tick(pair.original.created))),
        }
    }

    /// All of these flows, as part of another report.
    pub(super) fn list(&self, pairs: &[Pair]) -> List {
        List {
            flows: pairs.iter().map(|pair| self.flow(pair)).collect(),
            text: self.render(pairs, pairs.len()),
        }
    }

    /// For the terminal: a part of `total` flows.
    pub fn render(&self, pairs: &[Pair], total: usize) -> String {
        let rows = pairs.iter().map(|pair| self.flow(pair).cells());
        let text = table(&HEADINGS, rows.collect());
        if pairs.len() == total {
            return text;
        }
        format!("{text}{} of {total} flows: --limit and --offset show others\n", pairs.len())
    }
}

/// Writes the document flow by flow, however many there are.
pub struct Document<'a, W> {
    output: W,
    teller: &'a Teller<'a>,
    count: usize,
}

impl<'a, W: Write> Document<'a, W> {
    /// Begins it.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn begin(mut output: W, teller: &'a Teller<'a>) -> Result<Self> {
        output.write_all(b"{\"flows\":[")?;
        Ok(Self { output, teller, count: 0 })
    }

    /// Adds a flow.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn add(&mut self, pair: &Pair) -> Result<()> {
        if self.count > 0 {
            self.output.write_all(b",")?;
        }
        self.count += 1;
        // As an error of writing it tells a closed pipe from others.
        serde_json::to_writer(&mut self.output, &self.teller.flow(pair)).map_err(io::Error::from)?;
        Ok(())
    }

    /// Ends it; `total` is how many flows there are if only a part of them was added.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn end(mut self, total: Option<usize>) -> Result<()> {
        writeln!(self.output, "],\"total\":{}}}", total.unwrap_or(self.count))?;
        Ok(self.output.flush()?)
    }
}

const HEADINGS: [&str; 11] = [
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

impl Flow {
    fn cells(self) -> Vec<String> {
        let optional = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![
            self.protocol,
            self.state.into(),
            self.client.to_string(),
            self.original_destination.to_string(),
            self.target.to_string(),
            optional(self.source_nat.map(|address| address.to_string())),
            optional(self.port_forward),
            self.packets.to_string(),
            self.bytes.to_string(),
            format!("{}s", self.idle_seconds),
            format!("{}s", self.expires_seconds),
        ]
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
        let (ids, policy) = (Ids::default(), Policy::default());
        let (teller, mut text) = (Teller::new(&ids, &policy, Tick(120)), Vec::new());
        let mut document = Document::begin(&mut text, &teller).expect("memory takes it");
        document.add(&translated()).expect("memory takes it");
        document.add(&translated()).expect("memory takes it");
        document.end(Some(7)).expect("memory takes it");
        let document: serde_json::Value = serde_json::from_slice(&text).expect("a document");
        assert_eq!((document["flows"].as_array().map(Vec::len), &document["total"]), (Some(2), &7.into()));
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
        let ids = Ids::default();
        let selects = |filter: &Filter| filter.with_ids(&ids).selects(&translated());
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
