//! The surroundings of the pipeline, in memory: policy, routes, a clock that is set by hand, chance that repeats.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
};

use netfw::{
    image::{Ids, Image, block_keys},
    policy::ValidPolicy,
};
use netfw_common::{
    block::{self, Bans, Key},
    bloom,
    bucket::Bucket,
    changes::Changes,
    counters::{Count, InterfaceCount, TranslationCount},
    door::Handshake,
    event::{Event, Watch},
    family::{Address, Family, Ipv4, Ipv6, addr4, addr6},
    flow::{Flow, Hop},
    fragment::{HELD_PACKETS, Held, Ports},
    image::{AddressClass, Forward, Policy, Rule, Service, Target},
    interface::{EXTERNAL, INTERNAL, Interface, LOCAL_EXTERNAL, LOCAL_OTHER, ONE_ADDRESS, XDP_TRANSMIT},
    mapping::Mapping,
    pressure::{self, Pressure},
    reason::Reason,
    tick::Tick,
    tuple::Tuple,
};
use netfw_ebpf::datapath::{
    kernel::{BucketKey, Inserted, Kernel, Query, Ring, Route, Table, Tables, Way},
    repeat::Repeat,
    traces::Traces,
    work::Work,
};
use netfw_tests::packet::{
    Side,
    world::{V4, V6, next_mac, side_of},
};

use super::{
    policy::{Compiled, compiled},
    table::{Entry, Store},
};

/// Kernel index of an interface.
pub(crate) fn index(side: Side) -> u32 {
    side.slot() + 10
}

/// Counters, as the datapath keeps them.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) interfaces: BTreeMap<u32, InterfaceCount>,
    pub(crate) drops: BTreeMap<u32, Count>,
    pub(crate) rules: BTreeMap<u32, Count>,
    pub(crate) translations: BTreeMap<u32, TranslationCount>,
}

/// Words of the filter over the keys of flows: so few that a stranger looks like a flow now and then.
const BLOOM_WORDS: u32 = 4;

/// The surroundings.
pub(crate) struct Machine {
    image: Image,
    /// What an unconfirmed image falls back to.
    fallback: Option<Image>,
    pub(crate) ids: Ids,
    pub(crate) policy: ValidPolicy,
    now: Cell<u32>,
    nanos: Cell<u64>,
    random: Cell<u64>,
    interfaces: [Interface; 3],
    locals: HashMap<IpAddr, u32>,
    /// Largest IP packet out of each interface.
    pub(crate) mtu: [u32; 2],
    /// Neighbours whose link address is not known.
    pub(crate) unresolved: HashSet<[u8; 6]>,
    /// Where no route leads.
    pub(crate) unreachable: HashSet<IpAddr>,
    /// Hosts that are reached by the other interface.
    pub(crate) moved: HashSet<IpAddr>,
    /// Hosts inside that are reached through a router.
    pub(crate) far: HashSet<IpAddr>,
    /// Local ports on which the master listens: protocol and port.
    pub(crate) sockets: HashSet<(u32, u16)>,
    v4: Store<Ipv4>,
    v6: Store<Ipv6>,
    ban_head: Bans,
    bans: HashSet<Key>,
    turns: RefCell<HashMap<u32, u32>>,
    /// State of targets, by the numbers of their words.
    pub(crate) health: HashMap<u32, u32>,
    /// By rule and, where each has its own, by source.
    pub(crate) buckets: RefCell<HashMap<(u32, Option<IpAddr>), u64>>,
    pub(crate) counts: RefCell<Counts>,
    pub(crate) errors: RefCell<Bucket>,
    /// Behind which interface fragments are put in order; 0: nowhere.
    pub(crate) reassembler: u32,
    held: RefCell<Vec<Held>>,
    /// Where the last fragment was held, plus 1.
    pub(crate) last_held: Cell<u32>,
    /// The next frame comes back from there; 0: it comes from the wire.
    pub(crate) comes_back: Cell<u32>,
    /// What the watcher wants.
    pub(crate) watch: Watch,
    /// Whether the datapath has ended the watch.
    pub(crate) watch_ended: Cell<bool>,
    pub(crate) handshake: Cell<Handshake>,
    /// SYNs that a core may see in a window.
    pub(crate) bearable: u32,
    /// By family, as the datapath keeps them.
    pressures: RefCell<[Pressure; 2]>,
    pressed_until: RefCell<[u32; 2]>,
    vouched: RefCell<HashMap<IpAddr, Tick>>,
    /// Until when the kernel need not be given a packet for a neighbour, by its address and interface.
    probed: RefCell<HashMap<(IpAddr, u32), u32>>,
    /// What user space has heard of changes.
    pub(crate) changes: Changes,
    bloom: RefCell<[u64; BLOOM_WORDS as usize]>,
    channels: RefCell<HashMap<u32, u64>>,
    /// What was told to watcher and log.
    pub(crate) watched: RefCell<Vec<Event>>,
    pub(crate) logged: RefCell<Vec<Event>>,
    /// Events that were left out, by channel.
    pub(crate) left_out: RefCell<BTreeMap<u32, u64>>,
    /// What another core does when the flow table has been used a number of times.
    interruption: RefCell<Option<(u32, Interruption)>>,
}

