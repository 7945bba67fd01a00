//! `netfw up -d`: the daemon is a second process, started before there are any threads; this one waits for
//! its word.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::unistd::{dup2_stderr, dup2_stdout, setsid};

use super::instance::Instance;

/// Word on the command line of the second process.
pub const DETACHED: &str = "--detached";

/// How the second process began.
pub enum Began {
    /// It said it is ready.
    Ready(String),
    /// It ended with this code; it has said why.
    Failed(u8),
}

/// Starts this program again with the same words, and waits until it is ready or ends.
///
/// # Errors
/// It cannot be started.
pub fn start() -> Result<Began> {
    let program = std::env::current_exe().context("cannot find my own program")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg(DETACHED)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the daemon")?;
    let output = child.stdout.take().context("the daemon has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line.starts_with("ready") {
            return Ok(Began::Ready(line));
        }
    }
    let status = child.wait()?;
    Ok(Began::Failed(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// In the second process: leaves the terminal and its signals.
///
/// # Errors
/// It has done so already.
pub fn leave_session() -> Result<()> {
    setsid().context("cannot leave the terminal")?;
    Ok(())
}

/// In the second process, once it is ready: from now on it speaks to the log.
///
/// # Errors
/// The log cannot be written.
pub fn leave_terminal(instance: &Instance) -> Result<()> {
    let path = instance.log();
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    dup2_stderr(&log)?;
    dup2_stdout(&log)?;
    Ok(())
}
