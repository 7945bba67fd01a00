//! The table of proven IPv4 flows ([`netfw_common::slots`]) in the memory that user space shares with the programs. Only its maps are asked of the
//! kernel; a look at a flow is no system call.

use std::{
    cell::UnsafeCell,
    io, iter,
    mem::offset_of,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use anyhow::Result;
use netfw_common::{
    family::Addr4,
    flow::Flow,
    shared::Shared,
    slots::{self, Change, Inserted, LIVE, Look, Slot, Slots, SlotsMut},
    tick::Tick,
    tuple::Tuple,
};

use super::{
    flows::now,
    maps::{Array, Part, Visit, array},
    object,
    pins::Pins,
    sys::Mapped,
};

/// How many entries are shown at a time.
const BATCH: usize = 4096;
/// So many the kernel is asked for one by one: that takes less than to map all of the table and to read it through.
const FEW: usize = 8192;

/// The proven flows.
pub(super) struct Proven {
    map: Array<Slot>,
    used: Array<u64>,
    seed: u64,
    slots_mapped: OnceLock<Mapped>,
    used_mapped: OnceLock<Mapped>,
}

impl Proven {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let seed = object::seed(pins)?;
        let (map, used) = (array(pins, "PROVEN4")?, array(pins, "USED4")?);
        Ok(Self { map, used, seed, slots_mapped: OnceLock::new(), used_mapped: OnceLock::new() })
    }

    fn home(&self, key: &Tuple<Addr4>) -> u32 {
        slots::home(key, self.seed, slots::homes_of(self.map.capacity()))
    }

    /// Key and flow of a slot that is in use, from the kernel.
    fn ask(&self, number: u32) -> io::Result<Option<(Tuple<Addr4>, Flow<Addr4>)>> {
        Ok(self.map.get(&number)?.filter(|slot| slot.state == LIVE).map(|slot| (slot.key, slot.flow)))
    }

    fn memory(&self) -> io::Result<Memory<'_>> {
        Ok(Memory { slots: mapped(&self.map, &self.slots_mapped)?.cells(), used: self.bits()? })
    }

    /// A bit for each slot that is in use.
    fn bits(&self) -> io::Result<&[AtomicU64]> {
        Ok(mapped(&self.used, &self.used_mapped)?.long_words())
    }
}

impl Part<Addr4> for Proven {
    fn get(&self, key: &Tuple<Addr4>) -> io::Result<Option<Flow<Addr4>>> {
        let memory = self.memory()?;
        let found = slots::find(&memory, self.home(key), key).map(Cell::read);
        Ok(found.filter(|(there, _)| there == key).map(|(_, flow)| flow))
    }

    fn enter(&self, key: &Tuple<Addr4>, flow: &Flow<Addr4>) -> io::Result<()> {
        match slots::enter(&self.memory()?, self.home(key), key, flow, now()) {
            Inserted::Full => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn condemn(&self, key: &Tuple<Addr4>, flow: &Flow<Addr4>) -> io::Result<()> {
        let memory = self.memory()?;
        if let Some(slot) = slots::find(&memory, self.home(key), key) {
            slot.write(offset_of!(Slot, flow.generation), flow.generation);
            slot.write(offset_of!(Slot, flow.forward), flow.forward);
        }
        Ok(())
    }

    fn remove(&self, key: &Tuple<Addr4>) -> io::Result<bool> {
        Ok(slots::remove(&self.memory()?, self.home(key), key, now()))
    }

    fn each_batch(&self, visit: &mut Visit<'_, Addr4>) -> Result<()> {
        let numbers: Vec<u32> = numbers(self.bits()?).take(FEW + 1).collect();
        if numbers.len() <= FEW {
            let live = numbers.into_iter().filter_map(|number| self.ask(number).transpose());
            return in_batches(live.collect::<io::Result<Vec<_>>>()?.into_iter(), visit);
        }
        // In their order: the processor has the next ones on their way, which it cannot where it is led from bit to bit.
        let memory = self.memory()?;
        in_batches((0..self.map.capacity()).filter_map(|number| memory.read(number)), visit)
    }
}

/// The memory of an array, mapped when it is first asked for: to map and unmap all slots takes some milliseconds.
fn mapped<'a, V: Shared>(array: &Array<V>, once: &'a OnceLock<Mapped>) -> io::Result<&'a Mapped> {
    if let Some(mapped) = once.get() {
        return Ok(mapped);
    }
    let mapped = array.memory()?;
    Ok(once.get_or_init(|| mapped))
}

