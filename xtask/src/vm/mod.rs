//! `cargo xtask vm 6.1 6.12`: other kernels, in qemu, running the tests of the kernel ring and some of the lab. One of them also
//! runs `cargo xtask bench counts`.

use std::path::Path;

use anyhow::{Result, ensure};
use xshell::Shell;

use self::boot::Clock;
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
    let netfw = suites::netfw(shell);
    let mut programs: Vec<_> =
        suites.iter().map(|suite| (suite.name.as_str(), suite.path.as_path())).collect();
    programs.push(("netfw", &netfw));
    let mut total = Tally::default();
    for series in &args.series {
        let kernel = kernel::fetch(shell, series)?;
        let script = script::of(&suites, &args.filter);
        let initramfs = image::build(shell, &kernel, &programs, &script)?;
        eprintln!("vm: booting {} (without KVM this takes minutes)", kernel.release);
        total += boot::run(shell, &kernel, &initramfs, Clock::Host)?;
    }
    println!("{total}");
    ensure!(total.ok(), "some tests failed in a virtual machine");
    Ok(())
}

/// The kernel whose instructions are counted: the newest of those that are tested.
const COUNTED: &str = "6.12";

/// Boots a kernel whose clock counts instructions, and runs `script` there beside `programs`.
pub(crate) fn count(shell: &Shell, programs: &[(&str, &Path)], script: &str) -> Result<()> {
    setup::run(shell, &[setup::Part::Lab, setup::Part::Vm])?;
    let kernel = kernel::fetch(shell, COUNTED)?;
    let initramfs = image::build(shell, &kernel, programs, script)?;
    eprintln!("vm: booting {} (this takes minutes)", kernel.release);
    let outcome = boot::run(shell, &kernel, &initramfs, Clock::Instructions)?;
    ensure!(outcome.ok(), "nothing was counted in the virtual machine");
    Ok(())
}
