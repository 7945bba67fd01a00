//! Follows changes of links and addresses.

use anyhow::Result;

use super::{controller::Controller, host::Host, instance::Instance, interfaces, rules, state::State};

/// The network as it was followed last.
#[derive(Default)]
pub(super) struct Network {
    seen: Option<Host>,
    failure: Option<String>,
}

impl Network {
    /// Whether the last change could not be followed.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
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
        let lost = || State::load(instance).is_ok_and(|state| interfaces::any_lost(&state, &now));
        if self.seen.as_ref() == Some(&now) && !lost() {
            return Ok(());
        }
        let mut controller = Controller::open(instance)?;
        controller.settle(&now).await?;
        if let Some(loaded) = rules::load_applied(instance, &now)? {
            controller.follow(&loaded.policy, &now).await?;
        }
        self.seen = Some(now);
        Ok(())
    }
}
