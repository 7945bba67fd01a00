//! The log of flows that rules with `log` decide about.

use anyhow::Result;
use netfw_common::event::LOGS;

use super::{instance::Instance, names::Names};
use crate::{
    kernel::{LeftOut, Listener, Ring},
    report::events::Told,
};

/// Reads what the datapath tells the log.
pub(super) struct Log {
    ring: Listener,
    names: Names,
    left_out: LeftOut,
}

impl Log {
    /// Of an instance that is up.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn open(instance: &Instance) -> Result<Self> {
        let pins = instance.pins();
        let names = Names::of(instance)?;
        let left_out = LeftOut::open(&pins, (0..names.rules()).map(|rule| LOGS + rule))?;
        Ok(Self { ring: Ring::logged(&pins)?.listen()?, names, left_out })
    }

    /// Waits until there are events.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn ready(&mut self) -> Result<()> {
        self.ring.ready().await
    }

    /// Writes what has happened into the log.
    pub(super) fn write(&mut self) {
        for event in &mut self.ring {
            let told = Told::new(&event, self.names.state(&event));
            tracing::info!("log: {told}");
            self.left_out.include(LOGS + event.rule.saturating_sub(1));
        }
    }

    /// Says how much was left out since the last time.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn write_left_out(&mut self) -> Result<()> {
        for (channel, more) in self.left_out.news()? {
            let name = self.names.rule(channel - LOGS);
            tracing::info!("log: {more} more flows of rule \"{name}\", left out because they came too fast");
        }
        Ok(())
    }
}
