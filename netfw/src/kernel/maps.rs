//! All maps of a datapath, opened by their pins: the same for the daemon and for a command that runs once.

use std::io;

use anyhow::{Result, bail};
use netfw_common::{
    ABI_VERSION,
    block::{Bans, Key},
    bloom::Halves,
    bucket::Bucket,
    changes::Changes,
    counters::{Count, InterfaceCount, TranslationCount},
    door::Handshake,
    event::Watch,
    family::{Addr4, Addr6, Address},
    flow::Flow,
    fragment::Held,
    image::{Forward, Policy, Rule, Service, Target},
    interface::Interface,
    shared::Shared,
    tuple::Tuple,
};

use super::{
    object::ABI,
    pins::Pins,
    slots::Proven,
    table::{ANY, EXISTING, Table},
};

/// A list in which every entry has a number.
pub(super) type Array<V> = Table<u32, V>;

/// Which of [`FlowTables::all`] holds the proven flows.
pub(super) const PROVEN: usize = 2;

/// Is shown directions of flows, each with its key.
pub(super) type Visit<'a, A> = dyn FnMut(&[Tuple<A>], &[Flow<A>]) -> Result<()> + 'a;

/// A part of the flow table: directions of flows, by the tuples with which their packets arrive.
pub(super) trait Part<A> {
    /// The one with this key.
    ///
    /// # Errors
    /// What the kernel says.
    fn get(&self, key: &Tuple<A>) -> io::Result<Option<Flow<A>>>;

    /// Enters one; one that is there already may stay as it is.
    ///
    /// # Errors
    /// There is no room.
    fn enter(&self, key: &Tuple<A>, flow: &Flow<A>) -> io::Result<()>;

    /// Writes who admits the one with this key: [`Flow::generation`] and [`Flow::forward`].
    ///
    /// # Errors
    /// What the kernel says.
    fn condemn(&self, key: &Tuple<A>, flow: &Flow<A>) -> io::Result<()>;

    /// Removes the one with this key; says whether there was one.
    ///
    /// # Errors
    /// What the kernel says.
    fn remove(&self, key: &Tuple<A>) -> io::Result<bool>;

    /// Shows `visit` all of them, some thousands at a time; it may remove them.
    ///
    /// # Errors
    /// What the kernel says, or `visit`.
    fn each_batch(&self, visit: &mut Visit<'_, A>) -> Result<()>;
}

impl<A: Address> Part<A> for Table<Tuple<A>, Flow<A>>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    fn get(&self, key: &Tuple<A>) -> io::Result<Option<Flow<A>>> {
        self.get(key)
    }

    fn enter(&self, key: &Tuple<A>, flow: &Flow<A>) -> io::Result<()> {
        self.set(key, *flow, ANY)
    }

    fn condemn(&self, key: &Tuple<A>, flow: &Flow<A>) -> io::Result<()> {
        self.set(key, *flow, EXISTING)
    }

    fn remove(&self, key: &Tuple<A>) -> io::Result<bool> {
        self.remove(key)
    }

    fn each_batch(&self, visit: &mut Visit<'_, A>) -> Result<()> {
        self.each_batch(visit)
    }
}

/// The tables that hold the flows of a family.
pub(super) struct FlowTables<A> {
    /// Flows in which both ends have proved themselves.
    pub(super) proven: Box<dyn Part<A> + Send + Sync>,
    /// Unproven flows opened from outside.
    pub(super) outside: Table<Tuple<A>, Flow<A>>,
    /// Unproven flows opened from inside.
    pub(super) inside: Table<Tuple<A>, Flow<A>>,
    /// The ring of places for proven flows: key of the original direction of the flow that holds it.
    pub(super) places: Array<Tuple<A>>,
}

impl<A: Address> FlowTables<A>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    fn open(pins: &Pins, family: char, proven: Box<dyn Part<A> + Send + Sync>) -> Result<Self> {
        let table = |name: &str| Table::open(&pins.map(&format!("{name}{family}")));
        Ok(Self {
            proven,
            outside: table("OUTSIDE")?,
            inside: table("INSIDE")?,
            places: array(pins, &format!("PLACES{family}"))?,
        })
    }

    /// The proven ones last: a flow that proves itself is entered there before it is removed elsewhere, so whoever looks in this order
    /// does not miss it.
    pub(super) fn all(&self) -> [&dyn Part<A>; 3] {
        [&self.outside, &self.inside, &*self.proven]
    }
}

