//! The daemon: waits for something to change and reconciles.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    change::{self, By, Change},
    controller::Controller,
    host::{Host, watch::changes},
    instance::Instance,
    rules,
    shortage::Shortages,
    state::{self, Rules, State},
    sweep,
    watch::Files,
};
use crate::kernel::{self, Maps, boot_now};

/// Editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);
const SWEEP: Duration = Duration::from_secs(5);
/// Rules on trial go by themselves; looking after them more often would make nothing safer.
const LOOK: Duration = Duration::from_secs(1);

/// Everything that can wake the daemon. Opened before the rules are read, so that no change falls between.
pub struct Inputs {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    network: mpsc::Receiver<()>,
    files: Files,
    /// `[reload] watch`.
    watch: bool,
    /// What the datapath logs, if it was asked to.
    log: Option<kernel::DebugLog>,
}

impl Inputs {
    /// Starts to listen, to changes of `rules` among others.
    ///
    /// # Errors
    /// The kernel has no more sockets or watches.
    pub fn open(rules: &Path) -> Result<Self> {
        let mut files = Files::new()?;
        files.watch(&[rules.to_owned()]);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            network: changes()?,
            files,
            watch: true,
            log: None,
        })
    }

    /// Also listens to the datapath's log.
    ///
    /// # Errors
    /// The instance is not up.
    pub fn listen_to_datapath(&mut self, instance: &Instance) -> Result<()> {
        self.log = Some(kernel::debug_log(&instance.pins())?);
        Ok(())
    }

    /// Watches what the rules in force were read from.
    fn renew(&mut self, instance: &Instance) {
        let Ok(state) = State::load(instance) else { return };
        let mut files: Vec<PathBuf> = vec![state.rules_file];
        if let Ok(Some(loaded)) = rules::load_applied(instance, &Host::default()) {
            files.extend(loaded.policy.files().iter().cloned());
            self.watch = loaded.policy.watch();
        }
        self.files.watch(&files);
    }
}

/// Runs until SIGTERM or SIGINT; the datapath stays.
///
/// # Errors
/// The instance cannot be opened.
pub async fn run(instance: &Instance, mut inputs: Inputs) -> Result<()> {
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let maps = Maps::open(&instance.pins())?;
    let mut host = None;
    let mut shortages = Shortages::default();
    inputs.renew(instance);
    loop {
        tokio::select! {
            _ = inputs.terminate.recv() => return Ok(()),
            _ = inputs.interrupt.recv() => return Ok(()),
            _ = inputs.hang_up.recv() => reload(instance, By::Signal).await,
            () = inputs.files.changed() => {
                sleep(SETTLE).await;
                inputs.files.drain();
                if inputs.watch && differs(instance) {
                    reload(instance, By::Watcher).await;
                }
            }
            Some(()) = inputs.network.recv() => {
                sleep(SETTLE).await;
                follow(instance, &mut host).await;
            }
            () = flush(&mut inputs.log) => continue,
            _ = looks.tick() => {
                if !is_on_trial(&maps) {
                    continue;
                }
                log_failure(change::tend(instance).await.context("cannot look after the rules on trial"));
            }
            _ = sweeps.tick() => {
                let swept = sweep::forget_expired(&maps).context("cannot sweep the flow table");
                log_failure(swept.map(drop));
                log_failure(shortages.look(&maps).context("cannot read the drop counters"));
                continue;
            }
        }
        inputs.renew(instance);
    }
}

/// Passes on what the datapath has logged, now and then.
async fn flush(log: &mut Option<kernel::DebugLog>) {
    match log {
        Some(log) => {
            sleep(SETTLE).await;
            log.flush();
        }
        None => std::future::pending().await,
    }
}

/// Whether somebody may have to tidy up, or to confirm.
fn is_on_trial(maps: &Maps) -> bool {
    maps.active().is_ok_and(|active| active.deadline().is_some())
}

/// Whether the files hold something else than what was applied last.
fn differs(instance: &Instance) -> bool {
    let Ok(state) = State::load(instance) else { return true };
    // A candidate is not the rules file's yet.
    let pending = state.standing.pending(boot_now());
    let text = if pending.is_some_and(|trial| trial.candidate) { state::last_valid } else { state::in_force };
    let Ok(Some(applied)) = text(instance) else { return true };
    // After a mistake the old text may come back: that ends the mistake, and status must say so.
    state.last_reload.error.is_some() || !is_unchanged(&state, &applied)
}

fn is_unchanged(state: &State, applied: &Rules) -> bool {
    let same = |(path, text): &(PathBuf, String)| std::fs::read_to_string(path).is_ok_and(|now| now == *text);
    applied.main().is_some_and(|(path, _)| path == state.rules_file) && applied.texts.iter().all(same)
}

async fn reload(instance: &Instance, by: By) {
    match change::reload(instance, &Change::of_rules_file(by)).await {
        Ok(changed) => {
            for warning in &changed.warnings {
                tracing::warn!("{warning}");
            }
            let waits =
                if changed.deadline.is_some() { " until it is confirmed or its time is over" } else { "" };
            tracing::info!("new rules hold{waits}: generation {}", changed.generation);
        }
        Err(error) => log_failure(Err(error.context("the rules file was not applied, the old rules hold"))),
    }
}

/// `seen` is the host as it was followed last.
async fn follow(instance: &Instance, seen: &mut Option<Host>) {
    let outcome = async {
        let now = Host::gather().await?;
        if seen.as_ref() != Some(&now) {
            let mut controller = Controller::open(instance)?;
            controller.settle(&now).await?;
            if let Some(loaded) = rules::load_applied(instance, &now)? {
                controller.follow(&loaded.policy, &now).await?;
            }
            *seen = Some(now);
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
