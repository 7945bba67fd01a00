//! `cargo xtask test`: the three rings, and one line that sums them up.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    ops::AddAssign,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::{root, setup};

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains one of these words.
    filter: Vec<String>,
    /// Only the tests that need neither root nor the kernel.
    #[arg(long)]
    host: bool,
}

/// Runs the tests; fails when one fails, after all have run.
pub(crate) fn run(shell: &Shell, args: &Args) -> Result<()> {
    setup::run(
        shell,
        if args.host {
            &[setup::Part::Build]
        } else {
            &[setup::Part::Build, setup::Part::Lab, setup::Part::Spark]
        },
    )?;
    let mut total = Tally::default();
    total += cargo_test(shell, &["netfw-common", "netfw-ebpf", "netfw"], &args.filter, &[])?;
    if !args.host {
        // The lab runs the command itself, and one test after another: they share the machine's two or three cores.
        cmd!(shell, "cargo build --package netfw").run()?;
        shell.set_var(runner_variable(shell)?, root::prefix()?.join(" "));
        total += cargo_test(shell, &["netfw-tests"], &args.filter, &["--test-threads=1"])?;
    }
    println!("{total}");
    ensure!(total.ok(), "some tests failed");
    Ok(())
}

fn cargo_test(shell: &Shell, packages: &[&str], filter: &[String], harness: &[&str]) -> Result<Tally> {
    let mut cargo: Command = cmd!(shell, "cargo test --no-fail-fast").into();
    cargo
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .arg("--")
        .args(harness)
        .args(filter);
    eprintln!("$ {cargo:?}");
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cargo cannot be run")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("the output was asked for")?).lines() {
        let line = line?;
        println!("{line}");
        tally += Tally::of_line(&line);
    }
    tally.broken |= !child.wait()?.success();
    Ok(tally)
}

/// Cargo runs the tests' programs through this, so that only they have root and what is compiled stays the user's.
fn runner_variable(shell: &Shell) -> Result<String> {
    let version = cmd!(shell, "rustc -vV").quiet().read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}

/// What the test harnesses said in all.
#[derive(Default, Debug, PartialEq)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
    /// A cargo failed: by a failed test, or because something does not compile or crashed.
    broken: bool,
}

impl Tally {
    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`; any other line counts nothing.
    fn of_line(line: &str) -> Self {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return Self::default();
        };
        let count = |what: &str| {
            let found = counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
            found.unwrap_or(0)
        };
        Self { passed: count("passed"), failed: count("failed"), skipped: count("ignored"), broken: false }
    }

    fn ok(&self) -> bool {
        self.failed == 0 && !self.broken
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.broken |= other.broken;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)?;
        if self.broken && self.failed == 0 {
            write!(to, "; a test program did not compile or crashed")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn a_result_line_is_counted_and_others_are_not() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(Tally::of_line(line), Tally { passed: 12, failed: 2, skipped: 1, broken: false });
        assert_eq!(Tally::of_line("test lab::ssh ... ok"), Tally::default());
    }
}
