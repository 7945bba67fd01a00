//! One measurement: how many packets a second one core handles.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netfw_tests::wait;

use crate::{
    Common,
    compare::Case,
    ends::{Ends, Meter},
    gateway::Guard,
    testbed::{self, Testbed},
};

/// Frames that must have been handled with all flows open before the clock starts: every cache is warm.
const WARM_UP: u64 = 200_000;
/// The longest a slow gateway is given for that.
const WARM_UP_TIME: Duration = Duration::from_secs(1);
/// Frames that may be under way.
const SLACK: u64 = 256;

/// Of one measurement.
pub(crate) struct Rate {
    /// Packets per second of the gateway's time.
    pub(crate) pps: f64,
    /// Part of the time in which the gateway had something to do.
    pub(crate) busy: f64,
    /// Flows that the gateway knew when the clock began to run.
    pub(crate) flows: Option<u64>,
}

/// Measures in a test bed of its own: some gateways leave traces in a network namespace, such as legacy iptables its hooks.
pub(crate) fn measure(case: &Case, common: &Common) -> Result<Rate> {
    let testbed = Testbed::new()?;
    let mut ends = Ends::new(&testbed, &common.object, case.traffic)?;
    let guard = case.gateway.stand_up(&testbed, common, case.traffic)?;
    let (source, mut meter) = ends.split()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&stop));
        let rate = meter.open().and_then(|()| rate(&meter, case, &guard, common.time()));
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
    let (flows, dropped) = (guard.flows()?, guard.dropped()?);
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
    Ok(Rate { pps: (right * u64::from(each)) as f64 / busy, busy: busy / took.as_secs_f64(), flows })
}

/// Waits until many more frames have been handled, or some for a while.
fn warm_up(handled: impl Fn() -> Result<u64>) -> Result<()> {
    let (start, before) = (Instant::now(), handled()?);
    wait::until("frames at the sink", || {
        let since = handled().ok()? - before;
        (since > WARM_UP || since > 0 && start.elapsed() > WARM_UP_TIME).then_some(())
    })
}
