//! `cargo xtask vm 6.1 6.12`: other kernels, in qemu, running the tests of the kernel ring and some of the lab.

use anyhow::{Result, ensure};
use xshell::Shell;

use crate::{setup, suites, tally::Tally};

mod boot;
mod image;
mod kernel;
mod script;

/// Which kernels, which tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series of Debian's cloud kernels.
    #[arg(default_value = "6.1", value_name = "SERIES")]
    series: Vec<String>,
    /// Only tests whose name contains one of these words.
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Boots every kernel; fails when a test fails in one, after all have run.
pub(crate) fn run(shell: &Shell, args: &Args) -> Result<()> {
    setup::run(shell, &[setup::Part::Build, setup::Part::Lab, setup::Part::Vm])?;
    let suites = suites::build(shell)?;
    let mut total = Tally::default();
    for series in &args.series {
        let kernel = kernel::fetch(shell, series)?;
        let script = script::of(&suites, &args.filter);
        let initramfs = image::build(shell, &kernel, &suites, &script)?;
        eprintln!("vm: booting {} (without KVM this takes minutes)", kernel.release);
        total += boot::run(shell, &kernel, &initramfs)?;
    }
    println!("{total}");
    ensure!(total.ok(), "some tests failed in a virtual machine");
    Ok(())
}
