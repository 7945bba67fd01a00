//! The netfw command, used as a person uses it: rules in a file, words on the command line, output read back.

mod counters;
mod machine;

use std::{
    collections::BTreeMap,
    env, fs,
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

pub use self::{
    counters::{Count, Counters},
    machine::Machine,
};
use crate::{
    lab::{Background, Engine, Host, Lab, command::Finished},
    wait,
};

/// Environment variable that names the program to test.
const VARIABLE: &str = "NETFW_BIN";

/// How often a drop reason may have counted.
type Range = (Bound<u64>, Bound<u64>);

/// An instance of netfw on the master of a lab.
#[derive(Debug)]
pub struct Netfw<'lab> {
    host: &'lab Host,
    instance: &'lab str,
    engine: Engine,
    rules: PathBuf,
    daemon: Mutex<Option<Background>>,
    before: Machine,
    expected_drops: Mutex<BTreeMap<String, Range>>,
}

impl<'lab> Netfw<'lab> {
    /// An instance that isn't up yet, with `rules` in its rules file; rules that choose no engine get that of the lab.
    pub fn prepare(lab: &'lab Lab, rules: &str) -> Result<Self> {
        let netfw = Self::prepare_verbatim(lab, rules)?;
        netfw.write_rules(rules)?;
        Ok(netfw)
    }

    /// An instance that isn't up yet, with exactly `rules` in its rules file.
    pub fn prepare_verbatim(lab: &'lab Lab, rules: &str) -> Result<Self> {
        let host = lab.host("master");
        let netfw = Self {
            host,
            instance: lab.name(),
            engine: lab.engine(),
            rules: host.dir().join("netfw.toml"),
            daemon: Mutex::new(None),
            before: Machine::observe(host, lab.name())?,
            expected_drops: Mutex::default(),
        };
        fs::write(&netfw.rules, rules)?;
        Ok(netfw)
    }

    /// An instance that is up.
    pub fn up(lab: &'lab Lab, rules: &str) -> Result<Self> {
        let netfw = Self::prepare(lab, rules)?;
        netfw.start()?;
        Ok(netfw)
    }

    /// Starts `netfw up` in the foreground and waits for `ready`. Where the datapath is up, it is adopted.
    pub fn start(&self) -> Result<()> {
        self.start_with(&[], &[])
    }

    /// As [`start`](Self::start), as when the machine starts.
    pub fn boot(&self) -> Result<()> {
        self.start_with(&[], &["--boot"])
    }

    /// As [`start`](Self::start), with words before and behind the command.
    pub fn start_with(&self, before: &[&str], behind: &[&str]) -> Result<()> {
        let rules = self.rules.display().to_string();
        let line = self.line(["up", "-c", &rules].into_iter().chain(behind.iter().copied()))?;
        let words = before.iter().map(|&word| word.to_owned()).chain(line);
        let daemon = self.host.spawn(words)?;
        let daemon = wait::until("`netfw up` to end or be ready", {
            let mut daemon = Some(daemon);
            move || {
                let settled = daemon.as_mut().is_some_and(|it| !it.is_running() || is_ready(it));
                settled.then(|| daemon.take()).flatten()
            }
        })?;
        ensure!(is_ready(&daemon), "`netfw up` ended without being ready:\n{}", daemon.output());
        *self.lock_daemon() = Some(daemon);
        Ok(())
    }

    /// Kills the daemon without a warning.
    pub fn kill(&self) -> Result<()> {
        let mut daemon = self.lock_daemon().take().context("no daemon to kill")?;
        daemon.signal(Signal::SIGKILL)?;
        daemon.wait()?;
        Ok(())
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.lock_daemon().as_ref().context("no daemon")?.signal(signal)
    }

    /// What the daemon said so far.
    pub fn log(&self) -> String {
        self.lock_daemon().as_ref().map(Background::output).unwrap_or_default()
    }

    /// Waits until the daemon has ended; its exit code.
    pub fn wait(&self) -> Result<i32> {
        self.lock_daemon().take().context("no daemon")?.wait()
    }

    /// The rules file.
    pub fn rules(&self) -> &Path {
        &self.rules
    }

    /// Replaces the rules file in one step, as editors do.
    pub fn write_rules(&self, rules: &str) -> Result<()> {
        let draft = self.rules.with_extension("draft");
        fs::write(&draft, self.complete(rules))?;
        fs::rename(&draft, &self.rules).context("replacing the rules file")
    }

