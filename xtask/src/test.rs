//! `cargo xtask test`: the three rings, and one line that sums them up.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    root, setup,
    tally::{self, Tally},
};

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
    total += cargo_test(shell, &["netfw-common", "netfw-ebpf", "netfw", "xtask"], &args.filter, &[])?;
    if !args.host {
        // The lab runs the command itself, and one test after another: they share the machine's two or three cores.
        cmd!(shell, "cargo build --package netfw").run()?;
        if shell.var_os("NETFW_ENGINE").is_none() {
            shell.set_var("NETFW_ENGINE", "both"); // every story of the lab in XDP and in TC
        }
        run_as_root(shell)?;
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
    tally::watch(&mut cargo)
}

/// Cargo runs the tests' programs through this, so that only they have root and what is compiled stays the user's.
fn run_as_root(shell: &Shell) -> Result<()> {
    let sudo = root::prefix()?;
    if !sudo.is_empty() {
        let version = cmd!(shell, "rustc -vV").quiet().read()?;
        let host =
            version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
        let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
        shell.set_var(variable, sudo.join(" "));
    }
    Ok(())
}
