//! How often the kernel calls a function, by its kprobes.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

const TRACING: &str = "/sys/kernel/tracing";
const GROUP: &str = "nfwbench";

/// Probes at some functions, until dropped. The kernel has no others.
pub(crate) struct Probes;

impl Probes {
    /// At the beginning of each function.
    pub(crate) fn set(functions: &[&str]) -> Result<Self> {
        let probes = Self;
        let lines: String =
            functions.iter().map(|function| format!("p:{GROUP}/{function} {function}\n")).collect();
        write("kprobe_events", &lines)?;
        write(&format!("events/{GROUP}/enable"), "1")?;
        Ok(probes)
    }

    /// Calls while `work` is done.
    pub(crate) fn calls_in<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<u64> {
        let before = calls()?;
        work()?;
        Ok(calls()? - before)
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let gone = write(&format!("events/{GROUP}/enable"), "0").and_then(|()| write("kprobe_events", ""));
        if let Err(error) = gone {
            eprintln!("bench: probes could not be removed: {error:#}");
        }
    }
}

fn write(file: &str, text: &str) -> Result<()> {
    let path = Path::new(TRACING).join(file);
    fs::write(&path, text).with_context(|| format!("{}: this needs a kernel with kprobes", path.display()))
}

/// Calls so far: of each probe there are its name, how often it was hit, and how often it could not be.
fn calls() -> Result<u64> {
    let profile = fs::read_to_string(Path::new(TRACING).join("kprobe_profile"))?;
    let numbers = profile.lines().flat_map(|line| line.split_ascii_whitespace().skip(1));
    numbers.map(|number| Ok(number.parse::<u64>()?)).sum()
}
