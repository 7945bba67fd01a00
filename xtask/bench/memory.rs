//! `bench memory`: what a million live flows take of memory, and of the daemon's time.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::MapData;
use netfw_tests::lab::command;
use serde_json::Value;

use crate::{
    Common,
    gateway::words,
    hosts::{self, Hosts, Offload, Placement},
    score::{Bound, Quantity, Score, Target},
    strangers::{Behaviour, Reception, Strangers},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Live flows; made in whole groups of 125,000.
    #[arg(long, default_value_t = 8 * GROUP)]
    flows: u32,
}

const ROW: &str = "netfw";
const PROVEN: Quantity = ("memory of the tables of proven flows, per flow", "bytes");
const GROWN: Quantity = ("memory of all maps that the flows added, per flow", "bytes");
const ALL: Quantity = ("memory of all maps, per flow", "bytes");
const AVAILABLE: Quantity = ("memory that the machine has less, per flow", "bytes");
const SWEEP: Quantity = ("daemon's share of a core, from one sweep to the next", "%");

/// Maps that hold proven flows of IPv4: their halves, their places.
const TABLES: [&str; 2] = ["PROVEN4", "PLACES4"];
/// Flows that come together: fewer than there is room for unproven ones, and so many that the packets of one are more than an
/// eighth of a second apart. Of those that follow each other more closely netfw does not ask whether they were answered.
const GROUP: u32 = 125_000;
/// Packets of each: one opens the flow, is answered, and the next one proves it; two to spare.
const PACKETS: u32 = 4;
/// How often the daemon is looked at while it sweeps or rests.
const GLANCE: Duration = Duration::from_millis(500);
/// How often at most: for twenty minutes, four times as long as it rests between two sweeps of a million flows.
const GLANCES: u32 = 2400;
/// The share of that time from which on it sweeps.
const BUSY: f64 = 20.0;
const PINS: &str = "/sys/fs/bpf/netfw/nfwbench";

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common, flows } = args;
    let target =
        |quantity, most| Target { row: ROW.to_owned(), quantity, times: None, bound: Bound::AtMost(most) };
    let targets = vec![target(PROVEN, 400.0), target(SWEEP, 2.0)];
    let mut score = Score::new("memory", "Live flows through a port-forward", targets);
    for _ in 0..common.rounds() {
        round(&mut score, common, *flows)?;
    }
    score.print(common)
}

fn round(score: &mut Score, common: &Common, flows: u32) -> Result<()> {
    let hosts = Hosts::new(Offload::Off)?;
    // Three quarters of the capacity are for proven flows; a twentieth of them stays free. A million then has tables of 2²⁰ places.
    let capacity = u64::from(flows.next_power_of_two()) * 4 / 3;
    let gateway = hosts::netfw("xdp", &format!("[flows]\ncapacity = {capacity}\n"));
    let groups = Some([GROUP, PACKETS]);
    let behaviour = Behaviour { groups, patient: true, reception: Reception::Echo, ..Behaviour::default() };
    let strangers = Strangers::new(&hosts.bed, &common.object, behaviour)?;
    let _guard = hosts.stand_up(&gateway, common, Placement::Loop)?;
    let (maps, available) = (memory(|_| true)?, available()?);
    let flows = flows.next_multiple_of(GROUP);
    strangers.send(flows * PACKETS)?;
    let live = live_flows(&hosts, &common.netfw)?;
    let spread = 1.0 - live as f64 / f64::from(flows);
    ensure!(spread.abs() < 0.05, "{live} flows live instead of {flows}");
    let each = |bytes: u64| bytes as f64 / live as f64;
    score.add(ROW, PROVEN, each(memory(|name| TABLES.contains(&name))?));
    score.add(ROW, GROWN, each(memory(|_| true)?.saturating_sub(maps)));
    score.add(ROW, ALL, each(memory(|_| true)?));
    score.add(ROW, AVAILABLE, each(available.saturating_sub(self::available()?)));
    let daemon = daemon()?;
    // The first one may have begun when most flows had not, and rested but for as long as that took.
    sweep_ends(&daemon)?;
    sweep_ends(&daemon)?;
    let (begun, before) = (Instant::now(), cpu_time(&daemon)?);
    sweep_ends(&daemon)?;
    score.add(ROW, SWEEP, share(cpu_time(&daemon)? - before, begun.elapsed()));
    Ok(())
}

/// As netfw counts them.
pub(crate) fn live_flows(hosts: &Hosts, netfw: &Path) -> Result<u64> {
    let status = words(netfw, &["--json".as_ref(), "status".as_ref()]);
    let text = hosts.bed.gateway.enter(|| command::run(status)?.success())?;
    let status: Value = serde_json::from_str(&text)?;
    status.pointer("/flows/used").and_then(Value::as_u64).context("status names no flows")
}

/// Bytes that the kernel counts for the pinned maps with a name that is wanted.
fn memory(wanted: impl Fn(&str) -> bool) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(PINS)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !wanted(&name) {
            continue;
        }
        // Programs are pinned beside the maps.
        let Ok(map) = MapData::from_pin(&path) else { continue };
        sum += of(&map)?;
    }
    Ok(sum)
}

/// Bytes that the kernel counts for a map.
pub(crate) fn of(map: &MapData) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    bytes.context("the kernel does not say how large a map is")
}

/// Bytes that programs could still have.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kibibytes.context("/proc/meminfo does not say what is available")? * 1024)
}

/// The directory of the daemon in `/proc`.
fn daemon() -> Result<std::path::PathBuf> {
    let is_daemon = |path: &std::path::PathBuf| {
        let line = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split('\0').collect();
        words.first().is_some_and(|word| word.ends_with("/netfw"))
            && words.contains(&"nfwbench")
            && words.contains(&"up")
    };
    let mut paths = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(is_daemon).context("the daemon does not run")
}

/// Waits until the daemon has swept the table; it rests for minutes before that.
fn sweep_ends(daemon: &Path) -> Result<()> {
    let mut sweeps = false;
    for _ in 0..GLANCES {
        let (begun, before) = (Instant::now(), cpu_time(daemon)?);
        thread::sleep(GLANCE);
        let busy = share(cpu_time(daemon)? - before, begun.elapsed()) > BUSY;
        if sweeps && !busy {
            return Ok(());
        }
        sweeps = busy;
    }
    bail!(
        "the daemon was not seen to sweep the table: with so few flows it is done too soon, ask for more --flows"
    )
}

/// In percent.
fn share(spent: Duration, of: Duration) -> f64 {
    spent.as_secs_f64() / of.as_secs_f64() * 100.0
}

/// What all commands that were run so far and have ended took.
pub(crate) fn time_of_commands() -> Result<Duration> {
    times(Path::new("/proc/self"), 13)
}

/// In user space and in the kernel, all threads.
fn cpu_time(process: &Path) -> Result<Duration> {
    times(process, 11)
}

/// The sum of two fields of a process's account.
fn times(process: &Path, first: usize) -> Result<Duration> {
    let text = fs::read_to_string(process.join("stat"))?;
    // After the name, which may hold anything.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks =
        fields.split_whitespace().skip(first).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
