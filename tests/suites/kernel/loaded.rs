//! The loaded datapath as [`Hooks`].

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    mem::{offset_of, size_of},
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use aya::{
    Pod,
    maps::{Array, HashMap as Table, Map, MapData, PerCpuArray, PerCpuValues},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
    util::nr_cpus,
};
use aya_obj::{generated::bpf_map_type, programs::XdpAttachType};
use netfw::{
    image::Ids,
    kernel::{self, DryRun, Maps, Pins, Programs, Ring, Told},
    policy::{Spread, ValidPolicy},
};
use netfw_common::{
    bucket::Bucket,
    counters::MASQUERADE_COUNTER,
    event::{Event, Watch},
    explain::Note,
    family::{Addr4, Addr6, addr4, addr6},
    flow::Flow,
    health::UNKNOWN,
    image::Active,
    interface::{EXTERNAL, INTERNAL, Interface, LOCAL_EXTERNAL, LOCAL_OTHER, ONE_ADDRESS, XDP_TRANSMIT},
    mapping::Mapping,
    pressure,
    reason::Reason,
    slots::{LIVE, Slot},
    tuple::Tuple,
};
use netfw_tests::packet::{
    Action, Counters, Hook, Hooks, Ran, Side,
    world::{V4, V6},
};

use super::{
    explained,
    memory::policy::compiled,
    network::{Network, index},
};

const SIDES: [Side; 2] = [Side::Outside, Side::Inside];
/// Kernel index of `lo`, which isn't managed.
const LOOPBACK: u32 = 1;
/// A deadline that no test lives to see.
pub(crate) const NEVER: u64 = (1 << 48) - 1;
/// Larger than any frame that is tried.
const ROOM: usize = 4096;

/// Programs and maps of an instance; its pins go with it.
pub(crate) struct Loaded {
    xdp: Xdp,
    ingress: SchedClassifier,
    egress: SchedClassifier,
    dry: DryRun,
    maps: Maps,
    rings: [Ring; 2],
    pins: Pins,
    directory: PathBuf,
    indexes: [u32; 2],
    ids: Ids,
    policy: ValidPolicy,
    generation: u32,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = self.pins.remove() {
            eprintln!("{error:?}");
        }
    }
}

impl Loaded {
    /// Loads the datapath as `netfw up` does, but attaches it nowhere.
    pub(crate) fn load(network: &Network) -> Result<Self> {
        let pins = Pins::of(network.name());
        pins.create()?;
        let loaded = Self::over(network, pins.clone());
        if loaded.is_err() {
            pins.remove()?;
        }
        loaded
    }

    fn over(network: &Network, pins: Pins) -> Result<Self> {
        drop(Programs::load(&pins, 128, false)?);
        let directory = Path::new("/sys/fs/bpf/netfw").join(network.name());
        let loaded = Self {
            xdp: Xdp::from_pin(directory.join("netfw_xdp"), XdpAttachType::Interface)?,
            ingress: SchedClassifier::from_pin(directory.join("netfw_ingress"))?,
            egress: SchedClassifier::from_pin(directory.join("netfw_egress"))?,
            dry: DryRun::load(&pins, None)?,
            maps: Maps::open(&pins)?,
            rings: [Ring::watched(&pins)?, Ring::logged(&pins)?],
            pins,
            directory,
            indexes: [index(Side::Outside)?, index(Side::Inside)?],
            ids: Ids::default(),
            policy: compiled(&netfw_tests::rules::two_armed(""), &Ids::default()).policy,
            generation: 0,
        };
        loaded.describe_host()?;
        Ok(loaded)
    }

    fn describe_host(&self) -> Result<()> {
        let mut interfaces = BTreeMap::new();
        for (side, (flag, name)) in SIDES.into_iter().zip([(EXTERNAL, "master"), (INTERNAL, "gateway")]) {
            let ifindex = self.indexes[side as usize];
            interfaces.insert(side.slot(), interface(side, ifindex, flag, name));
        }
        self.maps.set_interfaces(&interfaces)?;
        let mut locals = HashMap::new();
        for world in [V4, V6] {
            locals.insert(world.host("master"), LOCAL_EXTERNAL);
            locals.insert(world.host("second"), LOCAL_EXTERNAL);
            locals.insert(world.host("gateway"), LOCAL_OTHER);
        }
        self.maps.add_locals(&locals)?;
        Ok(())
    }

