//! Which test programs go into the virtual machine, and what it does with them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// Suites that run there: the whole kernel ring, and of the lab what is short and needs no software but the usual.
const SUITES: [(&str, &[&str]); 1] = [("lab", &[])];

/// A program to take along.
pub(crate) struct Program {
    /// `netfw`, or the suite's name.
    pub(crate) name: String,
    /// Where it was built.
    pub(crate) path: PathBuf,
}

/// Builds netfw and the suites.
pub(crate) fn build(shell: &Shell) -> Result<Vec<Program>> {
    cmd!(shell, "cargo build --package netfw").run()?;
    let suites = SUITES.iter().flat_map(|(name, _)| ["--test", name]);
    let messages =
        cmd!(shell, "cargo test --package netfw-tests --no-run --message-format=json-render-diagnostics");
    let messages = messages.args(suites).read()?;
    let mut programs: Vec<_> = messages.lines().filter_map(executable).collect();
    let beside =
        programs.first().and_then(|program| program.path.parent()?.parent()).context("no suite was built")?;
    programs.push(Program { name: "netfw".into(), path: beside.join("netfw") });
    Ok(programs)
}

fn executable(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["target"]["kind"][0] != "test" {
        return None;
    }
    let name = message["target"]["name"].as_str()?.to_owned();
    Some(Program { name, path: message["executable"].as_str()?.into() })
}

/// The shell script that runs them; its exit status is the result.
pub(crate) fn script(programs: &[Program], filter: &[String]) -> String {
    let mut script = String::from("export NETFW_BIN=/tests/netfw\nstatus=0\n");
    for (suite, own_filter) in
        SUITES.iter().filter(|(suite, _)| programs.iter().any(|program| program.name == *suite))
    {
        let words = if filter.is_empty() { own_filter.join(" ") } else { filter.join(" ") };
        script += &format!("echo 'suite {suite}'\n/tests/{suite} --test-threads=1 {words} || status=1\n");
    }
    script + "exit $status\n"
}
