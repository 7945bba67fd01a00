//! Rules that wait for confirmation.
//!
//! What has an effect is one store of the datapath's word each time; what is written before and after it only describes
//! it. So whoever is killed anywhere leaves either the old rules or rules that go by themselves, and
//! [`Controller::settle`] tidies up when somebody comes by.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use netfw_common::image::Active;

use super::{
    controller::Controller,
    host::Host,
    library, rules,
    standing::{Held, Trial},
    state::{self, LastReload, Managed, Rules},
    sweep,
};
use crate::{
    config::Loaded,
    kernel::{boot_now, now},
    policy::{Role, ValidPolicy},
};

/// On what terms rules are tried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When they go, unless they are confirmed.
    pub(super) deadline: u64,
    /// Whether they become the rules file when they are.
    pub(super) candidate: bool,
    /// The port to which a new SSH connection confirms them.
    pub(super) ssh_port: Option<u16>,
}

impl Controller {
    /// What waits for confirmation.
    pub(super) fn trial(&self) -> Option<Trial> {
        self.state.standing.pending(boot_now()).copied()
    }

    /// Puts rules in force until the deadline. More interfaces are attached before, fewer are detached only after they
    /// are confirmed.
    ///
    /// # Errors
    /// As those of [`Controller::apply`]; a change that the datapath could not take back by itself.
    pub(super) async fn try_out(&mut self, loaded: &Loaded, host: &Host, terms: Terms) -> Result<()> {
        let policy = &loaded.policy;
        self.check_roles(policy)?;
        let image = self.compile(policy)?;
        let managed = self.attach_more(policy, host).await?;
        let fallback = self.state.standing.confirmed;
        self.refuse_unconfirmed(&Rules::of(loaded), fallback)?;
        let held = self.write(&image)?;
        self.state.standing.trial = Some(Trial {
            held,
            fallback,
            deadline: terms.deadline,
            candidate: terms.candidate,
            ssh_port: terms.ssh_port,
            began: now().0,
        });
        self.state.interfaces = managed.clone();
        self.state.last_reload = LastReload::now(None);
        self.save()?;
        self.publish(&managed, host)?;
        self.maps.hold(Active::until(terms.deadline, held.slot, fallback.slot))?;
        self.state.last_reload.flows = sweep::count_refused(&self.maps, &image, held.generation)?;
        self.save()
    }

    /// Rules that may never be confirmed are not applied by themselves: not after a reboot either, which must find the
    /// old ones.
    fn refuse_unconfirmed(&self, rules: &Rules, fallback: Held) -> Result<()> {
        let mut unconfirmed = vec![rules.hash()];
        if self.state.standing.fresh.is_some() {
            let old = library::recall(&self.instance, fallback.generation)?;
            unconfirmed.extend(state::last_valid(&self.instance)?.map(|fresh| fresh.hash()));
            state::keep_valid(&self.instance, &old)?;
        }
        let old = state::last_valid(&self.instance)?.map(|old| old.hash());
        unconfirmed.retain(|hash| Some(hash) != old.as_ref());
        library::refuse(&self.instance, &unconfirmed)?;
        state::keep_candidate(&self.instance, rules)
    }

    /// Roles are no part of an image: the datapath could not take a change of them back.
    fn check_roles(&self, policy: &ValidPolicy) -> Result<()> {
        let changed = policy.interfaces().iter().find(|interface| {
            let known = self.state.interfaces.get(&interface.name);
            known.is_some_and(|known| known.role() != interface.role)
        });
        let Some(interface) = changed else { return Ok(()) };
        let role = if interface.role == Role::External { "external" } else { "internal" };
        bail!(
            "{} becomes {role}, which cannot be taken back by itself\nhelp: apply this change with `netfw reload`, \
             without --confirm",
            interface.name
        )
    }

    /// Attaches the interfaces that are not managed yet; the others stay as they are.
    pub(super) async fn attach_more(
        &mut self,
        policy: &ValidPolicy,
        host: &Host,
    ) -> Result<BTreeMap<String, Managed>> {
        let mut planned = self.plan(policy, host)?;
        planned
            .retain(|name, new| self.state.interfaces.get(name).is_none_or(|known| known.index != new.index));
        let mut managed = self.attach(planned, policy, host, false).await?;
        for (name, known) in &self.state.interfaces {
            managed.entry(name.clone()).or_insert_with(|| known.clone());
        }
        Ok(managed)
    }

    /// What is on trial holds for good.
    ///
    /// # Errors
    /// Nothing is.
    pub(super) async fn confirm(&mut self, host: &Host) -> Result<()> {
        let Some(trial) = self.trial() else {
            let Some(fresh) = self.state.standing.fresh else { return Err(self.nothing_pending()) };
            self.state.standing.confirm(fresh.held);
            self.state.last_reload = LastReload::now(None);
            return self.save();
        };
        self.maps.hold(Active::confirmed(trial.held.slot))?;
        self.finish_confirmation(trial, host).await
    }

