//! The reconciler: makes the kernel hold what the rules and the host ask for.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
};

use anyhow::{Result, bail};
use netfw_common::interface::{self, LOCAL_EXTERNAL, LOCAL_OTHER};
use nix::net::if_::if_nametoindex;

use super::{
    engine::{self, Engine},
    failure::Failure,
    host::{Connection, Host, Link, connections, netns, qdisc, sysctl},
    instance::Instance,
    lock::Lock,
    state::{LastReload, Managed, State},
    sweep,
};
use crate::{
    image::{self, Ids, Image},
    kernel::{self, Conversation, Maps, Port, Programs},
    policy::{Role, ValidPolicy},
};

/// The right and the means to change an instance.
pub(super) struct Controller {
    instance: Instance,
    /// What the instance remembers; kept by [`Controller::save`].
    pub(super) state: State,
    maps: Maps,
    programs: Programs,
    /// Nothing is attached yet.
    fresh: bool,
    _lock: Lock,
}

impl Controller {
    /// For an instance that is up.
    ///
    /// # Errors
    /// It is not, or belongs to another network namespace or version.
    pub(super) fn open(instance: &Instance) -> Result<Self> {
        let lock = Lock::acquire(instance)?;
        let pins = instance.pins();
        if !pins.exist() {
            // Taking the lock made its directory.
            instance.forget()?;
            return Err(Failure::NotUp(instance.clone()).into());
        }
        let state = State::load(instance)?;
        check_namespace(instance, &state)?;
        let (maps, programs) = (Maps::open(&pins)?, Programs::open(&pins)?);
        Ok(Self { instance: instance.clone(), state, maps, programs, fresh: false, _lock: lock })
    }

    /// Loads the programs: over what is pinned, or for the first time.
    ///
    /// # Errors
    /// As [`Controller::open`]; the kernel refuses something.
    pub(super) fn load(
        lock: Lock,
        instance: &Instance,
        file: &Path,
        capacity: u32,
        debug: bool,
    ) -> Result<Self> {
        let pins = instance.pins();
        let fresh = !pins.exist();
        let mut state = if fresh { new_state(file, capacity)? } else { State::load(instance)? };
        check_namespace(instance, &state)?;
        file.clone_into(&mut state.rules_file);
        pins.create()?;
        let programs = Programs::load(&pins, capacity, debug)?;
        let maps = Maps::open(&pins)?;
        Ok(Self { instance: instance.clone(), state, maps, programs, fresh, _lock: lock })
    }

