//! The health of targets: tested from here, held by the datapath, so that without the daemon the last state stays.
//!
//! A change is one store into a table that packets read. Each target is tested by a task of its own; what the tasks
//! find is applied by the daemon's loop, one change at a time, under the instance's lock.

mod book;
mod probe;
mod tally;

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Result;
use netfw_common::health::{DOWN, UP};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

pub use book::Book;
use tally::Tally;

use super::{instance::Instance, lock::Lock, state::State, sweep::Cutter};
use crate::{
    image::Ids,
    kernel::{Maps, Pair, wait_for_readers},
    policy::{Check, Endpoint, OnChange, PortForward, PortRange, ValidPolicy},
};

/// A target under test.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    forward: String,
    label: String,
    /// Number of its word of health.
    word: u16,
    /// Stable id of the port-forward.
    id: u16,
    address: std::net::IpAddr,
    ports: PortRange,
    check: Check,
}

impl Watched {
    fn key(&self) -> (String, String) {
        (self.forward.clone(), self.label.clone())
    }
}

/// A state that several tests in a row have shown.
#[derive(Debug)]
pub(super) struct Change {
    watched: Watched,
    state: u32,
    error: Option<String>,
}

/// The test of one target, again and again.
struct Test {
    watched: Watched,
    /// What the datapath was told last.
    state: u32,
    task: JoinHandle<()>,
}

impl Drop for Test {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All tests.
pub(super) struct Health {
    /// By name of the port-forward and label of the target.
    tests: BTreeMap<(String, String), Test>,
    sender: mpsc::Sender<Change>,
    changes: mpsc::Receiver<Change>,
}

impl Health {
    pub(super) fn new() -> Self {
        let (sender, changes) = mpsc::channel(64);
        Self { tests: BTreeMap::new(), sender, changes }
    }

    /// Waits for the next change.
    pub(super) async fn changed(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    /// Tests exactly what `policy` says from now on. What stays as it was is not disturbed.
    ///
    /// # Errors
    /// What the kernel or the file system says.
    pub(super) fn follow(&mut self, instance: &Instance, maps: &Maps, policy: &ValidPolicy) -> Result<()> {
        let ids = State::load(instance)?.ids;
        let mut before = std::mem::take(&mut self.tests);
        for watched in watched(policy, &ids) {
            let key = watched.key();
            let state = maps.health(watched.word)?;
            // A reload may have made the datapath forget what it was told.
            let kept = before.remove(&key).filter(|test| test.watched == watched && test.state == state);
            let test = match kept {
                Some(test) => test,
                None => self.begin(maps, watched, state)?,
            };
            self.tests.insert(key, test);
        }
        let mut book = Book::load(instance)?;
        let checked =
            |forward: &str, label: &str| self.tests.contains_key(&(forward.to_owned(), label.to_owned()));
        if book.keep(checked) { book.save(instance) } else { Ok(()) }
    }

    fn begin(&self, maps: &Maps, watched: Watched, state: u32) -> Result<Test> {
        if state == DOWN {
            // An earlier daemon may have ended before it came to that.
            cut_flows(maps, &watched)?;
        }
        let task = tokio::spawn(watch(watched.clone(), state, self.sender.clone()));
        Ok(Test { watched, state, task })
    }

    /// Tells the datapath of a change, unless the rules have gone on meanwhile.
    ///
    /// # Errors
    /// What the kernel or the file system says.
    pub(super) fn apply(&mut self, instance: &Instance, maps: &Maps, change: Change) -> Result<()> {
        let key = change.watched.key();
        let Some(test) = self.tests.get_mut(&key).filter(|test| test.watched == change.watched) else {
            return Ok(());
        };
        test.state = change.state;
        let applied = apply(instance, maps, change);
        if applied.is_err() {
            // The next look at the rules begins this test anew.
            self.tests.remove(&key);
        }
        applied
    }
}

fn watched(policy: &ValidPolicy, ids: &Ids) -> Vec<Watched> {
    let endpoints = policy.port_forwards().iter().flat_map(PortForward::endpoints);
    let watched = |endpoint: Endpoint<'_>| {
        Some(Watched {
            forward: endpoint.forward.name.clone(),
            label: endpoint.label(),
            word: ids.target(&endpoint)?,
            id: ids.port_forward(&endpoint.forward.name)?,
            address: endpoint.address,
            ports: endpoint.target.ports,
            check: endpoint.forward.check.clone()?,
        })
    };
    endpoints.filter(Endpoint::is_checked).filter_map(watched).collect()
}

/// Tests one target for ever.
async fn watch(watched: Watched, state: u32, sender: mpsc::Sender<Change>) {
    let Check { probe, port, interval: period, rise, fall, .. } = &watched.check;
    let target = SocketAddr::new(watched.address, port.unwrap_or(watched.ports.first));
    let mut tally = Tally::new(state, *rise, *fall);
    let mut ticks = interval(*period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = probe::test(probe, target, *period).await;
        if let Some(state) = tally.note(outcome.is_ok()) {
            let change = Change { watched: watched.clone(), state, error: outcome.err() };
            if sender.send(change).await.is_err() {
                return;
            }
        }
    }
}

fn apply(instance: &Instance, maps: &Maps, change: Change) -> Result<()> {
    let Change { watched, state, error } = change;
    let _lock = Lock::acquire(instance)?;
    let ids = State::load(instance)?.ids;
    if ids.target_by_label(&watched.forward, &watched.label) != Some(watched.word) {
        return Ok(());
    }
    maps.set_health(watched.word, state)?;
    wait_for_readers();
    let name = format!("target {} of port-forward \"{}\"", watched.label, watched.forward);
    if state == UP {
        tracing::info!("{name} is up");
    } else {
        tracing::warn!("{name} is down: {}", error.as_deref().unwrap_or("no reason"));
    }
    let mut book = Book::load(instance)?;
    let error = error.or_else(|| book.entry(&watched.forward, &watched.label)?.error.clone());
    book.note(&watched.forward, &watched.label, error);
    book.save(instance)?;
    if state == DOWN { cut_flows(maps, &watched) } else { Ok(()) }
}

/// Ends the flows of a target that is down, if its check says so: they would stay with it until they time out.
fn cut_flows(maps: &Maps, watched: &Watched) -> Result<()> {
    if watched.check.on_down == OnChange::Keep {
        return Ok(());
    }
    let belongs = |pair: &Pair| {
        let [_, target] = pair.ends(&pair.original.leaving);
        pair.original.forward == watched.id + 1
            && target.ip() == watched.address
            && watched.ports.contains(target.port())
    };
    let cutter = Cutter::new(maps);
    let mut count = 0;
    maps.each_flow(belongs, |pair| {
        count += 1;
        cutter.cut(pair)
    })?;
    if count > 0 {
        tracing::info!("{count} flows to {} are cut", watched.label);
    }
    Ok(())
}
