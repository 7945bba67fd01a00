//! [`Traces`] in BPF maps: those of real packets.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd},
    ptr,
};

use netfw_common::{
    bloom,
    counters::{Count, InterfaceCount, TranslationCount},
    event::Event,
    flow::Flow,
    fragment::{Held, Ports},
    mapping::Mapping,
    pressure,
    reason::Reason,
    tick::Tick,
    tuple::Tuple,
};

use super::{
    live::{Live, bucket_word, flow_entry},
    maps::{self, FragmentKey, Maps, SourceKey},
};
use crate::datapath::{
    kernel::{BucketKey, Inserted, Ring, Table},
    traces::Traces,
};

/// The key must not exist.
pub(super) const BPF_NOEXIST: u64 = 1;
const EEXIST: i32 = -17;

/// Changes an aligned word of a map from `old` to `new`, unless another core was quicker.
#[inline(always)]
fn exchange(word: *mut u64, old: u64, new: u64) -> bool {
    const SEQUENTIAL: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: the word is in a map, which is never freed while a program uses it.
    unsafe { atomic_cxchg::<u64, SEQUENTIAL, SEQUENTIAL>(word, old, new).1 }
}

/// What became of a key that must not exist.
#[inline(always)]
pub(super) fn entered(result: Result<(), i32>) -> Inserted {
    match result {
        Ok(()) => Inserted::Done,
        Err(EEXIST) => Inserted::Exists,
        Err(_) => Inserted::Full,
    }
}

/// Notes the key with this hash where keys are noted now. Most are in already: a flow is entered more than once. A global BPF function, as those
/// in [`super::parts`]: its caller has no stack left.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note(hash: u64) -> u32 {
    let Some(halves) = maps::BLOOM_HALVES.get(0) else { return 0 };
    let (word, bit) = bloom::place(hash, maps::BLOOM_WORDS.load());
    for half in halves.noted {
        if let Some(noted) = maps::BLOOM.get_ptr_mut(half + word) {
            // SAFETY: an aligned word of a map; other cores and user space set bits of it at the same time.
            unsafe {
                if ptr::read_volatile(noted) & bit == 0 {
                    atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(noted, bit);
                }
            }
        }
    }
    0
}

impl<F: Maps> Traces<F> for Live {
    type Entry = &'static mut Flow<F::Addr>;
    type Half = &'static mut Mapping<F::Addr>;

    #[inline(always)]
    fn flow(&self, table: Table, key: &Tuple<F::Addr>) -> Option<Self::Entry> {
        // SAFETY: see the module's documentation.
        flow_entry::<F>(table, key).map(|entry| unsafe { &mut *entry })
    }

    #[inline(always)]
    fn insert(&self, table: Table, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>) -> Inserted {
        note(bloom::hash(key));
        if table == Table::Proven {
            return F::enter(key, flow);
        }
        entered(F::with_unproven(table == Table::Inside, |map| map.insert(key, flow, BPF_NOEXIST)))
    }

    #[inline(always)]
    fn remove(&self, table: Table, key: &Tuple<F::Addr>) {
        if table == Table::Proven {
            return F::leave(key);
        }
        // Somebody else may have removed it: as good.
        let _ = F::with_unproven(table == Table::Inside, |map| map.remove(key));
    }

    #[inline(always)]
    fn mapping(&self, key: &Tuple<F::Addr>) -> Option<Self::Half> {
        // SAFETY: see the module's documentation.
        F::mappings().get_ptr_mut(key).map(|half| unsafe { &mut *half })
    }

    #[inline(always)]
    fn insert_mapping(&self, key: &Tuple<F::Addr>, half: &Mapping<F::Addr>) -> Inserted {
        entered(F::mappings().insert(key, half, BPF_NOEXIST))
    }

    #[inline(always)]
    fn remove_mapping(&self, key: &Tuple<F::Addr>) {
        // Somebody else may have removed it: as good.
        let _ = F::mappings().remove(key);
    }

