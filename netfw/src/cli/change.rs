//! `plan`, `reload`, `confirm`, `rollback`, `generations`: changes of the rules, and what is said about them.

use std::path::Path;

use anyhow::Result;

use super::{
    args::{Reload, Rollback},
    output,
};
use crate::{
    daemon::{
        Failure, Instance,
        change::{self, By, Change, Changed},
        library, lock, plan, sessions,
        state::State,
    },
    kernel::boot_now,
    report::{
        change::{self as report, Settled},
        generations::Generations,
        plan::Plan,
    },
};

/// Says what a reload would do.
pub(super) async fn plan(instance: &Instance, json: bool, file: Option<&Path>) -> Result<()> {
    let plan = plan::plan(instance, file).await?;
    if !json {
        output::findings(plan.warnings());
    }
    output::print(json, &plan, Plan::render)
}

/// Applies the rules file, or tries it out.
pub(super) async fn reload(instance: &Instance, json: bool, wanted: &Reload) -> Result<()> {
    let change = Change {
        by: By::Command,
        candidate: wanted.file.clone(),
        confirm: wanted.confirm,
        confirm_on_ssh: wanted.confirm_on_ssh,
    };
    let changed = change::reload(instance, &change).await?;
    if wanted.confirm_on_ssh && lock::daemon(instance).is_none() {
        eprintln!(
            "warning: no daemon runs that would notice a new SSH connection: type `netfw confirm` yourself"
        );
    }
    tell(json, &changed)
}

fn tell(json: bool, changed: &Changed) -> Result<()> {
    let document = report::Change::new(changed, boot_now());
    if json {
        return output::print(true, &document, report::Change::render);
    }
    output::findings(&changed.warnings);
    if let Some(session) = &changed.ends_session {
        eprintln!("warning: these rules refuse {session}, in which you type");
    }
    output::print(false, &document, report::Change::render)?;
    if changed.deadline.is_none() && sessions::ssh_connection().is_some() {
        eprintln!(
            "warning: you are here by SSH, and nothing takes this change back by itself; `netfw reload --confirm 60s` \
             would, `netfw rollback` does now"
        );
    }
    Ok(())
}

/// Keeps what waits.
pub(super) async fn confirm(instance: &Instance, json: bool) -> Result<()> {
    let settled = Settled::new(&change::confirm(instance).await?);
    output::print(json, &settled, |settled| settled.render("is confirmed"))
}

/// Takes back what waits, or goes further back.
pub(super) async fn roll_back(instance: &Instance, json: bool, wanted: &Rollback) -> Result<()> {
    if let Some(generation) = wanted.to {
        return tell(json, &change::go_back(instance, generation, wanted.confirm).await?);
    }
    let settled = Settled::new(&change::roll_back(instance).await?);
    output::print(json, &settled, |settled| settled.render("holds again"))
}

/// Lists what can be gone back to.
pub(super) fn generations(instance: &Instance, json: bool) -> Result<()> {
    if !instance.pins().exist() {
        return Err(Failure::NotUp(instance.clone()).into());
    }
    let (mut standing, now) = (State::load(instance)?.standing, boot_now());
    standing.age(now);
    let document = Generations::new(&library::generations(instance)?, &standing, now);
    output::print(json, &document, Generations::render)
}
