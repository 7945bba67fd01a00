//! The maps. Sizes that depend on the capacity are set by the loader.

use core::arch::asm;

use aya_ebpf::{
    Global,
    btf_maps::{Array as InnerArray, ArrayOfMaps, LpmTrie},
    macros::{btf_map, map},
    maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use netfw_common::{
    block::{Bans, Key, MAX_BANS, Page},
    bloom::Halves,
    bucket::Bucket,
    changes::Changes,
    counters::{Count, InterfaceCount, MAX_COUNTERS, TranslationCount},
    door::Handshake,
    event::{CHANNELS, Watch},
    family::{Addr4, Addr6, Ipv4, Ipv6},
    flow::Flow,
    fragment::{HELD_PACKETS, Held, Ports},
    health::MAX_HEALTH,
    image::{
        AddressClass, Forward, MAX_FORWARDS, MAX_RULES, MAX_TARGETS, Policy, Rule, SERVICES as SERVICE_COUNT,
        SLOTS, Service, Target, Vector,
    },
    interface::{Interface, MAX_IFINDEX, MAX_INTERFACES},
    mapping::Mapping,
    neighbour::{self, Neighbour},
    pressure::Pressure,
    reason::MAX_REASONS,
    slots::Slot,
    tuple::Tuple,
};

#[cfg(not(feature = "dry-run"))]
use super::settle::Settle;
use super::slots;
use crate::datapath::work::Work;

/// A dry run settles nobody.
#[cfg(feature = "dry-run")]
use netfw_common::family::Family as Settle;

const BPF_F_NO_PREALLOC: u32 = 1;
/// Inner arrays of an array of maps may differ in size (Linux 5.10).
const BPF_F_INNER_MAP: usize = 0x1000;
const BPF_F_MMAPABLE: usize = 0x400;
/// Placeholder for sizes that the loader sets.
const LATER: u32 = 4096;

/// Places in each of the rings `PLACES4` and `PLACES6`.
#[unsafe(no_mangle)]
pub static PLACE_COUNT: Global<u32> = Global::new(1);

/// Homes in `PROVEN4`.
#[unsafe(no_mangle)]
pub static HOMES: Global<u32> = Global::new(1);

/// What makes them unpredictable.
#[unsafe(no_mangle)]
pub static SEED: Global<u64> = Global::new(0);

/// Words in half of `BLOOM`, a power of two.
#[unsafe(no_mangle)]
pub static BLOOM_WORDS: Global<u32> = Global::new(1);

/// Whether each packet is told of; 0: no.
#[unsafe(no_mangle)]
pub static DEBUG: Global<u8> = Global::new(0);

/// Nanoseconds of a jiffy.
#[unsafe(no_mangle)]
pub static JIFFY_NANOS: Global<u64> = Global::new(4_000_000);

/// Whether targets take new flows ([`netfw_common::health`]), by the number that they have in images.
#[map]
pub static HEALTH: Array<u32> = Array::with_max_entries(MAX_HEALTH, 0);
/// Which image holds ([`netfw_common::image::Active`]).
#[map]
pub static ACTIVE: Array<u64> = Array::with_max_entries(1, 0);
/// Heads of the images, by slot.
#[map]
pub static POLICIES: Array<Policy> = Array::with_max_entries(SLOTS, 0);
/// By slot and [`netfw_common::image::service_index`]. User space writes it through memory: a slot has 200,000 entries.
#[map]
pub static SERVICES: Array<Service> = Array::with_max_entries(SLOTS * SERVICE_COUNT, BPF_F_MMAPABLE as u32);
/// What rules decide, by slot and number.
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(SLOTS * MAX_RULES, 0);
/// Port-forward entries, by slot and number.
#[map]
pub static FORWARDS: Array<Forward> = Array::with_max_entries(SLOTS * MAX_FORWARDS, 0);
/// Targets, by slot and number.
#[map]
pub static TARGETS: Array<Target> = Array::with_max_entries(SLOTS * MAX_TARGETS, 0);

/// Inner tries of `ADDRESSES4` and `ADDRESSES6`. An array of one: Linux 6.1 takes maps without BTF, as user space
/// makes them, in the place of this one only if its values are no structs.
pub type Addresses<A> = LpmTrie<A, [AddressClass; 1], 1>;
/// Address classes, by slot.
#[btf_map]
pub static ADDRESSES4: ArrayOfMaps<Addresses<Addr4>, { SLOTS as usize }> = ArrayOfMaps::new();
/// Address classes, by slot.
#[btf_map]
pub static ADDRESSES6: ArrayOfMaps<Addresses<Addr6>, { SLOTS as usize }> = ArrayOfMaps::new();
/// Inner arrays of `VECTORS`; an array of one as above.
pub type Vectors = InnerArray<[Vector; 1], 1, BPF_F_INNER_MAP>;
/// Bit vectors, by slot and number.
#[btf_map]
pub static VECTORS: ArrayOfMaps<Vectors, { SLOTS as usize }> = ArrayOfMaps::new();

/// Inner arrays of `BLOCKS`; an array of one as above. User space writes it through memory, so it begins where a page of memory
/// does, and a line of a list is one of the cache.
pub type Blocks = InnerArray<[Page; 1], 1, { BPF_F_INNER_MAP | BPF_F_MMAPABLE }>;
/// Lists of `[block]`, by slot.
#[btf_map]
pub static BLOCKS: ArrayOfMaps<Blocks, { SLOTS as usize }> = ArrayOfMaps::new();
/// Banned prefixes: until which second of `CLOCK_BOOTTIME`; 0: for good.
#[map]
pub static BANS: HashMap<Key, u64> = HashMap::with_max_entries(MAX_BANS, BPF_F_NO_PREALLOC);
/// What holds of all bans.
#[map]
pub static BAN_HEAD: Array<Bans> = Array::with_max_entries(1, 0);

/// Slot of each managed interface, by kernel index.
#[map]
pub static IFINDEXES: Array<u32> = Array::with_max_entries(MAX_IFINDEX, 0);
/// Managed interfaces, by their slot; 0 stays empty.
#[map]
pub static INTERFACES: Array<Interface> = Array::with_max_entries(MAX_INTERFACES as u32, 0);
/// The master's own addresses.
#[map]
pub static LOCALS4: HashMap<Addr4, u32> = HashMap::with_max_entries(LATER, BPF_F_NO_PREALLOC);
/// The master's own addresses.
#[map]
pub static LOCALS6: HashMap<Addr6, u32> = HashMap::with_max_entries(LATER, BPF_F_NO_PREALLOC);
/// Where XDP can send.
#[map]
pub static DEVICES: DevMapHash = DevMapHash::with_max_entries(MAX_INTERFACES as u32, 0);

type Unproven<A> = LruHashMap<Tuple<A>, Flow<A>>;
type Mappings<A> = LruHashMap<Tuple<A>, Mapping<A>>;
/// Proven flows.
#[map]
pub static PROVEN4: Array<Slot> = Array::with_max_entries(LATER, BPF_F_MMAPABLE as u32);
/// A bit for each slot of `PROVEN4` that is in use.
#[map]
pub static USED4: Array<u64> = Array::with_max_entries(LATER, BPF_F_MMAPABLE as u32);
/// Proven flows.
#[map]
pub static PROVEN6: HashMap<Tuple<Addr6>, Flow<Addr6>> = HashMap::with_max_entries(LATER, BPF_F_NO_PREALLOC);
/// Unproven flows that were opened from outside.
#[map]
pub static OUTSIDE4: Unproven<Addr4> = LruHashMap::with_max_entries(LATER, 0);
/// Unproven flows that were opened from outside.
#[map]
pub static OUTSIDE6: Unproven<Addr6> = LruHashMap::with_max_entries(LATER, 0);
/// Unproven flows that were opened from inside: with a quota of their own.
#[map]
pub static INSIDE4: Unproven<Addr4> = LruHashMap::with_max_entries(LATER, 0);
/// Unproven flows that were opened from inside: with a quota of their own.
#[map]
pub static INSIDE6: Unproven<Addr6> = LruHashMap::with_max_entries(LATER, 0);
/// Halves of endpoint-independent mappings.
#[map]
pub static MAPPINGS4: Mappings<Addr4> = LruHashMap::with_max_entries(LATER, 0);
/// Halves of endpoint-independent mappings.
#[map]
pub static MAPPINGS6: Mappings<Addr6> = LruHashMap::with_max_entries(LATER, 0);
/// Keys of flows, both halves ([`netfw_common::bloom`]).
#[map]
pub static BLOOM: Array<u64> = Array::with_max_entries(LATER, BPF_F_MMAPABLE as u32);
/// Which of them are in use.
#[map]
pub static BLOOM_HALVES: Array<Halves> = Array::with_max_entries(1, 0);
/// The ring of places for proven flows.
#[map]
pub static PLACES4: Array<Tuple<Addr4>> = Array::with_max_entries(LATER, 0);
/// The ring of places for proven flows.
#[map]
pub static PLACES6: Array<Tuple<Addr6>> = Array::with_max_entries(LATER, 0);
/// What user space hears of changes to ways.
#[map]
pub static CHANGES: Array<Changes> = Array::with_max_entries(1, 0);
/// Neighbours that the kernel has lately sent to.
#[map]
pub static NEIGHBOURS: Array<Neighbour> = Array::with_max_entries(neighbour::NEIGHBOURS, 0);
/// Hands over `PLACES4` and `PLACES6`.
#[map]
pub static HANDS: Array<u64> = Array::with_max_entries(2, 0);

/// Key of `FRAGMENTS4` and `FRAGMENTS6`: the tuple without ports, and the identification.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FragmentKey<A> {
    /// Addresses and protocol.
    pub tuple: Tuple<A>,
    /// Identification of the fragmented packet.
    pub identification: u32,
}
/// Ports of packets that come in fragments.
#[map]
pub static FRAGMENTS4: LruHashMap<FragmentKey<Addr4>, Ports> = LruHashMap::with_max_entries(LATER, 0);
/// Ports of packets that come in fragments.
#[map]
pub static FRAGMENTS6: LruHashMap<FragmentKey<Addr6>, Ports> = LruHashMap::with_max_entries(LATER, 0);
/// Fragments that the kernel's reassembly has.
#[map]
pub static HELD: Array<Held> = Array::with_max_entries(HELD_PACKETS, 0);
/// Kernel index of the interface that leads there; 0: there is none.
#[map]
pub static REASSEMBLER: Array<u32> = Array::with_max_entries(1, 0);
/// Flows opened by each port-forward, by its stable id: whose turn it is.
#[map]
pub static ROUND_ROBIN: Array<u32> = Array::with_max_entries(MAX_COUNTERS, 0);

