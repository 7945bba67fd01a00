//! `netfw plan`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    difference::{Change, Difference},
    flows::{List, Teller, port_forward},
    protocol_name,
};
use crate::{
    config::Diagnostic,
    image::Ids,
    kernel::{Pair, now},
};
use netfw_common::image::{FORWARD, INPUT, Policy};

/// The document.
#[derive(Debug, Serialize)]
pub struct Plan {
    changes: Vec<Difference>,
    flows: Fates,
    warnings: Vec<Diagnostic>,
}

/// What becomes of live flows.
#[derive(Debug, Serialize)]
struct Fates {
    /// How many end.
    cut: usize,
    /// How many of them lead elsewhere when they are opened again.
    redirected: usize,
    /// How many are no longer admitted, but may end by themselves.
    left: usize,
    by_name: Vec<Fate>,
    /// Those that end, one by one.
    list: List,
}

#[derive(Debug, Serialize)]
struct Fate {
    name: String,
    cut: usize,
    redirected: usize,
}

/// Live flows that a policy no longer admits.
#[derive(Default)]
pub struct Refused {
    /// Those that end, with whether they would lead elsewhere if they were new.
    pub cut: Vec<(Pair, bool)>,
    /// How many may end by themselves.
    pub left: usize,
}

impl Plan {
    /// Of what differs, and of the flows that are refused; `policy` is the one in force.
    pub fn new(
        changes: Vec<Difference>,
        refused: &Refused,
        ids: &Ids,
        policy: &Policy,
        warnings: Vec<Diagnostic>,
    ) -> Self {
        let ending = &refused.cut;
        let mut by_name: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (pair, redirected) in ending {
            let count = by_name.entry(name(pair, ids)).or_default();
            count.0 += 1;
            count.1 += usize::from(*redirected);
        }
        let by_name = by_name.into_iter().map(|(name, (cut, redirected))| Fate { name, cut, redirected });
        let pairs: Vec<Pair> = ending.iter().map(|(pair, _)| *pair).collect();
        let flows = Fates {
            cut: ending.len(),
            redirected: ending.iter().filter(|(_, redirected)| *redirected).count(),
            left: refused.left,
            by_name: by_name.collect(),
            list: Teller::new(ids, policy, now()).list(&pairs),
        };
        Self { changes, flows, warnings }
    }

    /// What is probably not meant.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        let mut text: String = self.changes.iter().map(line).collect();
        if self.changes.is_empty() {
            text += "the rules stay as they are\n";
        }
        if self.flows.left > 0 {
            text += &format!(
                "{} live flows are no longer admitted, and may end by themselves\n",
                self.flows.left
            );
        }
        text += &match self.flows.cut {
            0 => "no live flow ends\n".to_owned(),
            cut => format!("{cut} live flows end:\n"),
        };
        for fate in &self.flows.by_name {
            text += &format!("  {}: {}", fate.name, fate.cut);
            if fate.redirected > 0 {
                text += &format!(" ({} lead elsewhere when opened again)", fate.redirected);
            }
            text += "\n";
        }
        if self.flows.cut > 0 {
            text += "\n";
            text += &self.flows.list.text;
        }
        text
    }
}

fn line(one: &Difference) -> String {
    let change = match one.change {
        Change::Added => "+",
        Change::Removed => "-",
        Change::Changed => "~",
        Change::Moved => "↕",
    };
    let moved = if one.change == Change::Moved { " (in another place)" } else { "" };
    let details: String = one.details.iter().map(|detail| format!("      {detail}\n")).collect();
    format!("{change} {} \"{}\"{moved}\n{details}", one.part, one.name)
}

/// What a flow is known by: its port-forward, or what it is for.
fn name(pair: &Pair, ids: &Ids) -> String {
    if let Some(name) = port_forward(pair, ids) {
        return format!("port-forward \"{name}\"");
    }
    let protocol = protocol_name(pair.key.protocol);
    let way = match pair.original.chain() {
        INPUT => "to this host",
        FORWARD => "through this host",
        _ => "from this host",
    };
    match pair.key.destination_port {
        0 => format!("{protocol} {way}"),
        port => format!("{protocol} port {port} {way}"),
    }
}
