//! Changes of the rules: applied for good, tried out, confirmed, taken back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use netfw_common::{flow::LOCAL, image::INPUT, tcp::Seen, tick::Tick, wire::TCP};

use super::{
    control::{self, absolute},
    controller::Controller,
    failure::Failure,
    host::Host,
    instance::Instance,
    library, rules,
    sessions::{Judge, Session},
    standing::{Trial, steps},
    state::{self, LastReload, Rules},
    sweep::Refused,
    trial::{Terms, replace},
};
use crate::{
    config::{Diagnostic, Loaded},
    kernel::{Pair, boot_now, now},
    policy::{SSH, ValidPolicy},
};

/// Who wants a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A person, now.
    Command,
    /// A signal to the daemon.
    Signal,
    /// The daemon, which has noticed that the file is another one.
    Watcher,
}

/// A change that is wanted.
#[derive(Clone, Debug)]
pub struct Change {
    /// Who wants it.
    pub by: By,
    /// A candidate that becomes the rules file; none: the rules file itself.
    pub candidate: Option<PathBuf>,
    /// How long it waits for confirmation.
    pub confirm: Option<Duration>,
    /// Whether a new SSH connection confirms it.
    pub confirm_on_ssh: bool,
}

impl Change {
    /// The rules file, for good.
    pub fn of_rules_file(by: By) -> Self {
        Self { by, candidate: None, confirm: None, confirm_on_ssh: false }
    }
}

/// What a change did.
#[derive(Debug)]
pub struct Changed {
    /// What holds now.
    pub generation: u32,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// Flows that it no longer admits.
    pub flows: Refused,
    /// When it goes unless it is confirmed, as a [`netfw_common::image::boot_time`].
    pub deadline: Option<u64>,
    /// The session in which it was typed ends with it.
    pub ends_session: Option<Session>,
}

/// An instance with what its last user left half done put in order.
async fn open(instance: &Instance, host: &Host) -> Result<Controller> {
    let mut controller = Controller::open(instance)?;
    controller.settle(host).await?;
    Ok(controller)
}

/// Applies the rules file now, or a candidate that becomes the rules file.
///
/// # Errors
/// The instance is not up; the rules cannot be used: then nothing has changed.
pub async fn reload(instance: &Instance, change: &Change) -> Result<Changed> {
    let host = Host::gather().await?;
    let mut controller = open(instance, &host).await?;
    let outcome = apply(&mut controller, change, &host).await;
    if let Err(error) = &outcome {
        controller.state.last_reload = LastReload::now(Some(format!("{error:#}")));
        controller.save()?;
    }
    outcome
}

async fn apply(controller: &mut Controller, change: &Change, host: &Host) -> Result<Changed> {
    let rules_file = controller.state.rules_file.clone();
    let file = change.candidate.as_deref().unwrap_or(&rules_file);
    let loaded = rules::load_file(file, host, Some(&controller.state))?;
    if change.candidate.is_some() {
        check_move(&loaded, file, &rules_file)?;
    }
    let rules = Rules::of(&loaded);
    let trial = controller.trial();
    if trial.is_some()
        && state::last_valid(&controller.instance)?.is_some_and(|old| old.hash() == rules.hash())
    {
        controller.roll_back(host, "taken back: the file holds the confirmed rules again").await?;
        return Ok(Changed { warnings: loaded.warnings, ..Changed::nothing(controller) });
    }
    if change.by == By::Watcher && state::in_force(&controller.instance)?.is_some_and(|old| old == rules) {
        // Somebody was quicker.
        controller.state.last_reload = LastReload::now(None);
        controller.save()?;
        return Ok(Changed::nothing(controller));
    }
    let terms = terms(change, &loaded.policy, trial);
    if change.by == By::Watcher && terms.is_none() {
        controller.check_sessions(&loaded.policy, &rules, host)?;
    }
    if change.by != By::Command && library::is_refused(&controller.instance, &rules)? {
        return Err(Failure::Refused(file.to_owned()).into());
    }
    controller.put(loaded, rules, terms, change, host).await
}

