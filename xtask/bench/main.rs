//! `cargo xtask bench forward`: how many packets a second one core forwards, by nftables, by netfw, and at best.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum as _};
use netfw_tests::wait;

use crate::{
    ends::{Arrived, Ends},
    gateway::Gateway,
    report::Report,
    testbed::Testbed,
};

mod ends;
mod gateway;
mod report;
mod testbed;

/// What to measure.
#[derive(Parser)]
struct Args {
    /// The eBPF object with source, sink and bare redirect.
    #[arg(long)]
    object: PathBuf,
    /// The netfw program.
    #[arg(long)]
    netfw: PathBuf,
    /// Numbers of flows the datagrams belong to.
    #[arg(long, value_delimiter = ',', default_value = "1,4096,20000")]
    flows: Vec<u32>,
    /// Which gateways; all, if none is named. Ratios need nftables.
    #[arg(long, value_enum, value_delimiter = ',')]
    gateways: Vec<Gateway>,
    /// How often all gateways take their turn.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of one measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

/// Frames that must have arrived before the clock starts: every flow has its entry, every cache is warm.
const WARM_UP: u64 = 200_000;

fn main() -> ExitCode {
    let mut args = Args::parse();
    if args.gateways.is_empty() {
        args.gateways = Gateway::value_variants().to_vec();
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let testbed = Testbed::new()?;
    let mut report = Report::new(&args.gateways, &args.flows);
    for round in 1..=args.rounds {
        for (column, &flows) in args.flows.iter().enumerate() {
            for &gateway in &args.gateways {
                let rate = measure(&testbed, gateway, flows, args).with_context(|| gateway.to_string())?;
                eprintln!("round {round}: {gateway:18} {flows:6} flows {:6.2} Mpps", rate / 1e6);
                report.add(gateway, column, rate);
            }
        }
    }
    println!("{report}");
    Ok(())
}

/// Packets per second that arrive where they should.
fn measure(testbed: &Testbed, gateway: Gateway, flows: u32, args: &Args) -> Result<f64> {
    let mut ends = Ends::new(testbed, &args.object, flows)?;
    let _guard = gateway.stand_up(testbed, args)?;
    let (source, arrived) = ends.split()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&stop));
        let rate = rate(&arrived, gateway, Duration::from_secs(args.seconds));
        stop.store(true, Ordering::Relaxed);
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("the source")?;
        rate
    })
}

fn rate(arrived: &Arrived<'_>, gateway: Gateway, time: Duration) -> Result<f64> {
    let wanted = usize::from(gateway.translates());
    wait::until("frames at the sink", || (arrived.count().ok()?[wanted] > WARM_UP).then_some(()))?;
    let (start, idle, begin) = (Instant::now(), testbed::gateway_idle()?, arrived.count()?);
    thread::sleep(time);
    let (took, idle, end) = (start.elapsed(), testbed::gateway_idle()? - idle, arrived.count()?);
    let [right, wrong] = [wanted, 1 - wanted].map(|kind| end[kind] - begin[kind]);
    // A few are the hosts' own: neighbour and router discovery.
    ensure!(wrong < right / 1000, "{wrong} frames arrive that are not translated as they should be");
    eprintln!(
        "busy {:.3}, raw {:.3}",
        1.0 - idle.as_secs_f64() / took.as_secs_f64(),
        right as f64 / took.as_secs_f64()
    );
    Ok(right as f64 / (took - idle).as_secs_f64())
}
