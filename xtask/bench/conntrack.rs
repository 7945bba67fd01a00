//! Room for the flows of netfilter's gateways: by default the kernel tracks a quarter of a million.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

/// Buckets first: it is them that make a full table slow.
const LIMITS: [&str; 2] = ["nf_conntrack_buckets", "nf_conntrack_max"];

/// What the limits were; put back in the end.
pub(crate) struct Room(Vec<(PathBuf, String)>);

impl Room {
    /// Makes room for twice as many flows, where it is too little.
    pub(crate) fn make(flows: u32) -> Result<Self> {
        let mut room = Self(Vec::new());
        let wanted = flows.saturating_mul(2).next_power_of_two();
        for limit in LIMITS {
            let file = PathBuf::from("/proc/sys/net/netfilter").join(limit);
            // A kernel without connection tracking has no peers that need it.
            let Ok(now) = fs::read_to_string(&file) else { continue };
            if now.trim().parse::<u32>()? < wanted {
                fs::write(&file, wanted.to_string()).with_context(|| format!("raising {limit}"))?;
                room.0.push((file, now));
            }
        }
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for (file, value) in &self.0 {
            if let Err(error) = fs::write(file, value) {
                eprintln!("bench: {} is not what it was, {}: {error}", file.display(), value.trim());
            }
        }
    }
}
