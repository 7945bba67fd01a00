//! `bench load`: how long large rules take from the file to the kernel.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use netfw_tests::lab::{Background, command};
use tempfile::TempDir;

use crate::{
    Common,
    gateway::{netfw_rules, words},
    list,
    testbed::Testbed,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

const RULES: u32 = 4096;
const PREFIXES: u32 = 10_000;
const MILLION: u32 = 1_000_000;

/// What is timed, and what the issue allows.
const STEPS: [(&str, &str); 3] = [
    ("check of 4,096 rules with 10,000 prefixes", "1 s"),
    ("up with a million blocked prefixes", "5 s"),
    ("reload of a million, half of them others", "5 s"),
];

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let testbed = Testbed::new()?;
    let mut times = Vec::new();
    for _ in 0..args.common.rounds() {
        times.push(round(&testbed, &args.common.netfw)?);
    }
    for (step, (name, target)) in STEPS.iter().enumerate() {
        let mut times: Vec<_> = times.iter().map(|times| times[step].as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let (median, least, most) = (times[times.len() / 2], times[0], times[times.len() - 1]);
        println!("{name:44} {median:6.3} s ({least:.3}-{most:.3}), target {target}");
    }
    Ok(())
}

fn round(testbed: &Testbed, netfw: &Path) -> Result<[Duration; 3]> {
    let dir = TempDir::new()?;
    let file = dir.path().join("netfw.toml");
    fs::write(&file, netfw_rules("tc", &many_rules()))?;
    let check = timed(testbed, words(netfw, &["check".as_ref(), file.as_ref()]))?;
    let list = list::write(dir.path(), "list", list::prefixes(MILLION))?;
    fs::write(&file, unwatched(&list))?;
    let (up, _daemon) = up(testbed, netfw, &file)?;
    let others = list::write(dir.path(), "others", list::prefixes(2 * MILLION).step_by(2))?;
    fs::write(&file, unwatched(&others))?;
    let reload = timed(testbed, words(netfw, &["reload".as_ref(), file.as_ref()]));
    timed(testbed, words(netfw, &["down".as_ref()]))?;
    Ok([check, up, reload?])
}

/// A rules file that blocks what is in `list`; only the command has it loaded.
fn unwatched(list: &Path) -> String {
    netfw_rules("tc", &format!("{}[reload]\nwatch = false\n", list::blocking(list)))
}

/// Time until the rules are in force.
fn up(testbed: &Testbed, netfw: &Path, file: &Path) -> Result<(Duration, Background)> {
    let (start, log) = (Instant::now(), file.with_extension("log"));
    let words = words(netfw, &["up".as_ref(), "-c".as_ref(), file.as_ref()]);
    let daemon = testbed.gateway.enter(|| Background::start(words, &log))?;
    daemon.wait_for("ready").context("netfw does not come up")?;
    Ok((start.elapsed(), daemon))
}

/// Time that a command takes.
fn timed(testbed: &Testbed, words: Vec<OsString>) -> Result<Duration> {
    let start = Instant::now();
    testbed.gateway.enter(|| command::run(words)?.success())?;
    Ok(start.elapsed())
}

/// Each with two or three prefixes and a port of its own.
fn many_rules() -> String {
    let prefixes: Vec<_> = list::prefixes(PREFIXES).map(|prefix| format!("\"{prefix}\"")).collect();
    let rules = (0..RULES).map(|number| {
        let [begin, end] = [number, number + 1].map(|number| (number * PREFIXES / RULES) as usize);
        let (from, port) = (prefixes[begin..end].join(", "), 1024 + number);
        format!(
            "[[rule]]\nname = \"r{number}\"\nchain = \"forward\"\naction = \"accept\"\nprotocol = \"tcp\"\n\
             from = [{from}]\nport = {port}\n"
        )
    });
    rules.collect()
}
