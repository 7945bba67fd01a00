//! Which test programs go into the virtual machine, and what it does with them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// Spark takes four Java machines, which no emulated processor carries in reasonable time.
const HARNESS: &str = "--test-threads=1 --skip spark";

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
    let mut script = String::from("export NETFW_BIN=/tests/netfw\nstatus=0\n");
    for Program { name, .. } in programs.iter().filter(|program| program.name != "netfw") {
        script += &format!("echo 'suite {name}'\n/tests/{name} {HARNESS} {} || status=1\n", filter.join(" "));
    }
    script + "exit $status\n"
}