type Interruption = Box<dyn FnOnce(&Machine)>;

fn interface(side: Side, flag: u32, name: &str) -> Interface {
    let mac = side.mac();
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (V4.host(name), V6.host(name)) else { unreachable!() };
    Interface {
        ifindex: index(side),
        flags: flag | XDP_TRANSMIT | ONE_ADDRESS[0] | ONE_ADDRESS[1],
        mac_high: u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]),
        mac_low: u16::from_ne_bytes([mac[4], mac[5]]),
        mtu: 1500,
        address4: addr4(v4),
        address6: addr6(v6),
    }
}

impl Machine {
    fn note_key<A: Address>(&self, key: &Tuple<A>) {
        let (word, bit) = bloom::place(bloom::hash(key), BLOOM_WORDS);
        self.bloom.borrow_mut()[word as usize] |= bit;
    }

    fn is_noted<A: Address>(&self, key: &Tuple<A>) -> bool {
        self.used();
        let (word, bit) = bloom::place(bloom::hash(key), BLOOM_WORDS);
        self.bloom.borrow()[word as usize] & bit != 0
    }

    /// A two-armed master; `proven` and `unproven` as in [`Store::new`].
    pub(crate) fn new(proven: usize, unproven: usize) -> Self {
        let Compiled { policy, mut image, ids, .. } =
            compiled(&netfw_tests::rules::two_armed(""), &Ids::default());
        image.policy.generation = 1;
        let mut locals = HashMap::new();
        for world in [V4, V6] {
            locals.insert(world.host("master"), LOCAL_EXTERNAL);
            locals.insert(world.host("second"), LOCAL_EXTERNAL);
            locals.insert(world.host("gateway"), LOCAL_OTHER);
        }
        Self {
            image,
            fallback: None,
            ids,
            policy,
            // Shortly before the 32 bits wrap, so that every story crosses that point.
            now: Cell::new(u32::MAX - 20),
            nanos: Cell::new(1),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
            interfaces: [
                Interface::default(),
                interface(Side::Outside, EXTERNAL, "master"),
                interface(Side::Inside, INTERNAL, "gateway"),
            ],
            locals,
            mtu: [1500; 2],
            unresolved: HashSet::new(),
            unreachable: HashSet::new(),
            moved: HashSet::new(),
            far: HashSet::new(),
            sockets: HashSet::new(),
            v4: Store::new(proven, unproven),
            v6: Store::new(proven, unproven),
            ban_head: Bans::default(),
            bans: HashSet::new(),
            turns: RefCell::default(),
            health: HashMap::new(),
            buckets: RefCell::default(),
            counts: RefCell::default(),
            errors: RefCell::default(),
            reassembler: 0,
            last_held: Cell::new(0),
            comes_back: Cell::new(0),
            held: RefCell::new(vec![Held::default(); HELD_PACKETS as usize]),
            watch: Watch::default(),
            watch_ended: Cell::new(false),
            handshake: Cell::default(),
            bearable: u32::MAX,
            pressures: RefCell::default(),
            pressed_until: RefCell::default(),
            vouched: RefCell::default(),
            probed: RefCell::default(),
            changes: Changes::default(),
            bloom: RefCell::default(),
            channels: RefCell::default(),
            watched: RefCell::default(),
            logged: RefCell::default(),
            left_out: RefCell::default(),
            interruption: RefCell::new(None),
        }
    }

