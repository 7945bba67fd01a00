//! The test programs of the kernel ring and of the lab, built.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;
use xshell::{Shell, cmd};

/// A test program.
pub(crate) struct Suite {
    /// As in `tests/Cargo.toml`.
    pub(crate) name: String,
    /// Where it was built.
    pub(crate) path: PathBuf,
}

/// Where the netfw is that [`build`] has built.
pub(crate) fn netfw(shell: &Shell) -> PathBuf {
    shell.current_dir().join("target/debug/netfw")
}

/// Builds netfw, which the lab runs, and the suites.
pub(crate) fn build(shell: &Shell) -> Result<Vec<Suite>> {
    cmd!(shell, "cargo build --package netfw").run()?;
    let build = cmd!(shell, "cargo test --package netfw-tests --no-run");
    let messages = build.arg("--message-format=json-render-diagnostics").read()?;
    Ok(messages.lines().filter_map(suite).collect())
}

/// The test program that a message of cargo tells of.
fn suite(message: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
    Some(Suite { name: message["target"]["name"].as_str()?.to_owned(), path: path.into() })
}
