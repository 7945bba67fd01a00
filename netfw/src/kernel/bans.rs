//! Bans: blocked prefixes with a lifetime, which belong to no version of the rules.

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use netfw_common::block::{self, Bans};
use nix::{
    sys::time::TimeValLike as _,
    time::{ClockId, clock_gettime},
};

use super::{maps::Maps, table::ANY};
use crate::image::{block_keys, blocked_prefix};

/// Seconds since the machine was started, sleep included: the clock by which bans end.
///
/// # Errors
/// The kernel has no such clock.
pub fn boot_seconds() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).context("there is no boot clock")?;
    Ok(now.num_seconds().unsigned_abs())
}

impl Maps {
    /// Bans prefixes, each until a second of `CLOCK_BOOTTIME` (0: for good); then flows are asked again.
    ///
    /// # Errors
    /// The table is full; what the kernel says.
    pub fn ban(&self, bans: &[(IpNet, u64)]) -> Result<()> {
        let mut head = self.ban_head()?;
        let entries: Vec<_> = bans
            .iter()
            .flat_map(|(prefix, until)| block_keys(prefix).map(move |key| (key, *until)))
            .collect();
        for (key, _) in &entries {
            let (_, length, v6) = block::prefix(key);
            head.lengths.insert(v6, length);
        }
        // A length that no ban has yet does no harm; a ban whose length is missing is not seen.
        self.ban_head.set(&0, head, ANY)?;
        for (key, until) in &entries {
            self.bans.set(key, *until, ANY).with_context(|| {
                format!(
                    "cannot enter a ban: the table holds {} of {}",
                    self.bans.capacity(),
                    self.bans.capacity()
                )
            })?;
        }
        self.ask_flows_again(head)
    }

    /// Lifts the bans of prefixes; says which of them were banned.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unban(&self, prefixes: &[IpNet]) -> Result<Vec<IpNet>> {
        let mut lifted = Vec::new();
        for prefix in prefixes {
            let mut was_there = false;
            for key in block_keys(prefix) {
                was_there |= self.bans.remove(&key)?;
            }
            if was_there {
                lifted.push(*prefix);
            }
        }
        Ok(lifted)
    }

    /// All bans that still hold, with the second of `CLOCK_BOOTTIME` at which they end (0: never); forgets the others.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bans(&self) -> Result<Vec<(IpNet, u64)>> {
        let now = boot_seconds()?;
        let mut bans = Vec::new();
        for (key, until) in self.bans.entries()? {
            if until != 0 && until <= now {
                self.bans.remove(&key)?;
            } else if let Some(prefix) = blocked_prefix(&key) {
                bans.push((prefix, until));
            }
        }
        bans.sort_unstable();
        Ok(bans)
    }

    fn ban_head(&self) -> Result<Bans> {
        Ok(self.ban_head.get(&0)?.unwrap_or_default())
    }

    fn ask_flows_again(&self, head: Bans) -> Result<()> {
        Ok(self.ban_head.set(&0, Bans { version: head.version.wrapping_add(1), ..head }, ANY)?)
    }
}