    /// Lets another core act after `uses` more uses of the flow table.
    pub(crate) fn interrupt(&self, uses: u32, act: impl FnOnce(&Self) + 'static) {
        *self.interruption.borrow_mut() = Some((uses, Box::new(act)));
    }

    /// Whether the other core has not acted yet; then it never will.
    pub(crate) fn calm_down(&self) -> bool {
        self.interruption.borrow_mut().take().is_some()
    }

    fn used(&self) {
        let mut interruption = self.interruption.borrow_mut();
        match interruption.take() {
            Some((0, act)) => {
                drop(interruption);
                act(self);
            }
            Some((uses, act)) => *interruption = Some((uses - 1, act)),
            None => {}
        }
    }

    /// Puts rules in force, as the next generation.
    pub(crate) fn apply(&mut self, rules: &str) {
        let generation = self.image.policy.generation + 1;
        self.fallback = None;
        let compiled = compiled(rules, &self.ids);
        (self.policy, self.image, self.ids) = (compiled.policy, compiled.image, compiled.ids);
        for word in self.ids.take_begun_targets() {
            self.health.remove(&word.into());
        }
        self.image.policy.generation = generation;
    }

    /// Makes an interface so wide, whatever its routes say ([`Self::mtu`]).
    pub(crate) fn set_width(&mut self, side: Side, mtu: u16) {
        self.interfaces[side.slot() as usize].mtu = mtu;
    }

    /// Gives the outside interface more addresses of each family.
    pub(crate) fn share_outside(&mut self) {
        self.interfaces[Side::Outside.slot() as usize].flags &= !(ONE_ADDRESS[0] | ONE_ADDRESS[1]);
    }

    /// Takes an address away from the master.
    pub(crate) fn disown(&mut self, address: IpAddr) {
        self.locals.remove(&address);
    }

    /// Puts rules in force until they are confirmed or taken back.
    pub(crate) fn try_out(&mut self, rules: &str) {
        let (fallback, last) = (self.fallback.take(), self.image.clone());
        self.apply(rules);
        self.fallback = Some(fallback.unwrap_or(last));
    }

    /// They hold for good.
    pub(crate) fn confirm(&mut self) {
        self.fallback = None;
    }

    /// The old ones hold again.
    pub(crate) fn roll_back(&mut self) {
        self.image = self.fallback.take().expect("rules that wait for confirmation");
    }

    /// Has too many connections be opened from outside, from now on.
    pub(crate) fn press(&self) {
        *self.pressed_until.borrow_mut() = [pressure::until(Tick(self.now.get())); 2];
    }

    /// Has an end of that.
    pub(crate) fn relieve(&self) {
        *self.pressed_until.borrow_mut() = [0; 2];
    }

    /// Bans a host.
    pub(crate) fn ban(&mut self, host: IpAddr) {
        for key in block_keys(&host.into()) {
            let (_, length, v6) = block::prefix(&key);
            self.ban_head.lengths.insert(v6, length);
            self.bans.insert(key);
        }
        self.ban_head.version += 1;
    }

    /// Lifts its ban.
    pub(crate) fn unban(&mut self, host: IpAddr) {
        for key in block_keys(&host.into()) {
            self.bans.remove(&key);
        }
    }

    /// Has the datapath tell what a watcher wants, for ten seconds.
    pub(crate) fn begin_watch(&mut self, wanted: &Watch) {
        let until = self.now.get().wrapping_add(Tick::ticks(10)).max(1);
        self.watch = Watch { until, ..*wanted };
        self.watch_ended.set(false);
    }

    /// The kernel has sent to a neighbour.
    pub(crate) fn note_probed(&self, gateway: IpAddr, hop: &Hop) {
        self.probed.borrow_mut().insert((gateway, hop.ifindex), hop.found);
    }

    /// User space listens for so long, and has just noted a change.
    pub(crate) fn listen(&mut self, seconds: u64) {
        let now = self.now.get();
        self.changes = Changes { last: now, heard_until: now.wrapping_add(Tick::ticks(seconds)) };
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, seconds: u64) {
        self.now.set(self.now.get().wrapping_add(Tick::ticks(seconds)));
        self.nanos.set(self.nanos.get() + seconds * 1_000_000_000);
    }

    /// Lets some ticks of the coarse clock pass.
    pub(crate) fn wait_ticks(&self, ticks: u32) {
        self.now.set(self.now.get().wrapping_add(ticks));
        self.nanos.set(self.nanos.get() + (u64::from(ticks) << Tick::SHIFT));
    }

