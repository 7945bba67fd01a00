//! The eBPF programs at both ends: what sends frames as fast as it can, and what counts and drops them.

use std::{
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

use crate::testbed::{self, FORWARDED, INTERFACES, SOURCE, SOURCE_LINK, TARGET, Testbed};

/// Frames a call: each ends with waiting for an RCU grace period, which must not count.
const FRAMES: u32 = 1 << 20;
/// Frames at a time, the most that are allowed: as many pages are kept for reuse; beyond, each frame costs a page of the
/// allocator, and the cores contend for its lock.
const BATCH: u32 = 256;

/// Source and sink of one measurement.
pub(crate) struct Ends<'a> {
    testbed: &'a Testbed,
    programs: Ebpf,
    arrived: Array<MapData, u64>,
}

impl<'a> Ends<'a> {
    /// Loads both and attaches the sink.
    pub(crate) fn new(testbed: &'a Testbed, object: &Path, flows: u32) -> Result<Self> {
        let frame = template()?;
        let mut words = [0_u64; 8];
        for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        let mut programs = EbpfLoader::new()
            .override_global("FRAME", &words, true)
            .override_global("FLOWS", &flows, true)
            .override_global("TARGET", &target()?, true)
            .load_file(object)?;
        testbed.sink.enter(|| Ok(program(&mut programs, "sink")?.attach("nbs", XdpMode::Driver)?))?;
        program(&mut programs, "generate")?;
        let arrived = programs.take_map("ARRIVED").context("the object has no map ARRIVED")?.try_into()?;
        Ok(Self { testbed, programs, arrived })
    }

    /// The source alone, and the counter of the sink.
    pub(crate) fn split(&mut self) -> Result<(Source<'_>, Arrived<'_>)> {
        let program = self.programs.program("generate").context("the object has no generate")?.try_into()?;
        Ok((Source { testbed: self.testbed, program }, Arrived(&self.arrived)))
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
            let frame = template()?;
            let context = context(if_nametoindex("nbc")?, frame.len());
            while !stop.load(Ordering::Relaxed) {
                self.program.test_run(TestRunOptions {
                    data_in: Some(&frame),
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

/// The counting end.
pub(crate) struct Arrived<'a>(&'a Array<MapData, u64>);

impl Arrived<'_> {
    /// Frames seen so far: elsewhere addressed, and to the target.
    pub(crate) fn count(&self) -> Result<[u64; 2]> {
        Ok([self.0.get(&0, 0)?, self.0.get(&1, 0)?])
    }
}

/// Address and port of the target, as three words of a frame.
fn target() -> Result<[u16; 3]> {
    let address: std::net::Ipv4Addr = TARGET.0.parse()?;
    let [a, b, c, d] = address.octets();
    let [e, f] = TARGET.1.to_be_bytes();
    Ok([[a, b], [c, d], [e, f]].map(u16::from_ne_bytes))
}

/// A datagram to the forwarded port, with the sum of all but the source port in place of its checksum.
fn template() -> Result<Vec<u8>> {
    let addresses = (SOURCE.parse()?, FORWARDED.0.parse()?);
    let mut frame = frame::udp(SOURCE_LINK, addresses, (0, FORWARDED.1), &[0; 22])?;
    ensure!(frame.len() == 64, "the frame has {} bytes instead of 64", frame.len());
    frame[40..42].iter_mut().for_each(|byte| *byte = !*byte);
    Ok(frame)
}

/// A `struct xdp_md`: begin and end of the frame, metadata, interface, queue, outgoing interface.
fn context(interface: u32, length: usize) -> Vec<u8> {
    let fields = [0, u32::try_from(length).unwrap_or(u32::MAX), 0, interface, 0, 0];
    fields.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Attaches one of the programs that only redirect.
pub(crate) fn redirect(testbed: &Testbed, object: &Path, name: &str) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load_file(object)?;
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
