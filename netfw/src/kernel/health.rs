//! Which targets take new flows, as the datapath knows it.

use anyhow::Result;
use netfw_common::health::UNKNOWN;

use super::{maps::Maps, table::ANY};

impl Maps {
    /// State of the target whose word has this number ([`netfw_common::health`]).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn health(&self, number: u16) -> Result<u32> {
        Ok(self.health.get(&number.into())?.unwrap_or(UNKNOWN))
    }

    /// Changes it: one store. Packets on their way may still know the old state ([`super::wait_for_readers`]).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_health(&self, number: u16, state: u32) -> Result<()> {
        Ok(self.health.set(&number.into(), state, ANY)?)
    }
}
