//! `bench bans`: how many addresses can be banned in a second, as programs that watch logs do it: one command for each, or
//! many in one command.

use std::{
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use netfw_tests::netfw::forget;

use crate::{
    Common,
    gateway::{INSTANCE, words},
    hosts::{self, Hosts, Offload, Placement},
    memory,
    score::{Bound, Quantity, Score, Target},
    strangers::{Behaviour, Reception, Strangers},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Live flows, which each ban looks through for those that it ends.
    #[arg(long, default_value_t = 20_000)]
    flows: u32,
}

const EACH: Quantity = ("bans, a command for each", "/s");
const COST: Quantity = ("processor's time of such a command", "ms");
const LIFTED: Quantity = ("bans lifted, a command for each", "/s");
const MANY: Quantity = ("bans, 1,000 in a command", "/s");
const STARTED: Quantity = ("`netfw --version`: what a start alone takes", "/s");
const LIST: Quantity = ("`netfw bans`", "ms");

/// Asked for, with everything there.
const ENOUGH: f64 = 1000.0;
/// Bans that are there already.
const PRESENT: u32 = 100_000;
/// Addresses in one command: what is measured, and what the kernel takes as arguments.
const TOGETHER: u32 = 1000;
const AT_MOST: u32 = 10_000;
/// Commands that are measured at a time: with many addresses in each, more would not fit into the table of bans.
const MOST: u32 = 150;
/// Nobody whose flows there are.
const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// Packets of each flow, and how many come in a second. Those of one flow are far enough apart for netfw to look whether they
/// were answered.
const PACKETS: u32 = 3;
const PACE: u32 = 100_000;

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common, flows } = args;
    let rows = [
        ("nothing else".to_owned(), 0, 0),
        (format!("{PRESENT} bans"), PRESENT, 0),
        (format!("{flows} flows"), 0, *flows),
        (format!("{PRESENT} bans, {flows} flows"), PRESENT, *flows),
    ];
    let target = |quantity| {
        let row = rows[3].0.clone();
        Target { row, quantity, times: None, bound: Bound::AtLeast(ENOUGH) }
    };
    let mut score =
        Score::new("bans", "Bans beside what is there already", [EACH, MANY].map(target).to_vec());
    for _ in 0..common.rounds() {
        for (row, bans, flows) in &rows {
            measure(&mut score, common, row, *bans, *flows).with_context(|| row.clone())?;
        }
    }
    score.print(common)
}

fn measure(score: &mut Score, common: &Common, row: &str, present: u32, flows: u32) -> Result<()> {
    // Bans outlive the instance.
    forget(INSTANCE);
    let hosts = Hosts::new(Offload::Off)?;
    let gateway = hosts::netfw("xdp", "");
    let groups = Some([flows.max(1), PACKETS]);
    let behaviour =
        Behaviour { groups, rate: Some(PACE), reception: Reception::Echo, ..Behaviour::default() };
    let strangers = Strangers::new(&hosts.bed, &common.object, behaviour)?;
    let _guard = hosts.stand_up(&gateway, common, Placement::Loop)?;
    strangers.send(flows * PACKETS)?;
    let mut commands = Commands { hosts: &hosts, common, next: FIRST };
    for _ in 0..present / AT_MOST {
        commands.ban(AT_MOST)?;
    }
    let (each, cost) = commands.often(|commands| commands.ban(1))?;
    score.add(row, EACH, each);
    score.add(row, COST, cost);
    score.add(row, MANY, f64::from(TOGETHER) * commands.often(|commands| commands.ban(TOGETHER))?.0);
    score.add(row, LIFTED, commands.often(Commands::lift_one)?.0);
    score.add(row, STARTED, commands.often(|commands| commands.run("--version", 0))?.0);
    score.add(row, LIST, 1000.0 / commands.often(|commands| commands.run("bans", 0))?.0);
    let live = memory::live_flows(&hosts, &common.netfw)?;
    // What the hosts say of themselves may be one, too.
    ensure!(live.abs_diff(flows.into()) <= u64::from(flows / 20 + 8), "{live} flows live instead of {flows}");
    forget(INSTANCE);
    Ok(())
}

/// What is typed, about one address after another.
struct Commands<'a> {
    hosts: &'a Hosts,
    common: &'a Common,
    next: Ipv4Addr,
}

impl Commands<'_> {
    /// How often a second a command can be run, and the milliseconds of a processor that one takes: those are the same beside other
    /// load.
    fn often(&mut self, mut done: impl FnMut(&mut Self) -> Result<()>) -> Result<(f64, f64)> {
        let (begun, time, before) = (Instant::now(), self.common.time(), memory::time_of_commands()?);
        let mut times = 0_u32;
        while begun.elapsed() < time && times < MOST {
            done(self)?;
            times += 1;
        }
        let (elapsed, spent) = (begun.elapsed(), memory::time_of_commands()? - before);
        Ok((f64::from(times) / elapsed.as_secs_f64(), spent.as_secs_f64() * 1000.0 / f64::from(times)))
    }

    /// Bans the next addresses.
    fn ban(&mut self, count: u32) -> Result<()> {
        self.run("ban", count)?;
        self.next = Ipv4Addr::from_bits(self.next.to_bits() + count);
        Ok(())
    }

    /// Lifts the last ban.
    fn lift_one(&mut self) -> Result<()> {
        self.next = Ipv4Addr::from_bits(self.next.to_bits() - 1);
        self.run("unban", 1)
    }

    /// Runs a command with so many addresses. Nothing else is started for it, which would take as long.
    fn run(&self, command: &str, count: u32) -> Result<()> {
        let first = self.next.to_bits();
        let addresses = (first..first + count).map(|bits| Ipv4Addr::from_bits(bits).to_string());
        let words = words(&self.common.netfw, &[command.as_ref()]);
        let mut line = Command::new(&words[0]);
        line.args(&words[1..]).args(addresses).stdin(Stdio::null()).stdout(Stdio::null());
        let status = self.hosts.bed.gateway.enter(|| Ok(line.status()?))?;
        ensure!(status.success(), "`netfw {command}` fails");
        Ok(())
    }
}
