//! `cargo xtask bench forward`: builds netfw and the measurement, and runs it as root.

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::{lint, root, setup};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Packets per second through a port-forward: nftables, a bare XDP redirect, netfw in XDP and in TC.
    Forward {
        /// Options of the measurement: --rounds, --seconds, --flows.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

/// Runs the measurement.
pub(crate) fn run(shell: &Shell, args: &Args) -> Result<()> {
    let What::Forward { options } = &args.what;
    setup::run(shell, &[setup::Part::Build, setup::Part::Lab])?;
    let objects = lint::ebpf_objects(shell, &["build", "--release"])?;
    let object =
        objects.iter().find(|path| path.ends_with("netfw-bench")).context("no netfw-bench was built")?;
    cmd!(shell, "cargo build --release --package xtask --features bench --bin bench-forward").run()?;
    let release = shell.current_dir().join("target/release");
    root::command(shell, &[&release.join("bench-forward").to_string_lossy()])?
        .arg("--object")
        .arg(object)
        .arg("--netfw")
        .arg(release.join("netfw"))
        .args(options)
        .run()?;
    Ok(())
}