    /// The instance's tables.
    pub(crate) fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Its pins.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Forgets flows, fragments, names, spent tokens, and how many errors were sent.
    pub(crate) fn empty(&mut self) -> Result<()> {
        self.maps.end_watch()?;
        for ring in &mut self.rings {
            ring.for_each(drop);
        }
        let counters = self.maps.counters()?;
        for rule in 0..self.policy.rules().len() as u16 {
            counters.reset_rule(rule)?;
        }
        self.ids = Ids::default();
        self.forget_errors()?;
        self.forget_keys()?;
        self.press(0)?;
        self.each_table(&mut Empty)
    }

    /// Forgets how many errors were sent.
    pub(crate) fn forget_errors(&self) -> Result<()> {
        let errors = Map::PerCpuArray(MapData::from_pin(self.directory.join("ERRORS"))?);
        let mut errors = PerCpuArray::<_, [u8; size_of::<Bucket>()]>::try_from(errors)?;
        let cpus = nr_cpus().map_err(|(_, error)| error).context("counting the CPUs")?;
        Ok(errors.set(0, PerCpuValues::try_from(vec![[0; size_of::<Bucket>()]; cpus])?, 0)?)
    }

    /// Forgets which keys flows have had: a flow that is entered and not noted is none.
    fn forget_keys(&self) -> Result<()> {
        let mut bloom =
            Array::<_, u64>::try_from(Map::Array(MapData::from_pin(self.directory.join("BLOOM"))?))?;
        (0..bloom.len()).try_for_each(|word| Ok(bloom.set(word, 0, 0)?))
    }

    /// Says until when too many connections are being opened from outside; 0: they are not.
    pub(crate) fn press(&self, until: u32) -> Result<()> {
        let map = Map::Array(MapData::from_pin(self.directory.join("PRESSED_UNTIL"))?);
        let mut map = Array::<_, u32>::try_from(map)?;
        (0..2).try_for_each(|family| Ok(map.set(family, until, 0)?))
    }

    /// Forgets flows alone.
    pub(crate) fn forget_flows(&self) -> Result<()> {
        self.each_flow_table(&mut Empty)
    }

    fn each_flow_table(&self, visitor: &mut impl Visitor) -> Result<()> {
        self.slots::<{ size_of::<Slot>() }>("PROVEN4", visitor)?;
        self.table::<{ size_of::<Tuple<Addr6>>() }, { size_of::<Flow<Addr6>>() }>("PROVEN", '6', visitor)?;
        for part in ["OUTSIDE", "INSIDE"] {
            self.table::<{ size_of::<Tuple<Addr4>>() }, { size_of::<Flow<Addr4>>() }>(part, '4', visitor)?;
            self.table::<{ size_of::<Tuple<Addr6>>() }, { size_of::<Flow<Addr6>>() }>(part, '6', visitor)?;
        }
        Ok(())
    }

    fn each_table(&self, visitor: &mut impl Visitor) -> Result<()> {
        self.each_flow_table(visitor)?;
        self.table::<{ size_of::<Tuple<Addr4>>() }, { size_of::<Mapping<Addr4>>() }>(
            "MAPPINGS", '4', visitor,
        )?;
        self.table::<{ size_of::<Tuple<Addr6>>() }, { size_of::<Mapping<Addr6>>() }>(
            "MAPPINGS", '6', visitor,
        )?;
        self.table::<{ size_of::<Addr4>() }, 4>("VOUCHED", '4', visitor)?;
        self.table::<{ size_of::<Addr6>() }, 4>("VOUCHED", '6', visitor)?;
        self.table::<{ size_of::<Addr4>() + 4 }, 8>("SOURCE_BUCKETS", '4', visitor)?;
        self.table::<{ size_of::<Addr6>() + 4 }, 8>("SOURCE_BUCKETS", '6', visitor)?;
        self.table::<{ size_of::<Tuple<Addr4>>() + 4 }, 8>("FRAGMENTS", '4', visitor)?;
        self.table::<{ size_of::<Tuple<Addr6>>() + 4 }, 8>("FRAGMENTS", '6', visitor)
    }

    fn slots<const V: usize>(&self, name: &str, visitor: &mut impl Visitor) -> Result<()>
    where
        [u8; V]: Pod,
    {
        let map = Map::Array(MapData::from_pin(self.directory.join(name))?);
        visitor.visit_slots::<V>(name, Array::try_from(map)?).with_context(|| format!("the table {name}"))
    }

