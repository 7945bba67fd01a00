//! `bench flood`: SYNs from random sources to a forwarded port, beside people who use it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    Common,
    gateway::Gateway,
    hosts::{self, ENDS_CORE, Hosts, Offload, Placement},
    score::{Bound, Quantity, Score, Target},
    sessions::{self, Fate},
    strangers::{Behaviour, Reception, Strangers},
    testbed,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Thousands of SYNs a second; otherwise as many as the gateway takes, with its queue never full.
    #[arg(long)]
    kpps: Option<u32>,
    /// As many as can be made: what does not fit into the gateway's queue is lost before it.
    #[arg(long, conflicts_with = "kpps")]
    overrun: bool,
    /// Live sessions beside it.
    #[arg(long, default_value_t = 1000)]
    sessions: u32,
    /// Netfw's `[flows] capacity`; a quarter of it is for flows that have not proved themselves.
    #[arg(long, default_value_t = 262_144)]
    capacity: u32,
    /// The target answers strangers, with SYN cookies; otherwise it keeps silent.
    #[arg(long)]
    answering: bool,
}

const COST: Quantity = ("gateway's time per flooded packet", "µs");
const OFFERED: Quantity = ("flooded packets sent", "kpps");
const HANDLED: Quantity = ("flooded packets the gateway saw", "kpps");
const BUSY: Quantity = ("gateway's core busy", "%");
const NEWCOMERS: Quantity = ("new connections that succeed", "%");
const OPENING: Quantity = ("new connection and first answer, median", "ms");
const LATE: Quantity = ("answers in live sessions after 1 s", "%");
const LOST: Quantity = ("live sessions lost", "");

/// From the begin of the flood until it counts: tables are full.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common, capacity, .. } = args;
    hosts::pin_here(ENDS_CORE)?;
    let mut score = Score::new("flood", "SYN flood to a forwarded port", targets());
    for _ in 0..common.rounds() {
        let flows = format!("[flows]\ncapacity = {capacity}\n");
        for (name, gateway) in hosts::gateways_with(common, &flows) {
            measure(&gateway, args, false).context(name)?.enter(&mut score, name);
        }
        for (name, gateway) in hosts::guarded(common, &flows) {
            measure(&gateway, args, true).context(name)?.enter(&mut score, name);
        }
    }
    score.print(common)
}

fn targets() -> Vec<Target> {
    let of = |row: &str| {
        let target = |quantity, times: Option<&str>, bound| Target {
            row: row.to_owned(),
            quantity,
            times: times.map(str::to_owned),
            bound,
        };
        [
            target(NEWCOMERS, None, Bound::AtLeast(95.0)),
            target(LOST, None, Bound::AtMost(0.0)),
            target(COST, Some("nftables"), Bound::AtMost(0.2)),
        ]
    };
    ["netfw, TC", "netfw, XDP", hosts::GUARDED[0], hosts::GUARDED[1]].into_iter().flat_map(of).collect()
}

/// Of one measurement.
struct Seen {
    took: Duration,
    busy: Duration,
    sent: u64,
    handled: u64,
    fate: Fate,
}

impl Seen {
    fn enter(&self, score: &mut Score, row: &str) {
        let seconds = self.took.as_secs_f64();
        let (share, opening) = self.fate.newcomers();
        score.add(row, COST, self.busy.as_secs_f64() * 1e6 / self.handled as f64);
        score.add(row, OFFERED, self.sent as f64 / 1e3 / seconds);
        score.add(row, HANDLED, self.handled as f64 / 1e3 / seconds);
        score.add(row, BUSY, self.busy.as_secs_f64() / seconds * 100.0);
        score.add(row, NEWCOMERS, share * 100.0);
        score.add(row, OPENING, opening.as_secs_f64() * 1e3);
        score.add(row, LATE, self.fate.late() * 100.0);
        score.add(row, LOST, self.fate.lost() as f64);
    }
}

fn measure(gateway: &Gateway, args: &Args, challenged: bool) -> Result<Seen> {
    let Args { common, kpps, overrun, sessions, answering, .. } = args;
    // A new one each time: what a flood leaves in the tables of nftables outlives its rules.
    let hosts = Hosts::new(Offload::Off)?;
    hosts.bed.sink.sysctl("net/ipv4/tcp_max_syn_backlog", "4096")?;
    let patient = kpps.is_none() && !overrun;
    let behaviour = Behaviour {
        syn: true,
        rate: kpps.map(|kpps| kpps * 1000),
        patient,
        reception: if *answering { Reception::Stack } else { Reception::Silence },
        challenged,
        ..Behaviour::default()
    };
    let strangers = Strangers::new(&hosts.bed, &common.object, behaviour)?;
    let placement = match (patient, challenged) {
        (false, _) => Placement::Apart,
        (true, false) => Placement::Loop,
        (true, true) => Placement::ShortLoop,
    };
    let _guard = hosts.stand_up(gateway, common, placement)?;
    let (fate, over) = (Fate::default(), AtomicBool::new(false));
    let (hosts, strangers, fate_here) = (&hosts, &strangers, &fate);
    let counts = thread::scope(|scope| {
        let begun = sessions::begin(
            scope,
            [&hosts.bed.source, &hosts.bed.sink],
            hosts::forwarded()?,
            *sessions,
            fate_here,
        );
        let flooding = scope.spawn(|| strangers.send_on(&over));
        let counts = begun.and_then(|()| watch(hosts, strangers, fate_here, common.time()));
        over.store(true, Ordering::Relaxed);
        strangers.stop()?;
        fate_here.end();
        flooding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        counts
    });
    let (took, busy, [sent, handled]) = counts?;
    Ok(Seen { took, busy, sent, handled, fate })
}

/// Time, the gateway's share of it, frames sent and handled.
fn watch(
    hosts: &Hosts,
    strangers: &Strangers<'_>,
    fate: &Fate,
    time: Duration,
) -> Result<(Duration, Duration, [u64; 2])> {
    let counts = || -> Result<[u64; 2]> { Ok([strangers.sent_and_arrived()?[0], hosts.handled()?]) };
    thread::sleep(WARM_UP);
    fate.watch();
    let (start, idle, begin) = (Instant::now(), testbed::gateway_idle()?, counts()?);
    thread::sleep(time);
    let (took, idle, end) = (start.elapsed(), testbed::gateway_idle()? - idle, counts()?);
    Ok((took, took.saturating_sub(idle), [end[0] - begin[0], end[1] - begin[1]]))
}
