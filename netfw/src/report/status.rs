//! `netfw status`.

use anyhow::Result;
use serde::Serialize;

use super::{
    paths::{self, Path},
    table::table,
    targets::{self, Target},
    timestamp,
};
use crate::{
    daemon::{
        Instance,
        host::{Host, Link},
        standing::calendar,
        state::{Managed, State},
        sweep::Refused,
    },
    kernel::{self, Maps, Port},
    policy::Role,
};

/// The document.
#[derive(Debug, Serialize)]
pub struct Status {
    instance: String,
    generation: u32,
    rules_file: String,
    daemon: Option<i32>,
    interfaces: Vec<Interface>,
    pairs: Vec<Path>,
    targets: Vec<Target>,
    challenging: Vec<String>,
    last_reload: LastReload,
    confirm: Confirm,
    flows: Flows,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    role: &'static str,
    engine: String,
    reason: String,
    link: &'static str,
    problem: Option<String>,
}

/// What is told of port-forwards.
#[derive(Debug, Default)]
pub struct PortForwards {
    /// Targets that may not take new flows.
    pub targets: Vec<Target>,
    /// Names of those that challenge who opens a connection.
    pub challenging: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LastReload {
    at: String,
    result: &'static str,
    error: Option<String>,
    flows: Refused,
}

#[derive(Debug, Serialize)]
struct Confirm {
    pending: bool,
    deadline: Option<String>,
}

#[derive(Debug, Serialize)]
struct Flows {
    used: usize,
    capacity: u32,
}

/// The word for a role.
pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::External => "external",
        Role::Internal => "internal",
    }
}

fn interface(name: &str, managed: &Managed, link: Option<&Link>) -> Interface {
    let mut reason = managed.reason.clone();
    if let Some(foreign) = link.and_then(|link| kernel::foreign_xdp(link.xdp?)) {
        reason += &format!("; another XDP program runs before netfw: {foreign}");
    }
    let foreign = link.map(|link| kernel::foreign_classifiers(Port { name, index: link.index }));
    if let Some(foreign) = foreign.filter(|foreign| !foreign.is_empty()) {
        reason += &format!("; other programs at TC run after netfw: {}", foreign.join(", "));
    }
    Interface {
        name: name.to_owned(),
        role: role(managed.role()),
        engine: managed.engine.to_string(),
        reason,
        link: link.map_or("gone", |link| match (link.up, link.carrier) {
            (false, _) => "down",
            (true, false) => "no-carrier",
            (true, true) => "up",
        }),
        problem: problem(name, managed, link),
    }
}

/// What keeps an interface from serving.
fn problem(name: &str, managed: &Managed, link: Option<&Link>) -> Option<String> {
    let Some(link) = link else {
        return Some(
            "there is no such interface: netfw waits for it, and is on it as soon as it comes".to_owned(),
        );
    };
    let port = Port { name, index: link.index };
    let problem = if link.index != managed.index || !kernel::is_attached(port) {
        "netfw is not on it: a running daemon attaches it at once, `netfw up` does it otherwise"
    } else if !link.up {
        "it is switched off"
    } else if !link.carrier {
        "nothing is connected to it"
    } else if link.addresses.is_empty() {
        "it has no address"
    } else {
        return None;
    };
    Some(problem.to_owned())
}

impl Status {
    /// Of an instance, at a [`netfw_common::image::boot_time`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(
        instance: &Instance,
        state: &State,
        daemon: Option<i32>,
        maps: &Maps,
        boot_now: u64,
        PortForwards { targets, challenging }: PortForwards,
        host: &Host,
    ) -> Result<Self> {
        let interfaces =
            state.interfaces.iter().map(|(name, managed)| interface(name, managed, host.link(name)));
        let pending = state.standing.pending(boot_now);
        // The datapath needs nobody to fall back; nobody may have noted it yet.
        let expired = state.standing.trial.filter(|_| pending.is_none());
        let error = state.last_reload.error.clone().or(expired.map(|trial| trial.expiry()));
        let deadline = pending.map(|trial| timestamp(calendar(trial.deadline, boot_now)));
        Ok(Self {
            instance: instance.to_string(),
            generation: state.standing.generation(boot_now),
            rules_file: state.rules_file.display().to_string(),
            daemon,
            interfaces: interfaces.collect(),
            pairs: paths::paths(state, &maps.transmitters()?),
            targets,
            challenging,
            last_reload: LastReload {
                at: timestamp(state.last_reload.at),
                result: if error.is_some() { "error" } else { "ok" },
                error,
                flows: state.last_reload.flows,
            },
            confirm: Confirm { pending: pending.is_some(), deadline },
            flows: Flows { used: maps.count_flows()?, capacity: state.capacity },
        })
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        let daemon =
            self.daemon.map_or("not running; the datapath goes on".into(), |pid| format!("process {pid}"));
        let reload = format!("{} at {}", self.last_reload.result, self.last_reload.at);
        let mut text = format!(
            "instance    {}\ndaemon      {daemon}\nrules       {}, generation {}\nlast reload {reload}\n",
            self.instance, self.rules_file, self.generation
        );
        if let Some(deadline) = &self.confirm.deadline {
            text += &format!("confirm     until {deadline}, or the old rules come back\n");
        }
        for line in self.last_reload.error.iter().flat_map(|error| error.lines()) {
            text += &format!("            {line}\n");
        }
        text += &format!("flows       {} of {}\n", self.flows.used, self.flows.capacity);
        if !self.challenging.is_empty() {
            let names = self.challenging.join(", ");
            text += &format!("syn-proxy   too many connections are being opened; challenging: {names}\n");
        }
        text += "\n";
        let rows = self.interfaces.iter().map(|interface| {
            vec![
                interface.name.clone(),
                interface.role.into(),
                interface.link.into(),
                interface.engine.clone(),
                interface.reason.clone(),
            ]
        });
        text += &table(&["interface", "role", "link", "engine", "why"], rows.collect());
        for Interface { name, problem, .. } in &self.interfaces {
            text += &problem.as_ref().map_or_else(String::new, |problem| format!("\n{name}: {problem}\n"));
        }
        if !self.pairs.is_empty() {
            text += "\n";
            text += &paths::render(&self.pairs);
        }
        if !self.targets.is_empty() {
            text += "\n";
            text += &table(&targets::HEADINGS, self.targets.iter().map(Target::cells).collect());
        }
        text
    }
}
