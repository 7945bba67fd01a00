//! One network namespace, removed with everything that runs in it when its guard goes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::command;
use crate::wait;

/// Settings every lab namespace starts with: quiet, nothing inherited from the machine, errors not rate-limited.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// A named network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    keep: bool,
}

impl Namespace {
    /// Makes the namespace `name`, with `lo` up.
    pub fn create(name: &str) -> Result<Self> {
        command::run(["ip", "netns", "add", name])?.success()?;
        let namespace = Self { name: name.to_owned(), keep: false };
        for (key, value) in SYSCTLS {
            namespace.sysctl(key, value)?;
        }
        namespace.ip_batch("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that `nsenter --net=` takes.
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Leaves the namespace and its processes behind when the guard goes.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Runs `work` on a thread of its own inside the namespace: sockets and processes made there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.join_thread()?;
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace for good.
    pub fn join_thread(&self) -> Result<()> {
        let file = fs::File::open(self.path()).with_context(|| format!("no namespace {}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering namespace {}", self.name))
    }

    /// Writes a setting below `/proc/sys`, `key` with slashes.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| {
            fs::write(Path::new("/proc/sys").join(key), value)
                .with_context(|| format!("sysctl {key}={value} in {}", self.name))
        })
    }

    /// Reads a setting below `/proc/sys`.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        self.enter(|| {
            let text = fs::read_to_string(Path::new("/proc/sys").join(key))
                .with_context(|| format!("sysctl {key} in {}", self.name))?;
            Ok(text.trim().to_owned())
        })
    }

    /// Runs lines of `ip` commands (without the word `ip`) inside.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        command::feed(["ip", "-n", &self.name, "-batch", "-"], lines)?.success()?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.name);
        }
    }
}

/// Ends what runs in the namespace `name` and deletes it. Never fails: it also clears away half-made ones.
pub(super) fn remove(name: &str) {
    let emptied = wait::within(Duration::from_secs(5), "processes to end", || {
        let members = members(name);
        for pid in &members {
            // It may have ended by itself in between.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        members.is_empty().then_some(())
    });
    if let Err(error) = emptied {
        eprintln!("namespace {name}: {error}");
    }
    if let Err(error) = command::run(["ip", "netns", "del", name]).and_then(|done| done.success()) {
        eprintln!("namespace {name} could not be deleted: {error:#}");
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The processes whose network is the namespace `name`.
fn members(name: &str) -> Vec<Pid> {
    let Ok(wanted) = fs::metadata(path_of(name)) else { return Vec::new() };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|net| (net.dev(), net.ino()) == (wanted.dev(), wanted.ino()))
        })
        .map(Pid::from_raw)
        .filter(|pid| *pid != Pid::this())
        .collect()
}
