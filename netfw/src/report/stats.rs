//! `netfw stats`.

use anyhow::Result;
use netfw_common::{
    counters::{Count, MASQUERADE_COUNTER},
    reason::Reason,
};
use serde::Serialize;

use super::{
    status::role,
    table::table,
    targets::{self, Target},
};
use crate::{
    daemon::state::State,
    kernel::Counters,
    policy::{Chain, ValidPolicy},
};

/// The document.
#[derive(Debug, Serialize)]
pub struct Stats {
    interfaces: Vec<Interface>,
    rules: Vec<Rule>,
    port_forwards: Vec<PortForward>,
    masquerade: Masquerade,
    drops: Vec<Drops>,
    /// ICMP errors that senders were not told because too many were sent at the time.
    icmp_errors_suppressed: u64,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Total {
    packets: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    role: &'static str,
    received: Total,
    forwarded: Total,
    accepted: Total,
    dropped: Total,
}

#[derive(Debug, Serialize)]
struct Rule {
    name: String,
    chain: &'static str,
    matched: Total,
}

#[derive(Debug, Serialize)]
struct PortForward {
    name: String,
    flows_opened: u64,
    to_target: Total,
    from_target: Total,
    targets: Vec<Target>,
}

#[derive(Debug, Serialize)]
struct Masquerade {
    flows_opened: u64,
    out: Total,
    r#in: Total,
}

#[derive(Debug, Serialize)]
struct Drops {
    reason: &'static str,
    packets: u64,
    bytes: u64,
    #[serde(skip)]
    sentence: &'static str,
}

impl From<Count> for Total {
    fn from(count: Count) -> Self {
        Self { packets: count.packets, bytes: count.bytes }
    }
}

impl Total {
    fn cells(self) -> [String; 2] {
        [self.packets.to_string(), self.bytes.to_string()]
    }
}

fn chain(chain: Chain) -> &'static str {
    match chain {
        Chain::Input => "input",
        Chain::Forward => "forward",
        Chain::Output => "output",
    }
}

