//! `bench load`: how long large rules take from the file to the kernel.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use netfw_tests::{
    lab::{Background, command},
    wait,
};
use tempfile::TempDir;

use crate::{
    Common,
    gateway::{netfw_rules, words},
    list,
    strangers::{Behaviour, Strangers},
    testbed::{INTERFACES, TARGET, Testbed},
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
/// Port-forwards, and blocked prefixes, of the reload under load.
const FORWARDS: u32 = 1904;
const BLOCKED: u32 = 4000;
/// Datagrams a second that pass meanwhile, and flows that they belong to.
const LOAD: (u32, u32) = (100_000, 1000);

/// Rules as a user begins with.
const SAMPLE: &str = include_str!("../../packaging/netfw.toml");

/// What is timed, and what is asked.
const STEPS: [(&str, &str); 5] = [
    ("check of 4,096 rules with 10,000 prefixes", "1 s"),
    ("up with a million blocked prefixes", "5 s"),
    ("reload of a million, half of them others", "5 s"),
    ("up with the sample rules", "1 s"),
    ("reload of 4,096 rules, 1,904 port-forwards and 4,000 blocked prefixes under load", "1 s"),
];

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let testbed = Testbed::new()?;
    let (mut times, mut lost) = (Vec::new(), Vec::new());
    for _ in 0..args.common.rounds() {
        let [check, up, reload] = round(&testbed, &args.common.netfw)?;
        let sample = sample(&testbed, &args.common.netfw)?;
        let (under_load, gone) = under_load(&testbed, &args.common)?;
        times.push([check, up, reload, sample, under_load]);
        lost.push(gone);
    }
    for (step, (name, target)) in STEPS.iter().enumerate() {
        let mut times: Vec<_> = times.iter().map(|times| times[step].as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let (median, least, most) = (times[times.len() / 2], times[0], times[times.len() - 1]);
        println!("{name:82} {median:6.3} s ({least:.3}-{most:.3}), target {target}");
    }
    println!("datagrams lost in each reload under load: {lost:?}, target 0");
    Ok(())
}

fn sample(testbed: &Testbed, netfw: &Path) -> Result<Duration> {
    let dir = TempDir::new()?;
    let file = dir.path().join("netfw.toml");
    fs::write(&file, SAMPLE.replace("eth0", INTERFACES.0).replace("eth1", INTERFACES.1))?;
    let (time, _daemon) = up(testbed, netfw, &file)?;
    timed(testbed, words(netfw, &["down".as_ref()]))?;
    Ok(time)
}

/// Time of the reload, and how many of the datagrams that passed meanwhile did not arrive.
fn under_load(testbed: &Testbed, common: &Common) -> Result<(Duration, u64)> {
    let dir = TempDir::new()?;
    let [few, many] = ["few.toml", "many.toml"].map(|name| dir.path().join(name));
    fs::write(&few, netfw_rules("xdp", "[reload]\nwatch = false\n"))?;
    let blocked = list::prefixes(MILLION).skip(MILLION as usize / 10).take(BLOCKED as usize);
    let blocked = unwatched("xdp", &list::write(dir.path(), "list", blocked)?);
    fs::write(&many, blocked + &many_rules() + &many_forwards())?;
    let groups = Some([LOAD.1, u32::MAX]);
    let behaviour = Behaviour { groups, rate: Some(LOAD.0), ..Behaviour::default() };
    let strangers = Strangers::new(testbed, &common.object, behaviour)?;
    let (_, _daemon) = up(testbed, &common.netfw, &few)?;
    let over = AtomicBool::new(false);
    let time = thread::scope(|scope| {
        let sending = scope.spawn(|| strangers.send_on(&over));
        let arrive = || strangers.sent_and_arrived().is_ok_and(|[_, arrived]| arrived > 0).then_some(());
        let time = wait::until("datagrams at the target", arrive)
            .and_then(|()| timed(testbed, words(&common.netfw, &["reload".as_ref(), many.as_ref()])));
        over.store(true, Ordering::Relaxed);
        strangers.stop()?;
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        time
    })?;
    timed(testbed, words(&common.netfw, &["down".as_ref()]))?;
    // What was under way has arrived long since.
    let [sent, arrived] = strangers.sent_and_arrived()?;
    Ok((time, sent - arrived))
}

fn round(testbed: &Testbed, netfw: &Path) -> Result<[Duration; 3]> {
    let dir = TempDir::new()?;
    let file = dir.path().join("netfw.toml");
    fs::write(&file, netfw_rules("tc", &many_rules()))?;
    let check = timed(testbed, words(netfw, &["check".as_ref(), file.as_ref()]))?;
    let list = list::write(dir.path(), "list", list::prefixes(MILLION))?;
    fs::write(&file, unwatched("tc", &list))?;
    let (up, _daemon) = up(testbed, netfw, &file)?;
    let others = list::write(dir.path(), "others", list::prefixes(2 * MILLION).step_by(2))?;
    fs::write(&file, unwatched("tc", &others))?;
    let reload = timed(testbed, words(netfw, &["reload".as_ref(), file.as_ref()]));
    timed(testbed, words(netfw, &["down".as_ref()]))?;
    Ok([check, up, reload?])
}

/// A rules file that blocks what is in `list`; only the command has it loaded.
fn unwatched(mode: &str, list: &Path) -> String {
    netfw_rules(mode, &format!("{}[reload]\nwatch = false\n", list::blocking(list)))
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

/// Each with a port of its own.
fn many_forwards() -> String {
    let forwards = (0..FORWARDS).map(|number| {
        let port = 20_000 + number;
        format!(
            "[[port-forward]]\nname = \"f{number}\"\nprotocol = \"tcp\"\nport = {port}\nto = \"{}:{port}\"\n",
            TARGET.0
        )
    });
    forwards.collect()
}
