//! `cargo xtask test`: the three rings, and one line that sums them up.

use std::{process::Command, thread};

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    setup,
    suites::{self, Suite},
    tally::{self, Tally},
};

mod pool;

/// Looks at what the whole kernel holds: nobody else may put anything there meanwhile.
const ALONE: &str = "no_leaks";
/// Take longest; what is begun last should be short, so that no processor waits for the other.
const LONG: [&str; 4] = ["faults", "confirm", "kernel", "world"];

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
    let mut total = on_the_host(shell, &args.filter)?;
    if !args.host {
        total += in_the_kernel(shell, &args.filter)?;
    }
    println!("{total}");
    ensure!(total.ok(), "some tests failed");
    Ok(())
}

fn on_the_host(shell: &Shell, filter: &[String]) -> Result<Tally> {
    let packages = ["netfw-common", "netfw-ebpf", "netfw", "xtask"];
    let mut cargo: Command = cmd!(shell, "cargo test --no-fail-fast").into();
    cargo.args(packages.iter().flat_map(|package| ["--package", package])).arg("--").args(filter);
    tally::watch(&mut cargo)
}

/// One suite more at a time than there are processors; in each, one test after another.
fn in_the_kernel(shell: &Shell, filter: &[String]) -> Result<Tally> {
    let (alone, mut others): (Vec<_>, Vec<_>) =
        suites::build(shell)?.into_iter().partition(|suite| suite.name == ALONE);
    others.sort_by_key(|suite| !LONG.contains(&suite.name.as_str()));
    if shell.var_os("NETFW_ENGINE").is_none() {
        shell.set_var("NETFW_ENGINE", "both"); // every story of the lab in XDP and in TC
    }
    let _inside = shell.push_dir("tests"); // where cargo would run them
    let run = |suites: &[Suite], at_a_time| pool::run(shell, suites, at_a_time, filter);
    let mut total = run(&others, thread::available_parallelism()?.get() + 1)?;
    total += run(&alone, 1)?;
    Ok(total)
}
