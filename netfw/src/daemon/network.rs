//! Follows changes of links and addresses.

use anyhow::{Context as _, Result};

use super::{controller::Controller, host::Host, instance::Instance, interfaces, rules, state::State};
use crate::config::Loaded;

/// The network as it was followed last.
#[derive(Default)]
pub(super) struct Network {
    seen: Option<Host>,
    failure: Option<String>,
}

impl Network {
    /// Whether the last change could not be followed, or nobody has looked yet.
    pub(super) fn is_behind(&self) -> bool {
        self.failure.is_some() || self.seen.is_none()
    }

    /// Puts netfw on interfaces that have just come; [`Self::follow`] does the rest when things have settled.
    pub(super) async fn meet(&self, instance: &Instance) {
        let met = async {
            let now = Host::gather().await?;
            if interfaces::any_lost(&State::load(instance)?, &now) {
                let (mut controller, loaded) = open(instance, &now).await?;
                controller.meet(&loaded.policy, &now).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = met.await {
            tracing::debug!("an interface is not there yet, or no more: {error:#}");
        }
    }

    /// Makes the datapath fit the network as it is now. A failure is told once, however often it is tried again.
    pub(super) async fn follow(&mut self, instance: &Instance) {
        let failure = self.attempt(instance).await.err().map(|error| format!("{error:#}"));
        if let Some(failure) = failure.as_ref().filter(|failure| self.failure.as_ref() != Some(failure)) {
            for line in failure.lines() {
                tracing::error!("cannot follow a change of the network: {line}");
            }
        }
        self.failure = failure;
    }

    async fn attempt(&mut self, instance: &Instance) -> Result<()> {
        let now = Host::gather().await?;
        // One that was deleted and made anew may look as before.
        let lost = || {
            self.failure.is_some()
                || State::load(instance).is_ok_and(|state| interfaces::any_lost(&state, &now))
        };
        if self.seen.as_ref().is_some_and(|seen| seen.is_linked_like(&now)) && !lost() {
            return Ok(());
        }
        let (mut controller, loaded) = open(instance, &now).await?;
        let followed = controller.follow(&loaded.policy, &now).await;
        self.seen = Some(now);
        followed
    }
}

/// An instance in order, and the rules in force; one interface that cannot be managed is no reason to leave others alone.
async fn open(instance: &Instance, host: &Host) -> Result<(Controller, Loaded)> {
    let mut controller = Controller::open(instance)?;
    controller.settle(host).await?;
    controller.forgiving = true;
    let loaded = rules::load_applied(instance, host)?.context("the rules in force are not known")?;
    Ok((controller, loaded))
}
