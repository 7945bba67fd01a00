//! Loading: the object of the datapath becomes programs and pinned maps.

use std::{io, panic, thread};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{Program, ProgramError},
};
use aya_obj::generated::bpf_map_type;
use netfw_common::{ABI_VERSION, pressure, shared::Shared, slots};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::{
    sys::time::TimeValLike as _,
    time::{ClockId, clock_getres},
};

use super::{
    capacity::Sizes,
    cookies::makes_syn_cookies,
    counters::cpus,
    maps::{array, check_abi},
    pins::Pins,
    sys::random,
    table::{ANY, Table},
};

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netfw-ebpf"));

/// The XDP program.
pub(super) const XDP: &str = "netfw_xdp";
/// That for the kernel's generic hook: loaded when somebody asks for it.
pub(super) const GENERIC: &str = "netfw_generic";
/// The classifier for packets that arrive.
pub(super) const INGRESS: &str = "netfw_ingress";
/// The classifier for packets that leave.
pub(super) const EGRESS: &str = "netfw_egress";

/// Where the version of the layout is kept ([`check_abi`]).
pub(super) const ABI: &str = "ABI";
/// Where the seed of the flow table is kept; in programs it is a constant of this name.
const SEED: &str = "SEED";

/// Maps that outlive the programs: those that an adopting `netfw up` goes on with.
pub(super) const PINNED: [&str; 57] = [
    "HEALTH",
    "ACTIVE",
    "POLICIES",
    "SERVICES",
    "RULES",
    "FORWARDS",
    "TARGETS",
    "ADDRESSES4",
    "ADDRESSES6",
    "BLOCKS",
    "BANS",
    "BAN_HEAD",
    "VECTORS",
    "IFINDEXES",
    "INTERFACES",
    "DEVICES",
    "LOCALS4",
    "LOCALS6",
    "PROVEN4",
    "PROVEN6",
    "USED4",
    "OUTSIDE4",
    "OUTSIDE6",
    "INSIDE4",
    "INSIDE6",
    "MAPPINGS4",
    "MAPPINGS6",
    "BLOOM",
    "BLOOM_HALVES",
    "CHANGES",
    "NEIGHBOURS",
    "PLACES4",
    "PLACES6",
    "HANDS",
    "HANDSHAKE",
    "INTERFACE_COUNTS",
    "RULE_COUNTS",
    "TRANSLATION_COUNTS",
    "DROPS",
    "ROUND_ROBIN",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "HELD",
    "REASSEMBLER",
    "ERRORS",
    "RULE_BUCKETS",
    "SOURCE_BUCKETS4",
    "SOURCE_BUCKETS6",
    "VOUCHED4",
    "VOUCHED6",
    "PRESSURES",
    "PRESSED_UNTIL",
    "WATCH",
    "WATCHED",
    "LOGGED",
    "EVENT_BUCKETS",
    "LEFT_OUT",
];

/// Loads the programs over new maps, or over those that are pinned already.
///
/// # Errors
/// Pins of another version; what the kernel refuses.
pub(super) fn load(pins: &Pins, capacity: u32, debug: bool) -> Result<Ebpf> {
    if pins.exist() {
        check_abi(pins)?;
    }
    pin_word(pins, ABI, || Ok(ABI_VERSION))?;
    // Makes homes of flows unpredictable.
    pin_word(pins, SEED, || Ok(u64::from_ne_bytes(random()?)))?;
    let mut object = load_maps(OBJECT, pins, Sizes::for_flows(capacity), debug, &[])?;
    load_programs(object.programs_mut().filter(|(name, _)| *name != GENERIC))?;
    Ok(object)
}

/// Loads [`GENERIC`] over the maps that are pinned.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn load_generic(pins: &Pins) -> Result<Ebpf> {
    check_abi(pins)?;
    let mut object = load_maps(OBJECT, pins, Sizes::for_flows(0), false, &[])?;
    load_programs(object.programs_mut().filter(|(name, _)| *name == GENERIC))?;
    Ok(object)
}

