//! `netfw stats`.

use anyhow::Result;
use netfw_common::{
    counters::{Count, MASQUERADE_COUNTER, Shares, TranslationCount},
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
    finished_by: FinishedBy,
    targets: Vec<Target>,
}

#[derive(Debug, Serialize)]
struct Masquerade {
    flows_opened: u64,
    out: Total,
    r#in: Total,
    finished_by: FinishedBy,
}

/// The same packets, of both directions, by who finished them.
#[derive(Debug, Clone, Copy, Serialize)]
struct FinishedBy {
    xdp: Total,
    tc: Total,
    /// The host's own stack: what was for the host itself, or had to be routed or cut by it.
    kernel: Total,
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

impl From<&TranslationCount> for FinishedBy {
    fn from(count: &TranslationCount) -> Self {
        let both = |share: fn(&Shares) -> Count| {
            let (mut both, back) = (share(&count.forth), share(&count.back));
            both.add(back.packets, back.bytes);
            both.into()
        };
        Self {
            xdp: both(|shares| shares.xdp),
            tc: both(|shares| shares.tc),
            kernel: both(|shares| shares.stack),
        }
    }
}

impl FinishedBy {
    /// Percentages of the packets.
    fn cells(self) -> [String; 3] {
        let shares = [self.xdp, self.tc, self.kernel].map(|share| share.packets);
        let total: u64 = shares.iter().sum();
        shares.map(|share| {
            (share * 100 + total / 2).checked_div(total).map_or("-".into(), |part| format!("{part} %"))
        })
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
                out: masquerade.forth.total().into(),
                r#in: masquerade.back.total().into(),
                finished_by: (&masquerade).into(),
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
        let row = |name: &str, flows: u64, forth: Total, back: Total, finished_by: FinishedBy| {
            let counts = forth.cells().into_iter().chain(back.cells()).chain(finished_by.cells());
            [name.to_owned(), flows.to_string()].into_iter().chain(counts).collect::<Vec<_>>()
        };
        let forwards = self
            .port_forwards
            .iter()
            .map(|it| row(&it.name, it.flows_opened, it.to_target, it.from_target, it.finished_by));
        let it = &self.masquerade;
        let masquerade = (it.flows_opened > 0)
            .then(|| row("(masquerade)", it.flows_opened, it.out, it.r#in, it.finished_by));
        some(&TRANSLATION_HEADINGS, forwards.chain(masquerade).collect())
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

const TRANSLATION_HEADINGS: [&str; 9] = [
    "port-forward",
    "flows ",
    "to target ",
    "bytes ",
    "from target ",
    "bytes ",
    "by xdp ",
    "by tc ",
    "by kernel ",
];

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
            to_target: count.forth.total().into(),
            from_target: count.back.total().into(),
            finished_by: (&count).into(),
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
