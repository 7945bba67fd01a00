//! The eBPF programs at both ends: what sends frames as fast as it can, and what counts and drops them.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, DevMap, MapData},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use netfw_tests::net::frame;
use nix::net::if_::if_nametoindex;

use crate::testbed::{self, DROPPED, FORWARDED, INTERFACES, SOURCE, SOURCE_LINK, TARGET, Testbed};

/// Frames a call: each ends with waiting for an RCU grace period, which must not count.
const FRAMES: u32 = 1 << 20;
/// Frames at a time, the most that are allowed: as many pages are kept for reuse; beyond, each frame costs a page of the
/// allocator, and the cores contend for its lock.
const BATCH: u32 = 256;
/// Bytes of a frame.
const LENGTH: usize = 64;

/// What the source sends.
#[derive(Clone, Copy)]
pub(crate) enum Traffic {
    /// Datagrams of so many flows, all to the forwarded port.
    Forwarded { flows: u32 },
    /// Of [`Traffic::EVERY`] datagrams one to the forwarded port; the others from other sources, to be dropped.
    Dropped(Sources),
}

/// Addresses that datagrams come from.
#[derive(Clone, Copy)]
pub(crate) struct Sources {
    pub(crate) first: Ipv4Addr,
    pub(crate) count: u32,
    /// From one to the next.
    pub(crate) step: u32,
}

impl Traffic {
    /// As many as the source sends between two looks.
    const EVERY: u32 = 64;

    /// How many frames the gateway has handled when one arrives.
    pub(crate) fn frames_for_one(self) -> u32 {
        match self {
            Self::Forwarded { .. } => 1,
            Self::Dropped(_) => Self::EVERY,
        }
    }

    fn flows(self) -> u32 {
        match self {
            Self::Forwarded { flows } => flows,
            Self::Dropped(_) => 1,
        }
    }

    /// First, number, step.
    fn sources(self) -> [u32; 3] {
        match self {
            Self::Forwarded { .. } => [0; 3],
            Self::Dropped(sources) => [sources.first.to_bits(), sources.count, sources.step],
        }
    }
}

/// Source and sink of one measurement.
pub(crate) struct Ends<'a> {
    testbed: &'a Testbed,
    programs: Ebpf,
    stop: Array<MapData, u32>,
    arrived: Array<MapData, u64>,
}

impl<'a> Ends<'a> {
    /// Loads both and attaches the sink.
    pub(crate) fn new(testbed: &'a Testbed, object: &Path, traffic: Traffic) -> Result<Self> {
        let mut programs = EbpfLoader::new()
            .override_global("BEACON", &template(FORWARDED)?, true)
            .override_global("CHAFF", &template(DROPPED)?, true)
            .override_global("EVERY", &traffic.frames_for_one(), true)
            .override_global("SOURCE", &SOURCE.parse::<Ipv4Addr>()?.to_bits(), true)
            .override_global("FLOWS", &traffic.flows(), true)
            .override_global("SOURCES", &traffic.sources(), true)
            .override_global("TARGETS", &targets()?, true)
            .load_file(object)?;
        testbed.sink.enter(|| Ok(program(&mut programs, "sink")?.attach("nbs", XdpMode::Driver)?))?;
        program(&mut programs, "generate")?;
        let stop = programs.take_map("STOP").context("the object has no map STOP")?.try_into()?;
        let arrived = programs.take_map("ARRIVED").context("the object has no map ARRIVED")?.try_into()?;
        Ok(Self { testbed, programs, stop, arrived })
    }

    /// The source alone, and what the measurement needs of both.
    pub(crate) fn split(&mut self) -> Result<(Source<'_>, Meter<'_>)> {
        let program = self.programs.program("generate").context("the object has no generate")?.try_into()?;
        let source = Source { testbed: self.testbed, program };
        Ok((source, Meter { arrived: &self.arrived, stop: &mut self.stop }))
    }
}

/// The sending end.
pub(crate) struct Source<'a> {
    testbed: &'a Testbed,
    program: &'a Xdp,
}

impl Source<'_> {
    /// Sends until `stop`, from the source's namespace and core.
    pub(crate) fn send(&self, stop: &AtomicBool) -> Result<()> {
        self.testbed.source.enter(|| {
            testbed::pin_source()?;
            let context = context(if_nametoindex("nbc")?);
            while !stop.load(Ordering::Relaxed) {
                self.program.test_run(TestRunOptions {
                    data_in: Some(&[0; LENGTH]),
                    ctx_in: Some(&context),
                    repeat: FRAMES,
                    attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                    ..Default::default()
                })?;
            }
            Ok(())
        })
    }
}

/// Counts what arrives, and ends the call that the source is in.
pub(crate) struct Meter<'a> {
    arrived: &'a Array<MapData, u64>,
    stop: &'a mut Array<MapData, u32>,
}

impl Meter<'_> {
    /// Frames to the forwarded port seen so far: not translated, and translated.
    pub(crate) fn arrived(&self) -> Result<[u64; 2]> {
        Ok([self.arrived.get(&0, 0)?, self.arrived.get(&1, 0)?])
    }

    /// Has the source make no more frames.
    pub(crate) fn stop(&mut self) -> Result<()> {
        Ok(self.stop.set(0, 1, 0)?)
    }
}

/// Address and port of a beacon before and after translation, each as three words of a frame.
fn targets() -> Result<[[u16; 3]; 2]> {
    let words = |(address, port): (&str, u16)| -> Result<[u16; 3]> {
        let [a, b, c, d] = address.parse::<Ipv4Addr>()?.octets();
        let [e, f] = port.to_be_bytes();
        Ok([[a, b], [c, d], [e, f]].map(u16::from_ne_bytes))
    };
    Ok([words(FORWARDED)?, words(TARGET)?])
}

/// A datagram without its source, and in place of both checksums the sum of all else, in native words.
fn template(destination: (&str, u16)) -> Result<[u64; LENGTH / 8]> {
    let addresses = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), destination.0.parse()?);
    let mut frame = frame::udp(SOURCE_LINK, addresses, (0, destination.1), &[0; LENGTH - 42])?;
    ensure!(frame.len() == LENGTH, "the frame has {} bytes instead of {LENGTH}", frame.len());
    for checksum in [24..26, 40..42] {
        frame[checksum].iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut words = [0; LENGTH / 8];
    for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into()?);
    }
    Ok(words)
}

/// A `struct xdp_md`: begin and end of the frame, metadata, interface, queue, outgoing interface.
fn context(interface: u32) -> Vec<u8> {
    let fields = [0, LENGTH as u32, 0, interface, 0, 0];
    fields.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Attaches one of the bare gateways.
pub(crate) fn bare(testbed: &Testbed, object: &Path, name: &str) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().override_global("TARGETS", &targets()?, true).load_file(object)?;
    testbed.gateway.enter(|| {
        let mut out = DevMap::try_from(ebpf.map_mut("OUT").context("the object has no map OUT")?)?;
        out.set(0, if_nametoindex(INTERFACES.1)?, None, 0)?;
        Ok(program(&mut ebpf, name)?.attach(INTERFACES.0, XdpMode::Driver)?)
    })?;
    Ok(ebpf)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program: &mut Xdp =
        ebpf.program_mut(name).with_context(|| format!("the object has no {name}"))?.try_into()?;
    program.load()?;
    Ok(program)
}
