//! Counters, added up over all CPUs.

use std::ops::AddAssign;

use anyhow::{Result, anyhow};
use netfw_common::{
    counters::{Count, InterfaceCount, Shares, TranslationCount},
    fragment::Held,
    reason::Reason,
    shared::Shared,
};

use super::{
    flows::now,
    maps::{Array, Maps},
    table::ANY,
};

/// How a per-CPU value is added to another.
trait Sum: Shared + Default {
    fn add(&mut self, other: &Self);
}

impl Sum for Count {
    fn add(&mut self, other: &Self) {
        Self::add(self, other.packets, other.bytes);
    }
}

impl Sum for InterfaceCount {
    fn add(&mut self, other: &Self) {
        Sum::add(&mut self.forwarded, &other.forwarded);
        Sum::add(&mut self.accepted, &other.accepted);
        Sum::add(&mut self.dropped, &other.dropped);
    }
}

impl Sum for Shares {
    fn add(&mut self, other: &Self) {
        Sum::add(&mut self.xdp, &other.xdp);
        Sum::add(&mut self.tc, &other.tc);
        Sum::add(&mut self.stack, &other.stack);
    }
}

impl Sum for TranslationCount {
    fn add(&mut self, other: &Self) {
        self.flows_opened.add_assign(other.flows_opened);
        Sum::add(&mut self.forth, &other.forth);
        Sum::add(&mut self.back, &other.back);
    }
}

/// Reads counters; opened once, asked often.
pub struct Counters<'a> {
    maps: &'a Maps,
    cpus: usize,
    /// Fragments that the kernel's reassembly has given up; the datapath counts them when it needs their place.
    lost: Vec<Held>,
}

/// How many copies a per-CPU map has of a value.
pub(super) fn cpus() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))
}

impl Maps {
    /// The counters.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self) -> Result<Counters<'_>> {
        let cpus = cpus()?;
        let (held, now) = (self.held.entries()?, now());
        let lost = held.into_iter().map(|(_, held)| held).filter(|held| held.is_lost(now)).collect();
        Ok(Counters { maps: self, cpus, lost })
    }
}

impl Counters<'_> {
    /// Of the interface in `slot`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn interface(&self, slot: u32) -> Result<InterfaceCount> {
        let mut count = self.sum(&self.maps.interface_counts, slot)?;
        for held in self.lost.iter().filter(|held| held.interface == slot) {
            Sum::add(&mut count.dropped, &held.fragments);
        }
        Ok(count)
    }

    /// Of the rule with this stable id.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rule(&self, id: u16) -> Result<Count> {
        self.sum(&self.maps.rule_counts, id.into())
    }

    /// Of the port-forward with this stable id plus 1, or of the masquerade
    /// ([`netfw_common::counters::MASQUERADE_COUNTER`]).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn translation(&self, number: u32) -> Result<TranslationCount> {
        self.sum(&self.maps.translation_counts, number)
    }

    /// Of packets dropped for `reason`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drops(&self, reason: Reason) -> Result<Count> {
        let mut count = self.sum(&self.maps.drops, reason as u32)?;
        for held in self.lost.iter().filter(|_| reason == Reason::FragmentBeforeFirst) {
            Sum::add(&mut count, &held.fragments);
        }
        Ok(count)
    }

    /// ICMP errors that were due but not sent, because too many were.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn suppressed_errors(&self) -> Result<u64> {
        let buckets = self.maps.errors.get_per_cpu(&0, self.cpus)?;
        Ok(buckets.iter().map(|bucket| bucket.suppressed).sum())
    }

    /// Starts the counter of a rule from 0, and its bucket full.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reset_rule(&self, id: u16) -> Result<()> {
        self.maps.rule_buckets.set(&id.into(), 0, ANY)?;
        Ok(self.maps.rule_counts.set_per_cpu(&id.into(), &vec![Count::default(); self.cpus])?)
    }

    /// Starts the counter of a port-forward from 0.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reset_port_forward(&self, id: u16) -> Result<()> {
        let zero = vec![TranslationCount::default(); self.cpus];
        Ok(self.maps.translation_counts.set_per_cpu(&(u32::from(id) + 1), &zero)?)
    }

    fn sum<V: Sum>(&self, array: &Array<V>, index: u32) -> Result<V> {
        let mut total = V::default();
        for value in array.get_per_cpu(&index, self.cpus)? {
            Sum::add(&mut total, &value);
        }
        Ok(total)
    }
}
