//! The lab: the machines of the original setup, each a network namespace of this kernel.
//!
//! Two labs never touch: every name they leave in the kernel carries the lab's own name.

mod background;
pub mod command;
mod engine;
mod host;
mod namespace;
mod topology;
mod wiring;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use tempfile::TempDir;

pub use self::{background::Background, engine::Engine, host::Host, namespace::Namespace};
use self::{
    namespace::remove,
    topology::{ONE_ARMED, Plan, TWO_ARMED},
};

/// Random letters in the name of a test lab's directory.
const RANDOM: usize = 6;

/// Namespaces of test labs: this, the process id, a dash, a counter, a dash, the host.
const PREFIX: &str = "nfwlab";

/// A set of hosts joined by segments.
#[derive(Debug)]
pub struct Lab {
    name: String,
    engine: Engine,
    hosts: BTreeMap<String, Host>,
    /// After the hosts: their programs write into it until they are ended.
    dir: TempDir,
}

impl Lab {
    /// A lab whose master stands between the outside (`eth0`) and the LAN (`eth1`).
    pub fn two_armed(engine: Engine) -> Result<Self> {
        Self::build(&unique_name(), RANDOM, engine, &TWO_ARMED)
    }

    /// A lab whose master has one interface, in the LAN, and isn't the LAN's gateway.
    pub fn one_armed(engine: Engine) -> Result<Self> {
        Self::build(&unique_name(), RANDOM, engine, &ONE_ARMED)
    }

    /// A two-armed lab under a name that a person can type.
    pub fn named(name: &str, engine: Engine) -> Result<Self> {
        Self::build(name, 0, engine, &TWO_ARMED)
    }

    fn build(name: &str, random: usize, engine: Engine, plan: &Plan) -> Result<Self> {
        ensure!(geteuid().is_root(), "the lab makes network namespaces: run it as root");
        sweep_once();
        let dir = tempfile::Builder::new().prefix(name).rand_bytes(random).tempdir()?;
        let mut lab = Self { name: name.to_owned(), engine, hosts: BTreeMap::new(), dir };
        let names: BTreeSet<_> = plan.nics.iter().map(|nic| nic.host).chain([wiring::SWITCH]).collect();
        for host in names {
            let made = Host::create(name, host, lab.dir.path())?;
            lab.hosts.insert(host.to_owned(), made);
        }
        wiring::wire(&lab, plan).with_context(|| format!("wiring the lab {name}"))?;
        Ok(lab)
    }

    /// The lab's own name, which is also that of its netfw instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The engine its links are prepared for.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// A directory that goes with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The host `name`.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).unwrap_or_else(|| panic!("this lab has no host {name}"))
    }

    /// One more machine, with no link yet, that goes with its guard.
    pub fn another_host(&self, name: &str) -> Result<Host> {
        Host::create(&self.name, name, self.dir())
    }

    /// Every host, the switch too.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// Leaves everything in place when the guard goes.
    pub fn keep(&mut self) {
        self.hosts.values_mut().for_each(Host::keep);
        self.dir.disable_cleanup(true);
    }
}

/// Removes what is left of the lab `name`, if anything.
pub fn remove_named(name: &str) {
    let prefix = format!("{name}-");
    namespaces().filter(|namespace| namespace.starts_with(&prefix)).for_each(|left| remove(&left));
    // Not there after an orderly end.
    let _ = fs::remove_dir_all(env::temp_dir().join(name));
}

fn unique_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Where instances of netfw, named like their labs, leave something.
const PLACES: [&str; 3] = ["/sys/fs/bpf/netfw", "/run/netfw", "/var/lib/netfw"];

/// Clears away, once a process, what test processes that were killed could not.
fn sweep_once() {
    static SWEEP: Once = Once::new();
    SWEEP.call_once(|| {
        namespaces().filter(|name| is_orphaned(name)).for_each(|name| remove(&name));
        for place in PLACES {
            for name in names_in(place).filter(|name| is_orphaned(name)) {
                // Another test process may do the same now.
                let _ = fs::remove_dir_all(Path::new(place).join(name));
            }
        }
    });
}

fn is_orphaned(namespace: &str) -> bool {
    let owner = namespace.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
}

/// The names of all namespaces there are.
pub fn namespaces() -> impl Iterator<Item = String> {
    names_in("/run/netns")
}

fn names_in(dir: &str) -> impl Iterator<Item = String> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}