    /// Keeps what must be remembered.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn save(&self) -> Result<()> {
        self.state.save(&self.instance)
    }

    /// Puts a policy in force: new interfaces are attached first, so that no packet meets half a rule set; when that
    /// fails, nothing has changed.
    ///
    /// # Errors
    /// An interface cannot be managed, the policy is too large, the kernel refuses something.
    pub(super) async fn apply(&mut self, policy: &ValidPolicy, host: &Host) -> Result<()> {
        let planned = self.plan(policy, host)?;
        let image = self.compile(policy)?;
        let generation = self.state.generation.wrapping_add(1).max(1);
        let (fresh, replace) = (self.fresh, false);
        let managed = if fresh { planned } else { self.attach(planned, policy, host, replace).await? };
        self.maps.install(&image, generation)?;
        self.state.generation = generation;
        self.publish(&managed, host)?;
        let managed = if fresh { self.open_up(managed, policy, host).await? } else { managed };
        self.detach_others(&managed).await;
        self.state.interfaces = managed;
        self.fresh = false;
        self.state.last_reload = LastReload::now(None);
        sweep::cut_refused(&self.maps, &image, generation)?;
        self.save()
    }

    /// Puts the programs that were just loaded in the place of older ones.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn replace_programs(&mut self, policy: &ValidPolicy, host: &Host) -> Result<()> {
        if !self.fresh {
            let planned = self.plan(policy, host)?;
            self.state.interfaces = self.attach(planned, policy, host, true).await?;
        }
        Ok(())
    }

    /// Follows changes of links and addresses under an unchanged policy.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn follow(&mut self, policy: &ValidPolicy, host: &Host) -> Result<()> {
        let planned = self.plan(policy, host)?;
        let managed = self.attach(planned, policy, host, false).await?;
        self.publish(&managed, host)?;
        self.detach_others(&managed).await;
        if managed != self.state.interfaces {
            self.state.interfaces = managed;
            self.save()?;
        }
        Ok(())
    }

    /// First start: everything is filled in, now the packets may come.
    async fn open_up(
        &mut self,
        planned: BTreeMap<String, Managed>,
        policy: &ValidPolicy,
        host: &Host,
    ) -> Result<BTreeMap<String, Managed>> {
        self.maps.adopt(&self.conversations(host), self.state.generation)?;
        let managed = self.attach(planned, policy, host, true).await?;
        // What was turned and attached must be known to whoever clears up after a failure.
        self.state.interfaces.clone_from(&managed);
        self.save()?;
        self.publish(&managed, host)?;
        Ok(managed)
    }

    fn compile(&mut self, policy: &ValidPolicy) -> Result<Image> {
        let names = policy.interfaces().iter().map(|interface| interface.name.clone());
        let slots = names.map(|name| self.state.slot(&name).map(|slot| (name, slot)));
        let host = image::Host { interfaces: slots.collect::<Result<_>>()? };
        let image = image::compile(policy, &host, &mut self.state.ids)?;
        let counters = self.maps.counters()?;
        for id in self.state.ids.take_recycled_rules() {
            counters.reset_rule(id)?;
        }
        for id in self.state.ids.take_recycled_port_forwards() {
            counters.reset_port_forward(id)?;
        }
        Ok(image)
    }

    /// Which interfaces will be managed, and how.
    fn plan(&self, policy: &ValidPolicy, host: &Host) -> Result<BTreeMap<String, Managed>> {
        let mut planned = BTreeMap::new();
        for interface in policy.interfaces() {
            let known = self.state.interfaces.get(&interface.name);
            let link = host.link(&interface.name);
            if let Some(link) = link {
                check_link(link, &self.instance)?;
            }
            let same = known.filter(|known| link.is_some_and(|link| link.index == known.index));
            let choice = link.map(|link| engine::choose(policy.engine(), link));
            let managed = Managed {
                index: link.map_or(0, |link| link.index),
                external: interface.role == Role::External,
                engine: choice.as_ref().map_or(Engine::Tc, |choice| choice.engine),
                reason: choice.map_or_else(|| "the interface is gone".into(), |choice| choice.reason),
                turned: same.map(|known| known.turned.clone()).unwrap_or_default(),
                clsact: same.is_some_and(|known| known.clsact),
            };
            planned.insert(interface.name.clone(), managed);
        }
        Ok(planned)
    }

    /// Attaches what is not attached yet, or everything anew where programs are to be replaced. When it fails, the
    /// interfaces that were not managed before are as they were.
    async fn attach(
        &mut self,
        mut planned: BTreeMap<String, Managed>,
        policy: &ValidPolicy,
        host: &Host,
        replace: bool,
    ) -> Result<BTreeMap<String, Managed>> {
        let mut begun = Vec::new();
        for (name, managed) in &mut planned {
            let Some(link) = host.link(name) else { continue };
            let known = self.state.interfaces.get(name).filter(|known| known.index == link.index).cloned();
            let choice = engine::choose(policy.engine(), link);
            if let Some(known) = known.as_ref().filter(|known| !replace && unchanged(known, &choice)) {
                managed.engine = known.engine;
                managed.reason.clone_from(&known.reason);
                continue;
            }
            if known.is_none() {
                begun.push(name.clone());
            }
            if let Err(error) = self.attach_one(link, managed, &choice) {
                for name in &begun {
                    if let Some(managed) = planned.get(name) {
                        release(&self.instance, name, managed).await;
                    }
                }
                return Err(error);
            }
        }
        Ok(planned)
    }

    fn attach_one(&mut self, link: &Link, managed: &mut Managed, choice: &engine::Choice) -> Result<()> {
        let port = Port { name: &link.name, index: link.index };
        if managed.turned.is_empty() {
            managed.turned = sysctl::enable_forwarding(&link.name)?;
        }
        let pins = self.instance.pins();
        for other in [Engine::Xdp, Engine::XdpGeneric] {
            if other != choice.engine
                && let Some(acceleration) = other.acceleration()
            {
                kernel::detach_xdp(&pins, link.index, acceleration)?;
            }
        }
        managed.clsact |= self.programs.attach_classifiers(port)?;
        managed.engine = choice.engine;
        managed.reason.clone_from(&choice.reason);
        if let Some(acceleration) = choice.engine.acceleration()
            && let Err(error) = self.programs.attach_xdp(port, acceleration)
        {
            let why = why_no_xdp(&error);
            if !choice.or_tc {
                bail!(
                    "{} cannot run {}: {why}\nhelp: write mode = \"auto\" under [engine]",
                    link.name,
                    choice.engine
                );
            }
            managed.engine = Engine::Tc;
            managed.reason = why;
        }
        let foreign = kernel::foreign_classifiers(port);
        if !foreign.is_empty() {
            managed.reason += &format!("; other programs at TC run after netfw: {}", foreign.join(", "));
        }
        Ok(())
    }

    /// Takes netfw off interfaces that are no longer managed, or that were deleted and made anew.
    async fn detach_others(&self, managed: &BTreeMap<String, Managed>) {
        for (name, old) in &self.state.interfaces {
            let new = managed.get(name);
            if new.is_some_and(|new| new.index == old.index) || old.index == 0 {
                continue;
            }
            release(&self.instance, name, old).await;
            // Removing an interface that sends XDP frames also takes it out of the device map.
            let _ = self.maps.set_device(old.index, false);
        }
    }

    /// Tells the datapath about interfaces and addresses.
    fn publish(&mut self, managed: &BTreeMap<String, Managed>, host: &Host) -> Result<()> {
        let (mut by_slot, mut locals) = (BTreeMap::new(), HashMap::new());
        for link in &host.links {
            let external = managed.get(&link.name).is_some_and(|managed| managed.external);
            let owner = if external { LOCAL_EXTERNAL } else { LOCAL_OTHER };
            for address in &link.addresses {
                let owners = locals.entry(address.ip).or_insert(owner);
                // The same link-local address may stand on several.
                *owners = owner.min(*owners);
            }
        }
        for (name, managed) in managed {
            let slot = self.state.slot(name)?;
            if let Some(link) = host.link(name) {
                by_slot.insert(slot, describe(link, managed));
                self.maps.set_device(link.index, managed.engine != Engine::Tc)?;
            }
        }
        self.maps.set_locals(&locals)?;
        self.maps.set_interfaces(&by_slot)
    }

    /// What the host's own programs are talking about with the world.
    fn conversations(&self, host: &Host) -> Vec<Conversation> {
        let connections = connections().unwrap_or_default();
        let distant = connections.iter().filter(|connection| !connection.remote.ip().is_loopback());
        let slot = |local: IpAddr| {
            let owns = |link: &&Link| link.addresses.iter().any(|address| address.ip == local);
            host.links
                .iter()
                .find(owns)
                .and_then(|link| self.state.slots.get(&link.name))
                .copied()
                .unwrap_or(0)
        };
        let conversation = |connection: &Connection| Conversation {
            protocol: connection.protocol,
            local: connection.local,
            remote: connection.remote,
            incoming: connection.incoming,
            interface: slot(connection.local.ip()) as u8,
        };
        distant.map(conversation).collect()
    }
}

