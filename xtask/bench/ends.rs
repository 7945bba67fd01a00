//! The eBPF programs at both ends: what sends frames as fast as it can, and what counts and drops them.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, DevMap, MapData},
    programs::{
        Program, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
    },
};
use netfw_tests::{net::frame, wait};
use nix::net::if_::if_nametoindex;

use crate::testbed::{self, DROPPED, FORWARDED, INSIDE, INTERFACES, SOURCE, SOURCE_LINK, TARGET, Testbed};

/// Frames a call: each ends with waiting for an RCU grace period, which must not count.
const FRAMES: u32 = 1 << 20;
/// Frames at a time, the most that are allowed: as many pages are kept for reuse; beyond, each frame costs a page of the
/// allocator, and the cores contend for its lock.
const BATCH: u32 = 256;
/// How long flows are opened at least: netfw sees that an unproven flow was answered an eighth of a second after its first packet.
const OPENING: Duration = Duration::from_millis(400);
/// Datagrams of each flow meanwhile, at least.
const VISITS: u32 = 4;
/// The phase in which no frames are made.
const STOP: u32 = u32::MAX;
/// Bytes of a frame.
const LENGTH: usize = 64;

/// What the source sends.
#[derive(Clone, Copy)]
pub(crate) enum Traffic {
    /// Datagrams of so many live flows, all to the forwarded port.
    Forwarded { flows: u32 },
    /// Datagrams of so many live flows to the target itself, whose source is to be translated.
    Masqueraded { flows: u32 },
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

    /// Flows that are opened at a time: few enough for every gateway to keep them until they are answered.
    const TOGETHER: u32 = 16_384;

    /// How many frames the gateway has handled when one arrives.
    pub(crate) fn frames_for_one(self) -> u32 {
        match self {
            Self::Forwarded { .. } | Self::Masqueraded { .. } => 1,
            Self::Dropped(_) => Self::EVERY,
        }
    }

    fn together(self) -> u32 {
        self.flows().min(Self::TOGETHER)
    }

    /// How many flows there are.
    pub(crate) fn flows(self) -> u32 {
        match self {
            Self::Forwarded { flows } | Self::Masqueraded { flows } => flows.max(1),
            Self::Dropped(_) => 1,
        }
    }

    /// First, number, step.
    fn sources(self) -> [u32; 3] {
        match self {
            Self::Forwarded { .. } | Self::Masqueraded { .. } => [0; 3],
            Self::Dropped(sources) => [sources.first.to_bits(), sources.count, sources.step],
        }
    }

    /// Where a beacon goes to.
    fn destination(self) -> (&'static str, u16) {
        match self {
            Self::Forwarded { .. } | Self::Dropped(_) => FORWARDED,
            Self::Masqueraded { .. } => TARGET,
        }
    }

    /// Address and port of a beacon before and after translation; port 0: any.
    fn targets(self) -> Result<[[u16; 3]; 2]> {
        let targets = match self {
            Self::Forwarded { .. } | Self::Dropped(_) => [FORWARDED, TARGET],
            Self::Masqueraded { .. } => [(TARGET.0, 0); 2],
        };
        let [before, after] = targets.map(|(address, port)| {
            let [high, low] = words(address)?;
            anyhow::Ok([high, low, port.to_be()])
        });
        Ok([before?, after?])
    }

    /// The source's address after translation; 0: it keeps its own.
    fn translated(self) -> Result<[u16; 2]> {
        match self {
            Self::Forwarded { .. } | Self::Dropped(_) => Ok([0; 2]),
            Self::Masqueraded { .. } => words(INSIDE),
        }
    }

    /// By how much the destination's port grows with each address of the source: behind one address there are not ports enough
    /// for all flows to one destination.
    fn step(self) -> u16 {
        u16::from(matches!(self, Self::Masqueraded { .. }))
    }
}

/// An address as two words of a frame.
fn words(address: &str) -> Result<[u16; 2]> {
    let [a, b, c, d] = address.parse::<Ipv4Addr>()?.octets();
    Ok([[a, b], [c, d]].map(u16::from_ne_bytes))
}

/// Source and sink of one measurement.
pub(crate) struct Ends<'a> {
    testbed: &'a Testbed,
    traffic: Traffic,
    programs: Ebpf,
    phase: Array<MapData, u32>,
    arrived: Array<MapData, u64>,
}

