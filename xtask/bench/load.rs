//! `bench load`: how long large rules take from the file to the kernel, and what lists of a million prefixes take there.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result};
use aya::maps::MapData;
use netfw::{daemon::Instance, kernel::Maps};
use netfw_common::{image::SLOTS, interface::MAX_INTERFACES};
use netfw_tests::{
    lab::{Background, command},
    wait,
};
use tempfile::TempDir;

use crate::{
    Common,
    gateway::{INSTANCE, netfw_rules, words},
    list, memory,
    score::{Bound, Quantity, Score, Target},
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

const ROW: &str = "netfw";
const CHECK: Quantity = ("check of 4,096 rules with 10,000 prefixes", "s");
const UP: Quantity = ("up with a million blocked prefixes", "s");
const RELOAD: Quantity = ("reload of a million, half of them others", "s");
const TRIAL: Quantity = ("the same on trial, as a third list", "s");
const LISTS: Quantity = ("memory of the three lists in the kernel", "MiB");
const NOTICED: Quantity = ("a line more in the file of a million, until it holds", "s");
const SAMPLE_UP: Quantity = ("up with the sample rules", "s");
const UNDER_LOAD: Quantity = ("reload to many rules under load", "s");
const LOST: Quantity = ("datagrams lost in the reload under load", "");
const LOST_BEHIND: Quantity = ("of those netfw had seen", "");
/// What is asked, at most.
const TARGETS: [(Quantity, f64); 10] = [
    (CHECK, 1.0),
    (UP, 5.0),
    (RELOAD, 5.0),
    (TRIAL, 5.0),
    (LISTS, 256.0),
    (NOTICED, 0.5),
    (SAMPLE_UP, 1.0),
    (UNDER_LOAD, 1.0),
    (LOST, 0.0),
    (LOST_BEHIND, 0.0),
];

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common } = args;
    let target =
        |(quantity, most)| Target { row: ROW.to_owned(), quantity, times: None, bound: Bound::AtMost(most) };
    let mut score = Score::new("load", "Large rules", TARGETS.map(target).to_vec());
    let testbed = Testbed::new()?;
    for _ in 0..common.rounds() {
        score.add(ROW, CHECK, check(&testbed, &common.netfw)?.as_secs_f64());
        lists(&mut score, &testbed, &common.netfw)?;
        score.add(ROW, NOTICED, noticed(&testbed, &common.netfw)?.as_secs_f64());
        score.add(ROW, SAMPLE_UP, sample(&testbed, &common.netfw)?.as_secs_f64());
        let (time, [sent, seen, arrived]) = under_load(&testbed, common)?;
        score.add(ROW, UNDER_LOAD, time.as_secs_f64());
        score.add(ROW, LOST, (sent - arrived) as f64);
        score.add(ROW, LOST_BEHIND, seen.saturating_sub(arrived) as f64);
    }
    score.print(common)
}

fn sample(testbed: &Testbed, netfw: &Path) -> Result<Duration> {
    let dir = TempDir::new()?;
    let file = dir.path().join("netfw.toml");
    fs::write(&file, SAMPLE.replace("eth0", INTERFACES.0).replace("eth1", INTERFACES.1))?;
    let (time, _daemon) = up(testbed, netfw, &file)?;
    timed(testbed, words(netfw, &["down".as_ref()]))?;
    Ok(time)
}

/// Time of the reload, and of the datagrams that passed meanwhile how many were sent, came to netfw and arrived.
fn under_load(testbed: &Testbed, common: &Common) -> Result<(Duration, [u64; 3])> {
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
    let seen = seen()?;
    timed(testbed, words(&common.netfw, &["down".as_ref()]))?;
    // What was under way has arrived long since.
    let [sent, arrived] = strangers.sent_and_arrived()?;
    Ok((time, [sent, seen, arrived]))
}