fn new_state(file: &Path, capacity: u32) -> Result<State> {
    Ok(State {
        namespace: netns::inode()?,
        rules_file: file.to_owned(),
        generation: 0,
        capacity,
        interfaces: BTreeMap::new(),
        slots: BTreeMap::new(),
        ids: Ids::default(),
        last_reload: LastReload::now(None),
    })
}

/// Whether an attached interface is what is wanted: with `auto`, TC in place of XDP may be what the driver left us.
fn unchanged(known: &Managed, choice: &engine::Choice) -> bool {
    known.engine == choice.engine || (choice.or_tc && known.engine == Engine::Tc)
}

/// Whether this is the network namespace that the instance belongs to.
pub(super) fn check_namespace(instance: &Instance, state: &State) -> Result<()> {
    if netns::inode()? != state.namespace {
        bail!(
            "instance {instance} belongs to another network namespace\nhelp: run netfw in that one, or choose another \
             name with --instance"
        );
    }
    Ok(())
}

/// Whether an interface can be managed at all, and by us.
fn check_link(link: &Link, instance: &Instance) -> Result<()> {
    let name = &link.name;
    if link.mac.is_none() {
        bail!("{name} has no Ethernet header: netfw cannot manage it yet\nhelp: take it out of [interfaces]");
    }
    if link.index >= interface::MAX_IFINDEX {
        bail!("{name} has index {}, and netfw manages indexes below {}", link.index, interface::MAX_IFINDEX);
    }
    for other in Instance::all().iter().filter(|other| *other != instance && other.pins().exist()) {
        let Ok(state) = State::load(other) else { continue };
        let holds = state.interfaces.values().any(|managed| managed.index == link.index);
        if holds && netns::inode()? == state.namespace {
            bail!("{name} is held by instance {other}\nhelp: `netfw --instance {other} down` releases it");
        }
    }
    Ok(())
}