/// The numbers of slots whose bits are set.
fn numbers(used: &[AtomicU64]) -> impl Iterator<Item = u32> {
    (0..).step_by(u64::BITS as usize).zip(used).flat_map(|(first, word)| {
        let mut left = word.load(Ordering::Acquire);
        iter::from_fn(move || {
            let next = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (next < u64::BITS).then_some(first + next)
        })
    })
}

/// Shows `visit` entries, [`BATCH`] at a time.
fn in_batches(
    mut entries: impl Iterator<Item = (Tuple<Addr4>, Flow<Addr4>)>,
    visit: &mut Visit<'_, Addr4>,
) -> Result<()> {
    loop {
        let (keys, flows): (Vec<_>, Vec<_>) = entries.by_ref().take(BATCH).unzip();
        if keys.is_empty() {
            return Ok(());
        }
        visit(&keys, &flows)?;
    }
}

/// The slots in memory, and a bit for each that is in use.
struct Memory<'a> {
    slots: &'a [UnsafeCell<Slot>],
    used: &'a [AtomicU64],
}

impl Memory<'_> {
    /// Key and flow of a slot that is in use.
    fn read(&self, number: u32) -> Option<(Tuple<Addr4>, Flow<Addr4>)> {
        self.at(number).filter(|slot| slot.state() == LIVE).map(Cell::read)
    }

    fn word(&self, number: u32) -> Option<(&AtomicU64, u64)> {
        let (word, bit) = slots::place(number);
        Some((self.used.get(word as usize)?, bit))
    }
}

impl<'a> Slots for Memory<'a> {
    type Slot = Cell<'a>;

    fn homes(&self) -> u32 {
        slots::homes_of(self.slots.len() as u32)
    }

    fn at(&self, number: u32) -> Option<Cell<'a>> {
        self.slots.get(number as usize).map(Cell)
    }

    fn away(&self, home: u32, except: u32, key: &Tuple<Addr4>) -> Option<u32> {
        slots::away(self, home, except, key)
    }
}

impl SlotsMut for Memory<'_> {
    fn claim(&self, home: u32, now: Tick) -> Option<u32> {
        slots::claim(self, home, now)
    }

    fn occupy(&self, number: u32) {
        if let Some((word, bit)) = self.word(number) {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    fn vacate(&self, number: u32) {
        if let Some((word, bit)) = self.word(number) {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }
}

/// A slot, which programs may change at any time.
#[derive(Clone, Copy)]
struct Cell<'a>(&'a UnsafeCell<Slot>);

impl<'a> Cell<'a> {
    fn read(self) -> (Tuple<Addr4>, Flow<Addr4>) {
        // SAFETY: any bits are a value, also those of a slot that is changed meanwhile.
        let Slot { key, flow, .. } = unsafe { self.0.get().read_volatile() };
        (key, flow)
    }

    /// Where a field lies, which is `offset` bytes from the start.
    fn field<T>(self, offset: usize) -> *mut T {
        self.0.get().wrapping_byte_add(offset).cast()
    }

    /// Writes such a field.
    fn write<T>(self, offset: usize, value: T) {
        // SAFETY: inside the slot, and aligned in it. Others read it, or write it, at the same time, as the programs on two cores do.
        unsafe { self.field::<T>(offset).write_volatile(value) };
    }

    fn bits(self) -> &'a AtomicU64 {
        // SAFETY: an aligned word in memory that lives as long as the mapping, and that all change atomically.
        unsafe { AtomicU64::from_ptr(self.field(offset_of!(Slot, homed))) }
    }

    fn spill(self) -> &'a AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.field(offset_of!(Slot, overflowed))) }
    }

    fn word(self) -> &'a AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.field(offset_of!(Slot, state))) }
    }
}

