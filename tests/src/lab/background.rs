//! A program that runs beside the test and ends with its guard.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait;

/// A running program, its output going to a file.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `words` in the network of the calling thread, writing to `log`.
    pub fn start<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>, log: &Path) -> Result<Self> {
        let mut words = words.into_iter();
        let program = words.next().context("an empty command line")?;
        let name = program.as_ref().to_string_lossy().into_owned();
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = Command::new(&program)
            .args(words)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .spawn()
            .with_context(|| format!("starting `{name}`"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        // Process ids fit: the kernel's limit is 2^22.
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Everything it said so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("{signal} to `{}`", self.name))
    }

    /// Waits until it ends by itself; its exit code (-1: by a signal).
    pub fn wait(&mut self) -> Result<i32> {
        let what = format!("the end of `{}`", self.name);
        let status = wait::until(&what, || self.child.try_wait().ok().flatten())?;
        Ok(status.code().unwrap_or(-1))
    }

    /// Waits until its output holds `text`.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        self.wait_for_within(wait::GENEROUS, text)
    }

    /// Waits no longer than `limit` until its output holds `text`.
    pub fn wait_for_within(&self, limit: Duration, text: &str) -> Result<()> {
        let what = format!("`{}` to say \"{text}\"", self.name);
        wait::within(limit, &what, || self.output().contains(text).then_some(()))
            .with_context(|| format!("it said:\n{}", self.output()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
