//! Bans beyond the maps: kept in a file, so that they outlive a reboot, and put back by the first `up`.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    failure::Failure,
    host::Host,
    instance::Instance,
    lock::Lock,
    sessions::Session,
    state::{read, write},
};
use crate::kernel::{Maps, boot_seconds};

/// A banned prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Whom.
    pub prefix: IpNet,
    /// Until when; none: for good.
    pub until: Option<SystemTime>,
}

/// Bans prefixes, for a time or for good.
///
/// # Errors
/// The instance is not up; the table is full; the session in which the command was typed would end.
pub fn ban(instance: &Instance, prefixes: &[IpNet], time: Option<Duration>, host: &Host) -> Result<()> {
    if let Some(session) = Session::of_the_terminal(host)
        && let Some(prefix) = prefixes.iter().find(|prefix| prefix.contains(&session.client.ip()))
    {
        bail!(
            "{prefix} holds the other end of {session}, in which you type\nhelp: ban others, or type it elsewhere"
        );
    }
    let (_lock, maps) = open(instance)?;
    let until = time.map_or(Ok(0), |time| boot_seconds().map(|now| now + time.as_secs().max(1)))?;
    let bans: Vec<(IpNet, u64)> = prefixes.iter().map(|prefix| (prefix.trunc(), until)).collect();
    maps.ban(&bans)?;
    keep(instance, &maps)
}

/// Lifts bans.
///
/// # Errors
/// The instance is not up; one of them is not banned: the others are lifted nevertheless.
pub fn unban(instance: &Instance, prefixes: &[IpNet]) -> Result<()> {
    let (_lock, maps) = open(instance)?;
    let wanted: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
    let lifted = maps.unban(&wanted)?;
    keep(instance, &maps)?;
    match wanted.iter().find(|prefix| !lifted.contains(prefix)) {
        Some(prefix) => bail!("{prefix} is not banned\nhelp: `netfw bans` lists who is"),
        None => Ok(()),
    }
}

/// All bans that hold.
///
/// # Errors
/// The instance is not up.
pub fn bans(instance: &Instance) -> Result<Vec<Ban>> {
    let (_lock, maps) = open(instance)?;
    list(&maps)
}

/// Puts back what was banned before a reboot.
///
/// # Errors
/// The file is broken; the table is full.
pub(super) fn restore(instance: &Instance, maps: &Maps) -> Result<()> {
    let (now, boot) = (SystemTime::now(), boot_seconds()?);
    let kept: Vec<Ban> = read(&file(instance))?.unwrap_or_default();
    let still = kept.into_iter().filter_map(|ban| match ban.until {
        None => Some((ban.prefix, 0)),
        Some(until) => Some((ban.prefix, boot + until.duration_since(now).ok()?.as_secs().max(1))),
    });
    let still: Vec<(IpNet, u64)> = still.collect();
    if still.is_empty() { Ok(()) } else { maps.ban(&still) }
}

fn open(instance: &Instance) -> Result<(Lock, Maps)> {
    let pins = instance.pins();
    if !pins.exist() {
        return Err(Failure::NotUp(instance.clone()).into());
    }
    Ok((Lock::acquire(instance)?, Maps::open(&pins)?))
}

fn list(maps: &Maps) -> Result<Vec<Ban>> {
    let (now, boot) = (SystemTime::now(), boot_seconds()?);
    let left = |until: u64| Duration::from_secs(until.saturating_sub(boot));
    let bans = maps.bans()?.into_iter();
    Ok(bans.map(|(prefix, until)| Ban { prefix, until: (until != 0).then(|| now + left(until)) }).collect())
}

fn keep(instance: &Instance, maps: &Maps) -> Result<()> {
    write(&file(instance), &list(maps)?)
}

fn file(instance: &Instance) -> PathBuf {
    instance.library().join("bans")
}
