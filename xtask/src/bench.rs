//! `cargo xtask bench WHAT`: builds netfw and the measurements, and runs one as root.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use xshell::{Shell, cmd};

use crate::{lint, root, setup, vm};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    what: What,
    /// Options of the measurement: --rounds, --seconds, --quick, --noisy, --only, --json, --svg, --flows, --rules, --crossing,
    /// --prefixes, --clients, --kpps, --overrun, --capacity, --sessions, --answering, --repeats.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// Packets per second through a port-forward: nftables, iptables, netfw in XDP and in TC, a bare redirect at both hooks.
    Forward,
    /// The same through a masquerade.
    Masquerade,
    /// Packets per second that one rule or a short block list drops, beside nftables at ingress and a bare drop at both hooks.
    Drop,
    /// Packets per second that fall through 1 to 4,096 rules, beside nftables with as many rules or a map, and a bare drop.
    Rules,
    /// The same beside a block list of up to a million prefixes.
    Block,
    /// How long thousands of rules and a million prefixes take to load.
    Load,
    /// Time that a round trip takes longer through the gateway.
    Latency,
    /// Bytes per second of one TCP stream.
    Bulk,
    /// New TCP connections per second.
    Connections,
    /// Live sessions, new connections and the gateway's time while strangers send SYNs.
    Flood,
    /// Memory and the daemon's time for a million live flows.
    Memory,
    /// The datapath on both cores at once, beside one.
    Cores,
    /// What a packet costs, by the stage of the datapath that is done with it.
    Stages,
    /// The same in instructions and look-ups, which an emulator counts.
    Counts,
    /// Addresses that can be banned in a second, with a hundred thousand bans and thousands of flows there already.
    Bans,
}

/// Runs the measurement.
pub(crate) fn run(shell: &Shell, args: &Args) -> Result<()> {
    setup::run(shell, &[setup::Part::Build, setup::Part::Lab, setup::Part::Bench])?;
    let objects = lint::ebpf_objects(shell, &["build", "--release"])?;
    let object =
        objects.iter().find(|path| path.ends_with("netfw-bench")).context("no netfw-bench was built")?;
    cmd!(shell, "cargo build --release --package xtask --features bench --bin xtask-bench").run()?;
    let release = shell.current_dir().join("target/release");
    if matches!(args.what, What::Counts) {
        return count(shell, &release);
    }
    let what = args.what.to_possible_value().context("every measurement has a name")?;
    root::command(shell, &[&release.join("xtask-bench").to_string_lossy(), what.get_name()])?
        .arg("--object")
        .arg(object)
        .arg("--netfw")
        .arg(release.join("netfw"))
        .args(&args.options)
        .run()?;
    Ok(())
}

/// In a virtual machine: no clock of a real one counts instructions.
fn count(shell: &Shell, release: &Path) -> Result<()> {
    let programs = [("netfw", &*release.join("netfw")), ("xtask-bench", &*release.join("xtask-bench"))];
    // The packets are its own: no other object sends any.
    vm::count(shell, &programs, "/tests/xtask-bench counts --netfw /tests/netfw --object /dev/null\n")
}