    #[inline(always)]
    fn next_place(&self) -> u32 {
        let Some(hand) = maps::HANDS.get_ptr_mut(F::NUMBER) else { return 0 };
        // SAFETY: an aligned word of a map, counted up atomically. Not relaxed: LLVM 22 loses the result of a relaxed
        // fetch-and-add on this target.
        let turn = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(hand, 1) };
        turn.checked_rem(u64::from(maps::PLACE_COUNT.load())).unwrap_or(0) as u32
    }

    #[inline(always)]
    fn take_place(&self, place: u32, key: &Tuple<F::Addr>) {
        if let Some(slot) = F::places().get_ptr_mut(place) {
            // SAFETY: see the module's documentation.
            unsafe { *slot = *key };
        }
    }

    #[inline(always)]
    fn remember_ports(&self, key: &Tuple<F::Addr>, identification: u32, ports: Ports) {
        let key = FragmentKey { tuple: *key, identification };
        // Without room the later fragments are dropped with their own reason.
        let _ = F::fragments().insert(&key, ports, 0);
    }

    #[inline(always)]
    fn hold(&self, place: u32, held: &Held) {
        if let Some(slot) = maps::HELD.get_ptr_mut(place) {
            // SAFETY: see the module's documentation; what two cores lose for each other is missing in a counter.
            unsafe { *slot = *held };
        }
    }

    #[inline(always)]
    fn take_turn(&self, forward: u32) {
        if let Some(turn) = maps::ROUND_ROBIN.get_ptr_mut(forward) {
            // SAFETY: see the module's documentation; a lost update sends two flows to the same target.
            unsafe { *turn = (*turn).wrapping_add(1) };
        }
    }

    #[inline(always)]
    fn count_opening(&self, now: Tick) {
        let Some(pressure) = maps::PRESSURES.get_ptr_mut(F::NUMBER) else { return };
        // SAFETY: this core's own copy; programs on one core don't interrupt each other here.
        if unsafe { &mut *pressure }.count(now, maps::BEARABLE.load())
            && let Some(until) = maps::PRESSED_UNTIL.get_ptr_mut(F::NUMBER)
        {
            // SAFETY: an aligned word of a map. Others read it for each SYN, so it is written only when it changes.
            unsafe {
                if *until != pressure::until(now) {
                    *until = pressure::until(now);
                }
            }
        }
    }

    #[inline(always)]
    fn vouch(&self, source: F::Addr, now: Tick) {
        // There is always room in such a map, but for a moment's contention: the source is asked again.
        let _ = F::vouched().insert(source, now.0, 0);
    }

    #[inline(always)]
    fn exchange_bucket(&self, key: &BucketKey<F::Addr>, old: u64, new: u64) -> bool {
        match bucket_word::<F>(key) {
            Some(word) => exchange(word, old, new),
            None => {
                let key = SourceKey { rule: key.rule, source: key.source };
                F::source_buckets().insert(key, new, BPF_NOEXIST).is_ok()
            }
        }
    }

    #[inline(always)]
    fn may_tell(&self, now: Tick) -> bool {
        // SAFETY: this core's own copy; programs on one core don't interrupt each other here.
        maps::ERRORS.get_ptr_mut(0).is_some_and(|bucket| unsafe { &mut *bucket }.take(now))
    }

    #[inline(always)]
    fn begin_handshake(&self, client_port: u32, expected: u32) {
        if let Some(handshake) = maps::HANDSHAKE.get_ptr_mut(0) {
            // SAFETY: see the module's documentation; of two at once the next one is completed.
            unsafe {
                (*handshake).client_port = client_port;
                (*handshake).expected = expected;
            }
        }
    }

    #[inline(always)]
    fn complete_handshake(&self, client_port: u32, acknowledged: u32, generation: u32) {
        if let Some(handshake) = maps::HANDSHAKE.get_ptr_mut(0) {
            // SAFETY: as above.
            let handshake = unsafe { &mut *handshake };
            if handshake.client_port == client_port && handshake.expected == acknowledged {
                handshake.completed = generation;
            }
        }
    }

    #[inline(always)]
    fn end_watch(&self) {
        if let Some(watch) = maps::WATCH.get_ptr_mut(0) {
            // SAFETY: see the module's documentation; a watcher that comes right now asks again within a second.
            unsafe { (*watch).until = 0 };
        }
    }

    #[inline(always)]
    fn exchange_channel(&self, number: u32, old: u64, new: u64) -> bool {
        maps::EVENT_BUCKETS.get_ptr_mut(number).is_some_and(|word| exchange(word, old, new))
    }

    #[inline(always)]
    fn emit(&self, ring: Ring, event: &Event) -> bool {
        match ring {
            Ring::Watched => maps::WATCHED.output::<Event>(event, 0),
            Ring::Logged => maps::LOGGED.output::<Event>(event, 0),
        }
        .is_ok()
    }

    #[inline(always)]
    fn count_left_out(&self, channel: u32) {
        if let Some(count) = maps::LEFT_OUT.get_ptr_mut(channel) {
            // SAFETY: this core's own copy; programs on one core don't interrupt each other here.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn count_interface(&self, slot: u32, which: impl FnOnce(&mut InterfaceCount) -> &mut Count, size: Count) {
        if let Some(count) = maps::INTERFACE_COUNTS.get_ptr_mut(slot) {
            // SAFETY: this core's own copy; programs on one core don't interrupt each other here.
            which(unsafe { &mut *count }).add(size.packets, size.bytes);
        }
    }

    #[inline(always)]
    fn count_drop(&self, reason: Reason, size: Count) {
        if let Some(count) = maps::DROPS.get_ptr_mut(reason as u32) {
            // SAFETY: as above.
            unsafe { &mut *count }.add(size.packets, size.bytes);
        }
    }

    #[inline(always)]
    fn count_rule(&self, counter: u32, size: Count) {
        if let Some(count) = maps::RULE_COUNTS.get_ptr_mut(counter) {
            // SAFETY: as above.
            unsafe { &mut *count }.add(size.packets, size.bytes);
        }
    }

    #[inline(always)]
    fn count_translation(&self, counter: u32, change: impl FnOnce(&mut TranslationCount)) {
        if let Some(count) = maps::TRANSLATION_COUNTS.get_ptr_mut(counter) {
            // SAFETY: as above.
            change(unsafe { &mut *count });
        }
    }
}
