//! `ban`, `unban`, `bans`.

use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;

use super::output;
use crate::{
    daemon::{Instance, bans},
    report::{
        bans::Bans,
        change::{Banned, Unbanned},
    },
};

/// Bans whom was typed.
pub(super) async fn ban(
    instance: &Instance,
    json: bool,
    prefixes: &[IpNet],
    time: Option<Duration>,
) -> Result<()> {
    let cut = bans::ban(instance, prefixes, time).await?;
    output::print(json, &Banned::new(prefixes, time, cut), Banned::render)
}

/// Lifts bans.
pub(super) fn unban(instance: &Instance, json: bool, prefixes: &[IpNet]) -> Result<()> {
    bans::unban(instance, prefixes)?;
    output::print(json, &Unbanned::new(prefixes), Unbanned::render)
}

/// Lists whom a ban holds for.
pub(super) fn list(instance: &Instance, json: bool) -> Result<()> {
    output::print(json, &Bans::new(&bans::bans(instance)?), Bans::render)
}