impl Stats {
    /// Reads all counters.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(
        state: &State,
        policy: &ValidPolicy,
        counters: &Counters<'_>,
        targets: &[Target],
    ) -> Result<Self> {
        let masquerade = counters.translation(MASQUERADE_COUNTER)?;
        Ok(Self {
            interfaces: interfaces(state, counters)?,
            rules: rules(state, policy, counters)?,
            port_forwards: port_forwards(state, policy, counters, targets)?,
            masquerade: Masquerade {
                flows_opened: masquerade.flows_opened,
                out: masquerade.forth.into(),
                r#in: masquerade.back.into(),
            },
            drops: drops(counters)?,
            icmp_errors_suppressed: counters.suppressed_errors()?,
        })
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        let parts = [
            self.render_interfaces(),
            self.render_rules(),
            self.render_translation(),
            self.render_targets(),
            self.render_drops(),
            self.render_suppressed(),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    fn render_suppressed(&self) -> Option<String> {
        let number = self.icmp_errors_suppressed;
        (number > 0)
            .then(|| format!("{number} ICMP errors were not sent because too many were due at once\n"))
    }

    fn render_interfaces(&self) -> Option<String> {
        let headings = [
            "interface",
            "role",
            "received ",
            "bytes ",
            "forwarded ",
            "bytes ",
            "accepted ",
            "bytes ",
            "dropped ",
            "bytes ",
        ];
        let rows = self.interfaces.iter().map(|interface| {
            let Interface { received, forwarded, accepted, dropped, .. } = interface;
            let counts = [received, forwarded, accepted, dropped].into_iter().flat_map(|total| total.cells());
            [interface.name.clone(), interface.role.into()].into_iter().chain(counts).collect()
        });
        Some(table(&headings, rows.collect()))
    }

    fn render_rules(&self) -> Option<String> {
        let rows = self.rules.iter().map(|rule| {
            let [packets, bytes] = rule.matched.cells();
            vec![rule.name.clone(), rule.chain.into(), packets, bytes]
        });
        some(&["rule", "chain", "matched ", "bytes "], rows.collect())
    }

    fn render_translation(&self) -> Option<String> {
        let row = |name: &str, flows: u64, forth: Total, back: Total| {
            let counts = forth.cells().into_iter().chain(back.cells());
            [name.to_owned(), flows.to_string()].into_iter().chain(counts).collect::<Vec<_>>()
        };
        let mut rows: Vec<Vec<String>> = self
            .port_forwards
            .iter()
            .map(|forward| row(&forward.name, forward.flows_opened, forward.to_target, forward.from_target))
            .collect();
        if self.masquerade.flows_opened > 0 {
            rows.push(row(
                "(masquerade)",
                self.masquerade.flows_opened,
                self.masquerade.out,
                self.masquerade.r#in,
            ));
        }
        some(&["port-forward", "flows ", "to target ", "bytes ", "from target ", "bytes "], rows)
    }

    fn render_targets(&self) -> Option<String> {
        let targets = self.port_forwards.iter().flat_map(|forward| &forward.targets);
        some(&targets::HEADINGS, targets.map(Target::cells).collect())
    }

    fn render_drops(&self) -> Option<String> {
        let counted = self.drops.iter().filter(|drops| drops.packets > 0);
        let rows = counted.map(|drops| {
            vec![
                drops.reason.into(),
                drops.packets.to_string(),
                drops.bytes.to_string(),
                drops.sentence.into(),
            ]
        });
        some(&["dropped because", "packets ", "bytes ", "meaning"], rows.collect())
    }
}

fn some(headings: &[&str], rows: Vec<Vec<String>>) -> Option<String> {
    (!rows.is_empty()).then(|| table(headings, rows))
}

fn interfaces(state: &State, counters: &Counters<'_>) -> Result<Vec<Interface>> {
    let mut interfaces = Vec::new();
    for (name, managed) in &state.interfaces {
        let Some(&slot) = state.slots.get(name) else { continue };
        let count = counters.interface(slot)?;
        let mut received = count.forwarded;
        received.add(count.accepted.packets, count.accepted.bytes);
        received.add(count.dropped.packets, count.dropped.bytes);
        interfaces.push(Interface {
            name: name.clone(),
            role: role(managed.role()),
            received: received.into(),
            forwarded: count.forwarded.into(),
            accepted: count.accepted.into(),
            dropped: count.dropped.into(),
        });
    }
    Ok(interfaces)
}

fn rules(state: &State, policy: &ValidPolicy, counters: &Counters<'_>) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for rule in policy.rules() {
        let Some(id) = state.ids.rule(rule.chain, &rule.name) else { continue };
        let matched = counters.rule(id)?.into();
        rules.push(Rule { name: rule.name.clone(), chain: chain(rule.chain), matched });
    }
    Ok(rules)
}

fn port_forwards(
    state: &State,
    policy: &ValidPolicy,
    counters: &Counters<'_>,
    targets: &[Target],
) -> Result<Vec<PortForward>> {
    let mut forwards = Vec::new();
    for forward in policy.port_forwards() {
        let Some(id) = state.ids.port_forward(&forward.name) else { continue };
        let count = counters.translation(u32::from(id) + 1)?;
        forwards.push(PortForward {
            name: forward.name.clone(),
            flows_opened: count.flows_opened,
            to_target: count.forth.into(),
            from_target: count.back.into(),
            targets: targets.iter().filter(|target| target.port_forward == forward.name).cloned().collect(),
        });
    }
    Ok(forwards)
}

fn drops(counters: &Counters<'_>) -> Result<Vec<Drops>> {
    let drops = Reason::ALL.iter().map(|&reason| {
        let Count { packets, bytes } = counters.drops(reason)?;
        Ok(Drops { reason: reason.word(), packets, bytes, sentence: reason.sentence() })
    });
    drops.collect()
}
