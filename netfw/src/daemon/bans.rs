//! Bans beyond the maps: kept in a journal, so that they outlive a reboot, and put back by the first `up`.
//!
//! Each change is a line, so that its cost does not grow with the number of bans. The last line about a prefix holds; a ban that
//! was lifted is one that ended long ago. Whenever the journal has doubled, it is written anew.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{failure::Failure, host::Host, instance::Instance, lock::Lock, sessions::Session, sweep};
use crate::{
    image::{block_keys, blocked_prefix},
    kernel::{Maps, boot_seconds, remove_if_there},
};

/// A banned prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Whom.
    pub prefix: IpNet,
    /// Until when; none: for good.
    pub until: Option<SystemTime>,
}

/// Bans prefixes, for a time or for good; says how many live flows end with it.
///
/// # Errors
/// The instance is not up; the table is full; the session in which the command was typed would end.
pub async fn ban(instance: &Instance, prefixes: &[IpNet], time: Option<Duration>) -> Result<usize> {
    spare_the_terminal(prefixes).await?;
    let (_lock, maps) = open(instance)?;
    let until = time.map_or(Ok(0), |time| boot_seconds().map(|now| now + time.as_secs().max(1)))?;
    let bans: Vec<(IpNet, u64)> = prefixes.iter().map(|prefix| (prefix.trunc(), until)).collect();
    maps.ban(&bans)?;
    let until = time.and_then(|time| SystemTime::now().checked_add(time));
    let lines = bans.iter().map(|&(prefix, _)| Ban { prefix, until });
    let noted = note(instance, &maps, lines);
    // What cannot be kept for the next start holds now nevertheless.
    let cut = sweep::cut_banned(&maps, prefixes)?;
    noted.map(|()| cut)
}

/// Refuses to ban whoever types. What the host has takes a while to gather, for which nobody else waits.
async fn spare_the_terminal(prefixes: &[IpNet]) -> Result<()> {
    let Some(claimed) = Session::claimed() else { return Ok(()) };
    let Some(prefix) = prefixes.iter().find(|prefix| prefix.contains(&claimed.client.ip())) else {
        return Ok(());
    };
    match Session::of_the_terminal(&Host::gather().await?) {
        None => Ok(()),
        Some(session) => bail!(
            "{prefix} holds the other end of {session}, in which you type\nhelp: ban others, or type it elsewhere"
        ),
    }
}

/// Lifts bans.
///
/// # Errors
/// The instance is not up; one of them is not banned: the others are lifted nevertheless.
pub fn unban(instance: &Instance, prefixes: &[IpNet]) -> Result<()> {
    let (_lock, maps) = open(instance)?;
    let wanted: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
    let lifted = maps.unban(&wanted)?;
    let lines = lifted.iter().map(|&prefix| Ban { prefix, until: Some(SystemTime::UNIX_EPOCH) });
    note(instance, &maps, lines)?;
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
/// The journal cannot be read; the table is full.
pub(super) fn restore(instance: &Instance, maps: &Maps) -> Result<()> {
    let (now, boot) = (SystemTime::now(), boot_seconds()?);
    let still = read(&journal(instance))?.into_iter().filter_map(|(prefix, until)| match until {
        None => Some((prefix, 0)),
        Some(until) => Some((prefix, boot + until.duration_since(now).ok()?.as_secs().max(1))),
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

/// A shorter journal is not written anew.
const SHORT: u64 = 1 << 20;

/// Adds lines to the journal.
fn note(instance: &Instance, maps: &Maps, lines: impl Iterator<Item = Ban>) -> Result<()> {
    let path = journal(instance);
    let [before, after] = append(&path, lines).with_context(|| cannot_write(&path))?;
    if after.max(SHORT).ilog2() > before.max(SHORT).ilog2() {
        let draft = path.with_extension("new");
        remove_if_there(&draft)?;
        append(&draft, list(maps)?.into_iter())
            .and_then(|_| fs::rename(&draft, &path))
            .with_context(|| cannot_write(&path))?;
    }
    Ok(())
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}: what has changed holds only until the machine is started again", path.display())
}

/// The file's length before and after.
fn append(path: &Path, lines: impl Iterator<Item = Ban>) -> io::Result<[u64; 2]> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    let mut text = Vec::new();
    for line in lines.flat_map(as_listed) {
        // In front, so that nothing is added to what a power failure has left of a line.
        text.push(b'\n');
        serde_json::to_writer(&mut text, &line)?;
    }
    file.write_all(&text)?;
    file.sync_data()?;
    Ok([before, before + text.len() as u64])
}

/// A ban as the kernel's table lists it, which knows everything only as its halves.
fn as_listed(ban: Ban) -> impl Iterator<Item = Ban> {
    let prefixes = block_keys(&ban.prefix).filter_map(|key| blocked_prefix(&key));
    prefixes.map(move |prefix| Ban { prefix, ..ban })
}

/// Until when each prefix is banned, also those that are no more. A line that a power failure has damaged is left out.
fn read(path: &Path) -> Result<BTreeMap<IpNet, Option<SystemTime>>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let bans = lines.filter_map(|line| match serde_json::from_slice::<Ban>(line) {
        Ok(ban) => Some((ban.prefix, ban.until)),
        Err(error) => {
            tracing::error!("a ban in {} is left out: {error}", path.display());
            None
        }
    });
    Ok(bans.collect())
}

fn journal(instance: &Instance) -> PathBuf {
    instance.library().join("bans")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(prefix: &str, until: Option<SystemTime>) -> Ban {
        Ban { prefix: prefix.parse().expect("a prefix"), until }
    }

    #[test]
    fn the_last_line_about_a_prefix_holds() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("below").join("bans");
        assert!(read(&path)?.is_empty());
        let [for_good, lifted] = [None, Some(SystemTime::UNIX_EPOCH)];
        append(&path, [ban("192.0.2.0/24", for_good), ban("2001:db8::/32", for_good)].into_iter())?;
        append(&path, [ban("192.0.2.0/24", lifted)].into_iter())?;
        let bans: Vec<_> = read(&path)?.into_values().collect();
        assert_eq!(bans, [lifted, for_good]);
        Ok(())
    }

    #[test]
    fn half_a_line_harms_no_other() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("bans");
        let [_, length] =
            append(&path, [ban("192.0.2.0/24", None), ban("203.0.113.0/24", None)].into_iter())?;
        OpenOptions::new().write(true).open(&path)?.set_len(length - 9)?;
        append(&path, [ban("2001:db8::/32", None)].into_iter())?;
        let bans: Vec<_> = read(&path)?.into_keys().map(|prefix| prefix.to_string()).collect();
        assert_eq!(bans, ["192.0.2.0/24", "2001:db8::/32"]);
        Ok(())
    }
}
