//! `bench cores`: the loaded datapath, run on one core and on both at once.

use std::{net::IpAddr, sync::Barrier, thread, time::Duration};

use anyhow::{Context as _, Result};
use netfw::kernel::Hook;
use netfw_tests::net::frame;

use crate::{
    Common,
    hosts::{self, ENDS_CORE, Hosts, OTHER_CORE, Offload, Placement},
    score::{Bound, Quantity, Score, Target},
    test_run::Programs,
    testbed::{DROPPED, FORWARDED, SOURCE, SOURCE_LINK},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

const ALONE: Quantity = ("time in the program, one core", "ns");
const TOGETHER: Quantity = ("time in the program, both cores at once", "ns");
const TIMES: Quantity = ("both cores at once, × one core", "");

/// Packets of a flow that are not counted.
const WARM_UP: u32 = 1000;
/// Packets between two looks at the clock.
const LOOK: u32 = 256;

/// What becomes of the packets.
#[derive(Clone, Copy)]
struct Case {
    row: &'static str,
    hook: Hook,
    to: (&'static str, u16),
}

const CASES: [Case; 4] = [
    Case { row: "XDP, forwarded", hook: Hook::Xdp, to: FORWARDED },
    Case { row: "XDP, dropped by policy", hook: Hook::Xdp, to: DROPPED },
    Case { row: "TC, forwarded", hook: Hook::Ingress, to: FORWARDED },
    Case { row: "TC, dropped by policy", hook: Hook::Ingress, to: DROPPED },
];

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common } = args;
    let hosts = Hosts::new(Offload::Off)?;
    let gateway = hosts::netfw("xdp", "");
    let _guard = hosts.stand_up(&gateway, common, Placement::Inline)?;
    let programs = hosts.bed.gateway.enter(Programs::open)?;
    let target = |case: Case| Target {
        row: case.row.to_owned(),
        quantity: TIMES,
        times: None,
        bound: Bound::AtLeast(1.8),
    };
    let mut score = Score::new("cores", "The datapath by test run", CASES.map(target).to_vec());
    let time = common.time();
    for _ in 0..common.rounds() {
        for case in CASES {
            let run = |cores: &[usize]| {
                hosts.bed.gateway.enter(|| on_cores(&programs, case, cores, time)).context(case.row)
            };
            let alone = [run(&[ENDS_CORE])?, run(&[OTHER_CORE])?].concat();
            let together = run(&[ENDS_CORE, OTHER_CORE])?;
            score.add(case.row, ALONE, mean(&alone));
            score.add(case.row, TOGETHER, mean(&together));
            score.add(case.row, TIMES, 2.0 * rate(&together) / rate(&alone));
        }
    }
    score.print(common)
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

/// Packets a nanosecond, the mean of the cores.
fn rate(times: &[f64]) -> f64 {
    times.iter().map(|time| 1.0 / time).sum::<f64>() / times.len() as f64
}

/// Nanoseconds that a packet takes on each core, all at the same time.
fn on_cores(programs: &Programs, case: Case, cores: &[usize], time: Duration) -> Result<Vec<f64>> {
    let barrier = &Barrier::new(cores.len());
    thread::scope(|scope| {
        let threads: Vec<_> = cores
            .iter()
            .map(|&core| scope.spawn(move || on_core(programs, case, core, time, barrier)))
            .collect();
        let times = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        times.collect()
    })
}

fn on_core(programs: &Programs, case: Case, core: usize, time: Duration, barrier: &Barrier) -> Result<f64> {
    hosts::pin_here(core)?;
    let Case { hook, to: (address, port), .. } = case;
    let addresses: (IpAddr, IpAddr) = (SOURCE.parse()?, address.parse()?);
    // A flow for each core.
    let frame = frame::udp(SOURCE_LINK, addresses, (4000 + core as u16, port), &[0; 22])?;
    for _ in 0..WARM_UP {
        programs.once(hook, &frame)?;
    }
    barrier.wait();
    let (begin, mut sum, mut count) = (std::time::Instant::now(), Duration::ZERO, 0_u32);
    while begin.elapsed() < time {
        // Or its way expires, and XDP leaves it to TC.
        programs.once(Hook::Ingress, &frame)?;
        for _ in 0..LOOK {
            sum += programs.once(hook, &frame)?;
        }
        count += LOOK;
    }
    Ok(sum.as_nanos() as f64 / f64::from(count))
}
