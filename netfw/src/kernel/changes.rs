//! What the datapath is told of changes to routes, links and neighbours.

use anyhow::Result;
use netfw_common::{
    changes::{Changes, LASTING, is_within},
    tick::Tick,
};

use super::{flows::now, maps::Maps, table::ANY};

/// How long silence is taken for listening. Whoever is killed leaves the datapath with ways that are so old at most, or a second.
const HEARD: u32 = Tick::ticks(2);

impl Maps {
    /// What it was told last.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn changes(&self) -> Result<Changes> {
        Ok(self.changes.get(&0)?.unwrap_or_default())
    }

    /// Makes the datapath look up again what it found until now, each way when it is a second old.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn note_change(&self) -> Result<()> {
        self.set_changes(|changes| changes.last = now().0)
    }

    /// Lets ways last for some time more: whatever changes will be noted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keep_listening(&self) -> Result<()> {
        let now = now();
        self.set_changes(|changes| {
            if !is_within(LASTING, changes.last, now) {
                changes.last = now.0.wrapping_sub(LASTING);
            }
        })?;
        self.set_changes(|changes| changes.heard_until = now.0.wrapping_add(HEARD))
    }

    fn set_changes(&self, change: impl FnOnce(&mut Changes)) -> Result<()> {
        let mut changes = self.changes()?;
        change(&mut changes);
        Ok(self.changes.set(&0, changes, ANY)?)
    }
}
