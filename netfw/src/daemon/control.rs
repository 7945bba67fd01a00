//! What the commands do: bring an instance up, take it down.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{
    choice::{Choice, Holds, Instead, choose, next_best},
    controller::{self, Controller},
    host::{Host, netns},
    instance::Instance,
    interfaces, library,
    lock::{self, Daemon, Lock},
    reassembly, rules,
    state::{self, LastReload, Rules, StandIn, State},
};
use crate::{
    config::{Diagnostic, Loaded},
    image::CompileError,
    kernel::{self, boot_now},
    policy::Role,
};

/// What `netfw up` was asked for.
#[derive(Clone, Debug)]
pub struct Up {
    /// The instance.
    pub instance: Instance,
    /// Its rules file.
    pub file: PathBuf,
    /// Whether the datapath logs what it does.
    pub debug: bool,
    /// Whether the machine starts: what can be protected is, whatever is missing or broken.
    pub boot: bool,
}

impl Up {
    /// When the machine starts, protection comes before memory: what cannot be read or kept there is told, no more.
    pub(super) fn forgive<T: Default>(&self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Err(error) if self.boot => {
                tracing::error!("{error:#}");
                Ok(T::default())
            }
            outcome => outcome,
        }
    }
}

/// An instance that was brought up.
pub struct Started {
    /// Held as long as this process is its daemon.
    pub daemon: Daemon,
    /// The line for the terminal.
    pub ready: String,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// What holds in the place of a rules file that could not be used.
    pub instead: Option<Instead>,
}

/// Brings an instance up, or adopts it where it is up already.
///
/// # Errors
/// No usable rules (nothing is attached then), or the kernel refuses something (a first start leaves nothing
/// behind).
pub async fn up(wanted: &Up) -> Result<Started> {
    let wanted = &Up { file: absolute(&wanted.file)?, ..wanted.clone() };
    if let Some(state) = State::find(&wanted.instance)? {
        controller::check_namespace(&wanted.instance, &state)?;
        kernel::check_abi(&wanted.instance.pins())?;
    }
    if wanted.boot {
        library::set_damaged_aside(&wanted.instance);
    }
    let host = Host::gather().await?;
    // Before another daemon is told to end.
    let capacity = choose(wanted, &host)?.loaded.policy.capacity();
    let daemon = Daemon::become_it(&wanted.instance).await?;
    let lock = Lock::acquire(&wanted.instance)?;
    let first = !wanted.instance.pins().exist();
    match start(lock, wanted, capacity, &host).await {
        Ok((ready, choice)) => {
            let state = State::load(&wanted.instance)?;
            let warnings = warnings(choice.loaded, &wanted.file, &state);
            Ok(Started { daemon, ready, warnings, instead: choice.instead })
        }
        Err(error) => {
            if first {
                let _lock = Lock::acquire(&wanted.instance)?;
                dismantle(&wanted.instance).await?;
            }
            Err(error)
        }
    }
}

async fn start(lock: Lock, wanted: &Up, capacity: u32, host: &Host) -> Result<(String, Choice)> {
    let instance = &wanted.instance;
    let mut controller = Controller::load(lock, wanted, capacity)?;
    controller.settle(host).await?;
    let mut choice = choose(wanted, host)?;
    controller.replace_programs(&choice.loaded.policy, host).await?;
    if controller.trial().is_none() {
        if let Err(error) = controller.apply(&choice.loaded.policy, host).await {
            // Too large: nothing was touched yet.
            let error = error.downcast::<CompileError>()?;
            choice = next_best(wanted, host, rules::too_large(&wanted.file, &error, choice.loaded))?;
            controller.apply(&choice.loaded.policy, host).await?;
        }
        remember(&mut controller, wanted, &choice)?;
    }
    for reason in &controller.left_out {
        tracing::error!("{reason}");
    }
    controller.save()?;
    Ok((ready_line(instance, &controller.state), choice))
}

/// Keeps the rules for the next start, and why they are not those of the file.
fn remember(controller: &mut Controller, wanted: &Up, choice: &Choice) -> Result<()> {
    let rules = Rules::of(&choice.loaded);
    let error = choice.instead.as_ref().map(|instead| instead.failure.to_string());
    controller.state.last_reload = LastReload::now(error);
    let shut = match choice.instead.as_ref().map(|instead| instead.holds) {
        None if wanted.forgive(controller.keep(&rules).map(|()| true))? => return Ok(()),
        Some(Holds::LastValid) => return Ok(()),
        instead => instead.is_some(),
    };
    state::keep_stand_in(&wanted.instance, &StandIn { rules, shut })
}

/// A path that means the same in any directory.
pub(super) fn absolute(file: &Path) -> Result<PathBuf> {
    std::path::absolute(file).with_context(|| format!("{} is not a path", file.display()))
}

fn ready_line(instance: &Instance, state: &State) -> String {
    let interfaces = state.interfaces.iter().map(|(name, managed)| {
        let role = if managed.role() == Role::External { "external" } else { "internal" };
        match managed.index {
            0 => format!("{name} ({role}, waited for)"),
            _ => format!("{name} ({role}, {})", managed.engine),
        }
    });
    let interfaces: Vec<String> = interfaces.collect();
    let generation = state.standing.generation(boot_now());
    format!("ready: instance {instance}, generation {generation}, {}", interfaces.join(", "))
}

/// What was found in the rules, and what they ask for in vain.
pub(super) fn warnings(loaded: Loaded, file: &Path, state: &State) -> Vec<Diagnostic> {
    let (asked, has) = (loaded.policy.capacity(), state.capacity);
    let mut warnings = loaded.warnings;
    if asked != has {
        let message =
            format!("[flows] capacity = {asked} is not obeyed yet: the running table is for {has} flows");
        let help = "`netfw down` and `netfw up` make a new table, which ends all flows";
        warnings.push(Diagnostic::doubt(file, message, help));
    }
    warnings
}

/// Ends the daemon and removes everything; nothing there is no error.
///
/// # Errors
/// Something cannot be removed.
pub async fn down(instance: &Instance) -> Result<()> {
    lock::stop_daemon(instance).await?;
    let _lock = Lock::acquire(instance)?;
    dismantle(instance).await
}

/// Takes off everything of an instance; the caller holds the lock.
async fn dismantle(instance: &Instance) -> Result<()> {
    let state = State::load(instance).ok();
    // The names and indexes of another namespace's interfaces mean others here.
    let here = state.filter(|state| netns::inode().is_ok_and(|inode| inode == state.namespace));
    for (name, managed) in here.iter().flat_map(|state| &state.interfaces) {
        interfaces::release(instance, name, managed).await;
    }
    if let Some(state) = &here {
        reassembly::dismantle(instance, state).await;
    }
    instance.pins().remove()?;
    instance.forget()
}