    /// Lets a little time pass, which only the fine clock shows.
    pub(crate) fn wait_nanos(&self, nanos: u64) {
        self.nanos.set(self.nanos.get() + nanos);
    }

    /// Fragments that are with the reassembly.
    pub(crate) fn held_fragments(&self) -> u64 {
        self.held.borrow().iter().map(|held| held.fragments.packets).sum()
    }

    /// A family's part.
    pub(crate) fn store<F: Stored>(&self) -> &Store<F> {
        F::store(self)
    }

    /// Everything that is kept between packets.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut all = [self.v4.list(), self.v6.list()].concat();
        all.extend(self.turns.borrow().iter().map(|turn| format!("turn {turn:?}")));
        all.extend(self.vouched.borrow().iter().map(|proof| format!("vouched for {proof:?}")));
        all
    }
}

/// A family whose flows the machine keeps.
pub(crate) trait Stored: Family {
    fn store(machine: &Machine) -> &Store<Self>;
}

impl Stored for Ipv4 {
    fn store(machine: &Machine) -> &Store<Self> {
        &machine.v4
    }
}

impl Stored for Ipv6 {
    fn store(machine: &Machine) -> &Store<Self> {
        &machine.v6
    }
}

impl Repeat for Machine {}

impl<F: Stored> Tables<F> for Machine {
    fn policy(&self) -> Option<&Policy> {
        Tables::<F>::policy(&self.image)
    }

    fn fallback(&self) -> u32 {
        self.fallback.as_ref().map_or(0, |image| image.policy.generation)
    }

    fn address(&self, address: F::Addr) -> AddressClass {
        Tables::<F>::address(&self.image, address)
    }

    fn service(&self, index: u32) -> Service {
        Tables::<F>::service(&self.image, index)
    }

    fn lowest<const N: usize>(&self, vectors: [u16; N], from: u32) -> u32 {
        Tables::<F>::lowest(&self.image, vectors, from)
    }

    fn rule(&self, number: u32) -> Option<&Rule> {
        Tables::<F>::rule(&self.image, number)
    }

    fn forward(&self, number: u32) -> Option<&Forward> {
        Tables::<F>::forward(&self.image, number)
    }

    fn target(&self, number: u32) -> Option<&Target> {
        Tables::<F>::target(&self.image, number)
    }

    fn listed(&self, address: F::Addr) -> bool {
        Tables::<F>::listed(&self.image, address)
    }
}

/// The next hop of what lies outside.
fn router<F: Family>() -> F::Addr {
    F::Addr::narrow(match if F::V6 { V6 } else { V4 }.host("router") {
        IpAddr::V4(v4) => addr4(v4).widen(),
        IpAddr::V6(v6) => addr6(v6),
    })
}

fn bucket_key<A: Address>(key: &BucketKey<A>) -> (u32, Option<IpAddr>) {
    (key.rule, key.per_source.then(|| key.source.to_ip()))
}

/// Destination and source MAC as they stand in a frame.
fn macs(to: [u8; 6], from: [u8; 6]) -> [u32; 3] {
    let bytes: Vec<u8> = to.into_iter().chain(from).collect();
    let word = |n: usize| u32::from_ne_bytes(bytes[4 * n..4 * n + 4].try_into().expect("4 bytes"));
    [word(0), word(1), word(2)]
}

/// What stands in for a SYN cookie: a number that depends on the whole tuple.
pub(crate) fn cookie<A: Address>(tuple: &Tuple<A>) -> u32 {
    let mut hasher = DefaultHasher::new();
    let ends = [tuple.source.widen(), tuple.destination.widen()];
    (ends, tuple.source_port, tuple.destination_port).hash(&mut hasher);
    hasher.finish() as u32 | 1
}

impl<F: Stored> Kernel<F> for Machine {
    fn now(&self) -> Tick {
        Tick(self.now.get())
    }

    fn bans(&self) -> Option<&Bans> {
        Some(&self.ban_head)
    }

    fn banned(&self, prefix: &Key) -> bool {
        self.bans.contains(prefix)
    }

    fn nanos(&self) -> u64 {
        self.nanos.get()
    }