    /// Replaces the rules file and applies it now.
    pub fn reload(&self, rules: &str) -> Result<()> {
        self.write_rules(rules)?;
        self.command(["reload"])?.success()?;
        Ok(())
    }

    /// Runs a netfw command of this instance to its end.
    pub fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<Finished> {
        self.host.run(self.line(words)?)
    }

    /// Runs a command with `--json` and reads what it prints.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.command(["--json", command])?.success()?;
        serde_json::from_str(&text).with_context(|| format!("`netfw --json {command}` printed:\n{text}"))
    }

    /// `netfw stats` now.
    pub fn counters(&self) -> Result<Counters> {
        Ok(Counters::read(&self.json("stats")?))
    }

    /// The live flows.
    pub fn flows(&self) -> Result<Vec<Value>> {
        let document = self.json("flows")?;
        document["flows"].as_array().cloned().with_context(|| format!("no list of flows in {document}"))
    }

    /// Says that packets are dropped for `reason`, how often, counted from the first `up` to [`finish`](Self::finish).
    pub fn expect_drops(&self, reason: &str, times: impl RangeBounds<u64>) {
        let range = (times.start_bound().cloned(), times.end_bound().cloned());
        self.expected_drops.lock().unwrap_or_else(PoisonError::into_inner).insert(reason.to_owned(), range);
    }

    /// Every test's last word: each packet counted once, no drop that wasn't expected, and after `down` the machine
    /// as it was.
    pub fn finish(self) -> Result<()> {
        self.check_counters()?;
        self.down()
    }

    /// As [`finish`](Self::finish), on a machine whose network the test has changed.
    pub fn finish_on_changed_machine(self) -> Result<()> {
        self.check_counters()?;
        self.command(["down"])?.success()?;
        ensure!(!Path::new("/sys/fs/bpf/netfw").join(self.instance).exists(), "`down` left pins behind");
        Ok(())
    }

    /// Takes it down and compares the machine with what it was.
    pub fn down(&self) -> Result<()> {
        self.command(["down"])?.success()?;
        self.lock_daemon().take();
        self.expect_untouched()
    }

    /// Fails if anything on the machine differs from what it was before.
    pub fn expect_untouched(&self) -> Result<()> {
        self.before.expect_same(&Machine::observe(self.host, self.instance)?)
    }

    fn check_counters(&self) -> Result<()> {
        let expected = self.expected_drops.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let waited = wait::until("the expected drops", || {
            let counters = self.counters().ok()?;
            expected.iter().all(|(reason, range)| range.contains(&counters.drops(reason))).then_some(())
        });
        let counters = self.counters()?;
        waited.with_context(|| format!("expected {expected:?} of {counters}"))?;
        counters.expect_each_packet_once()?;
        counters.expect_no_drops_but(|reason| expected.contains_key(reason))
    }

    /// The words of a netfw command for this instance.
    pub fn line<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
        let program = program()?.display().to_string();
        let start = [program, "--instance".to_owned(), self.instance.to_owned()];
        Ok(start.into_iter().chain(words.into_iter().map(str::to_owned)).collect())
    }

    /// Rules that choose no engine get that of the lab.
    pub fn complete(&self, rules: &str) -> String {
        if rules.contains("[engine]") {
            return rules.to_owned();
        }
        format!("{rules}\n[engine]\nmode = \"{}\"\n", self.engine)
    }

    fn lock_daemon(&self) -> std::sync::MutexGuard<'_, Option<Background>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Netfw<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let counters =
                self.counters().map_or_else(|error| error.to_string(), |counters| counters.to_string());
            eprintln!("counters:{counters}\ndaemon:\n{}", self.log());
        }
        // After `finish` this finds nothing; after a failure it clears away as far as it can.
        let _ = self.command(["down"]);
        forget(self.instance);
    }
}

/// Removes the last valid rules of an instance, which `down` keeps.
pub fn forget(instance: &str) {
    // Not there when it never was up.
    let _ = fs::remove_dir_all(Path::new("/var/lib/netfw").join(instance));
}

fn is_ready(daemon: &Background) -> bool {
    daemon.output().lines().any(|line| line.starts_with("ready"))
}

/// The netfw program: what the environment names, else what was built beside the running test.
pub fn program() -> Result<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE) {
        return Ok(named.into());
    }
    let test = env::current_exe()?;
    let beside = test.ancestors().skip(1).take(2).map(|dir| dir.join("netfw")).find(|path| path.is_file());
    beside.with_context(|| {
        format!("no netfw beside {}: run `cargo build -p netfw`, or set {VARIABLE}", test.display())
    })
}
