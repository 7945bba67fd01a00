//! What the commands do: bring an instance up, give it new rules, take it down.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    controller::{self, Controller},
    failure::Failure,
    host::{Host, netns},
    instance::Instance,
    interfaces,
    lock::{self, Daemon, Lock},
    reassembly, rules,
    state::{self, LastReload, Rules, State},
};
use crate::{
    config::{Diagnostic, Loaded},
    kernel,
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
    let (loaded, fallback) = usable_rules(wanted, &host)?;
    let daemon = Daemon::become_it(&wanted.instance).await?;
    let lock = Lock::acquire(&wanted.instance)?;
    let first = !wanted.instance.pins().exist();
    let outcome = start(lock, wanted, &loaded, &host, fallback.as_ref()).await;
    match outcome {
        Ok(ready) => Ok(Started { daemon, ready, warnings: loaded.warnings, fallback }),
        Err(error) => {
            if first {
                let _lock = Lock::acquire(&wanted.instance)?;
                dismantle(&wanted.instance).await?;
            }
            Err(error)
        }
    }
}

/// The rules file's, else those applied last.
fn usable_rules(wanted: &Up, host: &Host) -> Result<(Loaded, Option<Failure>)> {
    let state = State::load(&wanted.instance).ok();
    let failure = match rules::load_file(&wanted.file, host, state.as_ref()) {
        Ok(loaded) => return Ok((loaded, None)),
        Err(failure) => failure,
    };
    match rules::load_applied(&wanted.instance, host) {
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
    loaded: &Loaded,
    host: &Host,
    fallback: Option<&Failure>,
) -> Result<String> {
    let (instance, policy) = (&wanted.instance, &loaded.policy);
    let mut controller = Controller::load(lock, instance, &wanted.file, policy.capacity(), wanted.debug)?;
    controller.replace_programs(policy, host).await?;
    controller.apply(policy, host).await?;
    controller.state.last_reload = LastReload::now(fallback.map(ToString::to_string));
    controller.save()?;
    if fallback.is_none() {
        state::keep_valid(instance, &Rules::of(loaded))?;
    }
    Ok(ready_line(instance, &controller.state))
}

fn absolute(file: &Path) -> Result<PathBuf> {
    std::path::absolute(file).with_context(|| format!("{} is not a path", file.display()))
}

fn ready_line(instance: &Instance, state: &State) -> String {
    let interfaces = state.interfaces.iter().map(|(name, managed)| {
        let role = if managed.role() == Role::External { "external" } else { "internal" };
        format!("{name} ({role}, {})", managed.engine)
    });
    let interfaces: Vec<String> = interfaces.collect();
    format!("ready: instance {instance}, generation {}, {}", state.generation, interfaces.join(", "))
}

/// What a reload did.
#[derive(Debug)]
pub struct Reloaded {
    /// What holds now.
    pub generation: u32,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Applies the rules file now, or a candidate that becomes the rules file.
///
/// # Errors
/// The instance is not up; the rules cannot be used: then nothing has changed.
pub async fn reload(instance: &Instance, candidate: Option<&Path>) -> Result<Reloaded> {
    let host = Host::gather().await?;
    let mut controller = Controller::open(instance)?;
    let rules_file = controller.state.rules_file.clone();
    let outcome = apply_file(instance, &mut controller, candidate, &rules_file, &host).await;
    if let Err(error) = &outcome {
        controller.state.last_reload = LastReload::now(Some(format!("{error:#}")));
        controller.save()?;
    }
    outcome
}

async fn apply_file(
    instance: &Instance,
    controller: &mut Controller,
    candidate: Option<&Path>,
    rules_file: &Path,
    host: &Host,
) -> Result<Reloaded> {
    let file = candidate.unwrap_or(rules_file);
    let loaded = rules::load_file(file, host, Some(&controller.state))?;
    if candidate.is_some() {
        check_move(&loaded, file, rules_file)?;
    }
    controller.apply(&loaded.policy, host).await?;
    let mut rules = Rules::of(&loaded);
    if candidate.is_some() {
        replace(rules_file, loaded.text())?;
        if let Some((path, _)) = rules.texts.first_mut() {
            rules_file.clone_into(path);
        }
    }
    state::keep_valid(instance, &rules)?;
    Ok(Reloaded { generation: controller.state.generation, warnings: loaded.warnings })
}

/// A candidate that includes files by relative paths means others once it lies elsewhere.
fn check_move(loaded: &Loaded, from: &Path, to: &Path) -> Result<()> {
    let directory = |file: &Path| file.parent().and_then(|parent| parent.canonicalize().ok());
    if loaded.sources.len() > 1 && directory(&absolute(from)?) != directory(to) {
        bail!(
            "{} includes other files and lies in another directory than the rules file {}\nhelp: put both beside each \
             other",
            from.display(),
            to.display()
        );
    }
    Ok(())
}

/// In one step, as editors do.
fn replace(path: &Path, text: &str) -> Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("the rules hold now, but cannot be written to {}", path.display()))
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