/// Buckets of rules ([`netfw_common::limit`]), by stable id.
#[map]
pub static RULE_BUCKETS: Array<u64> = Array::with_max_entries(MAX_COUNTERS, 0);
/// Key of `SOURCE_BUCKETS4` and `SOURCE_BUCKETS6`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SourceKey<A> {
    /// Stable id of the rule.
    pub rule: u32,
    /// The source.
    pub source: A,
}
/// Sources in each family whose tokens are remembered, over all rules: 100,000, and what the LRU's per-CPU lists of free
/// entries may hold back.
const SOURCES: u32 = 131_072;
/// Buckets of sources under rules; those that were seen longest ago make room.
#[map]
pub static SOURCE_BUCKETS4: LruHashMap<SourceKey<Addr4>, u64> = LruHashMap::with_max_entries(SOURCES, 0);
/// Buckets of sources under rules; those that were seen longest ago make room.
#[map]
pub static SOURCE_BUCKETS6: LruHashMap<SourceKey<Addr6>, u64> = LruHashMap::with_max_entries(SOURCES, 0);

/// Not 0: this kernel can make SYN cookies. The verifier does not look at calls of helpers behind a 0, which it need not know then.
#[unsafe(no_mangle)]
pub static SYN_COOKIES: Global<u8> = Global::new(1);
/// SYNs from outside that a core may see in a window ([`netfw_common::pressure::bearable`]).
#[unsafe(no_mangle)]
pub static BEARABLE: Global<u32> = Global::new(u32::MAX);
/// SYNs that a core has seen, by family ([`Maps::NUMBER`]).
#[map]
pub static PRESSURES: PerCpuArray<Pressure> = PerCpuArray::with_max_entries(2, 0);
/// Until when there are too many of them, by family: a tick. Cores share it, but write it once a tick at most.
#[map]
pub static PRESSED_UNTIL: Array<u32> = Array::with_max_entries(2, 0);
/// Sources in each family that are remembered for having proved to be there.
const VOUCHED: u32 = 65_536;
/// Such sources, and the tick in which they did; those that were seen longest ago make room.
#[map]
pub static VOUCHED4: LruHashMap<Addr4, u32> = LruHashMap::with_max_entries(VOUCHED, 0);
/// Such sources, and the tick in which they did; those that were seen longest ago make room.
#[map]
pub static VOUCHED6: LruHashMap<Addr6, u32> = LruHashMap::with_max_entries(VOUCHED, 0);

