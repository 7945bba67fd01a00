//! `netfw bans`.

use std::time::SystemTime;

use ipnet::IpNet;
use serde::Serialize;

use super::table::table;
use crate::daemon::bans::Ban;

/// The document.
#[derive(Debug, Serialize)]
pub struct Bans {
    bans: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    address: String,
    /// None: for good.
    expires_seconds: Option<u64>,
}

impl Bans {
    /// Of the bans that hold.
    pub fn new(bans: &[Ban]) -> Self {
        let now = SystemTime::now();
        let row = |ban: &Ban| Row {
            address: word(ban.prefix),
            expires_seconds: ban.until.map(|until| until.duration_since(now).unwrap_or_default().as_secs()),
        };
        Self { bans: bans.iter().map(row).collect() }
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        if self.bans.is_empty() {
            return "nobody is banned\n".into();
        }
        let left = |seconds: Option<u64>| seconds.map_or("for good".into(), |seconds| format!("{seconds}s"));
        let rows = self.bans.iter().map(|row| vec![row.address.clone(), left(row.expires_seconds)]);
        table(&["BANNED", "LEFT"], rows.collect())
    }
}

/// A host without its prefix length.
pub(super) fn word(prefix: IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}
