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
        standing::calendar,
        state::State,
    },
    kernel::boot_now,
    report::{generations::Generations, plan::Plan, timestamp},
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
pub(super) async fn reload(instance: &Instance, wanted: &Reload) -> Result<()> {
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
    tell(&changed);
    Ok(())
}

fn tell(changed: &Changed) {
    output::findings(&changed.warnings);
    if let Some(session) = &changed.ends_session {
        eprintln!("warning: these rules refuse {session}, in which you type");
    }
    let flows = |what: &str| match changed.flows {
        0 => String::new(),
        1 => format!(", 1 flow {what}"),
        many => format!(", {many} flows {what}"),
    };
    let Some(deadline) = changed.deadline else {
        println!("generation {} holds{}", changed.generation, flows("cut"));
        if sessions::ssh_connection().is_some() {
            eprintln!(
                "warning: you are here by SSH, and nothing takes this change back by itself; `netfw reload --confirm \
                 60s` would, `netfw rollback` does now"
            );
        }
        return;
    };
    println!(
        "generation {} holds until {}{}; `netfw confirm` keeps it, `netfw rollback` takes it back",
        changed.generation,
        timestamp(calendar(deadline, boot_now())),
        flows("suspended")
    );
}

/// Keeps what waits.
pub(super) async fn confirm(instance: &Instance) -> Result<()> {
    println!("generation {} is confirmed", change::confirm(instance).await?);
    Ok(())
}

/// Takes back what waits, or goes further back.
pub(super) async fn roll_back(instance: &Instance, wanted: &Rollback) -> Result<()> {
    match wanted.to {
        Some(generation) => tell(&change::go_back(instance, generation, wanted.confirm).await?),
        None => println!("generation {} holds again", change::roll_back(instance).await?),
    }
    Ok(())
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
