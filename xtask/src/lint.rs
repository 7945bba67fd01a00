//! `cargo xtask lint`: everything that must be free of warnings.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{elf, setup, stack};

/// Format, clippy, documentation, the eBPF build, the eBPF objects.
pub(crate) fn run(shell: &Shell) -> Result<()> {
    setup::run(shell, &[setup::Part::Build])?;
    let _deny = shell.push_env("NETFW_BPF_DENY_WARNINGS", "1");
    cmd!(shell, "cargo fmt --all --check").run().context("`cargo fmt --all` mends this")?;
    cmd!(shell, "cargo clippy --quiet --workspace --all-targets --all-features -- -Dwarnings").run()?;
    cmd!(shell, "cargo doc --quiet --workspace --no-deps --document-private-items")
        .env("RUSTDOCFLAGS", "-Dwarnings -Arustdoc::private-intra-doc-links")
        .run()?;
    for object in ebpf_objects(shell, &["check"])? {
        elf::check(&object)?;
        stack::check(&object)?;
        println!("{} cannot panic, and fits the stack", object.display());
    }
    Ok(())
}

/// The objects that netfw's build script made for `cargo COMMAND`.
pub(crate) fn ebpf_objects(shell: &Shell, command: &[&str]) -> Result<Vec<PathBuf>> {
    let cargo = cmd!(shell, "cargo {command...} --quiet --package netfw");
    let messages = cargo.arg("--message-format=json-render-diagnostics").read()?;
    let out_dir = messages.lines().find_map(netfw_out_dir).context("cargo names no OUT_DIR of netfw")?;
    let files = shell.read_dir(out_dir)?;
    Ok(files.into_iter().filter(|path| path.is_file()).collect())
}

fn netfw_out_dir(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let ours =
        message["reason"] == "build-script-executed" && message["package_id"].as_str()?.contains("/netfw#");
    ours.then(|| message["out_dir"].as_str().map(PathBuf::from))?
}
