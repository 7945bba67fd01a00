//! Several suites at a time: most of what the lab does is waiting.

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow};
use xshell::Shell;

use crate::{root, suites::Suite, tally::Tally};

/// Runs the tests of `suites` that `filter` asks for, so many suites at a time, and shows what each one said when it has ended.
pub(super) fn run(shell: &Shell, suites: &[Suite], at_a_time: usize, filter: &[String]) -> Result<Tally> {
    let commands: Vec<_> = suites
        .iter()
        .map(|suite| Ok((suite.name.as_str(), command(shell, suite, filter)?)))
        .collect::<Result<_>>()?;
    let queue = Mutex::new(commands.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Tally> {
        let mut tally = Tally::default();
        while let Some((name, command)) = next() {
            tally += run_one(name, command)?;
        }
        Ok(tally)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
        let mut total = Tally::default();
        for worker in workers {
            total += worker.join().map_err(|_| anyhow!("a suite's output could not be shown"))??;
        }
        Ok(total)
    })
}

fn command(shell: &Shell, suite: &Suite, filter: &[String]) -> Result<Command> {
    let program = suite.path.to_str().with_context(|| format!("{} is no text", suite.path.display()))?;
    Ok(root::command(shell, &[program, "--test-threads=1"])?.args(filter).into())
}

fn run_one(name: &str, mut command: Command) -> Result<Tally> {
    let began = Instant::now();
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let tally = Tally::of(&said, output.status);
    if !tally.is_empty() {
        let complaints = String::from_utf8_lossy(&output.stderr);
        println!("suite {name}, {} s{said}{complaints}", began.elapsed().as_secs());
    }
    Ok(tally)
}
