//! `cargo xtask setup`: finds or installs what building, tests and demo need.

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::tools;

mod apt;
mod programs;
mod spark;

pub(crate) use apt::has_candidate;
pub(crate) use programs::Part;

/// What `cargo xtask setup` brings.
pub(crate) const EVERYTHING: [Part; 5] = [Part::Build, Part::Lab, Part::Spark, Part::Vm, Part::Bench];

const BPF_LINKER: &str = "0.13.0";
const BPF_LINKER_PACKAGES: [&str; 5] = ["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev", "g++"];
const BPF_TOOLCHAIN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];

/// Installs what `parts` need and this machine lacks.
pub(crate) fn run(shell: &Shell, parts: &[Part]) -> Result<()> {
    let mut packages: Vec<&str> = programs::missing(shell, parts).map(|program| program.package).collect();
    if parts.contains(&Part::Build) && tools::bpf_toolchain().is_none() {
        packages.extend(BPF_TOOLCHAIN_PACKAGES);
    }
    let linker_missing = parts.contains(&Part::Build) && tools::bpf_linker().is_none();
    if linker_missing {
        packages.extend(BPF_LINKER_PACKAGES);
    }
    if !packages.is_empty() {
        ensure!(apt::is_here(), by_hand(shell, parts));
        apt::install(shell, &packages)?;
    }
    if linker_missing {
        install_bpf_linker(shell)?;
    }
    if parts.contains(&Part::Spark) {
        spark::install(shell)?;
    }
    report(parts)
}

fn install_bpf_linker(shell: &Shell) -> Result<()> {
    eprintln!("setup: building bpf-linker {BPF_LINKER}, the linker of eBPF programs (about a minute)");
    cmd!(
        shell,
        "cargo install bpf-linker --version {BPF_LINKER} --locked --no-default-features --features llvm-22"
    )
    .env("LLVM_PREFIX", "/usr/lib/llvm-22")
    .run()
    .context("bpf-linker could not be built")
}

fn report(parts: &[Part]) -> Result<()> {
    if parts.contains(&Part::Build) {
        let toolchain = tools::bpf_toolchain().context("still no Rust toolchain with the source of core")?;
        let linker = tools::bpf_linker().context("still no bpf-linker")?;
        eprintln!("setup: eBPF is built by {} and {}", toolchain.display(), linker.display());
    }
    eprintln!("setup: everything is there");
    Ok(())
}

/// What to install on a system whose package manager this does not know.
fn by_hand(shell: &Shell, parts: &[Part]) -> String {
    let mut text = String::from("this is not Debian or Ubuntu; please install by hand:\n");
    for program in programs::missing(shell, parts) {
        text += &format!("  {:24} (Debian's package: {})\n", program.name, program.package);
    }
    if parts.contains(&Part::Build) && tools::bpf_toolchain().is_none() {
        text += "  a Rust nightly with the source of core, not newer than LLVM 22:\n";
        text += "      rustup toolchain install nightly --component rust-src\n";
    }
    if parts.contains(&Part::Build) && tools::bpf_linker().is_none() {
        text += "  bpf-linker, with LLVM 22 and its headers:\n";
        text += &format!("      cargo install bpf-linker --version {BPF_LINKER} --locked ");
        text += "--no-default-features --features llvm-22\n";
    }
    text + "then run this again"
}
