//! Switches of the kernel that the datapath needs on the interfaces it manages, and only there.

use std::{fs, io, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// A switch that netfw has turned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    /// Below `/proc/sys`.
    pub path: String,
    /// What it was before.
    pub before: String,
    /// What it is now.
    pub after: String,
}

/// Lets an interface forward; says what had to be changed, in order.
///
/// # Errors
/// A switch cannot be read or written; those turned before it are turned back.
pub fn enable_forwarding(interface: &str) -> Result<Vec<Turned>> {
    let mut turned = Vec::new();
    let outcome = turn_all(interface, &mut turned);
    if outcome.is_err() {
        restore(&turned);
    }
    outcome.map(|()| turned)
}

fn turn_all(interface: &str, turned: &mut Vec<Turned>) -> Result<()> {
    turn(format!("net/ipv4/conf/{interface}/forwarding"), |_| Some("1"), turned)?;
    // A router stops listening to other routers, unless it is told not to.
    turn(format!("net/ipv6/conf/{interface}/accept_ra"), |old| (old == "1").then_some("2"), turned)?;
    turn(format!("net/ipv6/conf/{interface}/forwarding"), |_| Some("1"), turned)
}

fn turn(path: String, wanted: impl Fn(&str) -> Option<&'static str>, turned: &mut Vec<Turned>) -> Result<()> {
    let before = match read(&path) {
        // No IPv6 there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        before => before.with_context(|| format!("cannot read the sysctl {path}"))?,
    };
    let Some(after) = wanted(&before).filter(|after| *after != before) else { return Ok(()) };
    write(&path, after).with_context(|| format!("cannot set the sysctl {path} to {after}"))?;
    turned.push(Turned { path, before, after: after.to_owned() });
    Ok(())
}

/// The same switches of an interface that was called otherwise when they were turned.
pub fn renamed(turned: &[Turned], old: &str, new: &str) -> Vec<Turned> {
    let path = |path: &str| path.replace(&format!("/{old}/"), &format!("/{new}/"));
    turned.iter().map(|turned| Turned { path: path(&turned.path), ..turned.clone() }).collect()
}

/// Puts the old values back, last first, where nobody has changed them since.
pub fn restore(turned: &[Turned]) {
    for Turned { path, before, after } in turned.iter().rev() {
        // The interface may be gone.
        if read(path).is_ok_and(|now| now == *after)
            && let Err(error) = write(path, before)
        {
            tracing::warn!("cannot set the sysctl {path} back to {before}: {error}");
        }
    }
}

fn read(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(full(path))?.trim().to_owned())
}

/// Sets a switch below `/proc/sys`.
///
/// # Errors
/// There is no such switch, or it cannot have this value.
pub fn write(path: &str, value: &str) -> io::Result<()> {
    fs::write(full(path), value)
}

fn full(path: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(path)
}
