//! What the fail-safe door has seen.

use anyhow::Result;

use super::maps::Maps;

impl Maps {
    /// Whether somebody has come in through the door while the rules of this generation were on trial.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn door_proves(&self, generation: u32) -> Result<bool> {
        Ok(self.handshake.get(&0)?.is_some_and(|handshake| handshake.completed == generation))
    }
}
