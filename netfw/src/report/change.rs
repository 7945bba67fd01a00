//! What `reload`, `confirm`, `rollback`, `ban` and `unban` print.

use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::{bans::word, timestamp};
use crate::{
    config::Diagnostic,
    daemon::{change::Changed, standing::calendar, sweep::Refused},
};

/// The document of a change of the rules.
#[derive(Debug, Serialize)]
pub struct Change<'a> {
    generation: u32,
    /// When it goes unless it is confirmed.
    deadline: Option<String>,
    flows: Flows,
    warnings: &'a [Diagnostic],
    /// The session in which it was typed, if it ends with it.
    ends_session: Option<String>,
}

/// How many live flows a change no longer admits.
#[derive(Debug, Serialize)]
struct Flows {
    cut: usize,
    /// Until it is confirmed, instead of cut.
    suspended: usize,
    /// To end by themselves.
    left: usize,
}

impl<'a> Change<'a> {
    /// Of what a change did; `boot_now` is now.
    pub fn new(changed: &'a Changed, boot_now: u64) -> Self {
        let waits = changed.deadline.is_some();
        let Refused { cut, left } = changed.flows;
        let [cut, suspended] = if waits { [0, cut] } else { [cut, 0] };
        Self {
            generation: changed.generation,
            deadline: changed.deadline.map(|deadline| timestamp(calendar(deadline, boot_now))),
            flows: Flows { cut, suspended, left },
            warnings: &changed.warnings,
            ends_session: changed.ends_session.as_ref().map(ToString::to_string),
        }
    }

    /// For the terminal, without the warnings.
    pub fn render(&self) -> String {
        let Flows { cut, suspended, left } = self.flows;
        let flows = [(cut, "cut"), (suspended, "suspended"), (left, "left to end")];
        let flows: String = flows.into_iter().map(|(count, fate)| counted(count, fate)).collect();
        let generation = self.generation;
        match &self.deadline {
            None => format!("generation {generation} holds{flows}\n"),
            Some(deadline) => format!(
                "generation {generation} holds until {deadline}{flows}; `netfw confirm` keeps it, `netfw rollback` takes \
                 it back\n"
            ),
        }
    }
}

/// How many flows have a fate; empty where none has.
fn counted(count: usize, fate: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!(", 1 flow {fate}"),
        many => format!(", {many} flows {fate}"),
    }
}

/// The document of `confirm` and `rollback`.
#[derive(Debug, Serialize)]
pub struct Settled {
    generation: u32,
    flows: Cut,
}

#[derive(Debug, Serialize)]
struct Cut {
    cut: usize,
}

impl Settled {
    /// Of rules that hold for good.
    pub fn new(changed: &Changed) -> Self {
        Self { generation: changed.generation, flows: Cut { cut: changed.flows.cut } }
    }

    /// For the terminal; `what` has become of the generation.
    pub fn render(&self, what: &str) -> String {
        format!("generation {} {what}{}\n", self.generation, counted(self.flows.cut, "cut"))
    }
}

/// The document of `ban`.
#[derive(Debug, Serialize)]
pub struct Banned {
    banned: Vec<String>,
    /// None: for good.
    expires_seconds: Option<u64>,
    flows: Cut,
}

impl Banned {
    /// Prefixes that are banned from now on, by which so many live flows end.
    pub fn new(prefixes: &[IpNet], time: Option<Duration>, cut: usize) -> Self {
        let expires_seconds = time.map(|time| time.as_secs());
        Self { banned: words(prefixes), expires_seconds, flows: Cut { cut } }
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        format!("{} banned{}\n", self.banned.len(), counted(self.flows.cut, "cut"))
    }
}

/// The document of `unban`.
#[derive(Debug, Serialize)]
pub struct Unbanned {
    unbanned: Vec<String>,
}

impl Unbanned {
    /// Prefixes that are banned no more.
    pub fn new(prefixes: &[IpNet]) -> Self {
        Self { unbanned: words(prefixes) }
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        format!("{} no longer banned\n", self.unbanned.len())
    }
}

fn words(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(|prefix| word(prefix.trunc())).collect()
}