impl Look for Cell<'_> {
    fn homed(self) -> u64 {
        self.bits().load(Ordering::Acquire)
    }

    fn overflowed(self) -> bool {
        self.spill().load(Ordering::Acquire) != 0
    }

    fn state(self) -> u32 {
        self.word().load(Ordering::Acquire)
    }

    fn has_key(self, key: &Tuple<Addr4>) -> bool {
        // SAFETY: any bits are a key.
        unsafe { self.field::<Tuple<Addr4>>(offset_of!(Slot, key)).read_volatile() == *key }
    }
}

impl Change for Cell<'_> {
    fn mark(self, bits: u64) {
        self.bits().fetch_or(bits, Ordering::SeqCst);
    }

    fn unmark(self, bits: u64) {
        self.bits().fetch_and(!bits, Ordering::SeqCst);
    }

    fn overflow(self) {
        self.spill().store(1, Ordering::SeqCst);
    }

    fn change(self, from: u32, to: u32) -> bool {
        self.word().compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn fill(self, key: &Tuple<Addr4>, flow: &Flow<Addr4>) {
        self.write(offset_of!(Slot, key), *key);
        self.write(offset_of!(Slot, flow), *flow);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        sync::{Barrier, atomic::AtomicU32},
        thread,
    };

    use netfw_common::slots::WINDOW;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const SEED: u64 = 0x5eed;

    /// A table of its own.
    struct Own {
        slots: Vec<UnsafeCell<Slot>>,
        used: Vec<AtomicU64>,
        homes: u32,
        seed: u64,
    }

    // SAFETY: as for [`Mapped`].
    unsafe impl Sync for Own {}

    impl Own {
        fn new(homes: u32, seed: u64) -> Self {
            let count = slots::slots(homes);
            let slots = (0..count).map(|_| UnsafeCell::default()).collect();
            let used = (0..slots::words(count)).map(|_| AtomicU64::default()).collect();
            Self { slots, used, homes, seed }
        }

        fn memory(&self) -> Memory<'_> {
            Memory { slots: &self.slots, used: &self.used }
        }

        fn home(&self, key: &Tuple<Addr4>) -> u32 {
            slots::home(key, self.seed, self.homes)
        }

        fn enter(&self, key: &Tuple<Addr4>, id: u32, now: u32) -> Inserted {
            slots::enter(&self.memory(), self.home(key), key, &Flow { id, ..Flow::default() }, Tick(now))
        }

        fn remove(&self, key: &Tuple<Addr4>, now: u32) -> bool {
            slots::remove(&self.memory(), self.home(key), key, Tick(now))
        }

        fn id(&self, key: &Tuple<Addr4>) -> Option<u32> {
            slots::find(&self.memory(), self.home(key), key).map(|slot| slot.read().1.id)
        }

        fn all(&self) -> HashMap<Tuple<Addr4>, u32> {
            let live = numbers(&self.used).filter_map(|number| self.memory().read(number));
            live.map(|(key, flow)| (key, flow.id)).collect()
        }
    }

    fn key(n: u32) -> Tuple<Addr4> {
        Tuple {
            source: 0x0a00_0000_u32.wrapping_add(n / 1000).to_be(),
            destination: 1,
            source_port: (n % 1000) as u16,
            ..Tuple::default()
        }
    }

    #[test]
    fn a_full_table_takes_all_keys() {
        const KEYS: u32 = 400_000;
        for seed in [1, SEED, u64::MAX] {
            let table = Own::new(slots::homes(KEYS), seed);
            let refused = (0..KEYS).filter(|&n| table.enter(&key(n), n, 9) != Inserted::Done).count();
            assert_eq!(refused, 0);
            assert!((0..KEYS).all(|n| table.id(&key(n)) == Some(n)));
        }
    }

    /// Most of an address of IPv4 or of a port is the same.
    #[test]
    fn a_home_is_mostly_the_keys_own() {
        const KEYS: u32 = 10_000;
        let homes: HashSet<_> = (0..KEYS).map(|n| slots::home(&key(n), SEED, 4 * KEYS)).collect();
        // By chance it would be 8,848.
        assert!(homes.len() > 8_600, "{}", homes.len());
    }

    #[test]
    fn what_was_removed_stays_until_nobody_looks_at_it_any_more() {
        let table = Own::new(1, SEED);
        (0..WINDOW).for_each(|n| assert_eq!(table.enter(&key(n), n, 7), Inserted::Done));
        assert_eq!(table.enter(&key(WINDOW), WINDOW, 7), Inserted::Full);
        assert!(table.remove(&key(5), 7));
        assert_eq!([7, 8].map(|now| table.enter(&key(WINDOW), WINDOW, now)), [Inserted::Full; 2]);
        assert_eq!(table.enter(&key(WINDOW), WINDOW, 9), Inserted::Done);
        assert_eq!((table.id(&key(5)), table.id(&key(WINDOW))), (None, Some(WINDOW)));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter(u32),
        Remove(u32),
        Wait(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let keys = 0..100_u32;
        prop_oneof![
            4 => keys.clone().prop_map(Step::Enter),
            3 => keys.prop_map(Step::Remove),
            1 => (1..4_u32).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Windows that overlap, and that are full now and then.
        #[test]
        fn it_is_a_map(homes in 1..40_u32, steps in vec(step(), 1..400)) {
            let (table, mut model, mut now) = (Own::new(homes, SEED), HashMap::new(), 1000);
            for (id, step) in (0..).zip(steps) {
                match step {
                    Step::Enter(n) => {
                        let entered = table.enter(&key(n), id, now);
                        prop_assert_eq!(entered == Inserted::Exists, model.contains_key(&key(n)));
                        if entered == Inserted::Done {
                            model.insert(key(n), id);
                        }
                    }
                    Step::Remove(n) => prop_assert_eq!(table.remove(&key(n), now), model.remove(&key(n)).is_some()),
                    Step::Wait(ticks) => now += ticks,
                }
                prop_assert!((0..100).all(|n| table.id(&key(n)) == model.get(&key(n)).copied()));
                prop_assert_eq!(table.all(), model.clone());
            }
            let used: u32 = table.used.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
            prop_assert_eq!(used as usize, model.len(), "no slot that was left is looked at");
        }
    }

    /// What threads find wrong is counted, as a thread that ends leaves the others waiting for it.
    #[derive(Default)]
    struct Referee {
        wrong: AtomicU32,
        winners: AtomicU32,
        now: AtomicU32,
    }

    impl Referee {
        fn expect(&self, is_right: bool) {
            self.wrong.fetch_add(u32::from(!is_right), Ordering::Relaxed);
        }
    }

    /// Threads that enter and remove keys of their own find them, whatever the others do beside them; of a key that all enter, one at most is in.
    #[test]
    fn threads_leave_each_others_keys_alone() {
        const THREADS: u32 = 4;
        let (table, barrier, referee) =
            (Own::new(40, SEED), Barrier::new(THREADS as usize), Referee::default());
        let (table, barrier, referee) = (&table, &barrier, &referee);
        let live = |thread: u32| {
            for round in 0..20_000 {
                own_key(table, referee, thread, round);
                barrier.wait();
                let entered = table.enter(&key(1), round, referee.now.load(Ordering::Relaxed));
                referee.winners.fetch_add(u32::from(entered == Inserted::Done), Ordering::Relaxed);
                if barrier.wait().is_leader() {
                    common_key(table, referee);
                }
                barrier.wait();
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || live(thread)))));
        assert_eq!(referee.wrong.load(Ordering::Relaxed), 0);
        assert!(table.all().is_empty());
    }

    fn own_key(table: &Own, referee: &Referee, thread: u32, round: u32) {
        let own = key(1000 * (thread + 1) + round % 7);
        let now = referee.now.fetch_add(1, Ordering::Relaxed);
        referee.expect(table.enter(&own, round, now) == Inserted::Done);
        referee.expect(table.id(&own) == Some(round));
        referee.expect(table.remove(&own, now));
        referee.expect(table.id(&own).is_none());
    }

    fn common_key(table: &Own, referee: &Referee) {
        let won = referee.winners.swap(0, Ordering::Relaxed);
        referee.expect(won <= 1);
        referee.expect(table.remove(&key(1), referee.now.load(Ordering::Relaxed)) == (won == 1));
    }
}