    /// Marsaglia's xorshift.
    fn random(&self) -> u32 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        (state >> 32) as u32
    }

    fn interface(&self, slot: u32) -> Option<&Interface> {
        self.interfaces.get(slot as usize)
    }

    fn slot_of(&self, ifindex: u32) -> u32 {
        [Side::Outside, Side::Inside].into_iter().find(|&side| index(side) == ifindex).map_or(0, Side::slot)
    }

    fn local(&self, address: F::Addr) -> u32 {
        self.locals.get(&address.to_ip()).copied().unwrap_or(0)
    }

    fn route(&self, query: &Query<F::Addr>, way: &mut Way<F::Addr>) -> Route {
        let destination = query.destination.to_ip();
        way.hop = Hop::default();
        way.gateway = query.destination;
        let near = F::V6 && (query.source.is_link_local() || query.destination.is_link_local());
        if near
            || self.locals.contains_key(&destination)
            || self.unreachable.contains(&destination)
            || query.destination.is_group()
        {
            return Route::None;
        }
        if [V4, V6].map(|world| world.host("tunnelled")).contains(&destination) {
            return Route::Encapsulated;
        }
        let mut out = side_of(destination);
        if self.moved.contains(&destination) {
            out = if out == Side::Outside { Side::Inside } else { Side::Outside };
        }
        if out == Side::Outside || self.far.contains(&destination) {
            way.gateway = router::<F>();
        }
        let mtu = self.mtu[out as usize];
        way.hop.mtu = mtu;
        way.hop.ifindex = index(out);
        if query.length > mtu {
            return Route::TooBig;
        }
        let mac = next_mac(destination);
        if self.unresolved.contains(&mac) {
            way.hop.mtu = 0;
            return Route::NoNeighbour;
        }
        way.hop.macs = macs(mac, out.mac());
        Route::Found
    }

    fn changes(&self) -> Changes {
        self.changes
    }

    fn probed_at(&self, gateway: F::Addr, ifindex: u32) -> Option<u32> {
        self.probed.borrow().get(&(gateway.to_ip(), ifindex)).copied()
    }

    fn can_transmit(&self, ifindex: u32) -> bool {
        Kernel::<F>::slot_of(self, ifindex) != 0
    }

    fn socket(&self, tuple: &Tuple<F::Addr>) -> bool {
        self.sockets.contains(&(tuple.protocol, tuple.destination_port))
    }

    fn place(&self, place: u32) -> Option<Tuple<F::Addr>> {
        F::store(self).place(place)
    }

    fn recall_ports(&self, key: &Tuple<F::Addr>, identification: u32) -> Option<Ports> {
        F::store(self).recall(key, identification)
    }

    fn reassembler(&self) -> u32 {
        self.reassembler
    }

    fn held(&self, place: u32) -> Option<Held> {
        self.held.borrow().get(place as usize).copied()
    }

    fn turn(&self, forward: u32) -> u32 {
        self.turns.borrow().get(&forward).copied().unwrap_or(0)
    }

    fn health(&self, number: u32) -> u32 {
        self.health.get(&number).copied().unwrap_or(0)
    }

    fn pressed_until(&self) -> u32 {
        self.pressed_until.borrow()[usize::from(F::V6)]
    }

    fn may_have_flow(&self, work: &mut Work<F>) -> bool {
        self.is_noted(&work.tuple)
    }

    fn may_have_rival(&self, work: &mut Work<F>) -> bool {
        self.is_noted(&work.rival)
    }

    fn vouched(&self, source: F::Addr) -> Option<Tick> {
        self.vouched.borrow().get(&source.to_ip()).copied()
    }

    fn cookie(&self, work: &mut Work<F>) -> u32 {
        cookie(&work.tuple)
    }

    fn is_cookie(&self, tuple: &Tuple<F::Addr>, number: u32) -> bool {
        number == cookie(tuple)
    }

    fn bucket(&self, key: &BucketKey<F::Addr>) -> u64 {
        self.buckets.borrow().get(&bucket_key(key)).copied().unwrap_or(0)
    }

    fn watch(&self) -> Option<&Watch> {
        (!self.watch_ended.get()).then_some(&self.watch)
    }

    fn channel(&self, number: u32) -> u64 {
        self.channels.borrow().get(&number).copied().unwrap_or(0)
    }
}

impl<F: Stored> Traces<F> for Machine {
    type Entry = Entry<Flow<F::Addr>>;
    type Half = Entry<Mapping<F::Addr>>;

