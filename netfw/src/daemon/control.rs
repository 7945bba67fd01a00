//! What the commands do: bring an instance up, take it down.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{
    controller::{self, Controller},
    failure::Failure,
    host::{Host, netns},
    instance::Instance,
    interfaces, library,
    lock::{self, Daemon, Lock},
    reassembly, rules,
    state::{LastReload, Rules, State},
};
use crate::{
    config::{Diagnostic, Loaded},
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
}

/// An instance that was brought up.
pub struct Started {
    /// Held as long as this process is its daemon.
    pub daemon: Daemon,
    /// The line for the terminal.
    pub ready: String,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// Why the rules file could not be used and the rules applied last are in force.
    pub fallback: Option<Failure>,
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
    let host = Host::gather().await?;
    // Before another daemon is told to end.
    let (loaded, _) = usable_rules(wanted, &host)?;
    let daemon = Daemon::become_it(&wanted.instance).await?;
    let lock = Lock::acquire(&wanted.instance)?;
    let first = !wanted.instance.pins().exist();
    let outcome = start(lock, wanted, loaded.policy.capacity(), &host).await;
    match outcome {
        Ok((ready, loaded, fallback)) => {
            let state = State::load(&wanted.instance)?;
            let warnings = warnings(loaded, &wanted.file, &state);
            Ok(Started { daemon, ready, warnings, fallback })
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

/// The rules file's, else those applied last for good. What is on trial stays.
fn usable_rules(wanted: &Up, host: &Host) -> Result<(Loaded, Option<Failure>)> {
    let state = State::load(&wanted.instance).ok();
    if state.as_ref().is_some_and(|state| state.standing.pending(boot_now()).is_some())
        && let Some(loaded) = rules::load_applied(&wanted.instance, host)?
    {
        return Ok((loaded, None));
    }
    let failure = match rules::load_file(&wanted.file, host, state.as_ref()) {
        Ok(loaded) if library::is_refused(&wanted.instance, &Rules::of(&loaded))? => {
            Failure::Refused(wanted.file.clone())
        }
        Ok(loaded) => return Ok((loaded, None)),
        Err(failure) => failure,
    };
    match rules::load_valid(&wanted.instance, host) {
        Ok(Some(loaded)) if has_interfaces(&loaded, host) => Ok((loaded, Some(failure))),
        _ => Err(failure.into()),
    }
}

fn has_interfaces(loaded: &Loaded, host: &Host) -> bool {
    loaded.policy.interfaces().iter().any(|interface| host.link(&interface.name).is_some())
}

async fn start(
    lock: Lock,
    wanted: &Up,
    capacity: u32,
    host: &Host,
) -> Result<(String, Loaded, Option<Failure>)> {
    let instance = &wanted.instance;
    let mut controller = Controller::load(lock, instance, &wanted.file, capacity, wanted.debug)?;
    controller.settle(host).await?;
    let (loaded, fallback) = usable_rules(wanted, host)?;
    controller.replace_programs(&loaded.policy, host).await?;
    if controller.trial().is_none() {
        controller.apply(&loaded.policy, host).await?;
        controller.state.last_reload = LastReload::now(fallback.as_ref().map(ToString::to_string));
        if fallback.is_none() {
            controller.keep(&Rules::of(&loaded))?;
        }
    }
    controller.save()?;
    Ok((ready_line(instance, &controller.state), loaded, fallback))
}

/// A path that means the same in any directory.
pub(super) fn absolute(file: &Path) -> Result<PathBuf> {
    std::path::absolute(file).with_context(|| format!("{} is not a path", file.display()))
}

fn ready_line(instance: &Instance, state: &State) -> String {
    let interfaces = state.interfaces.iter().map(|(name, managed)| {
        let role = if managed.role() == Role::External { "external" } else { "internal" };
        format!("{name} ({role}, {})", managed.engine)
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
