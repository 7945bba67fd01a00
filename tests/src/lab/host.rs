//! One machine of the lab.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use nix::{ifaddrs::getifaddrs, sys::socket::LinkAddr};

use super::{
    background::Background,
    command::{self, Finished},
    namespace::Namespace,
};

/// `/etc/hosts` of every machine.
const NAMES: &str = "\
127.0.0.1 localhost
::1 localhost
192.168.80.2 master
192.168.80.3 worker1
192.168.80.4 worker2
192.168.80.5 worker3
192.168.80.6 worker4
";

/// A machine: a network namespace, and a directory for its files.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    dir: PathBuf,
    logs: AtomicU32,
}

impl Host {
    /// The host `name` of the lab `lab`, with its files under `dir`.
    pub(super) fn create(lab: &str, name: &str, dir: &Path) -> Result<Self> {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let namespace = Namespace::create(&format!("{lab}-{name}"))?;
        Ok(Self { name: name.to_owned(), namespace, dir, logs: AtomicU32::new(0) })
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its files may go.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its network.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Leaves it running when the guard goes.
    pub(super) fn keep(&mut self) {
        self.namespace.keep();
    }

    /// Runs a program on the host to its end.
    pub fn run<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<Finished> {
        let words = owned(words);
        self.namespace.enter(|| command::run(words))
    }

    /// Runs a shell line on the host; its output, or an error unless it succeeded.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run(["sh", "-c", line])?.success()
    }

    /// Starts a program that runs beside the test.
    pub fn spawn<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<Background> {
        let words = owned(words);
        let log = self.dir.join(format!("output-{}", self.logs.fetch_add(1, Ordering::Relaxed)));
        self.namespace.enter(|| Background::start(words, &log))
    }

    /// Starts a program that sees a machine of its own: this host's name, the lab's names in place of a name server
    /// that nobody reaches from here.
    pub fn spawn_as_machine<W: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Background> {
        let (names, server) = (self.dir.join("hosts"), self.dir.join("resolv.conf"));
        fs::write(&names, NAMES)?;
        fs::write(&server, "")?;
        let script = format!(
            "hostname {}; mount --bind {} /etc/hosts; mount --bind {} \"$(readlink -f /etc/resolv.conf)\"; exec \"$@\"",
            self.name,
            names.display(),
            server.display()
        );
        let mut line =
            ["unshare", "--uts", "--mount", "sh", "-c", &script, "sh"].map(OsString::from).to_vec();
        line.extend(owned(words));
        self.spawn(line)
    }

    /// Runs `work` in the host's network.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.enter(work)
    }

    /// The link address of an interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        self.link(interface)?
            .addr()
            .with_context(|| format!("{interface} of {} has no link address", self.name))
    }

    /// The packet-socket address of an interface: its index and link address.
    pub fn link(&self, interface: &str) -> Result<LinkAddr> {
        self.enter(|| {
            getifaddrs()?
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .with_context(|| format!("no interface {interface} on {}", self.name))
        })
    }
}

fn owned<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Vec<OsString> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}
