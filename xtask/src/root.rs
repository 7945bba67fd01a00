//! What needs root: package installation, and every test that makes network namespaces.

use anyhow::{Result, ensure};
use nix::unistd::geteuid;
use xshell::{Cmd, Shell};

use crate::tools;

/// The words that go before a command so that it runs as root: none, or `sudo`.
pub(crate) fn prefix() -> Result<&'static [&'static str]> {
    if geteuid().is_root() {
        return Ok(&[]);
    }
    ensure!(tools::on_path("sudo").is_some(), "this needs root and there is no sudo: run it as root");
    Ok(&["sudo", "--preserve-env=NETFW_BIN,NETFW_ENGINE,RUST_BACKTRACE"])
}

/// A command that runs as root.
pub(crate) fn command<'a>(shell: &'a Shell, words: &[&str]) -> Result<Cmd<'a>> {
    let mut words = prefix()?.iter().chain(words);
    let program = words.next().expect("a command has a name");
    Ok(shell.cmd(program).args(words))
}
