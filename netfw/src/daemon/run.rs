//! The daemon: waits for something to change and reconciles.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    control,
    controller::Controller,
    host::{Host, watch::changes},
    instance::Instance,
    rules,
    state::{self, Rules, State},
    sweep,
    watch::Files,
};
use crate::kernel::Maps;

/// Editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);
const SWEEP: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT; the datapath stays.
///
/// # Errors
/// The kernel has no more sockets or watches.
pub async fn run(instance: &Instance) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut network = changes()?;
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let maps = Maps::open(&instance.pins())?;
    let mut host = Host::gather().await?;
    let mut watched = Watched::new(instance, &host)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => reload(instance).await,
            () = watched.files.changed() => {
                sleep(SETTLE).await;
                watched.files.drain();
                if watched.wanted && differs(instance) {
                    reload(instance).await;
                }
            }
            Some(()) = network.recv() => {
                sleep(SETTLE).await;
                follow(instance, &mut host).await;
            }
            _ = sweeps.tick() => {
                let swept = sweep::forget_expired(&maps).context("cannot sweep the flow table");
                log_failure(swept.map(drop));
                continue;
            }
        }
        watched.renew(instance, &host);
    }
}

/// The files that the rules in force were read from.
struct Watched {
    files: Files,
    wanted: bool,
}

impl Watched {
    fn new(instance: &Instance, host: &Host) -> Result<Self> {
        let mut watched = Self { files: Files::new()?, wanted: true };
        watched.renew(instance, host);
        Ok(watched)
    }

    fn renew(&mut self, instance: &Instance, host: &Host) {
        let Ok(state) = State::load(instance) else { return };
        let mut files: Vec<PathBuf> = vec![state.rules_file];
        if let Ok(Some(loaded)) = rules::load_applied(instance, host) {
            files.extend(loaded.policy.files().iter().cloned());
            self.wanted = loaded.policy.watch();
        }
        self.files.watch(&files);
    }
}

/// Whether the files hold something else than what was applied last.
fn differs(instance: &Instance) -> bool {
    let (Ok(state), Ok(Some(applied))) = (State::load(instance), state::last_valid(instance)) else {
        return true;
    };
    // After a mistake the old text may come back: that ends the mistake, and status must say so.
    state.last_reload.error.is_some() || !is_unchanged(&state, &applied)
}

fn is_unchanged(state: &State, applied: &Rules) -> bool {
    let same = |(path, text): &(PathBuf, String)| std::fs::read_to_string(path).is_ok_and(|now| now == *text);
    applied.main().is_some_and(|(path, _)| path == state.rules_file) && applied.texts.iter().all(same)
}

async fn reload(instance: &Instance) {
    match control::reload(instance, None).await {
        Ok(reloaded) => {
            for warning in &reloaded.warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!("new rules hold: generation {}", reloaded.generation);
        }
        Err(error) => log_failure(Err(error.context("the rules file was not applied, the old rules hold"))),
    }
}

async fn follow(instance: &Instance, host: &mut Host) {
    let outcome = async {
        let now = Host::gather().await?;
        if now != *host {
            *host = now;
            let mut controller = Controller::open(instance)?;
            if let Some(loaded) = rules::load_applied(instance, host)? {
                controller.follow(&loaded.policy, host)?;
            }
        }
        Ok(())
    };
    log_failure(
        outcome.await.map_err(|error: anyhow::Error| error.context("cannot follow a change of the network")),
    );
}

fn log_failure(outcome: Result<()>) {
    if let Err(error) = outcome {
        for line in format!("{error:#}").lines() {
            tracing::error!("{line}");
        }
    }
}