    fn table<const K: usize, const V: usize>(
        &self,
        name: &str,
        family: char,
        visitor: &mut impl Visitor,
    ) -> Result<()> {
        let name = format!("{name}{family}");
        let map = MapData::from_pin(self.directory.join(&name))?;
        let lru = map.info()?.map_type()? as u32 == bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32;
        let map = if lru { Map::LruHashMap(map) } else { Map::HashMap(map) };
        visitor.visit::<K, V>(&name, Table::try_from(map)?).with_context(|| format!("the table {name}"))
    }

    pub(crate) fn count(&self) -> Result<Counters> {
        let counters = self.maps.counters()?;
        let mut all = Counters::default();
        for side in SIDES {
            all.interfaces.insert(side, counters.interface(side.slot())?);
        }
        for reason in Reason::ALL {
            all.drops.insert(reason.word(), counters.drops(*reason)?);
        }
        for rule in self.policy.rules() {
            if let Some(id) = self.ids.rule(rule.chain, &rule.name) {
                all.rules.insert(rule.name.clone(), counters.rule(id)?);
            }
        }
        for forward in self.policy.port_forwards() {
            if let Some(id) = self.ids.port_forward(&forward.name) {
                all.translations.insert(forward.name.clone(), counters.translation(u32::from(id) + 1)?);
            }
        }
        all.translations.insert(String::new(), counters.translation(MASQUERADE_COUNTER)?);
        Ok(all)
    }

    /// Runs a hook on a frame, after it was asked what it would do, which must be what it does.
    fn run(&mut self, hook: Hook, side: Side, frame: &[u8]) -> Result<Ran> {
        let before = (self.count()?, self.list()?);
        self.ask(hook, side, frame)?;
        assert_eq!((self.count()?, self.list()?), before, "asking has left a trace");
        let (told, ran) = self.ask_and_run(hook, side, frame)?;
        explained::compare(&told, &ran, hook, self.is_left_to_chance(&told)).map_err(|what| anyhow!(what))?;
        Ok(ran)
    }

    /// What a hook would do with a frame, and what it then does. Where the cached way out of a flow lapses in between, XDP leaves the
    /// packet as it is to TC: then it is asked once more.
    pub(crate) fn ask_and_run(&mut self, hook: Hook, side: Side, frame: &[u8]) -> Result<(Told, Ran)> {
        let told = self.ask(hook, side, frame)?;
        let (ran, _) = self.run_often(hook, side, frame, 1)?;
        let lapsed = hook == Hook::Xdp && ran.action == Action::Next && explained::follows_a_flow(&told);
        Ok((if lapsed { self.ask(hook, side, frame)? } else { told }, ran))
    }

    /// Whether chance has chosen a target or a port.
    pub(crate) fn is_left_to_chance(&self, told: &Told) -> bool {
        told.account.is_some_and(|account| {
            let drawn = account.note(Note::Judged).is_some() && account.drawn != 0;
            let id = account.forward_id.checked_sub(1).and_then(|id| u16::try_from(id).ok());
            let name = id.and_then(|id| self.ids.port_forward_name(id));
            let forward =
                self.policy.port_forwards().iter().find(|forward| Some(forward.name.as_str()) == name);
            drawn || forward.is_some_and(|forward| forward.spread == Spread::Random)
        })
    }

    /// Name of the rule with this number.
    pub(crate) fn rule_name(&self, number: u32) -> Option<&str> {
        self.policy.rules().get(number as usize).map(|rule| rule.name.as_str())
    }

    /// What a hook would do with a frame.
    pub(crate) fn ask(&mut self, hook: Hook, side: Side, frame: &[u8]) -> Result<Told> {
        let (asked, arrived) = self.place(hook, side);
        self.dry.ask(asked, self.indexes[side as usize], arrived, frame)
    }

