//! The daemon: waits for something to change and reconciles.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    change::{self, By, Change},
    health::Health,
    host::{Host, watch::changes},
    instance::Instance,
    lock::Daemon,
    log::Log,
    network::Network,
    rules,
    shortage::Shortages,
    state::{self, Rules, State},
    sweep,
    watch::Files,
    ways,
};
use crate::{
    config,
    kernel::{self, Maps, boot_now},
    policy::ValidPolicy,
};

/// Editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);
const SWEEP: Duration = Duration::from_secs(5);
/// How much longer the sweep rests than it takes: a table of millions costs a sixtieth of a core, too. The datapath does not wait
/// for it, an expired flow is dead where it lies.
const REST: u32 = 59;
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
    /// That of the rules in force, when they were looked at last.
    generation: u32,
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
            generation: 0,
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

    /// Whether other rules have come into force.
    fn are_outdated(&self, instance: &Instance) -> bool {
        State::load(instance).is_ok_and(|state| state.standing.generation(boot_now()) != self.generation)
    }

    /// Watches what the rules file includes now, before that is read: where there is a mistake in it, nothing but that file
    /// may change next.
    fn look_ahead(&mut self, instance: &Instance) {
        if let Ok(state) = State::load(instance) {
            self.files.watch_also(&config::included_files(&state.rules_file));
        }
    }

    /// Watches what the rules in force were read from and what the rules file includes now, and what tells that others came
    /// into force.
    fn renew(&mut self, instance: &Instance) -> Option<ValidPolicy> {
        let state = State::load(instance).ok()?;
        self.generation = state.standing.generation(boot_now());
        let mut files = config::included_files(&state.rules_file);
        files.extend([state.rules_file, state::last_valid_file(instance)]);
        let loaded = rules::load_applied(instance, &Host::default()).ok().flatten();
        if let Some(loaded) = &loaded {
            files.extend(loaded.policy.files().iter().cloned());
            self.watch = loaded.policy.watch();
        }
        self.files.watch(&files);
        loaded.map(|loaded| loaded.policy)
    }
}

/// Runs until SIGTERM or SIGINT; the datapath stays.
///
/// # Errors
/// The instance cannot be opened.
pub async fn run(instance: &Instance, mut inputs: Inputs, daemon: Daemon) -> Result<()> {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let maps = Arc::new(Maps::open(&instance.pins())?);
    let mut shortages = Shortages::default();
    // What was refused before this daemon is not its news; all after that is, also before the first sweep.
    log_failure(shortages.look(&maps).context("cannot read the drop counters"));
    tokio::spawn(sweep_again_and_again(Arc::clone(&maps), shortages, Arc::new(daemon)));
    tokio::spawn(ways::watch(Arc::clone(&maps)));
    let mut log = Log::open(instance)?;
    let mut network = Network::default();
    let mut health = Health::new();
    let mut changed = true;
    loop {
        if changed && let Some(policy) = inputs.renew(instance) {
            let followed = health.follow(instance, &maps, &policy);
            log_failure(followed.context("cannot test all targets of port-forwards"));
        }
        changed = true;
        tokio::select! {
            _ = inputs.terminate.recv() => return Ok(()),
            _ = inputs.interrupt.recv() => return Ok(()),
            _ = inputs.hang_up.recv() => reload(instance, By::Signal).await,
            () = inputs.files.changed() => {
                sleep(SETTLE).await;
                inputs.files.drain();
                inputs.look_ahead(instance);
                if inputs.watch && differs(instance) {
                    reload(instance, By::Watcher).await;
                }
            }
            Some(()) = inputs.network.recv() => {
                network.meet(instance).await;
                sleep(SETTLE).await;
                network.follow(instance).await;
            }
            _ = looks.tick() => {
                log.write();
                log_failure(log.write_left_out());
                if network.is_behind() {
                    // The next change may never come.
                    network.follow(instance).await;
                }
                changed = false;
                if is_on_trial(&maps) {
                    log_failure(change::tend(instance).await.context("cannot look after the rules on trial"));
                    changed = inputs.are_outdated(instance);
                }
            }
            change = health.changed() => {
                let applied = health.apply(instance, &maps, change);
                log_failure(applied.context("cannot tell the datapath how a target is"));
            }
            ready = log.ready() => {
                log_failure(ready);
                log.write();
                changed = false;
            }
            () = flush(&mut inputs.log) => changed = false,
        }
    }
}

/// Beside the loop, because a large table takes its time. Nobody else becomes the daemon until a sweep has ended: two that make the filter anew would
/// clear what the other has noted.
async fn sweep_again_and_again(maps: Arc<Maps>, mut shortages: Shortages, daemon: Arc<Daemon>) {
    let (mut pause, mut left) = (SWEEP, 0);
    loop {
        sleep(pause).await;
        let (begun, swept, daemon) = (Instant::now(), Arc::clone(&maps), Arc::clone(&daemon));
        let swept = spawn_blocking(move || {
            let _until_it_has_ended = daemon;
            sweep::forget_expired(&swept)?;
            swept.renew_filter(left)
        });
        let swept = swept.await.map_err(anyhow::Error::from).and_then(|left| left);
        left = *swept.as_ref().unwrap_or(&left);
        log_failure(swept.map(drop).context("cannot sweep the flow table"));
        log_failure(shortages.look(&maps).context("cannot read the drop counters"));
        pause = SWEEP.max(begun.elapsed() * REST);
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
    let same = |(path, text): &(PathBuf, Arc<str>)| fs::read_to_string(path).is_ok_and(|now| now == **text);
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

fn log_failure(outcome: Result<()>) {
    if let Err(error) = outcome {
        for line in format!("{error:#}").lines() {
            tracing::error!("{line}");
        }
    }
}
