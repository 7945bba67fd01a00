//! Walks through the flow table in batches: whatever its size, only one batch is in memory, and no bucket of it is
//! locked for longer than it takes to copy that bucket.

use std::collections::HashSet;

use anyhow::Result;
use netfw_common::{
    family::{Addr6, Address},
    flow::Flow,
    shared::Shared,
    tick::Tick,
    tuple::Tuple,
};

use super::{
    flows::{Pair, remove, widen, widen_tuple},
    maps::{FlowTables, Maps, Part},
};

/// The flows that a walk has shown: those that prove themselves meanwhile come twice.
#[derive(Default)]
pub struct Shown {
    /// Names are too short to tell a million flows apart by themselves.
    unproven: HashSet<(Tuple<Addr6>, u32)>,
}

impl Shown {
    /// Whether the walk shows it for the first time.
    pub fn is_new(&mut self, pair: &Pair) -> bool {
        let name = (pair.key, pair.original.id);
        if pair.is_proven() { !self.unproven.contains(&name) } else { self.unproven.insert(name) }
    }
}

impl Maps {
    /// Shows `visit` each flow that `wanted` picks by its opening direction alone: only of those is the other one looked up.
    /// Flows that come or go meanwhile may be seen or not, those that prove themselves twice; `visit` may end them.
    ///
    /// # Errors
    /// What the kernel says, or `visit`.
    pub fn each_flow(
        &self,
        wanted: impl Fn(&Pair) -> bool,
        visit: impl FnMut(&Pair) -> Result<()>,
    ) -> Result<()> {
        self.each_flow_of([true, true], wanted, visit)
    }

    /// The same in one family, IPv4 or IPv6, or in both: to walk through a table takes time also when it is empty.
    ///
    /// # Errors
    /// What the kernel says, or `visit`.
    pub fn each_flow_of(
        &self,
        [v4, v6]: [bool; 2],
        wanted: impl Fn(&Pair) -> bool,
        mut visit: impl FnMut(&Pair) -> Result<()>,
    ) -> Result<()> {
        if v4 {
            each(&self.flows4, false, &wanted, &mut visit)?;
        }
        if v6 {
            each(&self.flows6, true, &wanted, &mut visit)?;
        }
        Ok(())
    }

    /// The same for whoever only looks: no flow is shown twice.
    ///
    /// # Errors
    /// What the kernel says, or `visit`.
    pub fn each_flow_once(
        &self,
        wanted: impl Fn(&Pair) -> bool,
        mut visit: impl FnMut(&Pair) -> Result<()>,
    ) -> Result<()> {
        let mut shown = Shown::default();
        self.each_flow(wanted, |pair| if shown.is_new(pair) { visit(pair) } else { Ok(()) })
    }

    /// How many flows there are.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count_flows(&self) -> Result<usize> {
        Ok(count(&self.flows4)? + count(&self.flows6)?)
    }

    /// Removes directions of proven flows that have been without the other one for `age` ticks.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_orphans(&self, now: Tick, age: u32) -> Result<()> {
        forget_orphans(&*self.flows4.proven, now, age)?;
        forget_orphans(&*self.flows6.proven, now, age)
    }
}

fn each<A: Address>(
    tables: &FlowTables<A>,
    v6: bool,
    wanted: &impl Fn(&Pair) -> bool,
    visit: &mut impl FnMut(&Pair) -> Result<()>,
) -> Result<()>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    for (part, table) in tables.all().into_iter().enumerate() {
        table.each_batch(&mut |keys, flows| {
            for (key, original) in keys.iter().zip(flows).filter(|(_, flow)| !flow.is_reply()) {
                let mut pair = Pair::opening(v6, part, widen_tuple(key), widen(original));
                if wanted(&pair) {
                    pair.reply = reply(table, original)?;
                    if pair.reply.is_none()
                        && let Some(left) = table.get(key)?.filter(|left| left.id == original.id)
                    {
                        // Since the batch was read it may have been told where the other one's sender is (`TURNED`).
                        pair.original = widen(&left);
                    }
                    visit(&pair)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The other direction of a flow, if it is there. Answers without a question are on their way out and no flow.
fn reply<A: Address>(table: &dyn Part<A>, flow: &Flow<A>) -> Result<Option<Flow<Addr6>>>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    let found = table.get(&flow.peer_key())?.filter(|peer| peer.id == flow.id);
    Ok(found.map(|reply| widen(&reply)))
}

fn count<A: Address>(tables: &FlowTables<A>) -> Result<usize>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    let mut count = 0;
    for table in tables.all() {
        table.each_batch(&mut |_, flows| {
            count += flows.iter().filter(|flow| !flow.is_reply()).count();
            Ok(())
        })?;
    }
    Ok(count)
}

fn forget_orphans<A: Address>(table: &dyn Part<A>, now: Tick, age: u32) -> Result<()>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    table.each_batch(&mut |keys, flows| {
        let old = keys.iter().zip(flows).filter(|(_, flow)| now.since(Tick(flow.last_seen)) > age);
        for (key, flow) in old {
            if reply(table, flow)?.is_none() {
                remove(table, key, flow.id)?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::maps::PROVEN;

    fn shown(part: usize, port: u16) -> Pair {
        let key = Tuple { source_port: port, ..Tuple::default() };
        Pair::opening(false, part, key, Flow { id: 7, ..Flow::default() })
    }

    #[test]
    fn only_what_proves_itself_meanwhile_comes_twice() {
        let [unproven, proven] = [0, PROVEN];
        let mut flows = Shown::default();
        assert!(flows.is_new(&shown(unproven, 1)));
        assert!(!flows.is_new(&shown(proven, 1)));
        assert!(flows.is_new(&shown(proven, 2)), "another flow of the same name");
    }
}
