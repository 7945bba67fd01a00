//! Frames from a multitude of addresses, and what takes them in the place of the target; the programs are those of
//! `netfw-ebpf/src/flood.rs`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use netfw::kernel::Hook;
use netfw_tests::net::frame;
use nix::net::if_::if_nametoindex;

use crate::{
    hosts,
    testbed::{FORWARDED, SOURCE_LINK, Testbed},
};

/// Where they come from, and which bits of the address differ.
const SOURCES: (Ipv4Addr, u32) = (Ipv4Addr::new(16, 0, 0, 0), 0x0fff_ffff);
/// Bytes of a frame.
const LENGTH: usize = 64;
/// Of those, what the program that makes them is given.
const GIVEN: usize = LENGTH - 4;
/// Frames that are handed over at a time: while they are, their core does nothing else.
const BATCH: u32 = 64;
/// Frames a call: each ends with waiting for an RCU grace period.
const FRAMES: u32 = 1 << 20;
/// Half of what the gateway's queue holds.
const UNDER_WAY: u32 = 128;
/// TCP options of a SYN: maximum segment size 1460, selective acknowledgements, two of nothing.
const SYN_OPTIONS: [u8; 8] = [2, 4, 5, 0xb4, 4, 2, 1, 1];

/// What strangers do.
#[derive(Clone, Copy, Default)]
pub(crate) struct Behaviour {
    /// Open TCP connections, rather than send datagrams.
    pub(crate) syn: bool,
    /// Come in groups of so many, one after the other, and each group so often; otherwise by lot.
    pub(crate) groups: Option<[u32; 2]>,
    /// Frames a second; none: as many as can be made.
    pub(crate) rate: Option<u32>,
    /// Wait until what is under way has arrived.
    pub(crate) patient: bool,
    /// How they are received.
    pub(crate) reception: Reception,
    /// The gateway answers them, who are not there: that counts as an arrival, too.
    pub(crate) challenged: bool,
}

/// What happens to their frames at the target.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reception {
    /// They are counted and dropped.
    #[default]
    Silence,
    /// The target's stack gets them.
    Stack,
    /// They are sent back.
    Echo,
}

/// The multitude.
pub(crate) struct Strangers<'a> {
    bed: &'a Testbed,
    programs: Ebpf,
    made: Array<MapData, [u64; 3]>,
    arrived: Array<MapData, u64>,
    stop: Mutex<Array<MapData, u32>>,
}

impl<'a> Strangers<'a> {
    /// Loads what makes and what takes their frames; nothing is sent yet.
    pub(crate) fn new(bed: &'a Testbed, object: &Path, behaviour: Behaviour) -> Result<Self> {
        let Behaviour { syn, groups, rate, patient, reception, challenged } = behaviour;
        let [group, repeats] = groups.unwrap_or_default();
        let mut programs = EbpfLoader::new()
            .override_global("FRAME", &template(syn)?, true)
            .override_global("SEGMENTS", &u32::from(syn), true)
            .override_global("FIRST", &SOURCES.0.to_bits(), true)
            .override_global("RANDOM", &SOURCES.1, true)
            .override_global("GROUP", &group, true)
            .override_global("REPEATS", &repeats, true)
            .override_global("PACE", &rate.map_or(0, |rate| 1_000_000_000 / u64::from(rate)), true)
            .override_global("UNDER_WAY", &if patient { UNDER_WAY } else { 0 }, true)
            .override_global("SILENT", &u32::from(reception == Reception::Silence), true)
            .load_file(object.with_file_name("netfw-flood"))?;
        let end = if reception == Reception::Echo { "answer" } else { "target" };
        bed.sink.enter(|| Ok(program(&mut programs, end)?.attach("nbs", XdpMode::Driver)?))?;
        if challenged {
            let link = || Ok(program(&mut programs, "challenged")?.attach("nbc", XdpMode::Driver)?);
            bed.source.enter(link)?;
        }
        program(&mut programs, "flood")?;
        let made = programs.take_map("MADE").context("the object has no map MADE")?.try_into()?;
        let arrived = programs.take_map("ARRIVED").context("the object has no map ARRIVED")?.try_into()?;
        let stop = Mutex::new(programs.take_map("STOP").context("the object has no map STOP")?.try_into()?);
        Ok(Self { bed, programs, made, arrived, stop })
    }

    /// Sends until it is `over`, with the time that everybody else on the ends' core leaves.
    pub(crate) fn send_on(&self, over: &AtomicBool) -> Result<()> {
        hosts::stand_aside()?;
        while !over.load(Ordering::Relaxed) {
            self.send(FRAMES)?;
        }
        Ok(())
    }

    /// Sends so many frames, from the client's namespace; after [`Self::stop`], they are made but not sent.
    pub(crate) fn send(&self, frames: u32) -> Result<()> {
        let program: &Xdp = self.programs.program("flood").context("the object has no flood")?.try_into()?;
        self.bed.source.enter(|| {
            program.test_run(TestRunOptions {
                data_in: Some(&[0; GIVEN]),
                ctx_in: Some(&Hook::Xdp.context(GIVEN, if_nametoindex("nbc")?, 0)),
                repeat: frames,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..Default::default()
            })?;
            Ok(())
        })
    }

    /// Frames sent, and frames that came to the target.
    pub(crate) fn sent_and_arrived(&self) -> Result<[u64; 2]> {
        Ok([self.made.get(&0, 0)?[0], self.arrived.get(&0, 0)?])
    }

    /// No more frames.
    pub(crate) fn stop(&self) -> Result<()> {
        Ok(self.stop.lock().unwrap_or_else(PoisonError::into_inner).set(0, 1, 0)?)
    }
}

/// A frame without its source, and in place of both checksums the sum of all else, in native words.
fn template(syn: bool) -> Result<[u64; LENGTH / 8]> {
    let addresses = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), FORWARDED.0.parse()?);
    let (mut frame, checksum) = if syn {
        let mut frame = Vec::new();
        frame::packet(SOURCE_LINK, addresses.0, addresses.1, 64)?
            .tcp(0, FORWARDED.1, 0x1234_5678, 64_240)
            .syn()
            .options_raw(&SYN_OPTIONS)?
            .write(&mut frame, &[])?;
        frame.resize(LENGTH, 0);
        (frame, 50..52)
    } else {
        (frame::udp(SOURCE_LINK, addresses, (0, FORWARDED.1), &[0; LENGTH - 42])?, 40..42)
    };
    ensure!(frame.len() == LENGTH, "the frame has {} bytes instead of {LENGTH}", frame.len());
    for checksum in [24..26, checksum] {
        frame[checksum].iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut words = [0; LENGTH / 8];
    for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into()?);
    }
    Ok(words)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program: &mut Xdp =
        ebpf.program_mut(name).with_context(|| format!("the object has no {name}"))?.try_into()?;
    program.load()?;
    Ok(program)
}