    /// The program at a hook, and the interface by which a packet that leaves has come.
    fn place(&self, hook: Hook, side: Side) -> (kernel::Hook, u32) {
        match hook {
            Hook::Xdp => (kernel::Hook::Xdp, 0),
            Hook::Ingress => (kernel::Hook::Ingress, 0),
            Hook::Egress => (kernel::Hook::Egress, 0),
            Hook::Routed => (kernel::Hook::Egress, LOOPBACK),
            Hook::Handled => (kernel::Hook::Egress, self.indexes[1 - side as usize]),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<String>> {
        let mut list = List(Vec::new());
        self.each_table(&mut list)?;
        list.0.sort();
        Ok(list.0)
    }

    /// Runs a hook `times` on a frame; says also how long it took each time.
    pub(crate) fn run_often(
        &mut self,
        hook: Hook,
        side: Side,
        frame: &[u8],
        times: u32,
    ) -> Result<(Ran, Duration)> {
        let mut room = vec![0; ROOM];
        let (program, arrived) = self.place(hook, side);
        let context = program.context(frame.len(), self.indexes[side as usize], arrived);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut room),
            ctx_in: Some(&context),
            repeat: times,
            ..Default::default()
        };
        let result = match hook {
            Hook::Xdp => self.xdp.test_run(options),
            Hook::Ingress => self.ingress.test_run(options),
            Hook::Egress | Hook::Routed | Hook::Handled => self.egress.test_run(options),
        }
        .with_context(|| format!("{hook:?} with {} bytes", frame.len()))?;
        room.truncate(result.data_size_out as usize);
        let action = action(hook, result.return_value);
        let out = SIDES.into_iter().find(|side| room.get(6..12) == Some(&side.mac()[..]));
        let out = out.filter(|_| room[..12] != frame[..12]);
        Ok((Ran { action, out, frame: room }, result.duration))
    }
}

fn interface(side: Side, ifindex: u32, flag: u32, name: &str) -> Interface {
    let mac = side.mac();
    let (std::net::IpAddr::V4(v4), std::net::IpAddr::V6(v6)) = (V4.host(name), V6.host(name)) else {
        unreachable!("each world has its family")
    };
    Interface {
        ifindex,
        flags: flag | XDP_TRANSMIT | ONE_ADDRESS[0] | ONE_ADDRESS[1],
        mac_high: u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]),
        mac_low: u16::from_ne_bytes([mac[4], mac[5]]),
        mtu: 1500,
        address4: addr4(v4),
        address6: addr6(v6),
    }
}

/// Something to be done with each table.
trait Visitor {
    fn visit<const K: usize, const V: usize>(
        &mut self,
        name: &str,
        table: Table<MapData, [u8; K], [u8; V]>,
    ) -> Result<()>
    where
        [u8; K]: Pod,
        [u8; V]: Pod;

    /// The same for a table of [`Slot`]s.
    fn visit_slots<const V: usize>(&mut self, name: &str, slots: Array<MapData, [u8; V]>) -> Result<()>
    where
        [u8; V]: Pod;
}

struct Empty;

impl Visitor for Empty {
    fn visit<const K: usize, const V: usize>(
        &mut self,
        _name: &str,
        mut table: Table<MapData, [u8; K], [u8; V]>,
    ) -> Result<()> {
        let keys: Vec<_> = table.keys().collect::<Result<_, _>>()?;
        for key in keys {
            table.remove(&key)?;
        }
        Ok(())
    }

    fn visit_slots<const V: usize>(&mut self, _name: &str, mut slots: Array<MapData, [u8; V]>) -> Result<()>
    where
        [u8; V]: Pod,
    {
        for number in 0..slots.len() {
            if slots.get(&number, 0)? != [0; V] {
                slots.set(number, [0; V], 0)?;
            }
        }
        Ok(())
    }
}

/// Collects all entries.
struct List(Vec<String>);

impl Visitor for List {
    fn visit<const K: usize, const V: usize>(
        &mut self,
        name: &str,
        table: Table<MapData, [u8; K], [u8; V]>,
    ) -> Result<()> {
        for entry in table.iter() {
            let (key, value) = entry?;
            self.0.push(format!("{name} {key:02x?} {value:02x?}"));
        }
        Ok(())
    }

    fn visit_slots<const V: usize>(&mut self, name: &str, slots: Array<MapData, [u8; V]>) -> Result<()>
    where
        [u8; V]: Pod,
    {
        for slot in slots.iter() {
            let slot = slot?;
            if slot[offset_of!(Slot, state)..].starts_with(&LIVE.to_ne_bytes()) {
                self.0.push(format!("{name} {:02x?}", &slot[offset_of!(Slot, key)..]));
            }
        }
        Ok(())
    }
}

/// What a hook's code means.
pub(crate) fn action(hook: Hook, code: u32) -> Action {
    if hook == Hook::Xdp { xdp_action(code) } else { tc_action(code) }
}

fn xdp_action(code: u32) -> Action {
    match code {
        1 => Action::Shot,
        2 => Action::Next,
        4 => Action::Transmit,
        other => panic!("the XDP program returned {other}"),
    }
}