/// Leaves an interface as it was before netfw, as far as it is still there.
pub(super) async fn release(instance: &Instance, name: &str, managed: &Managed) {
    let outcome = async {
        kernel::detach(&instance.pins(), Port { name, index: managed.index })?;
        if managed.clsact {
            qdisc::remove_unused_clsact(managed.index).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = outcome.await
        && if_nametoindex(name) == Ok(managed.index)
    {
        tracing::warn!("cannot detach from {name}: {error:#}");
    }
    sysctl::restore(&managed.turned);
}

fn why_no_xdp(error: &anyhow::Error) -> String {
    let os = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error);
    match os {
        Some(libc::EBUSY) => "another XDP program is on the interface".into(),
        Some(libc::EOPNOTSUPP) => "the driver has no XDP".into(),
        Some(libc::ERANGE) => "the driver runs XDP only with a smaller MTU".into(),
        _ => format!("the driver refuses XDP ({error:#})"),
    }
}

fn describe(link: &Link, managed: &Managed) -> interface::Interface {
    let side = if managed.external { interface::EXTERNAL } else { interface::INTERNAL };
    let transmits = if managed.engine == Engine::Tc { 0 } else { interface::XDP_TRANSMIT };
    let [a, b, c, d, e, f] = link.mac.unwrap_or_default();
    let mut described = interface::Interface {
        ifindex: link.index,
        flags: side | transmits,
        mac_high: u32::from_ne_bytes([a, b, c, d]),
        mac_low: u16::from_ne_bytes([e, f]),
        mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
        ..Default::default()
    };
    let mut global = link.addresses.iter().filter(|address| address.global).map(|address| address.ip);
    if let Some(IpAddr::V4(address)) = global.clone().find(IpAddr::is_ipv4) {
        described.address4 = netfw_common::family::addr4(address);
    }
    if let Some(IpAddr::V6(address)) = global.find(IpAddr::is_ipv6) {
        described.address6 = netfw_common::family::addr6(address);
    }
    described
}
