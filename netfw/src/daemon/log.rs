//! The log of flows that rules with `log` decide about.

use std::collections::BTreeMap;

use anyhow::Result;
use netfw_common::event::LOGS;

use super::{instance::Instance, names::Names};
use crate::{
    kernel::{LeftOut, Listener, Ring, nanos},
    report::events::Told,
};

/// Reads what the datapath tells the log.
pub(super) struct Log {
    ring: Listener,
    names: Names,
    left_out: LeftOut,
    /// How many events of each rule had been left out when that was last told; of rules with events alone.
    known: BTreeMap<u32, u64>,
}

impl Log {
    /// Of an instance that is up.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn open(instance: &Instance) -> Result<Self> {
        let pins = instance.pins();
        let (names, left_out) = (Names::of(instance)?, LeftOut::open(&pins)?);
        let known = (0..names.rules()).map(|rule| Ok((rule, left_out.of(LOGS + rule)?)));
        let known = known.collect::<Result<_>>()?;
        Ok(Self { ring: Ring::logged(&pins)?.listen()?, names, left_out, known })
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
            let told = Told::new(&event, self.names.state(&event), nanos());
            tracing::info!("log: {told}");
            self.known.entry(event.rule.saturating_sub(1)).or_default();
        }
    }

    /// Says how much was left out since the last time.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn write_left_out(&mut self) -> Result<()> {
        for (&rule, known) in &mut self.known {
            let now = self.left_out.of(LOGS + rule)?;
            if now > *known {
                let name = self.names.rule(rule);
                tracing::info!(
                    "log: {} more flows of rule \"{name}\", left out because they came too fast",
                    now - *known
                );
            }
            *known = now;
        }
        Ok(())
    }
}