fn tc_action(code: u32) -> Action {
    match code as i32 {
        -1 => Action::Next,
        2 => Action::Shot,
        7 => Action::Transmit,
        other => panic!("the classifier returned {other}"),
    }
}

/// A share in what is loaded, for a story.
pub(crate) struct Datapath {
    loaded: Rc<RefCell<Loaded>>,
    /// Whether each packet is asked about before it is sent, and the tables are listed.
    thorough: bool,
}

impl Datapath {
    /// Checks whatever can be checked.
    pub(crate) fn thorough(loaded: &Rc<RefCell<Loaded>>) -> Self {
        Self { loaded: Rc::clone(loaded), thorough: true }
    }

    /// Only runs the programs: for thousands of packets.
    pub(crate) fn brisk(loaded: &Rc<RefCell<Loaded>>) -> Self {
        Self { loaded: Rc::clone(loaded), thorough: false }
    }
}

impl Hooks for Datapath {
    fn apply(&mut self, rules: &str) {
        let mut loaded = self.loaded.borrow_mut();
        let loaded = &mut *loaded;
        let compiled = compiled(rules, &loaded.ids);
        (loaded.policy, loaded.ids) = (compiled.policy, compiled.ids);
        for word in loaded.ids.take_begun_targets() {
            loaded.maps.set_health(word, UNKNOWN).expect("forgetting the health of a target");
        }
        loaded.generation += 1;
        loaded.maps.install(&compiled.image, loaded.generation).expect("installing rules");
    }

    fn try_out(&mut self, rules: &str) {
        let mut loaded = self.loaded.borrow_mut();
        let (holding, fallback) = loaded.maps.active().expect("reading a map").slots(|| 0);
        let compiled = compiled(rules, &loaded.ids);
        loaded.ids = compiled.ids;
        loaded.generation += 1;
        let slot = loaded.maps.write(&compiled.image, loaded.generation, &[]).expect("writing rules");
        let trial = Active::until(NEVER, slot, fallback.unwrap_or(holding));
        loaded.maps.hold(trial).expect("trying rules out");
    }

    fn confirm(&mut self) {
        let loaded = self.loaded.borrow();
        let (slot, _) = loaded.maps.active().expect("reading a map").slots(|| 0);
        loaded.maps.hold(Active::confirmed(slot)).expect("confirming rules");
    }

    /// By the deadline, as where nobody is left to do anything.
    fn roll_back(&mut self) {
        let loaded = self.loaded.borrow();
        let (slot, fallback) = loaded.maps.active().expect("reading a map").slots(|| 0);
        let passed = Active::until(1, slot, fallback.expect("rules that wait for confirmation"));
        loaded.maps.hold(passed).expect("moving the deadline");
    }

    fn ban(&mut self, host: std::net::IpAddr) {
        self.loaded.borrow().maps.ban(&[(host.into(), 0)]).expect("a ban");
    }

    fn unban(&mut self, host: std::net::IpAddr) {
        self.loaded.borrow().maps.unban(&[host.into()]).expect("a ban lifted");
    }

    fn set_health(&mut self, forward: &str, target: SocketAddr, state: u32) {
        let loaded = self.loaded.borrow();
        let word = loaded.ids.target_by_label(forward, &target.to_string()).expect("a checked target");
        loaded.maps.set_health(word, state).expect("setting the health of a target");
    }

    fn press(&mut self) {
        self.loaded.borrow().press(pressure::until(kernel::now())).expect("a pressure");
    }

    fn relieve(&mut self) {
        self.loaded.borrow().press(0).expect("no pressure");
    }

    fn run(&mut self, hook: Hook, side: Side, frame: &[u8]) -> Ran {
        let mut loaded = self.loaded.borrow_mut();
        let ran = if self.thorough {
            loaded.run(hook, side, frame)
        } else {
            loaded.run_often(hook, side, frame, 1).map(|(ran, _)| ran)
        };
        ran.unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn counters(&self) -> Counters {
        self.loaded.borrow().count().expect("reading counters")
    }

    fn watch(&mut self, wanted: &Watch) {
        // An emulated machine takes seconds for a story.
        self.loaded.borrow().maps.watch(wanted, 600).expect("watching");
    }

    fn told(&mut self) -> [Vec<Event>; 2] {
        self.loaded.borrow_mut().rings.each_mut().map(Iterator::collect)
    }

    fn flows(&self) -> Vec<String> {
        if self.thorough { self.loaded.borrow().list().expect("reading flows") } else { Vec::new() }
    }
}
