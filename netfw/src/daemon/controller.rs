//! The reconciler: makes the kernel hold what the rules and the host ask for.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use netfw_common::{health::UNKNOWN, image::Active};

use super::{
    bans,
    control::Up,
    failure::Failure,
    host::{Host, netns},
    instance::Instance,
    library,
    lock::Lock,
    standing::{Held, Standing},
    state::{self, LastReload, Managed, State},
    sweep,
};
use crate::{
    image::{self, Ids, Image},
    kernel::{Maps, Programs, boot_now},
    policy::ValidPolicy,
};

/// The right and the means to change an instance.
pub(super) struct Controller {
    pub(super) instance: Instance,
    /// What the instance remembers; kept by [`Controller::save`].
    pub(super) state: State,
    pub(super) maps: Maps,
    pub(super) programs: Programs,
    /// Nothing is attached yet.
    fresh: bool,
    /// Whether an interface that cannot be managed is left out and told in [`Self::left_out`], instead of keeping netfw off
    /// the others.
    pub(super) forgiving: bool,
    /// Why interfaces were left out.
    pub(super) left_out: Vec<String>,
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
        Ok(Self::new(lock, instance, state, (maps, programs)))
    }

    fn new(lock: Lock, instance: &Instance, state: State, (maps, programs): (Maps, Programs)) -> Self {
        let (instance, left_out) = (instance.clone(), Vec::new());
        Self { instance, state, maps, programs, fresh: false, forgiving: false, left_out, _lock: lock }
    }

    /// Loads the programs: over what is pinned, or for the first time.
    ///
    /// # Errors
    /// As [`Controller::open`]; the kernel refuses something.
    pub(super) fn load(lock: Lock, wanted: &Up, capacity: u32) -> Result<Self> {
        let instance = &wanted.instance;
        let pins = instance.pins();
        let known = State::find(instance)?;
        if known.is_none() {
            // What a start that was killed has left.
            pins.remove()?;
        }
        let fresh = !pins.exist();
        let mut state = known.map_or_else(|| new_state(wanted, capacity), Ok)?;
        check_namespace(instance, &state)?;
        wanted.file.clone_into(&mut state.rules_file);
        pins.create()?;
        let programs = Programs::load(&pins, capacity, wanted.debug)?;
        let maps = Maps::open(&pins)?;
        if fresh {
            wanted.forgive(bans::restore(instance, &maps))?;
        }
        Ok(Self { fresh, forgiving: wanted.boot, ..Self::new(lock, instance, state, (maps, programs)) })
    }

    /// Keeps what must be remembered.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn save(&self) -> Result<()> {
        self.state.save(&self.instance)
    }

    /// Puts a policy in force: new interfaces are attached first, so that no packet meets half a rule set;
    /// when that fails, nothing has changed.
    ///
    /// # Errors
    /// An interface cannot be managed, the policy is too large, the kernel refuses something.
    pub(super) async fn apply(&mut self, policy: &ValidPolicy, host: &Host) -> Result<()> {
        let planned = self.plan(policy, host)?;
        let image = self.compile(policy)?;
        let fresh = self.fresh;
        let managed = if fresh { planned } else { self.attach(planned, policy, host, false).await? };
        let held = self.write(&image)?;
        // Nobody wants back what only stood in for rules.
        let first = fresh || state::stand_in(&self.instance)?.is_some();
        self.state.standing.put(held, boot_now(), first);
        if !fresh {
            // Before the first start is over, whoever finds this takes it for a life that goes on.
            self.save()?;
        }
        self.maps.hold(Active::confirmed(held.slot))?;
        self.publish(&managed, host)?;
        let managed = if fresh { self.open_up(managed, policy, host).await? } else { managed };
        self.detach_others(&managed).await;
        self.state.interfaces = managed;
        self.fresh = false;
        self.state.last_reload = LastReload::now(None);
        self.state.last_reload.flows = sweep::cut_refused(&self.maps, &image, held.generation)?;
        self.save()
    }

    /// Writes an image under the next number. The last confirmed one stays.
    pub(super) fn write(&mut self, image: &Image) -> Result<Held> {
        let generation = self.state.generation.wrapping_add(1).max(1);
        let slot = self.maps.write(image, generation, &[self.state.standing.confirmed.slot])?;
        self.state.generation = generation;
        Ok(Held { slot, generation })
    }

    /// Puts the programs that were just loaded in the place of older ones.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn replace_programs(&mut self, policy: &ValidPolicy, host: &Host) -> Result<()> {
        if !self.fresh {
            let planned = self.plan(policy, host)?;
            self.state.interfaces = self.attach(planned, policy, host, true).await?;
            self.set_up_reassembly().await;
        }
        Ok(())
    }

    /// Follows changes of links and addresses under an unchanged policy.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn follow(&mut self, policy: &ValidPolicy, host: &Host) -> Result<()> {
        self.meet(policy, host).await?;
        let managed = self.state.interfaces.clone();
        self.publish(&managed, host)?;
        match self.left_out.join("\n") {
            said if said.is_empty() => Ok(()),
            said => bail!(said),
        }
    }

    /// Follows changes of links alone: an interface that has just come is protected before its addresses have settled.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn meet(&mut self, policy: &ValidPolicy, host: &Host) -> Result<()> {
        let planned = self.plan(policy, host)?;
        self.announce(&planned, host)?;
        let managed = if self.trial().is_some() {
            self.attach_more(policy, host).await?
        } else {
            self.attach(planned, policy, host, false).await?
        };
        self.publish_interfaces(&managed, host)?;
        self.detach_others(&managed).await;
        let reassembler = self.state.reassembler;
        self.repair_reassembly(host).await;
        if managed != self.state.interfaces || reassembler != self.state.reassembler {
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
        self.set_up_reassembly().await;
        // What was turned and attached must be known to whoever clears up after a failure.
        self.state.interfaces.clone_from(&managed);
        self.save()?;
        self.publish(&managed, host)?;
        Ok(managed)
    }

    /// Compiles for the interfaces as this instance numbers them.
    pub(super) fn compile(&mut self, policy: &ValidPolicy) -> Result<Image> {
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
        for word in self.state.ids.take_begun_targets() {
            self.maps.set_health(word, UNKNOWN)?;
        }
        Ok(image)
    }
}

fn new_state(wanted: &Up, capacity: u32) -> Result<State> {
    // What is kept of an earlier life has its numbers.
    let last =
        wanted.forgive(library::generations(&wanted.instance))?.iter().map(|kept| kept.generation).max();
    Ok(State {
        namespace: netns::inode()?,
        rules_file: wanted.file.clone(),
        generation: last.unwrap_or(0),
        standing: Standing::default(),
        capacity,
        interfaces: BTreeMap::new(),
        slots: BTreeMap::new(),
        reassembler: 0,
        ids: Ids::default(),
        last_reload: LastReload::now(None),
    })
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
