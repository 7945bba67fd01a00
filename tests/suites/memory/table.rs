//! The flow table over plain collections.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt::Debug,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use netfw_common::{
    family::{Addr6, Address, Family},
    flow::Flow,
    fragment::Ports,
    mapping::Mapping,
    tuple::Tuple,
};
use netfw_ebpf::datapath::kernel::{Inserted, Table};

/// A tuple of either family that can be hashed.
pub(crate) type Key = (Addr6, Addr6, u16, u16, u32);

pub(crate) fn key<A: Address>(tuple: &Tuple<A>) -> Key {
    (
        tuple.source.widen(),
        tuple.destination.widen(),
        tuple.source_port,
        tuple.destination_port,
        tuple.protocol,
    )
}

/// An entry in use: as in the kernel it stays valid when it is removed meanwhile, and changes last.
pub(crate) struct Entry<V: Copy> {
    place: Rc<Cell<V>>,
    value: V,
    changed: bool,
}

impl<V: Copy> Deref for Entry<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V: Copy> DerefMut for Entry<V> {
    fn deref_mut(&mut self) -> &mut V {
        self.changed = true;
        &mut self.value
    }
}

impl<V: Copy> Drop for Entry<V> {
    fn drop(&mut self) {
        if self.changed {
            self.place.set(self.value);
        }
    }
}

struct Kept<V> {
    key: Key,
    value: Rc<Cell<V>>,
    used: u64,
}

/// One part of the table.
struct Part<V> {
    entries: RefCell<HashMap<Key, Kept<V>>>,
    /// Entries that it has room for.
    capacity: Cell<usize>,
    /// Whether the one that was unused longest makes room for a new one.
    evicts: bool,
    clock: Cell<u64>,
}

impl<V: Copy> Part<V> {
    fn new(capacity: usize, evicts: bool) -> Self {
        let entries = RefCell::new(HashMap::new());
        Self { entries, capacity: Cell::new(capacity), evicts, clock: Cell::new(0) }
    }

    fn look_up<A: Address>(&self, tuple: &Tuple<A>) -> Option<Entry<V>> {
        let mut entries = self.entries.borrow_mut();
        let kept = entries.get_mut(&key(tuple))?;
        kept.used = self.tick();
        Some(Entry { place: Rc::clone(&kept.value), value: kept.value.get(), changed: false })
    }

    fn insert<A: Address>(&self, tuple: &Tuple<A>, value: &V) -> Inserted {
        let mut entries = self.entries.borrow_mut();
        if entries.contains_key(&key(tuple)) {
            return Inserted::Exists;
        }
        if entries.len() >= self.capacity.get() {
            let oldest = entries.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key);
            match oldest.filter(|_| self.evicts) {
                Some(oldest) => drop(entries.remove(&oldest)),
                None => return Inserted::Full,
            }
        }
        let kept = Kept { key: key(tuple), value: Rc::new(Cell::new(*value)), used: self.tick() };
        entries.insert(key(tuple), kept);
        Inserted::Done
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }
}

/// Everything that a family keeps between packets.
pub(crate) struct Store<F: Family> {
    parts: [Part<Flow<F::Addr>>; 3],
    mappings: Part<Mapping<F::Addr>>,
    places: RefCell<Vec<Option<Tuple<F::Addr>>>>,
    hand: Cell<u32>,
    fragments: RefCell<HashMap<(Key, u32), Ports>>,
}

impl<F: Family> Store<F> {
    /// Room for `proven` pairs that have proved themselves, and for `unproven` halves on each side.
    pub(crate) fn new(proven: usize, unproven: usize) -> Self {
        Self {
            parts: [Part::new(2 * proven, false), Part::new(unproven, true), Part::new(unproven, true)],
            mappings: Part::new(unproven, true),
            places: RefCell::new(vec![None; proven]),
            hand: Cell::new(0),
            fragments: RefCell::default(),
        }
    }

    fn part(&self, table: Table) -> &Part<Flow<F::Addr>> {
        &self.parts[table as usize]
    }

    pub(crate) fn flow(&self, table: Table, tuple: &Tuple<F::Addr>) -> Option<Entry<Flow<F::Addr>>> {
        self.part(table).look_up(tuple)
    }

    pub(crate) fn insert(&self, table: Table, tuple: &Tuple<F::Addr>, flow: &Flow<F::Addr>) -> Inserted {
        self.part(table).insert(tuple, flow)
    }

    pub(crate) fn remove(&self, table: Table, tuple: &Tuple<F::Addr>) {
        self.part(table).entries.borrow_mut().remove(&key(tuple));
    }

    pub(crate) fn mapping(&self, tuple: &Tuple<F::Addr>) -> Option<Entry<Mapping<F::Addr>>> {
        self.mappings.look_up(tuple)
    }

    pub(crate) fn insert_mapping(&self, tuple: &Tuple<F::Addr>, half: &Mapping<F::Addr>) -> Inserted {
        self.mappings.insert(tuple, half)
    }

    pub(crate) fn remove_mapping(&self, tuple: &Tuple<F::Addr>) {
        self.mappings.entries.borrow_mut().remove(&key(tuple));
    }

    pub(crate) fn next_place(&self) -> u32 {
        let place = self.hand.get();
        self.hand.set(place + 1);
        place % self.places.borrow().len() as u32
    }

    pub(crate) fn place(&self, place: u32) -> Option<Tuple<F::Addr>> {
        self.places.borrow()[place as usize]
    }

    pub(crate) fn take_place(&self, place: u32, tuple: &Tuple<F::Addr>) {
        self.places.borrow_mut()[place as usize] = Some(*tuple);
    }

    pub(crate) fn remember(&self, tuple: &Tuple<F::Addr>, identification: u32, ports: Ports) {
        self.fragments.borrow_mut().insert((key(tuple), identification), ports);
    }

    pub(crate) fn recall(&self, tuple: &Tuple<F::Addr>, identification: u32) -> Option<Ports> {
        self.fragments.borrow().get(&(key(tuple), identification)).copied()
    }

    /// The entries of a part.
    pub(crate) fn all(&self, table: Table) -> Vec<Flow<F::Addr>> {
        self.part(table).entries.borrow().values().map(|kept| kept.value.get()).collect()
    }

    /// Halves in a part.
    pub(crate) fn count(&self, table: Table) -> usize {
        self.part(table).entries.borrow().len()
    }

    /// Every half, the keys of the ring, and the fragments, in a fixed order.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for (part, table) in self.parts.iter().zip(["proven", "outside", "inside"]) {
            let entries = part.entries.borrow();
            all.extend(entries.values().map(|kept| line(&(table, kept.key, kept.value.get()))));
        }
        let mappings = self.mappings.entries.borrow();
        all.extend(mappings.values().map(|kept| line(&("mapping", kept.key, kept.value.get()))));
        let places = self.places.borrow();
        all.extend(places.iter().enumerate().filter_map(|(n, place)| Some(line(&(n, (*place)?)))));
        all.extend(self.fragments.borrow().iter().map(|fragment| line(&fragment)));
        all.sort();
        all
    }
}

fn line(value: &impl Debug) -> String {
    format!("{value:?}")
}