/// Loads an object without its programs. Its maps are those that are pinned, or become them, but for its `own`.
pub(super) fn load_maps(bytes: &[u8], pins: &Pins, sizes: Sizes, debug: bool, own: &[&str]) -> Result<Ebpf> {
    // The tables that are there count, not those that the rules file asks for now.
    let there = |name, wanted| MapInfo::from_pin(pins.map(name)).map_or(wanted, |info| info.max_entries());
    let places = there("PLACES4", sizes.places);
    let homes = slots::homes_of(there("PROVEN4", sizes.slots));
    let bloom_words = there("BLOOM", sizes.bloom) / 2;
    let bearable = pressure::bearable(there("OUTSIDE4", sizes.outside), cpus()? as u32);
    let cookies = u8::from(makes_syn_cookies() != Some(false));
    let level: u8 = if debug { 5 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for name in PINNED.iter().filter(|name| !own.contains(name)) {
        loader.map_pin_path(name, pins.map(name));
    }
    for (name, entries) in sizes.by_map() {
        loader.map_max_entries(name, entries);
    }
    loader.override_global("PLACE_COUNT", &places, true);
    let seed = seed(pins)?;
    loader.override_global("HOMES", &homes, true);
    loader.override_global(SEED, &seed, true);
    loader.override_global("BLOOM_WORDS", &bloom_words, true);
    loader.override_global("BEARABLE", &bearable, true);
    loader.override_global("SYN_COOKIES", &cookies, true);
    let jiffy = jiffy_nanos()?;
    loader.override_global("JIFFY_NANOS", &jiffy, true);
    loader.override_global("AYA_LOG_LEVEL", &level, false);
    loader.override_global("DEBUG", &level, true);
    loader.load(bytes).context("the kernel refuses the maps of the datapath")
}

/// Length of a jiffy: the coarse clock moves once in each.
fn jiffy_nanos() -> Result<u64> {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
    u64::try_from(resolution.num_nanoseconds()).context("the coarse clock has no resolution")
}

/// All at once, each in a thread of its own: the verifier takes half a second for each, and locks out nobody who may load programs.
/// Without signals: one that comes in the middle, such as that to reload, makes it give up.
pub(super) fn load_programs<'a>(programs: impl Iterator<Item = (&'a str, &'a mut Program)>) -> Result<()> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let loaded = thread::scope(|scope| {
        let threads: Vec<_> =
            programs.map(|(name, program)| (name, scope.spawn(|| load_program(program)))).collect();
        let results = threads.into_iter().map(|(name, thread)| {
            thread
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
                .map_err(shortened)
                .with_context(|| format!("the kernel refuses the program {name}"))
        });
        // Each is waited for, whatever became of those before it.
        results.collect::<Vec<_>>().into_iter().collect()
    });
    before.thread_set_mask()?;
    loaded
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Ok(()),
    }
}

/// The verifier's log has thousands of lines; the last ones say what is wrong.
fn shortened(error: ProgramError) -> anyhow::Error {
    let ProgramError::LoadError { io_error, verifier_log } = &error else { return error.into() };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n  ");
    anyhow::Error::new(io::Error::new(io_error.kind(), format!("{io_error}\n  {tail}")))
}

/// Keeps a word of which programs need no map, unless it is there already.
fn pin_word<V: Shared>(pins: &Pins, name: &str, value: impl FnOnce() -> Result<V>) -> Result<()> {
    let path = pins.map(name);
    if path.exists() {
        return Ok(());
    }
    let word = Table::<u32, V>::create(bpf_map_type::BPF_MAP_TYPE_ARRAY, name, 1, 0)?;
    word.set(&0, value()?, ANY)?;
    word.pin(&path)
}

/// What makes homes of flows unpredictable ([`slots::home`]).
///
/// # Errors
/// The instance is not up.
pub(super) fn seed(pins: &Pins) -> Result<u64> {
    array::<u64>(pins, SEED)?.get(&0)?.context("the flow table has no seed")
}

impl Sizes {
    fn by_map(self) -> [(&'static str, u32); 12] {
        [
            ("BLOOM", self.bloom),
            ("PLACES4", self.places),
            ("PLACES6", self.places),
            ("PROVEN4", self.slots),
            ("USED4", slots::words(self.slots)),
            ("PROVEN6", self.proven),
            ("OUTSIDE4", self.outside),
            ("OUTSIDE6", self.outside),
            ("INSIDE4", self.inside),
            ("INSIDE6", self.inside),
            ("MAPPINGS4", self.mappings),
            ("MAPPINGS6", self.mappings),
        ]
    }
}