/// Packets that netfw has forwarded or dropped, whatever became of them after that.
fn seen() -> Result<u64> {
    let maps = maps()?;
    let counters = maps.counters()?;
    let counts = (1..MAX_INTERFACES as u32).map(|slot| counters.interface(slot));
    counts.map(|count| count.map(|count| count.forwarded.packets + count.dropped.packets)).sum()
}

fn check(testbed: &Testbed, netfw: &Path) -> Result<Duration> {
    let dir = TempDir::new()?;
    let file = dir.path().join("netfw.toml");
    fs::write(&file, netfw_rules("tc", &many_rules()))?;
    timed(testbed, words(netfw, &["check".as_ref(), file.as_ref()]))
}

/// A list that is loaded, another that takes its place, and a third one that is tried out while both of them are still there: more
/// there never are.
fn lists(score: &mut Score, testbed: &Testbed, netfw: &Path) -> Result<()> {
    let dir = TempDir::new()?;
    let file = dir.path().join("netfw.toml");
    let block = |name, prefixes: &mut dyn Iterator<Item = String>| -> Result<()> {
        Ok(fs::write(&file, unwatched("tc", &list::write(dir.path(), name, prefixes)?))?)
    };
    block("list", &mut list::prefixes(MILLION))?;
    let (time, _daemon) = up(testbed, netfw, &file)?;
    score.add(ROW, UP, time.as_secs_f64());
    block("others", &mut list::prefixes(2 * MILLION).step_by(2))?;
    let reload = ["reload".as_ref(), file.as_os_str()];
    score.add(ROW, RELOAD, timed(testbed, words(netfw, &reload))?.as_secs_f64());
    block("third", &mut list::prefixes(2 * MILLION).skip(1).step_by(2))?;
    let trial = [&reload[..], &["--confirm", "60s"].map(OsStr::new)].concat();
    score.add(ROW, TRIAL, timed(testbed, words(netfw, &trial))?.as_secs_f64());
    score.add(ROW, LISTS, memory_of_lists()? as f64 / f64::from(1 << 20));
    timed(testbed, words(netfw, &["down".as_ref()])).map(drop)
}

/// Time from a change of a file to packets that meet it, by the daemon that watches; a tenth of a second of it is for editors that write
/// in several steps.
fn noticed(testbed: &Testbed, netfw: &Path) -> Result<Duration> {
    let dir = TempDir::new()?;
    let file = dir.path().join("netfw.toml");
    let list = list::write(dir.path(), "list", list::prefixes(MILLION))?;
    fs::write(&file, netfw_rules("tc", &list::blocking(&list)))?;
    let (_, _daemon) = up(testbed, netfw, &file)?;
    let maps = maps()?;
    let change = |address: &str| -> Result<Duration> {
        let (start, slot) = (Instant::now(), maps.active_slot()?);
        writeln!(OpenOptions::new().append(true).open(&list)?, "{address}")?;
        wait::until("rules with the change", || {
            maps.active_slot().is_ok_and(|now| now != slot).then_some(())
        })?;
        Ok(start.elapsed())
    };
    // The first one finds the daemon about to look at what it has just put in force.
    change("203.0.113.1")?;
    thread::sleep(Duration::from_secs(1));
    let time = change("203.0.113.3")?;
    timed(testbed, words(netfw, &["down".as_ref()]))?;
    Ok(time)
}

/// Those of the instance that is up.
fn maps() -> Result<Maps> {
    Maps::open(&INSTANCE.parse::<Instance>().map_err(Error::msg)?.pins())
}

/// Bytes that the kernel counts for all lists of blocked prefixes; slots may share one.
fn memory_of_lists() -> Result<u64> {
    let maps = maps()?;
    let mut lists = Vec::new();
    for slot in 0..SLOTS {
        lists.extend(maps.block_list(slot)?);
    }
    lists.sort_unstable();
    lists.dedup();
    lists.into_iter().map(|number| memory::of(&MapData::from_id(number)?)).sum()
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
