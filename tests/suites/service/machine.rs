//! A machine that is never started: its units in a directory, and the start that the service manager itself computes from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use netfw_tests::lab::command;
use tempfile::TempDir;

/// The service manager; where a distribution keeps it.
const MANAGER: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
/// Its own units, whose targets are part of each start.
const VENDOR: &str = "/usr/lib/systemd/system:/lib/systemd/system";
/// It computes no start for root.
const NOBODY: u32 = 65534;

/// A machine by its units.
pub(crate) struct Machine {
    root: TempDir,
}

impl Machine {
    /// One with no units but those of the service manager.
    pub(crate) fn new() -> Result<Self> {
        let machine = Self { root: TempDir::new()? };
        fs::create_dir_all(machine.units())?;
        fs::set_permissions(machine.root.path(), fs::Permissions::from_mode(0o755))?;
        Ok(machine)
    }

    fn units(&self) -> PathBuf {
        self.root.path().join("etc/systemd/system")
    }

    /// Puts a unit there.
    pub(crate) fn add(&self, (name, text): (&str, &str)) -> Result<()> {
        fs::write(self.units().join(name), text).with_context(|| format!("writing {name}"))
    }

    /// Puts a unit there and has the machine start it.
    pub(crate) fn install(&self, unit: (&str, &str)) -> Result<()> {
        self.add(unit)?;
        let root = format!("--root={}", self.root.path().display());
        command::run(["systemctl", &root, "enable", unit.0])?.success().map(drop)
    }

    /// As [`install`](Self::install), of a service that says no more than when it starts.
    pub(crate) fn install_service(&self, (name, order): (&str, &str)) -> Result<()> {
        let rest = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
        self.install((name, &format!("[Unit]\n{order}{rest}")))
    }

    /// What the service manager would do when this machine starts, up to `goal`.
    pub(crate) fn start(&self, goal: &str) -> Result<Start> {
        let program = MANAGER.iter().find(|path| fs::exists(path).unwrap_or(false));
        let mut manager = Command::new(program.context("no systemd: `cargo xtask setup` installs it")?);
        manager.args(["--test", "--system", &format!("--unit={goal}")]);
        manager.env_clear().env("SYSTEMD_LOG_TARGET", "console");
        manager.env("SYSTEMD_UNIT_PATH", format!("{}:{VENDOR}", self.units().display()));
        // Else this machine's own file systems are part of it.
        manager.env("SYSTEMD_GENERATOR_PATH", self.root.path().join("none"));
        if nix::unistd::geteuid().is_root() {
            manager.uid(NOBODY).gid(NOBODY);
        }
        let output = manager.current_dir("/").output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the service manager cannot compute a start:\n{said}");
        Ok(Start { units: read(&String::from_utf8_lossy(&output.stdout)), said })
    }
}

/// What is known of a unit: the values of each key, in their order.
pub(crate) type Unit = BTreeMap<String, Vec<String>>;

/// The computed start of a machine.
pub(crate) struct Start {
    units: BTreeMap<String, Unit>,
    /// What the service manager had to say about the units.
    pub(crate) said: String,
}

impl Start {
    /// A unit, with all that follows from how it is written.
    pub(crate) fn unit(&self, name: &str) -> Result<&Unit> {
        self.units.get(name).with_context(|| format!("{name} is no part of this start:\n{}", self.said))
    }

    /// Whether a unit is started.
    pub(crate) fn starts(&self, name: &str) -> bool {
        let actions = self.units.get(name).and_then(|unit| unit.get("Action"));
        actions.is_some_and(|actions| actions.iter().any(|action| action.ends_with("-> start")))
    }

    /// Whether `later` is not begun before `first` has been started, or could not be.
    pub(crate) fn waits(&self, later: &str, first: &str) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![later]);
        while let Some(name) = next.pop() {
            // Only what is started holds others up.
            if self.starts(name) && seen.insert(name) {
                next.extend(values(&self.units[name], "After"));
            }
        }
        later != first && seen.contains(first)
    }
}

/// The values of a key.
pub(crate) fn values<'a>(unit: &'a Unit, key: &str) -> impl Iterator<Item = &'a str> {
    unit.get(key).into_iter().flatten().map(String::as_str)
}

/// Reads what the service manager prints: after a line that names a unit, lines of keys and values.
fn read(text: &str) -> BTreeMap<String, Unit> {
    let mut units: BTreeMap<String, Unit> = BTreeMap::new();
    let mut unit = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("-> Unit ") {
            unit = Some(units.entry(name.trim_end_matches(':').to_owned()).or_default());
        } else if let (Some(unit), Some((key, value))) = (&mut unit, line.split_once(": ")) {
            // In brackets it says which file a dependency comes from.
            let value = value.split(" (").next().unwrap_or_default();
            unit.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    units
}
