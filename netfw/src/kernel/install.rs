//! A compiled policy goes into an idle slot; one store makes it hold.

use std::{io, panic::resume_unwind, thread, time::Duration};

use anyhow::{Context as _, Result};
use aya_obj::generated::bpf_map_type;
use netfw_common::{
    family::{addr4, addr6},
    image::{
        Active, AddressClass, MAX_FORWARDS, MAX_RULES, MAX_TARGETS, Policy, SERVICES, SLOTS, Vector,
        boot_time,
    },
    shared::Shared,
};
use nix::time::{ClockId, clock_gettime};

use super::{
    maps::{Array, Maps},
    sys,
    table::{ANY, Table},
};
use crate::image::Image;

/// `BPF_F_NO_PREALLOC`, which a trie demands.
pub(super) const NO_PREALLOC: u32 = 1;
/// `BPF_F_INNER_MAP`: arrays of different length may take each other's place in a map of maps.
pub(super) const INNER_MAP: u32 = 0x1000;

impl Maps {
    /// Which slot holds, and until when.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn active(&self) -> Result<Active> {
        Ok(Active(self.active.get(&0)?.unwrap_or(0)))
    }

    /// The slot that holds now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn active_slot(&self) -> Result<u32> {
        Ok(self.active()?.slots(boot_now).0)
    }

    /// Puts `image` in force as `generation`: packets see the old one or this one, never a mix.
    ///
    /// # Errors
    /// What the kernel says; then the old image still holds.
    pub fn install(&self, image: &Image, generation: u32) -> Result<u32> {
        let slot = self.write(image, generation, &[])?;
        self.hold(Active::confirmed(slot))?;
        Ok(slot)
    }

    /// Writes `image` into a slot that no packet uses, none of those to `keep` either; nothing changes yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, image: &Image, generation: u32, keep: &[u32]) -> Result<u32> {
        let active = self.active()?;
        let (first, second) = active.slots(|| 0);
        let used = |slot: &u32| *slot == first || Some(*slot) == second || keep.contains(slot);
        let slot = (0..SLOTS).find(|slot| !used(slot)).context("every slot for rules is in use")?;
        wait_for_readers();
        let (used, idle): (Vec<u32>, Vec<u32>) = (0..SLOTS).partition(used);
        for idle in idle {
            self.forget_unequal_blocks(idle, &image.policy.block_digest, &used)?;
        }
        self.fill(slot, image, generation).context("cannot write the rules into the kernel's tables")?;
        Ok(slot)
    }

    /// A slot that was written only to be asked gives its long lists up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn give_up(&self, slot: u32) -> Result<()> {
        let holding = self.policy()?.unwrap_or_default();
        self.forget_unequal_blocks(slot, &holding.block_digest, &[self.active_slot()?])
    }

    /// Says which slot holds: the one store that a change is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn hold(&self, active: Active) -> Result<()> {
        Ok(self.active.set(&0, active.0, ANY)?)
    }

    fn fill(&self, slot: u32, image: &Image, generation: u32) -> Result<()> {
        let prefixes = image.addresses4.iter();
        let addresses4 = trie(prefixes.map(|(net, class)| {
            let length = u32::from(net.prefix_len());
            ([length, addr4(net.network())], *class)
        }))?;
        let prefixes = image.addresses6.iter();
        let addresses6 = trie(prefixes.map(|(net, class)| {
            let [a, b, c, d] = addr6(net.network());
            ([u32::from(net.prefix_len()), a, b, c, d], *class)
        }))?;
        let vectors = list(&image.vectors)?;
        let (blocks, block_layout) = self.blocks_of(image, slot)?;
        set_all_inner(
            slot,
            [
                (&self.addresses4, addresses4.descriptor()),
                (&self.addresses6, addresses6.descriptor()),
                (&self.vectors, vectors.descriptor()),
                (&self.blocks, blocks.descriptor()),
            ],
        )?;
        self.services.write_through(slot * SERVICES, &image.services)?;
        write(&self.rules, slot * MAX_RULES, &image.rules)?;
        write(&self.forwards, slot * MAX_FORWARDS, &image.forwards)?;
        write(&self.targets, slot * MAX_TARGETS, &image.targets)?;
        let policy = Policy { generation, block_layout, ..image.policy };
        self.policies.set(&slot, policy, ANY)?;
        Ok(())
    }
}

/// The clock of deadlines.
pub fn boot_now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock");
    boot_time(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Waits until no packet is on its way that has read anything before now: a slot is refilled only then.
pub fn wait_for_readers() {
    if sys::wait_for_readers().is_err() {
        // Tickless kernels refuse to wait for us. A packet is handled within microseconds.
        thread::sleep(Duration::from_millis(50));
    }
}

pub(super) fn write<V: Shared>(array: &Array<V>, first: u32, values: &[V]) -> io::Result<()> {
    let keys: Vec<u32> = (first..).take(values.len()).collect();
    array.set_all(&keys, values)
}

/// Leads a slot to its tables. The kernel waits for readers after each such store: side by side all wait at once.
fn set_all_inner<const N: usize>(slot: u32, inner: [(&Array<u32>, u32); N]) -> io::Result<()> {
    thread::scope(|scope| {
        let stores = inner.map(|(outer, descriptor)| scope.spawn(move || outer.set(&slot, descriptor, ANY)));
        stores.into_iter().try_for_each(|store| store.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn trie<K: Shared>(prefixes: impl Iterator<Item = (K, AddressClass)>) -> Result<Table<K, AddressClass>> {
    let (keys, values): (Vec<K>, Vec<AddressClass>) = prefixes.unzip();
    let entries = keys.len().max(1) as u32;
    let trie = Table::create(bpf_map_type::BPF_MAP_TYPE_LPM_TRIE, "addresses", entries, NO_PREALLOC)?;
    trie.set_all(&keys, &values)?;
    Ok(trie)
}

fn list(vectors: &[Vector]) -> Result<Array<Vector>> {
    let entries = vectors.len().max(1) as u32;
    let list = Table::create(bpf_map_type::BPF_MAP_TYPE_ARRAY, "vectors", entries, INNER_MAP)?;
    write(&list, 0, vectors)?;
    Ok(list)
}