/// The last handshake through the fail-safe door while rules wait for a proof of life.
#[map]
pub static HANDSHAKE: Array<Handshake> = Array::with_max_entries(1, 0);

/// What the watcher wants.
#[map]
pub static WATCH: Array<Watch> = Array::with_max_entries(1, 0);
/// Events for the watcher.
#[map]
pub static WATCHED: RingBuf = RingBuf::with_byte_size(RING, 0);
/// Events for the log.
#[map]
pub static LOGGED: RingBuf = RingBuf::with_byte_size(RING, 0);
/// Bytes of a ring of events: about 1,700 of them.
const RING: u32 = 256 * 1024;
/// Buckets of the channels of events.
#[map]
pub static EVENT_BUCKETS: Array<u64> = Array::with_max_entries(CHANNELS, 0);
/// Events that were left out, by channel.
#[map]
pub static LEFT_OUT: PerCpuArray<u64> = PerCpuArray::with_max_entries(CHANNELS, 0);

/// By interface slot.
#[map]
pub static INTERFACE_COUNTS: PerCpuArray<InterfaceCount> =
    PerCpuArray::with_max_entries(MAX_INTERFACES as u32, 0);
/// By stable id.
#[map]
pub static RULE_COUNTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(MAX_COUNTERS, 0);
/// By stable id of the port-forward plus 1; 0: the masquerade.
#[map]
pub static TRANSLATION_COUNTS: PerCpuArray<TranslationCount> = PerCpuArray::with_max_entries(MAX_COUNTERS, 0);
/// By [`netfw_common::reason::Reason`].
#[map]
pub static DROPS: PerCpuArray<Count> = PerCpuArray::with_max_entries(MAX_REASONS, 0);

