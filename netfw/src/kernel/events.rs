//! Events that the datapath tells ([`netfw_common::event`]): asking for them, and reading them.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, RingBuf};
use netfw_common::{event::Watch, tick::Tick};
use tokio::io::unix::AsyncFd;

use super::{
    counters::cpus,
    flows::now,
    maps::Maps,
    pins::Pins,
    table::{ANY, Table},
};

pub use netfw_common::event::Event;

/// A ring of events. It is read by one process at a time.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    /// What a watcher is told.
    ///
    /// # Errors
    /// The instance is not up.
    pub fn watched(pins: &Pins) -> Result<Self> {
        Self::open(pins, "WATCHED")
    }

    /// What the log is told.
    ///
    /// # Errors
    /// The instance is not up.
    pub fn logged(pins: &Pins) -> Result<Self> {
        Self::open(pins, "LOGGED")
    }

    fn open(pins: &Pins, name: &str) -> Result<Self> {
        let path = pins.map(name);
        let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(RingBuf::try_from(Map::RingBuf(map))?))
    }

    /// For waiting until there are events.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn listen(self) -> Result<Listener> {
        // SAFETY: the descriptor belongs to the ring, which keeps it open and the same as long as it lives.
        let registered = unsafe { AsyncFd::register(self) };
        Ok(Listener(registered.map_err(io::Error::from)?))
    }
}

/// The events that were not read yet, the oldest first; more may come later.
impl Iterator for Ring {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let item = self.0.next()?;
        // SAFETY: as many bytes are there, and any bytes are an event: it is `Shared`.
        (item.len() >= size_of::<Event>()).then(|| unsafe { ptr::read_unaligned(item.as_ptr().cast()) })
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A ring that can be waited for.
pub struct Listener(AsyncFd<Ring>);

impl Listener {
    /// Waits until there may be events.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn ready(&mut self) -> Result<()> {
        // Before they are read: what comes meanwhile is announced again.
        self.0.readable_mut().await?.clear_ready();
        Ok(())
    }
}

/// As of [`Ring`].
impl Iterator for Listener {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.get_mut().next()
    }
}

impl Maps {
    /// Has the datapath tell about `wanted` for `seconds` from now on, whatever its `until` says.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watch(&self, wanted: &Watch, seconds: u64) -> Result<()> {
        let until = now().0.wrapping_add(Tick::ticks(seconds)).max(1);
        Ok(self.watch.set(&0, Watch { until, ..*wanted }, ANY)?)
    }

    /// Has the datapath tell nothing any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn end_watch(&self) -> Result<()> {
        Ok(self.watch.set(&0, Watch::default(), ANY)?)
    }
}

/// How many events were left out.
pub struct LeftOut {
    counts: Table<u32, u64>,
    cpus: usize,
    /// As it was last told, by channel.
    told: BTreeMap<u32, u64>,
}

impl LeftOut {
    /// Of these channels of an instance, from now on.
    ///
    /// # Errors
    /// It is not up.
    pub fn open(pins: &Pins, channels: impl Iterator<Item = u32>) -> Result<Self> {
        let counts = Table::open(&pins.map("LEFT_OUT"))?;
        let mut left_out =
            Self { counts, cpus: cpus()?, told: channels.map(|channel| (channel, 0)).collect() };
        left_out.news()?;
        Ok(left_out)
    }

    /// Of this channel, too.
    pub fn include(&mut self, channel: u32) {
        self.told.entry(channel).or_default();
    }

    /// The channels of which more were left out since the last call, and how many more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn news(&mut self) -> Result<Vec<(u32, u64)>> {
        let mut news = Vec::new();
        for (&channel, told) in &mut self.told {
            let now: u64 = self.counts.get_per_cpu(&channel, self.cpus)?.into_iter().sum();
            let more = now - std::mem::replace(told, now);
            if more > 0 {
                news.push((channel, more));
            }
        }
        Ok(news)
    }
}