/// On what terms a change is tried out; none: it holds for good. One that replaces a candidate has no more time than
/// that, unless it asks for it.
fn terms(change: &Change, policy: &ValidPolicy, trial: Option<Trial>) -> Option<Terms> {
    let asked = change.confirm.or(policy.confirm().filter(|_| change.by == By::Watcher));
    let deadline = asked.map(|time| boot_now() + steps(time).max(1));
    let deadline = deadline.or(trial.map(|trial| trial.deadline))?;
    let door = policy.failsafe().map_or(SSH, |door| door.port);
    let ssh_port = change.confirm_on_ssh.then_some(door);
    let candidate = change.candidate.is_some();
    Some(Terms { deadline, candidate, ssh_port: ssh_port.or(trial.and_then(|trial| trial.ssh_port)) })
}

impl Changed {
    fn nothing(controller: &Controller) -> Self {
        let generation = controller.state.standing.generation(boot_now());
        Self {
            generation,
            warnings: Vec::new(),
            flows: Refused::default(),
            deadline: None,
            ends_session: None,
        }
    }
}

impl Controller {
    /// Keeps rules that hold from now on, for good.
    pub(super) fn keep(&self, rules: &Rules) -> Result<()> {
        let standing = &self.state.standing;
        library::keep(&self.instance, standing.generation(boot_now()), rules, standing.confirmed.generation)
    }

    async fn put(
        &mut self,
        loaded: Loaded,
        mut rules: Rules,
        terms: Option<Terms>,
        change: &Change,
        host: &Host,
    ) -> Result<Changed> {
        let session = Session::of_the_terminal(host).filter(|_| change.by == By::Command);
        let ended = self.endangered(&loaded.policy, host, session.as_slice())?;
        match terms {
            Some(terms) => self.try_out(&loaded, host, terms).await?,
            None => self.apply(&loaded.policy, host).await?,
        }
        if terms.is_none() {
            if change.candidate.is_some() {
                replace(&self.state.rules_file, loaded.text())?;
                if let Some((path, _)) = rules.texts.first_mut() {
                    self.state.rules_file.clone_into(path);
                }
            }
            self.keep(&rules)?;
        }
        Ok(Changed {
            warnings: control::warnings(loaded, &self.state.rules_file, &self.state),
            flows: self.state.last_reload.flows,
            deadline: terms.map(|terms| terms.deadline),
            ends_session: ended.first().copied(),
            ..Changed::nothing(self)
        })
    }

    /// A change that nobody has typed waits if it would end a session with the host, or shut its port. It waits also when the
    /// daemon begins anew.
    fn check_sessions(&mut self, policy: &ValidPolicy, rules: &Rules, host: &Host) -> Result<()> {
        let Some(what) = self.locked_out(policy, host)? else { return Ok(()) };
        library::refuse(&self.instance, &[rules.hash()])?;
        Err(Failure::LockOut(what).into())
    }

    /// What a policy would shut out; none: nothing.
    fn locked_out(&mut self, policy: &ValidPolicy, host: &Host) -> Result<Option<String>> {
        let in_force =
            self.maps.policy()?.map(|policy| policy.failsafe_port as u16).filter(|port| *port != 0);
        let ports: Vec<u16> =
            [policy.failsafe().map(|door| door.port), in_force].into_iter().flatten().collect();
        let ended = self.endangered(policy, host, &Session::open(host, &ports))?;
        if let Some(session) = ended.first() {
            return Ok(Some(session.to_string()));
        }
        if policy.admits_ssh() {
            return Ok(None);
        }
        let shuts = rules::load_applied(&self.instance, host)?.is_some_and(|old| old.policy.admits_ssh());
        Ok(shuts.then(|| "every way to the SSH server of this host".to_owned()))
    }