impl<'a> Ends<'a> {
    /// Loads both and attaches the sink.
    pub(crate) fn new(testbed: &'a Testbed, object: &Path, traffic: Traffic) -> Result<Self> {
        let mut programs = EbpfLoader::new()
            .override_global("BEACON", &template(traffic.destination())?, true)
            .override_global("CHAFF", &template(DROPPED)?, true)
            .override_global("EVERY", &traffic.frames_for_one(), true)
            .override_global("SOURCE", &SOURCE.parse::<Ipv4Addr>()?.to_bits(), true)
            .override_global("STEP", &traffic.step(), true)
            .override_global("FLOWS", &traffic.flows(), true)
            .override_global("TOGETHER", &traffic.together(), true)
            .override_global("SOURCES", &traffic.sources(), true)
            .override_global("TARGETS", &traffic.targets()?, true)
            .override_global("TRANSLATED", &traffic.translated()?, true)
            .load_file(object)?;
        testbed.sink.enter(|| Ok(program(&mut programs, "sink")?.attach("nbs", XdpMode::Driver)?))?;
        program(&mut programs, "generate")?;
        let phase = programs.take_map("PHASE").context("the object has no map PHASE")?.try_into()?;
        let arrived = programs.take_map("ARRIVED").context("the object has no map ARRIVED")?.try_into()?;
        Ok(Self { testbed, traffic, programs, phase, arrived })
    }

    /// The source alone, and what the measurement needs of both.
    pub(crate) fn split(&mut self) -> Result<(Source<'_>, Meter<'_>)> {
        let program = self.programs.program("generate").context("the object has no generate")?.try_into()?;
        let source = Source { testbed: self.testbed, program };
        Ok((source, Meter { traffic: self.traffic, arrived: &self.arrived, phase: &mut self.phase }))
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
    traffic: Traffic,
    arrived: &'a Array<MapData, u64>,
    phase: &'a mut Array<MapData, u32>,
}

impl Meter<'_> {
    /// Frames to the forwarded port seen so far: not translated, and translated.
    pub(crate) fn arrived(&self) -> Result<[u64; 2]> {
        Ok([self.arrived.get(&0, 0)?, self.arrived.get(&1, 0)?])
    }

    /// Has the flows opened, some at a time, all of them answered and seen to be.
    pub(crate) fn open(&mut self) -> Result<()> {
        let together = self.traffic.together();
        for block in 0..self.traffic.flows().div_ceil(together) {
            let before = self.beacons()?;
            self.phase.set(0, block + 1, 0)?;
            thread::sleep(OPENING);
            let enough = before + u64::from(together * VISITS);
            wait::until("flows to be opened", || (self.beacons().ok()? > enough).then_some(()))?;
        }
        Ok(self.phase.set(0, 0, 0)?)
    }

    fn beacons(&self) -> Result<u64> {
        Ok(self.arrived()?.iter().sum())
    }

    /// Has the source make no more frames.
    pub(crate) fn stop(&mut self) -> Result<()> {
        Ok(self.phase.set(0, STOP, 0)?)
    }
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
pub(crate) fn bare(testbed: &Testbed, object: &Path, name: &str, traffic: Traffic) -> Result<Ebpf> {
    testbed.gateway.enter(|| {
        let output = if_nametoindex(INTERFACES.1)?;
        let mut ebpf = EbpfLoader::new()
            .override_global("TARGETS", &traffic.targets()?, true)
            .override_global("TRANSLATED", &traffic.translated()?, true)
            .override_global("OUTPUT", &output, true)
            .map_max_entries("SEEN", traffic.flows())
            .load_file(object)?;
        DevMap::try_from(ebpf.map_mut("OUT").context("the object has no map OUT")?)?
            .set(0, output, None, 0)?;
        match ebpf.program_mut(name).with_context(|| format!("the object has no {name}"))? {
            Program::SchedClassifier(program) => attach_tc(program)?,
            _ => {
                program(&mut ebpf, name)?.attach(INTERFACES.0, XdpMode::Driver)?;
            }
        }
        Ok(ebpf)
    })
}

fn attach_tc(program: &mut SchedClassifier) -> Result<()> {
    program.load()?;
    program.attach(INTERFACES.0, TcAttachType::Ingress)?;
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program: &mut Xdp =
        ebpf.program_mut(name).with_context(|| format!("the object has no {name}"))?.try_into()?;
    program.load()?;
    Ok(program)
}
