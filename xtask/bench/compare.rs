//! Measures how many packets a second one core handles, case after case, in rounds.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netfw_tests::wait;

use crate::{
    Common,
    ends::{Ends, Meter, Traffic},
    gateway::{Gateway, Guard},
    report::Report,
    testbed::{self, Testbed},
};

/// Frames that must have been handled before the clock starts: every flow has its entry, every cache is warm.
const WARM_UP: u64 = 200_000;
/// The longest a slow gateway is given for that.
const WARM_UP_TIME: Duration = Duration::from_secs(1);
/// Frames that may be under way.
const SLACK: u64 = 256;

/// One cell of the table.
pub(crate) struct Case {
    pub(crate) row: &'static str,
    pub(crate) column: String,
    pub(crate) traffic: Traffic,
    pub(crate) gateway: Gateway,
}

/// Measures all cases, `rounds` times in turn, and prints the table.
pub(crate) fn compare(title: &str, common: &Common, cases: &[Case]) -> Result<()> {
    let testbed = Testbed::new()?;
    let wanted =
        |case: &&Case| common.only.is_empty() || common.only.iter().any(|word| case.row.contains(word));
    let mut report = Report::new(title);
    for round in 1..=common.rounds {
        for case in cases.iter().filter(wanted) {
            let rate =
                measure(&testbed, case, common).with_context(|| format!("{}, {}", case.row, case.column))?;
            let Rate { pps, busy } = rate;
            let mpps = pps / 1e6;
            eprintln!("round {round}: {:22} {:16} {mpps:7.3} Mpps, busy {busy:.2}", case.row, case.column);
            report.add(case, pps);
        }
    }
    report.print(common.json)
}

/// Of one measurement.
struct Rate {
    /// Packets per second of the gateway's time.
    pps: f64,
    /// Part of the time in which the gateway had something to do.
    busy: f64,
}

fn measure(testbed: &Testbed, case: &Case, common: &Common) -> Result<Rate> {
    let mut ends = Ends::new(testbed, &common.object, case.traffic)?;
    let guard = case.gateway.stand_up(testbed, common)?;
    let (source, mut meter) = ends.split()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&stop));
        let rate = rate(&meter, case, &guard, Duration::from_secs(common.seconds));
        stop.store(true, Ordering::Relaxed);
        meter.stop()?;
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("the source")?;
        rate
    })
}

fn rate(meter: &Meter<'_>, case: &Case, guard: &Guard<'_>, time: Duration) -> Result<Rate> {
    let each = case.traffic.frames_for_one();
    let wanted = usize::from(case.gateway.translates());
    warm_up(|| Ok(meter.arrived()?[wanted] * u64::from(each)))?;
    let dropped = guard.dropped()?;
    let (start, idle, begin) = (Instant::now(), testbed::gateway_idle()?, meter.arrived()?);
    thread::sleep(time);
    let (took, idle, end) = (start.elapsed(), testbed::gateway_idle()? - idle, meter.arrived()?);
    let [right, wrong] = [wanted, 1 - wanted].map(|kind| end[kind] - begin[kind]);
    ensure!(wrong == 0, "{wrong} frames arrive that are not translated as they should be");
    if let (Some(before), Some(after)) = (dropped, guard.dropped()?) {
        let expected = right * u64::from(each - 1);
        // Some are dropped before the clock runs, and their beacon arrives while it does.
        let least = expected.saturating_sub(expected / 100 + SLACK);
        ensure!(after - before >= least, "{} packets were dropped instead of {expected}", after - before);
    }
    let busy = took.saturating_sub(idle).as_secs_f64();
    Ok(Rate { pps: (right * u64::from(each)) as f64 / busy, busy: busy / took.as_secs_f64() })
}

/// Waits until many frames have been handled, or some for a while.
fn warm_up(handled: impl Fn() -> Result<u64>) -> Result<()> {
    let start = Instant::now();
    wait::until("frames at the sink", || {
        let handled = handled().ok()?;
        (handled > WARM_UP || handled > 0 && start.elapsed() > WARM_UP_TIME).then_some(())
    })
}