    /// Those of `sessions` that a policy does not admit, although the rules in force do.
    fn endangered(
        &mut self,
        policy: &ValidPolicy,
        host: &Host,
        sessions: &[Session],
    ) -> Result<Vec<Session>> {
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let image = self.compile(policy)?;
        let slot = |name: &str| self.state.slots.get(name).copied();
        let judge = Judge { policy, image: &image, slot: &slot };
        Ok(sessions.iter().filter(|session| !session.is_admitted_by(judge, host)).copied().collect())
    }
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

/// What waits for confirmation holds for good.
///
/// # Errors
/// Nothing waits.
pub async fn confirm(instance: &Instance) -> Result<Changed> {
    let host = Host::gather().await?;
    let mut controller = open(instance, &host).await?;
    controller.confirm(&host).await?;
    Ok(Changed { flows: controller.state.last_reload.flows, ..Changed::nothing(&controller) })
}

/// The last confirmed rules hold again.
///
/// # Errors
/// Everything is confirmed.
pub async fn roll_back(instance: &Instance) -> Result<Changed> {
    let host = Host::gather().await?;
    let mut controller = open(instance, &host).await?;
    let why = format!("generation {} was taken back", controller.state.standing.generation(boot_now()));
    controller.roll_back(&host, &why).await?;
    Ok(Changed { flows: controller.state.last_reload.flows, ..Changed::nothing(&controller) })
}

/// The rules of an earlier generation hold again, for good or until the deadline.
///
/// # Errors
/// The generation is not kept, or its rules are not valid on the host as it is now.
pub async fn go_back(instance: &Instance, generation: u32, confirm: Option<Duration>) -> Result<Changed> {
    let host = Host::gather().await?;
    let mut controller = open(instance, &host).await?;
    let rules = library::recall(instance, generation)?;
    let loaded = rules::judge(&rules, &host)?;
    if controller.trial().is_some() {
        controller.roll_back(&host, "taken back for an earlier generation").await?;
    }
    let change = Change { confirm, ..Change::of_rules_file(By::Command) };
    let terms = terms(&change, &loaded.policy, None);
    let left = rules::load_file(&controller.state.rules_file, &host, Some(&controller.state));
    let changed = controller.put(loaded, rules.clone(), terms, &change, &host).await?;
    // The file holds what was gone back from: only a person applies that again.
    let left = left.ok().map(|left| Rules::of(&left).hash()).filter(|hash| *hash != rules.hash());
    library::refuse(instance, left.as_slice())?;
    Ok(changed)
}

/// Tidies up after a trial whose time is over, and confirms one whose proof of life has come.
///
/// # Errors
/// What the kernel or the file system says.
pub async fn tend(instance: &Instance) -> Result<()> {
    let host = Host::gather().await?;
    let mut controller = open(instance, &host).await?;
    let Some(trial) = controller.trial() else { return Ok(()) };
    let Some(port) = trial.ssh_port else { return Ok(()) };
    let mut proven = controller.maps.door_proves(trial.held.generation)?;
    controller.maps.each_flow(
        |pair| [port, SSH].contains(&pair.key.destination_port),
        |pair| {
            proven |= is_proof(pair, &trial);
            Ok(())
        },
    )?;
    if proven {
        controller.confirm(&host).await?;
        tracing::info!(
            "a new SSH connection has confirmed the rules of generation {}",
            trial.held.generation
        );
    }
    Ok(())
}

/// Whether a flow to the SSH server's port is a connection that was opened and established since, though it may be over by now.
fn is_proof(pair: &Pair, trial: &Trial) -> bool {
    let flow = &pair.original;
    let to_us = flow.flags & LOCAL != 0 && flow.chain() == INPUT;
    let tcp = pair.key.protocol == u32::from(TCP);
    let age = |since: u32| now().since(Tick(since));
    let new = flow.generation == trial.held.generation && age(flow.created) <= age(trial.began);
    let asked = Seen(flow.seen).has(Seen::SYN) && Seen(flow.seen).has(Seen::ACK);
    let established = asked && pair.reply.is_some_and(|reply| Seen(reply.seen).has(Seen::SYN));
    to_us && tcp && new && established
}