/// How many ICMP errors may be sent.
#[map]
pub static ERRORS: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(1, 0);

/// Work space of the packet at hand.
#[map]
pub static SCRATCH4: PerCpuArray<Work<Ipv4>> = PerCpuArray::with_max_entries(1, 0);
/// Work space of the packet at hand.
#[map]
pub static SCRATCH6: PerCpuArray<Work<Ipv6>> = PerCpuArray::with_max_entries(1, 0);

/// Keeps the compiler from making one call of those in several arms of a `match`. Where the map of a call is one of several, the verifier
/// cannot put the function of its kind there; the general one calls that through a pointer, which costs a retpoline more.
#[inline(always)]
fn apart<const ARM: u32, T>(value: T) -> T {
    // SAFETY: a register moved to itself: a line without an instruction is one that the kernel refuses to know of.
    unsafe {
        asm!("{any} = {any} # {arm}", any = inout(reg) ARM => _, arm = const ARM, options(nomem, nostack))
    };
    value
}

/// The maps of a family.
pub trait Maps: Settle {
    /// Index into `HANDS`, `PRESSURES` and `PRESSED_UNTIL`.
    const NUMBER: u32;
    /// `AF_INET` or `AF_INET6`.
    const AF: u8;
    /// Address classes by slot.
    fn addresses() -> &'static ArrayOfMaps<Addresses<Self::Addr>, { SLOTS as usize }>;
    /// Local addresses.
    fn locals() -> &'static HashMap<Self::Addr, u32>;
    /// Where the entry of a proven flow lies.
    fn proven(key: &Tuple<Self::Addr>) -> Option<*mut Flow<Self::Addr>>;
    /// Unproven flows opened from outside.
    fn outside() -> &'static Unproven<Self::Addr>;
    /// Unproven flows opened from inside.
    fn inside() -> &'static Unproven<Self::Addr>;
    /// One of the two, given to `task`.
    #[inline(always)]
    fn with_unproven<T>(is_inside: bool, task: impl Fn(&'static Unproven<Self::Addr>) -> T) -> T {
        if is_inside { apart::<0, _>(task(Self::inside())) } else { apart::<1, _>(task(Self::outside())) }
    }
    /// Endpoint-independent mappings.
    fn mappings() -> &'static LruHashMap<Tuple<Self::Addr>, Mapping<Self::Addr>>;
    /// The ring.
    fn places() -> &'static Array<Tuple<Self::Addr>>;
    /// Ports of fragmented packets.
    fn fragments() -> &'static LruHashMap<FragmentKey<Self::Addr>, Ports>;
    /// Buckets of sources.
    fn source_buckets() -> &'static LruHashMap<SourceKey<Self::Addr>, u64>;
    /// Sources that have proved to be there.
    fn vouched() -> &'static LruHashMap<Self::Addr, u32>;
    /// This core's work space.
    fn scratch() -> &'static PerCpuArray<Work<Self>>;
}

macro_rules! maps {
    ($family:ident, $number:literal, $af:literal, $addresses:ident, $locals:ident, $proven:expr, $outside:ident,
     $inside:ident, $mappings:ident, $places:ident, $fragments:ident, $source_buckets:ident, $vouched:ident, $scratch:ident) => {
        impl Maps for $family {
            const NUMBER: u32 = $number;
            const AF: u8 = $af;

            #[inline(always)]
            fn addresses() -> &'static ArrayOfMaps<Addresses<Self::Addr>, { SLOTS as usize }> {
                &$addresses
            }

            #[inline(always)]
            fn locals() -> &'static HashMap<Self::Addr, u32> {
                &$locals
            }

            #[inline(always)]
            fn proven(key: &Tuple<Self::Addr>) -> Option<*mut Flow<Self::Addr>> {
                ($proven)(key)
            }

            #[inline(always)]
            fn outside() -> &'static Unproven<Self::Addr> {
                &$outside
            }

