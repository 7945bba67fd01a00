//! Development tasks of netfw: `cargo xtask TASK`.

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use xshell::Shell;

mod bench;
mod demo;
mod elf;
mod lint;
mod root;
mod setup;
mod stack;
mod suites;
mod tally;
mod test;
#[path = "../../netfw/build/tools.rs"]
mod tools;
mod vm;

/// Development tasks of netfw.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what building, tests and demo need, and says what it does; nothing the second time.
    Setup,
    /// Everything that must be free of warnings: format, clippy, documentation, the eBPF build.
    Lint,
    /// All tests: on the host, in the kernel, in the lab of network namespaces.
    Test(test::Args),
    /// Five machines, a person outside, SSH and Spark through netfw, step by step.
    Demo(demo::Args),
    /// The tests of the kernel ring and a few of the lab under other kernels, in qemu.
    Vm(vm::Args),
    /// Measurements.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(""));
    // Not every user's path has the system's own programs, which the lab is made of.
    shell.set_var("PATH", format!("{}:/usr/sbin:/sbin", shell.var("PATH")?));
    match &cli.task {
        Task::Setup => setup::run(&shell, &setup::EVERYTHING),
        Task::Lint => lint::run(&shell),
        Task::Test(args) => test::run(&shell, args),
        Task::Demo(args) => demo::run(&shell, args),
        Task::Vm(args) => vm::run(&shell, args),
        Task::Bench(args) => bench::run(&shell, args),
    }
}