    fn nothing_pending(&self) -> anyhow::Error {
        let last = self.state.last_reload.error.as_ref().map(|error| format!("; the last change: {error}"));
        anyhow::anyhow!("no change waits for confirmation{}", last.unwrap_or_default())
    }

    async fn finish_confirmation(&mut self, trial: Trial, host: &Host) -> Result<()> {
        let mut rules = state::candidate(&self.instance)?.context("the rules on trial are not known")?;
        library::pardon(&self.instance, &rules.hash())?;
        let mut written = Ok(());
        if trial.candidate
            && let Some((path, text)) = rules.texts.first_mut()
        {
            self.state.rules_file.clone_into(path);
            written = replace(&self.state.rules_file, text);
        }
        library::keep(&self.instance, trial.held.generation, &rules, trial.held.generation)?;
        self.state.standing.confirm(trial.held);
        self.state.last_reload = LastReload::now(None);
        self.save()?;
        self.tidy(host).await;
        written
    }

    /// The last confirmed rules hold again.
    ///
    /// # Errors
    /// Everything is confirmed.
    pub(super) async fn roll_back(&mut self, host: &Host, why: &str) -> Result<()> {
        if let Some(trial) = self.state.standing.trial {
            self.maps.hold(Active::confirmed(trial.fallback.slot))?;
            return self.finish_rollback(trial.fallback, host, why).await;
        }
        if self.state.standing.fresh.is_none() {
            bail!(
                "{}\nhelp: `netfw generations` lists what `netfw rollback --to N` can go back to",
                self.nothing_pending()
            );
        }
        let confirmed = self.state.standing.confirmed;
        let old = library::recall(&self.instance, confirmed.generation)?;
        let refused = state::last_valid(&self.instance)?.map(|fresh| fresh.hash());
        let refused = refused.filter(|hash| *hash != old.hash());
        library::refuse(&self.instance, refused.as_slice())?;
        self.maps.hold(Active::confirmed(confirmed.slot))?;
        state::keep_valid(&self.instance, &old)?;
        self.finish_rollback(confirmed, host, why).await
    }

    async fn finish_rollback(&mut self, held: Held, host: &Host, why: &str) -> Result<()> {
        self.state.standing.confirm(held);
        self.state.last_reload = LastReload::now(Some(why.to_owned()));
        self.save()?;
        self.tidy(host).await;
        Ok(())
    }

    /// Interfaces and flows follow the rules that hold for good. Packets do already.
    async fn tidy(&mut self, host: &Host) {
        let tidied = async {
            let loaded =
                rules::load_valid(&self.instance, host)?.context("the rules in force are not known")?;
            self.follow(&loaded.policy, host).await?;
            let image = self.compile(&loaded.policy)?;
            let generation = self.state.standing.generation(boot_now());
            self.state.last_reload.flows = sweep::cut_refused(&self.maps, &image, generation)?;
            self.save()
        };
        if let Err(error) = tidied.await {
            tracing::warn!("not everything has followed the rules in force: {error:#}");
        }
    }

    /// Finishes what somebody else began, and what time has decided.
    ///
    /// # Errors
    /// What the kernel or the file system says.
    pub(super) async fn settle(&mut self, host: &Host) -> Result<()> {
        let (active, time) = (self.maps.active()?, boot_now());
        let (slot, fallback) = active.slots(|| time);
        let Some(trial) = self.state.standing.trial else {
            if active.deadline().is_some() {
                self.maps.hold(Active::confirmed(fallback.unwrap_or(slot)))?;
            }
            self.recognise(fallback.unwrap_or(slot))?;
            self.state.standing.age(time);
            return Ok(());
        };
        match active.deadline() {
            None if slot == trial.held.slot => self.finish_confirmation(trial, host).await,
            Some(_) if fallback.is_some() && slot == trial.held.slot => Ok(()),
            Some(_) if fallback.is_none() => self.roll_back(host, &trial.expiry()).await,
            _ => self.roll_back(host, "the change was interrupted: the last confirmed rules hold").await,
        }
    }

    /// Somebody was killed between the word and its description: what holds, holds.
    fn recognise(&mut self, slot: u32) -> Result<()> {
        let standing = &mut self.state.standing;
        if standing.fresh.is_some_and(|fresh| fresh.held.slot != slot) {
            standing.fresh = None;
        }
        if standing.fresh.is_none() && standing.confirmed.slot != slot {
            let generation = self.maps.policy()?.map_or(0, |policy| policy.generation);
            standing.confirm(Held { slot, generation });
        }
        Ok(())
    }
}

/// Replaces a rules file in one step, as editors do.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("the rules hold now, but cannot be written to {}", path.display()))
}
