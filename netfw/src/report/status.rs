//! `netfw status`.

use serde::Serialize;

use super::{table::table, timestamp};
use crate::{
    daemon::{Instance, standing::calendar, state::State},
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
}

#[derive(Debug, Serialize)]
struct LastReload {
    at: String,
    result: &'static str,
    error: Option<String>,
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

impl Status {
    /// Of an instance whose table holds `used` flows, at a [`netfw_common::image::boot_time`].
    pub fn new(instance: &Instance, state: &State, daemon: Option<i32>, used: usize, boot_now: u64) -> Self {
        let interfaces = state.interfaces.iter().map(|(name, managed)| Interface {
            name: name.clone(),
            role: role(managed.role()),
            engine: managed.engine.to_string(),
            reason: managed.reason.clone(),
        });
        let pending = state.standing.pending(boot_now);
        // The datapath needs nobody to fall back; nobody may have noted it yet.
        let expired = state.standing.trial.filter(|_| pending.is_none());
        let error = state.last_reload.error.clone().or(expired.map(|trial| trial.expiry()));
        let deadline = pending.map(|trial| timestamp(calendar(trial.deadline, boot_now)));
        Self {
            instance: instance.to_string(),
            generation: state.standing.generation(boot_now),
            rules_file: state.rules_file.display().to_string(),
            daemon,
            interfaces: interfaces.collect(),
            last_reload: LastReload {
                at: timestamp(state.last_reload.at),
                result: if error.is_some() { "error" } else { "ok" },
                error,
            },
            confirm: Confirm { pending: pending.is_some(), deadline },
            flows: Flows { used, capacity: state.capacity },
        }
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
        text += &format!("flows       {} of {}\n\n", self.flows.used, self.flows.capacity);
        let rows = self.interfaces.iter().map(|interface| {
            vec![
                interface.name.clone(),
                interface.role.into(),
                interface.engine.clone(),
                interface.reason.clone(),
            ]
        });
        text + &table(&["interface", "role", "engine", "why"], rows.collect())
    }
}
