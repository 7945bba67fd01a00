//! [`Kernel`] over BPF maps and helpers.

use core::{array, ffi::c_void, ops::ControlFlow, ptr};

use aya_ebpf::{
    bindings::{
        bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    btf_maps::lpm_trie::Key,
    helpers::generated::{
        bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_ktime_get_ns, bpf_loop,
        bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
    },
};
use netfw_common::{
    block::{self, Bans, Layout, Page, v4, v6},
    bloom,
    changes::Changes,
    event::Watch,
    family::{Addr6, Address, Ipv6},
    flow::Flow,
    fragment::{Held, Ports},
    image::{
        Active, AddressClass, Forward, MAX_FORWARDS, MAX_RULES, MAX_TARGETS, Policy, Rule, SERVICES, SLOTS,
        Service, Target, boot_time,
    },
    interface::Interface,
    neighbour,
    tick::Tick,
    tuple::Tuple,
    wire,
};

use super::{
    cookie, fib,
    maps::{self, FragmentKey, Maps, SourceKey},
    parts::{self, Parts},
    stages::decode,
};
use crate::datapath::{
    Step, classify,
    find::Rival,
    kernel::{BucketKey, Inserted, Kernel, Query, Route, Table, Tables, Way},
    repeat::Repeat,
    work::{NONE, Work},
};

const FIVE_MINUTES: u64 = 300_000_000_000;
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;

/// The tables as one packet sees them: bound to the image that held when it came.
#[derive(Clone, Copy)]
pub struct Live {
    /// The hook's context.
    ctx: *mut c_void,
    /// Slot of the image.
    slot: u32,
    /// Slot of the image to which an unconfirmed one would fall back; [`SLOTS`]: none.
    fallback: u32,
}

impl Live {
    /// Reads, once, which image holds.
    #[inline(always)]
    pub fn new(ctx: *mut c_void) -> Option<Self> {
        let active = Active(*maps::ACTIVE.get(0)?);
        // SAFETY: a helper without arguments.
        let (slot, fallback) = active.slots(|| boot_time(unsafe { bpf_ktime_get_boot_ns() }));
        Some(Self { ctx, slot, fallback: fallback.unwrap_or(SLOTS) })
    }

    /// The same tables again, in another function: bound to the image that was read at first.
    #[inline(always)]
    pub fn resume(ctx: *mut c_void, slot: u32) -> Self {
        // What is pending was noted at first.
        Self { ctx, slot, fallback: SLOTS }
    }

    /// Slot of the image.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

impl Repeat for Live {
    #[inline(always)]
    fn repeat(&self, times: u32, mut turn: impl FnMut(u32) -> ControlFlow<()>) {
        // SAFETY: the helper calls back before it returns, with what it was given.
        unsafe { bpf_loop(times, callback(&turn), (&raw mut turn).cast(), 0) };
    }
}

/// The callback that takes a closure's turns.
#[inline(always)]
fn callback<T: FnMut(u32) -> ControlFlow<()>>(_turn: &T) -> *mut c_void {
    take::<T> as extern "C" fn(u32, *mut T) -> i64 as *mut c_void
}

#[inline(never)]
extern "C" fn take<T: FnMut(u32) -> ControlFlow<()>>(n: u32, turn: *mut T) -> i64 {
    // SAFETY: see `repeat`.
    i64::from(unsafe { &mut *turn }(n).is_break())
}

impl<F: Maps> Tables<F> for Live {
    #[inline(always)]
    fn policy(&self) -> Option<&Policy> {
        maps::POLICIES.get(self.slot)
    }

    #[inline(always)]
    fn fallback(&self) -> u32 {
        maps::POLICIES.get(self.fallback).map_or(0, |policy| policy.generation)
    }

    #[inline(always)]
    fn address(&self, address: F::Addr) -> AddressClass {
        let [class] = Tables::<F>::addresses(self, [address]);
        class
    }

    #[inline(always)]
    fn addresses<const N: usize>(&self, addresses: [F::Addr; N]) -> [AddressClass; N] {
        let Some(prefixes) = F::addresses().get(self.slot) else { return [AddressClass::default(); N] };
        addresses.map(|address| {
            let key = Key::new(8 * size_of::<F::Addr>() as u32, address);
            prefixes.get(&key).map_or_else(AddressClass::default, |[class]| *class)
        })
    }

    #[inline(always)]
    fn service(&self, index: u32) -> Service {
        maps::SERVICES.get(self.slot * SERVICES + index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn lowest<const N: usize>(&self, vectors: [u16; N], from: u32) -> u32 {
        const { assert!(N == 3 || N == 6) };
        let number = |nth| vectors.get(nth).copied().unwrap_or(0);
        let four = |nth| four([number(nth), number(nth + 1), number(nth + 2), number(nth + 3)]);
        if N == 3 {
            parts::lowest3(self.slot, four(0), from)
        } else {
            parts::lowest6(self.slot, four(0), four(4), from)
        }
    }

    #[inline(always)]
    fn rule(&self, number: u32) -> Option<&Rule> {
        if number < MAX_RULES { maps::RULES.get(self.slot * MAX_RULES + number) } else { None }
    }

    #[inline(always)]
    fn forward(&self, number: u32) -> Option<&Forward> {
        if number < MAX_FORWARDS { maps::FORWARDS.get(self.slot * MAX_FORWARDS + number) } else { None }
    }

    #[inline(always)]
    fn target(&self, number: u32) -> Option<&Target> {
        if number < MAX_TARGETS { maps::TARGETS.get(self.slot * MAX_TARGETS + number) } else { None }
    }

    #[inline(always)]
    fn listed(&self, address: F::Addr) -> bool {
        let Some(list) = List::of(self.slot) else { return false };
        let [a, b, c, d] = address.widen();
        if !F::V6 {
            return v4::lists(list.layout, u32::from_be(a), |number| list.page(number));
        }
        let [start, end] = [[a, b], [c, d]].map(|[first, second]| u64::from(first) | u64::from(second) << 32);
        list.layout.v6.lengths != [0; 4] && parts::listed6(self.slot, start, end) != 0
    }
}

/// The list of blocked prefixes of an image.
#[derive(Clone, Copy)]
struct List {
    layout: &'static Layout,
    pages: &'static maps::Blocks,
}

impl List {
    #[inline(always)]
    fn of(slot: u32) -> Option<Self> {
        Some(Self { layout: &maps::POLICIES.get(slot)?.block_layout, pages: maps::BLOCKS.get(slot)? })
    }

    #[inline(always)]
    fn page(&self, number: u32) -> Option<&'static Page> {
        self.pages.get(number).map(|[page]| page)
    }
}

/// Whether the list has a prefix around an IPv6 address, given as its halves: two words each, the first one lowest.
#[inline(always)]
pub(super) fn listed6(slot: u32, start: u64, end: u64) -> bool {
    let listed = |length| parts::has6(slot, start, end, length) != 0;
    List::of(slot).is_some_and(|list| {
        v6::lists(&list.layout.v6, &words(start, end), |number| list.page(number), listed)
    })
}

/// Whether it has the one of this length.
#[inline(always)]
pub(super) fn has6(slot: u32, start: u64, end: u64, length: u32) -> bool {
    let key = block::key::<Ipv6>(words(start, end), length);
    List::of(slot).is_some_and(|list| v6::has(&list.layout.v6, &key, |number| list.page(number)))
}

#[inline(always)]
fn words(start: u64, end: u64) -> Addr6 {
    [start as u32, (start >> 32) as u32, end as u32, (end >> 32) as u32]
}

/// Four numbers in a word, the first one lowest.
#[inline(always)]
fn four(numbers: [u16; 4]) -> u64 {
    numbers.iter().rev().fold(0, |word, number| word << 16 | u64::from(*number))
}

/// [`classify::lowest`] of the image's vectors with these numbers, four in a word.
#[inline(always)]
pub(super) fn lowest<const N: usize>(slot: u32, numbers: [u64; 2], from: u32) -> u32 {
    let Some(vectors) = maps::VECTORS.get(slot) else { return NONE };
    let number = |nth: usize| (numbers[nth / 4] >> (16 * (nth % 4))) as u16;
    let vectors = array::from_fn::<_, N, _>(|nth| vectors.get(number(nth).into()).map(|[vector]| vector));
    classify::lowest(vectors, from)
}

/// What a global function returned.
#[inline(always)]
pub(super) fn inserted(code: u32) -> Inserted {
    const DONE: u32 = Inserted::Done as u32;
    const EXISTS: u32 = Inserted::Exists as u32;
    match code {
        DONE => Inserted::Done,
        EXISTS => Inserted::Exists,
        _ => Inserted::Full,
    }
}

/// Where a bucket lies; a source that was not seen yet has none.
#[inline(always)]
pub(super) fn bucket_word<F: Maps>(key: &BucketKey<F::Addr>) -> Option<*mut u64> {
    if !key.per_source {
        return maps::RULE_BUCKETS.get_ptr_mut(key.rule);
    }
    F::source_buckets().get_ptr_mut(SourceKey { rule: key.rule, source: key.source })
}

/// Whether this key was noted in the filter.
#[inline(always)]
pub(super) fn is_noted<A: Address>(key: &Tuple<A>) -> bool {
    let (word, bit) = bloom::place(bloom::hash(key), maps::BLOOM_WORDS.load());
    let noted = maps::BLOOM_HALVES.get(0).and_then(|halves| maps::BLOOM.get(halves.asked + word));
    noted.is_none_or(|noted| noted & bit != 0)
}

/// The time.
#[inline(always)]
pub(super) fn now() -> Tick {
    let nanos = maps::JIFFY_NANOS.load();
    // Jiffies follow the monotonic clock but begin five minutes before 32 bits overflow (`INITIAL_JIFFIES`). The
    // verifier replaces this helper by one load; the coarse clock costs 15 ns.
    // SAFETY: a helper without arguments.
    let after_overflow = unsafe { bpf_jiffies64() }.wrapping_sub(1 << 32);
    Tick::from_nanos(after_overflow.wrapping_mul(nanos).wrapping_add(FIVE_MINUTES))
}

/// Where the entry of a flow lies.
#[inline(always)]
pub(super) fn flow_entry<F: Maps>(table: Table, key: &Tuple<F::Addr>) -> Option<*mut Flow<F::Addr>> {
    match table {
        Table::Proven => F::proven(key),
        Table::Outside => F::with_unproven(false, |map| map.get_ptr_mut(key)),
        Table::Inside => F::with_unproven(true, |map| map.get_ptr_mut(key)),
    }
}

impl<F: Maps + Parts> Kernel<F> for Live {
    #[inline(always)]
    fn now(&self) -> Tick {
        now()
    }

    #[inline(always)]
    fn nanos(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn interface(&self, slot: u32) -> Option<&Interface> {
        maps::INTERFACES.get(slot)
    }

    #[inline(always)]
    fn slot_of(&self, ifindex: u32) -> u32 {
        maps::IFINDEXES.get(ifindex).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn bans(&self) -> Option<&Bans> {
        maps::BAN_HEAD.get(0)
    }

    #[inline(always)]
    fn banned(&self, prefix: &block::Key) -> bool {
        // SAFETY: the value is one aligned word.
        let until = unsafe { maps::BANS.get(prefix) };
        // SAFETY: a helper without arguments.
        until.is_some_and(|&until| until == 0 || unsafe { bpf_ktime_get_boot_ns() } / 1_000_000_000 < until)
    }

    #[inline(always)]
    fn local(&self, address: F::Addr) -> u32 {
        // SAFETY: the value is one aligned word.
        unsafe { F::locals().get(&address) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn route(&self, query: &Query<F::Addr>, way: &mut Way<F::Addr>) -> Route {
        fib::route::<F>(self.ctx, query, way)
    }

    #[inline(always)]
    fn changes(&self) -> Changes {
        maps::CHANGES.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn probed_at(&self, gateway: F::Addr, ifindex: u32) -> Option<u32> {
        let neighbour = maps::NEIGHBOURS.get(neighbour::place(gateway, ifindex))?;
        (neighbour.ifindex == ifindex && neighbour.address == gateway.widen()).then_some(neighbour.sent)
    }

    #[inline(always)]
    fn can_transmit(&self, ifindex: u32) -> bool {
        // Also notes the device for the redirect that may follow, so it is looked up only once.
        maps::DEVICES.redirect(ifindex, 0).is_ok()
    }

    #[inline(always)]
    fn socket(&self, tuple: &Tuple<F::Addr>) -> bool {
        let mut key = bpf_sock_tuple { __bindgen_anon_1: unsafe { core::mem::zeroed() } };
        let (sport, dport) = (tuple.source_port.to_be(), tuple.destination_port.to_be());
        let (source, destination) = (tuple.source.widen(), tuple.destination.widen());
        let length = if F::V6 {
            key.__bindgen_anon_1.ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: source,
                daddr: destination,
                sport,
                dport,
            };
            size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>()
        } else {
            key.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: source[0],
                daddr: destination[0],
                sport,
                dport,
            };
            size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>()
        } as u32;
        // SAFETY: context and tuple are valid, the socket is released at once on the only path that has one.
        unsafe {
            let socket = if tuple.protocol == u32::from(wire::TCP) {
                bpf_skc_lookup_tcp(self.ctx, &mut key, length, BPF_F_CURRENT_NETNS, 0)
            } else {
                bpf_sk_lookup_udp(self.ctx, &mut key, length, BPF_F_CURRENT_NETNS, 0)
            };
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast());
        }
        true
    }

    #[inline(always)]
    fn may_have_flow(&self, work: &mut Work<F>) -> bool {
        F::may_have_flow(work) != 0
    }

    #[inline(always)]
    fn may_have_rival(&self, work: &mut Work<F>) -> bool {
        F::may_have_rival(work) != 0
    }

    #[inline(always)]
    fn place(&self, place: u32) -> Option<Tuple<F::Addr>> {
        F::places().get(place).copied().filter(|key| key.protocol != 0)
    }

    #[inline(always)]
    fn recall_ports(&self, key: &Tuple<F::Addr>, identification: u32) -> Option<Ports> {
        let key = FragmentKey { tuple: *key, identification };
        // SAFETY: see the module's documentation.
        unsafe { F::fragments().get(&key) }.copied()
    }

    #[inline(always)]
    fn reassembler(&self) -> u32 {
        maps::REASSEMBLER.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn held(&self, place: u32) -> Option<Held> {
        maps::HELD.get(place).copied()
    }

    #[inline(always)]
    fn turn(&self, forward: u32) -> u32 {
        maps::ROUND_ROBIN.get(forward).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn pressed_until(&self) -> u32 {
        maps::PRESSED_UNTIL.get(F::NUMBER).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn vouched(&self, source: F::Addr) -> Option<Tick> {
        // SAFETY: the value is one aligned word.
        unsafe { F::vouched().get(&source) }.map(|&since| Tick(since))
    }

    #[inline(always)]
    fn cookie(&self, work: &mut Work<F>) -> u32 {
        F::cookie(work)
    }

    #[inline(always)]
    fn is_cookie(&self, tuple: &Tuple<F::Addr>, cookie: u32) -> bool {
        cookie::checks::<F>(tuple, cookie)
    }

    #[inline(always)]
    fn challenge(&self, work: &mut Work<F>) -> Step {
        decode(F::challenge(work))
    }

    #[inline(always)]
    fn note_opening(&self, work: &mut Work<F>) {
        F::note_opening(work);
    }

    #[inline(always)]
    fn blocked(&self, work: &mut Work<F>) -> u32 {
        F::blocked(work)
    }

    #[inline(always)]
    fn asked(&self, work: &mut Work<F>) -> bool {
        F::asked(work) != 0
    }

    #[inline(always)]
    fn health(&self, number: u32) -> u32 {
        maps::HEALTH.get(number).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn share(&self, number: u32) -> u32 {
        parts::share(self.slot, number)
    }

    #[inline(always)]
    fn takers(&self, first: u32, end: u32) -> u32 {
        parts::takers(self.slot, first, end)
    }

    #[inline(always)]
    fn taker(&self, first: u32, end: u32, nth: u32) -> u32 {
        parts::taker(self.slot, first, end, nth)
    }

    #[inline(always)]
    fn choose(&self, work: &mut Work<F>) -> u32 {
        F::choose(work)
    }

    #[inline(always)]
    fn bucket(&self, key: &BucketKey<F::Addr>) -> u64 {
        // SAFETY: an aligned word of a map. Volatile: it must be read before the clock.
        bucket_word::<F>(key).map_or(0, |word| unsafe { ptr::read_volatile(word) })
    }

    #[inline(always)]
    fn has_token(&self, work: &mut Work<F>) -> bool {
        work.rule == NONE || F::has_token(work) != 0
    }

    #[inline(always)]
    fn spend(&self, work: &mut Work<F>) -> bool {
        work.rule == NONE || F::spend(work) != 0
    }

    #[inline(always)]
    fn decide(&self, work: &mut Work<F>) -> u32 {
        F::decide(work)
    }

    #[inline(always)]
    fn blocked_flow(&self, work: &mut Work<F>) -> u32 {
        F::blocked_flow(work)
    }

    #[inline(always)]
    fn still_translated(&self, work: &mut Work<F>) -> bool {
        F::still_translated(work) != 0
    }

    #[inline(always)]
    fn search(&self, work: &mut Work<F>) -> Inserted {
        inserted(F::search(work))
    }

    #[inline(always)]
    fn attempt(&self, work: &mut Work<F>) -> Inserted {
        inserted(F::attempt(work))
    }

    #[inline(always)]
    fn find(&self, work: &mut Work<F>) -> bool {
        F::find(work) != 0
    }

    #[inline(always)]
    fn rival(&self, work: &mut Work<F>, table: Table) -> Rival {
        const LIVES: u32 = Rival::Lives as u32;
        const EXPENDABLE: u32 = Rival::Expendable as u32;
        match F::rival(work, table as u32) {
            LIVES => Rival::Lives,
            EXPENDABLE => Rival::Expendable,
            _ => Rival::None,
        }
    }

    #[inline(always)]
    fn forget_rival(&self, work: &mut Work<F>, table: Table) {
        F::forget_rival(work, table as u32);
    }

    #[inline(always)]
    fn withdraw(&self, work: &mut Work<F>) {
        F::withdraw(work);
    }

    #[inline(always)]
    fn entries(&self, work: &mut Work<F>) {
        F::entries(work);
    }

    #[inline(always)]
    fn draw(&self, work: &mut Work<F>) {
        F::draw(work);
    }

    #[inline(always)]
    fn find_mapping(&self, work: &mut Work<F>) {
        F::find_mapping(work);
    }

    #[inline(always)]
    fn enter_mapping(&self, work: &mut Work<F>) -> bool {
        F::enter_mapping(work) != 0
    }

    #[inline(always)]
    fn refresh_mapping(&self, work: &mut Work<F>) {
        F::refresh_mapping(work);
    }

    #[inline(always)]
    fn reach(&self, work: &mut Work<F>) -> bool {
        F::reach(work) != 0
    }

    #[inline(always)]
    fn leading(&self, work: &mut Work<F>) -> u32 {
        F::leading(work)
    }

    #[inline(always)]
    fn outside_port(&self, work: &mut Work<F>) -> u32 {
        F::outside_port(work)
    }

    #[inline(always)]
    fn called(&self, work: &mut Work<F>, port: u32) -> u32 {
        F::called(work, port)
    }

    #[inline(always)]
    fn client(&self, work: &mut Work<F>) -> u32 {
        F::client(work)
    }

    #[inline(always)]
    fn turn_round(&self, work: &mut Work<F>) {
        F::turn_round(work);
    }

    #[inline(always)]
    fn promote(&self, work: &mut Work<F>) {
        F::promote(work);
    }

    #[inline(always)]
    fn watch(&self) -> Option<&Watch> {
        maps::WATCH.get(0)
    }

    #[inline(always)]
    fn channel(&self, number: u32) -> u64 {
        // SAFETY: an aligned word of a map. Volatile: it must be read before the clock.
        maps::EVENT_BUCKETS.get_ptr(number).map_or(0, |word| unsafe { ptr::read_volatile(word) })
    }

    #[inline(always)]
    fn tell(&self, work: &mut Work<F>) {
        F::tell(work);
    }
}