/// The maps of an instance.
pub struct Maps {
    pub(super) health: Array<u32>,
    pub(super) active: Array<u64>,
    pub(super) policies: Array<Policy>,
    pub(super) services: Array<Service>,
    pub(super) rules: Array<Rule>,
    pub(super) forwards: Array<Forward>,
    pub(super) targets: Array<Target>,
    pub(super) addresses4: Array<u32>,
    pub(super) addresses6: Array<u32>,
    pub(super) vectors: Array<u32>,
    pub(super) blocks: Array<u32>,
    pub(super) bans: Table<Key, u64>,
    pub(super) ban_head: Array<Bans>,
    pub(super) ifindexes: Array<u32>,
    pub(super) interfaces: Array<Interface>,
    pub(super) devices: Table<u32, [u32; 2]>,
    pub(super) locals4: Table<Addr4, u32>,
    pub(super) locals6: Table<Addr6, u32>,
    pub(super) flows4: FlowTables<Addr4>,
    pub(super) flows6: FlowTables<Addr6>,
    pub(super) bloom: Array<u64>,
    pub(super) bloom_halves: Array<Halves>,
    pub(super) changes: Array<Changes>,
    pub(super) hands: Array<u64>,
    pub(super) handshake: Array<Handshake>,
    pub(super) interface_counts: Array<InterfaceCount>,
    pub(super) rule_counts: Array<Count>,
    pub(super) translation_counts: Array<TranslationCount>,
    pub(super) drops: Array<Count>,
    pub(super) held: Array<Held>,
    pub(super) reassembler: Array<u32>,
    pub(super) errors: Array<Bucket>,
    pub(super) rule_buckets: Array<u64>,
    pub(super) pressed_until: Array<u32>,
    pub(super) watch: Array<Watch>,
}

impl Maps {
    /// Opens what is pinned.
    ///
    /// # Errors
    /// Nothing is pinned, or another version of netfw pinned it.
    pub fn open(pins: &Pins) -> Result<Self> {
        check_abi(pins)?;
        let maps = Self {
            health: array(pins, "HEALTH")?,
            active: array(pins, "ACTIVE")?,
            policies: array(pins, "POLICIES")?,
            services: array(pins, "SERVICES")?,
            rules: array(pins, "RULES")?,
            forwards: array(pins, "FORWARDS")?,
            targets: array(pins, "TARGETS")?,
            addresses4: array(pins, "ADDRESSES4")?,
            addresses6: array(pins, "ADDRESSES6")?,
            vectors: array(pins, "VECTORS")?,
            blocks: array(pins, "BLOCKS")?,
            bans: Table::open(&pins.map("BANS"))?,
            ban_head: array(pins, "BAN_HEAD")?,
            ifindexes: array(pins, "IFINDEXES")?,
            interfaces: array(pins, "INTERFACES")?,
            devices: Table::open(&pins.map("DEVICES"))?,
            locals4: Table::open(&pins.map("LOCALS4"))?,
            locals6: Table::open(&pins.map("LOCALS6"))?,
            flows4: FlowTables::open(pins, '4', Box::new(Proven::open(pins)?))?,
            flows6: FlowTables::open(pins, '6', Box::new(Table::open(&pins.map("PROVEN6"))?))?,
            bloom: array(pins, "BLOOM")?,
            bloom_halves: array(pins, "BLOOM_HALVES")?,
            changes: array(pins, "CHANGES")?,
            hands: array(pins, "HANDS")?,
            handshake: array(pins, "HANDSHAKE")?,
            interface_counts: array(pins, "INTERFACE_COUNTS")?,
            rule_counts: array(pins, "RULE_COUNTS")?,
            translation_counts: array(pins, "TRANSLATION_COUNTS")?,
            drops: array(pins, "DROPS")?,
            held: array(pins, "HELD")?,
            reassembler: array(pins, "REASSEMBLER")?,
            errors: array(pins, "ERRORS")?,
            rule_buckets: array(pins, "RULE_BUCKETS")?,
            pressed_until: array(pins, "PRESSED_UNTIL")?,
            watch: array(pins, "WATCH")?,
        };
        Ok(maps)
    }
}

pub(super) fn array<V: Shared>(pins: &Pins, name: &str) -> Result<Array<V>> {
    Table::open(&pins.map(name))
}

/// Refuses pins of another version: their entries would be misread.
///
/// # Errors
/// The versions differ.
pub fn check_abi(pins: &Pins) -> Result<()> {
    let version = array::<u32>(pins, ABI)?.get(&0)?.unwrap_or(0);
    if version != ABI_VERSION {
        bail!(
            "another version of netfw is up: its maps have layout {version}, this one needs {ABI_VERSION}\n\
             help: use that version, or `netfw down` first, which ends its flows"
        );
    }
    Ok(())
}
