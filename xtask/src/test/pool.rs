//! Several suites at a time: most of what the lab does is waiting.

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{root, suites::Suite, tally::Tally};

/// Runs the tests of `suites` that `filter` asks for in `engine`, so many suites at a time, and shows what each one said when
/// it has ended.
pub(super) fn run(suites: &[Suite], at_a_time: usize, engine: &str, filter: &[String]) -> Result<Tally> {
    let queue = Mutex::new(suites.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Tally> {
        let mut tally = Tally::default();
        while let Some(suite) = next() {
            tally += run_one(suite, engine, filter)?;
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

fn run_one(suite: &Suite, engine: &str, filter: &[String]) -> Result<Tally> {
    let began = Instant::now();
    let mut words = root::prefix()?.iter().map(AsRef::as_ref).chain([suite.path.as_os_str()]);
    let mut command = Command::new(words.next().context("a command has a name")?);
    command.args(words).arg("--test-threads=1").args(filter).env("NETFW_ENGINE", engine);
    let output = command.output().with_context(|| format!("{} cannot be run", suite.path.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let tally = Tally::of(&said, output.status);
    if !tally.is_empty() {
        let complaints = String::from_utf8_lossy(&output.stderr);
        println!("suite {}, {} s{said}{complaints}", suite.name, began.elapsed().as_secs());
    }
    Ok(tally)
}
