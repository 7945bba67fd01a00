//! `netfw watch`: events as they happen. Works from the pins alone, with the daemon dead too.

use std::time::Duration;

use anyhow::{Result, bail};
use ipnet::IpNet;
use netfw_common::{
    event::{ANY_PROTOCOL, BOTH_FAMILIES, DROPPED, FLOWS, OPENED, Prefix, Watch as Wanted},
    family::{addr4, addr6},
    reason::Reason,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

use super::{args::Watch, output};
use crate::{
    daemon::{Failure, Instance, lock::Watcher, names::Names},
    kernel::{LeftOut, Listener, Maps, Ring},
    report::events::{self, Told},
};

/// How often the datapath is asked to go on; it stops by itself after some such periods.
const RENEWAL: Duration = Duration::from_secs(1);
/// How long a watch holds that is not renewed, seconds.
const LEASE: u64 = 4;

/// Prints events until it is told to end.
///
/// # Errors
/// Nothing is up, somebody else watches, or nobody reads.
pub(super) async fn watch(instance: &Instance, json: bool, typed: &Watch) -> Result<()> {
    let wanted = wanted(typed)?;
    if !instance.pins().exist() {
        return Err(Failure::NotUp(instance.clone()).into());
    }
    let _watcher = Watcher::become_it(instance)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut renewals = interval(RENEWAL);
    let mut watching = Watching::begin(instance, json, wanted)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            ready = watching.ring.ready() => ready?,
            _ = renewals.tick() => {
                if !instance.pins().exist() {
                    return Err(Failure::NotUp(instance.clone()).into());
                }
                watching.maps.watch(&watching.wanted, LEASE)?;
                watching.tell_left_out()?;
            }
        }
        watching.tell()?;
    }
}

/// What was typed, as the datapath looks for it.
fn wanted(typed: &Watch) -> Result<Wanted> {
    // Only drops have a reason.
    let asks_for_drops = typed.drops || !typed.reason.is_empty();
    let (drops, new) = (asks_for_drops || !typed.new, typed.new || !asks_for_drops);
    let word = |reason: &Reason| typed.reason.iter().any(|word| word == reason.word());
    let reasons = Reason::ALL.iter().filter(|reason| word(reason)).map(|&reason| 1 << reason as u32);
    let (from, to) = (prefix(typed.from), prefix(typed.to));
    let families = from.1 & to.1;
    if families == 0 {
        bail!("nothing goes from IPv4 to IPv6\nhelp: write --from and --to of one family");
    }
    Ok(Wanted {
        until: 0,
        kinds: u32::from(drops) << DROPPED | u32::from(new) << OPENED,
        reasons: if typed.reason.is_empty() { u64::MAX } else { reasons.sum() },
        protocol: typed.protocol.map_or(ANY_PROTOCOL, u32::from),
        families,
        from: from.0,
        to: to.0,
    })
}

/// A prefix, and the families that it has.
fn prefix(net: Option<IpNet>) -> (Prefix, u32) {
    match net {
        None => (Prefix::default(), BOTH_FAMILIES),
        Some(IpNet::V4(net)) => {
            let wide = |address| [addr4(address), 0, 0, 0];
            (Prefix { address: wide(net.addr()), mask: wide(net.netmask()) }, 1)
        }
        Some(IpNet::V6(net)) => (Prefix { address: addr6(net.addr()), mask: addr6(net.netmask()) }, 2),
    }
}

/// A watch that holds as long as this lives.
struct Watching {
    maps: Maps,
    ring: Listener,
    names: Names,
    wanted: Wanted,
    json: bool,
    left_out: LeftOut,
}

impl Watching {
    fn begin(instance: &Instance, json: bool, wanted: Wanted) -> Result<Self> {
        let pins = instance.pins();
        let mut ring = Ring::watched(&pins)?;
        // What an earlier watcher did not come to read.
        ring.by_ref().for_each(drop);
        let left_out = LeftOut::open(&pins, channels(&wanted))?;
        let (maps, names) = (Maps::open(&pins)?, Names::of(instance)?);
        maps.watch(&wanted, LEASE)?;
        Ok(Self { maps, ring: ring.listen()?, names, wanted, json, left_out })
    }

    /// Prints what has happened.
    fn tell(&mut self) -> Result<()> {
        for event in &mut self.ring {
            let told = Told::new(&event, self.names.state(&event));
            output::print(self.json, &told, Told::render)?;
        }
        Ok(())
    }

    /// Prints how much was left out since the last time.
    fn tell_left_out(&mut self) -> Result<()> {
        for (channel, more) in self.left_out.news()? {
            let reason = Reason::ALL.iter().find(|&&reason| reason as u32 == channel).copied();
            let left_out = events::LeftOut::new(reason, more);
            output::print(self.json, &left_out, events::LeftOut::render)?;
        }
        Ok(())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // Where that fails the watch runs out by itself.
        let _ = self.maps.end_watch();
    }
}

/// The channels that the wanted events come by.
fn channels(wanted: &Wanted) -> impl Iterator<Item = u32> {
    let Wanted { kinds, reasons, .. } = *wanted;
    let drops = Reason::ALL.iter().map(|&reason| reason as u32);
    let drops = drops.filter(move |&reason| kinds >> DROPPED & 1 == 1 && reasons >> reason & 1 == 1);
    drops.chain((kinds >> OPENED & 1 == 1).then_some(FLOWS))
}
