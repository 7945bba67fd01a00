//! Which test programs go into the virtual machine, and what it does with them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// What runs unless other tests are asked for: the whole kernel ring, and of the lab a story of each kind. An emulated
/// processor verifies the programs for a quarter of a minute at each `netfw up`.
const SHORT: [(&str, &str); 4] = [
    ("kernel", ""),
    ("lab", "ssh_reaches"),
    ("port_forward", "is_translated"),
    ("ssh", "every_port a_session the_door"),
];
/// Spark takes four Java machines, a million prefixes much reading, and ten thousand packets under a hundred rule sets as many
/// compilations, which no emulated processor does in reasonable time.
const HARNESS: &str =
    "--test-threads=1 --skip spark --skip a_million_blocked_prefixes --skip explained_and_sent";

/// A program to take along.
pub(crate) struct Program {
    /// `netfw`, or the suite's name.
    pub(crate) name: String,
    /// Where it was built.
    pub(crate) path: PathBuf,
}

/// Builds netfw and the suites; netfw is the last.
pub(crate) fn build(shell: &Shell) -> Result<Vec<Program>> {
    cmd!(shell, "cargo build --package netfw").run()?;
    let build = cmd!(shell, "cargo test --package netfw-tests --tests --no-run");
    let messages = build.arg("--message-format=json-render-diagnostics").read()?;
    let mut programs: Vec<_> = messages.lines().filter_map(suite).collect();
    let target =
        programs.first().and_then(|suite| suite.path.parent()?.parent()).context("there is no suite")?;
    programs.push(Program { path: target.join("netfw"), name: "netfw".into() });
    Ok(programs)
}

/// The test program that a message of cargo tells of.
fn suite(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    let path = message["executable"].as_str().filter(|_| target["kind"][0] == "test")?;
    Some(Program { name: target["name"].as_str()?.to_owned(), path: path.into() })
}

/// The shell script that runs them; its exit status is the result.
pub(crate) fn script(programs: &[Program], filter: &[String]) -> String {
    let words = filter.join(" ");
    let asked = programs.iter().map(|program| (program.name.as_str(), words.as_str()));
    let chosen: Vec<_> =
        if filter.is_empty() { SHORT.to_vec() } else { asked.filter(|(name, _)| *name != "netfw").collect() };
    let mut script = String::from("export NETFW_BIN=/tests/netfw\nstatus=0\n");
    for (suite, words) in chosen {
        script += &format!("echo 'suite {suite}'\n/tests/{suite} {HARNESS} {words} || status=1\n");
    }
    script + "exit $status\n"
}