    fn flow(&self, table: Table, key: &Tuple<F::Addr>) -> Option<Self::Entry> {
        self.used();
        F::store(self).flow(table, key)
    }

    fn insert(&self, table: Table, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>) -> Inserted {
        self.used();
        self.note_key(key);
        F::store(self).insert(table, key, flow)
    }

    fn remove(&self, table: Table, key: &Tuple<F::Addr>) {
        self.used();
        F::store(self).remove(table, key);
    }

    fn mapping(&self, key: &Tuple<F::Addr>) -> Option<Self::Half> {
        self.used();
        F::store(self).mapping(key)
    }

    fn insert_mapping(&self, key: &Tuple<F::Addr>, half: &Mapping<F::Addr>) -> Inserted {
        self.used();
        F::store(self).insert_mapping(key, half)
    }

    fn remove_mapping(&self, key: &Tuple<F::Addr>) {
        self.used();
        F::store(self).remove_mapping(key);
    }

    fn next_place(&self) -> u32 {
        F::store(self).next_place()
    }

    fn take_place(&self, place: u32, key: &Tuple<F::Addr>) {
        F::store(self).take_place(place, key);
    }

    fn remember_ports(&self, key: &Tuple<F::Addr>, identification: u32, ports: Ports) {
        F::store(self).remember(key, identification, ports);
    }

    fn hold(&self, place: u32, held: &Held) {
        self.held.borrow_mut()[place as usize] = *held;
        self.last_held.set(place + 1);
    }

    fn take_turn(&self, forward: u32) {
        *self.turns.borrow_mut().entry(forward).or_default() += 1;
    }

    fn may_tell(&self, now: Tick) -> bool {
        self.errors.borrow_mut().take(now)
    }

    fn count_opening(&self, now: Tick) {
        let family = usize::from(F::V6);
        if self.pressures.borrow_mut()[family].count(now, self.bearable) {
            self.pressed_until.borrow_mut()[family] = pressure::until(now);
        }
    }

    fn vouch(&self, source: F::Addr, now: Tick) {
        self.vouched.borrow_mut().insert(source.to_ip(), now);
    }

    fn exchange_bucket(&self, key: &BucketKey<F::Addr>, old: u64, new: u64) -> bool {
        self.used();
        let mut buckets = self.buckets.borrow_mut();
        let bucket = buckets.entry(bucket_key(key)).or_default();
        let unchanged = *bucket == old;
        if unchanged {
            *bucket = new;
        }
        unchanged
    }

    fn begin_handshake(&self, client_port: u32, expected: u32) {
        self.used();
        self.handshake.set(Handshake { client_port, expected, ..self.handshake.get() });
    }

    fn complete_handshake(&self, client_port: u32, acknowledged: u32, generation: u32) {
        self.used();
        let handshake = self.handshake.get();
        if (handshake.client_port, handshake.expected) == (client_port, acknowledged) {
            self.handshake.set(Handshake { completed: generation, ..handshake });
        }
    }

    fn end_watch(&self) {
        self.watch_ended.set(true);
    }

    fn exchange_channel(&self, number: u32, _old: u64, new: u64) -> bool {
        self.channels.borrow_mut().insert(number, new);
        true
    }

    fn emit(&self, ring: Ring, event: &Event) -> bool {
        let ring = if ring == Ring::Watched { &self.watched } else { &self.logged };
        ring.borrow_mut().push(*event);
        true
    }

    fn count_left_out(&self, channel: u32) {
        *self.left_out.borrow_mut().entry(channel).or_default() += 1;
    }

    fn count_interface(&self, slot: u32, which: impl FnOnce(&mut InterfaceCount) -> &mut Count, size: Count) {
        which(self.counts.borrow_mut().interfaces.entry(slot).or_default()).add(size.packets, size.bytes);
    }

    fn count_drop(&self, reason: Reason, size: Count) {
        self.counts.borrow_mut().drops.entry(reason as u32).or_default().add(size.packets, size.bytes);
    }

    fn count_rule(&self, counter: u32, size: Count) {
        self.counts.borrow_mut().rules.entry(counter).or_default().add(size.packets, size.bytes);
    }

    fn count_translation(&self, counter: u32, change: impl FnOnce(&mut TranslationCount)) {
        change(self.counts.borrow_mut().translations.entry(counter).or_default());
    }
}