            #[inline(always)]
            fn inside() -> &'static Unproven<Self::Addr> {
                &$inside
            }

            #[inline(always)]
            fn mappings() -> &'static LruHashMap<Tuple<Self::Addr>, Mapping<Self::Addr>> {
                &$mappings
            }

            #[inline(always)]
            fn places() -> &'static Array<Tuple<Self::Addr>> {
                &$places
            }

            #[inline(always)]
            fn fragments() -> &'static LruHashMap<FragmentKey<Self::Addr>, Ports> {
                &$fragments
            }

            #[inline(always)]
            fn source_buckets() -> &'static LruHashMap<SourceKey<Self::Addr>, u64> {
                &$source_buckets
            }

            #[inline(always)]
            fn vouched() -> &'static LruHashMap<Self::Addr, u32> {
                &$vouched
            }

            #[inline(always)]
            fn scratch() -> &'static PerCpuArray<Work<Self>> {
                &$scratch
            }
        }
    };
}

maps!(
    Ipv4,
    0,
    2,
    ADDRESSES4,
    LOCALS4,
    slots::entry,
    OUTSIDE4,
    INSIDE4,
    MAPPINGS4,
    PLACES4,
    FRAGMENTS4,
    SOURCE_BUCKETS4,
    VOUCHED4,
    SCRATCH4
);
maps!(
    Ipv6,
    1,
    10,
    ADDRESSES6,
    LOCALS6,
    |key| PROVEN6.get_ptr_mut(key),
    OUTSIDE6,
    INSIDE6,
    MAPPINGS6,
    PLACES6,
    FRAGMENTS6,
    SOURCE_BUCKETS6,
    VOUCHED6,
    SCRATCH6
);
