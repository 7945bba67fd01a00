//! `cargo xtask bench`: what netfw's packet path costs, beside nftables and as little as possible.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;

mod bans;
mod block;
mod bulk;
mod chart;
mod compare;
mod connections;
mod conntrack;
mod cores;
mod counts;
mod drop;
mod ends;
mod flood;
mod forward;
mod gateway;
mod hosts;
mod latency;
mod list;
mod load;
mod masquerade;
mod measure;
mod memory;
mod noise;
mod probes;
mod report;
mod rules;
mod score;
mod sessions;
mod stages;
mod strangers;
mod summary;
mod target;
mod test_run;
mod testbed;
mod wire;

/// What to measure.
#[derive(Parser)]
enum Bench {
    /// Packets through a port-forward.
    Forward(forward::Args),
    /// Packets whose source is translated.
    Masquerade(masquerade::Args),
    /// Packets that one rule or a short list drops.
    Drop(drop::Args),
    /// Packets that no rule admits.
    Rules(rules::Args),
    /// Packets beside a block list.
    Block(block::Args),
    /// Time that large rules take.
    Load(load::Args),
    /// Round trips through the gateway.
    Latency(latency::Args),
    /// A TCP stream through the gateway.
    Bulk(bulk::Args),
    /// New TCP connections through the gateway.
    Connections(connections::Args),
    /// A SYN flood beside live sessions.
    Flood(flood::Args),
    /// What a million flows take.
    Memory(memory::Args),
    /// One core and two.
    Cores(cores::Args),
    /// A packet, stage by stage.
    Stages(stages::Args),
    /// The same in instructions and look-ups.
    Counts(stages::Args),
    /// Addresses that can be banned in a second.
    Bans(bans::Args),
}

/// What all measurements need to know.
#[derive(clap::Args)]
struct Common {
    /// The eBPF object with source, sink and bare gateways.
    #[arg(long)]
    object: PathBuf,
    /// The netfw program.
    #[arg(long)]
    netfw: PathBuf,
    /// Only gateways with one of these words in their name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How often all take their turn.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of one measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// For a look: one round, half a second each.
    #[arg(long)]
    quick: bool,
    /// How often turns are measured again in which the machine was too noisy.
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// Report also what a noisy machine measured.
    #[arg(long)]
    noisy: bool,
    /// A folder for the table as a chart.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// One JSON document instead of the table.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    fn time(&self) -> Duration {
        if self.quick { Duration::from_millis(500) } else { Duration::from_secs(self.seconds) }
    }
}

fn main() -> ExitCode {
    match run(&Bench::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Forward(args) => forward::run(args),
        Bench::Masquerade(args) => masquerade::run(args),
        Bench::Drop(args) => drop::run(args),
        Bench::Rules(args) => rules::run(args),
        Bench::Block(args) => block::run(args),
        Bench::Load(args) => load::run(args),
        Bench::Latency(args) => latency::run(args),
        Bench::Bulk(args) => bulk::run(args),
        Bench::Connections(args) => connections::run(args),
        Bench::Flood(args) => flood::run(args),
        Bench::Memory(args) => memory::run(args),
        Bench::Cores(args) => cores::run(args),
        Bench::Stages(args) => stages::run(args),
        Bench::Counts(args) => counts::run(args),
        Bench::Bans(args) => bans::run(args),
    }
}
