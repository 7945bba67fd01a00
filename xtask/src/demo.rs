//! `cargo xtask demo`: builds netfw and the demo, and runs it as root.

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{root, setup};

/// How to show it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leaves the five machines up and says how to enter them.
    #[arg(long)]
    keep: bool,
    /// Takes away what `--keep` left.
    #[arg(long, conflicts_with = "keep")]
    remove: bool,
}

/// Prepares the machine, then hands over to `netfw-demo`.
pub(crate) fn run(shell: &Shell, args: &Args) -> Result<()> {
    setup::run(shell, &[setup::Part::Build, setup::Part::Lab, setup::Part::Spark])?;
    cmd!(shell, "cargo build --package netfw --package netfw-tests --bins").run()?;
    let demo = shell.current_dir().join("target/debug/netfw-demo");
    let option = if args.keep { Some("--keep") } else { args.remove.then_some("--remove") };
    root::command(shell, &[&demo.to_string_lossy()])?.args(option).run()?;
    Ok(())
}
