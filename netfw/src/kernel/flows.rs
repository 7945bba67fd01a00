//! The flow table as user space sees it. Both families have one form here: an IPv4 address stands in the form
//! that [`netfw_common::family::Address::widen`] gives it.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use netfw_common::{
    family::{Addr4, Addr6, Address, Ipv4, Ipv6},
    flow::Flow,
    icmp,
    image::Policy,
    shared::Shared,
    tcp::{Side, State},
    tick::Tick,
    timeout,
    tuple::Tuple,
    wire::{ICMP, ICMPV6},
};
use nix::time::{ClockId, clock_gettime};

use super::maps::{FlowTables, Maps, PROVEN, Part};
use crate::image::Image;

/// A flow with both its directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Whether it is IPv6.
    pub v6: bool,
    /// Which of the family's tables holds it.
    part: usize,
    /// Its first packet, as it arrived.
    pub key: Tuple<Addr6>,
    /// The direction that opened it.
    pub original: Flow<Addr6>,
    /// The answering direction, if it is still there.
    pub reply: Option<Flow<Addr6>>,
}

impl Pair {
    /// A flow of which one direction is known.
    pub(super) fn opening(v6: bool, part: usize, key: Tuple<Addr6>, original: Flow<Addr6>) -> Self {
        Self { v6, part, key, original, reply: None }
    }

    /// A flow without answers.
    #[cfg(test)]
    pub(crate) fn for_test(v6: bool, key: Tuple<Addr6>, original: Flow<Addr6>) -> Self {
        Self::opening(v6, 0, key, original)
    }

    /// Whether both ends have proved themselves.
    pub(super) fn is_proven(&self) -> bool {
        self.part == PROVEN
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.original.state(self.reply.map_or(Side::default(), |reply| reply.side()))
    }

    /// Whether it is more than a memory for late packets.
    pub fn is_live(&self) -> bool {
        self.state() != State::Closed
    }

    /// Ticks since its last packet.
    pub fn idle(&self, now: Tick) -> u32 {
        let ages = [Some(self.original), self.reply].into_iter().flatten();
        ages.map(|half| now.since(Tick(half.last_seen))).min().unwrap_or(u32::MAX)
    }

    /// Ticks of silence after which it is forgotten.
    pub fn limit(&self, policy: &Policy) -> u32 {
        timeout::limit(&policy.timeouts, self.key.protocol, self.state(), self.original.idle_timeout)
    }

    /// Whether `image` would admit it if it were new, with the translation it has.
    pub fn is_admitted_by(&self, image: &Image) -> bool {
        if self.v6 {
            return image.still_admits::<Ipv6>(&self.key, &self.original);
        }
        image.still_admits::<Ipv4>(&narrow_tuple(&self.key), &narrow(&self.original))
    }

    /// Whether a port-forward of `image` would take it if it were new.
    pub fn is_forwarded_by(&self, image: &Image) -> bool {
        if self.v6 {
            return image.forwards::<Ipv6>(&self.key);
        }
        image.forwards::<Ipv4>(&narrow_tuple(&self.key))
    }

    /// Packets and bytes of both directions.
    pub fn count(&self) -> (u64, u64) {
        let reply = self.reply.map_or((0, 0), |reply| (reply.packets, reply.bytes));
        (self.original.packets + reply.0, self.original.bytes + reply.1)
    }

    /// Source and destination of a tuple of this flow.
    pub fn ends(&self, tuple: &Tuple<Addr6>) -> [SocketAddr; 2] {
        let is_icmp = tuple.protocol == u32::from(if self.v6 { ICMPV6 } else { ICMP });
        let mut ports = [tuple.source_port, tuple.destination_port];
        if is_icmp && icmp::are_marks(ports) {
            ports = [0, 0];
        }
        [
            SocketAddr::new(self.ip(tuple.source), ports[0]),
            SocketAddr::new(self.ip(tuple.destination), ports[1]),
        ]
    }

    fn ip(&self, address: Addr6) -> IpAddr {
        if self.v6 { address.to_ip() } else { Addr4::narrow(address).to_ip() }
    }
}

/// The datapath's clock.
pub fn now() -> Tick {
    Tick::from_nanos(nanos())
}

/// The datapath's clock, in nanoseconds.
fn nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// When the datapath's clock showed so many nanoseconds, by the clock on the wall.
pub fn wall_time(then: u64) -> SystemTime {
    SystemTime::now() - Duration::from_nanos(nanos().saturating_sub(then))
}

/// When a tick that has passed began, by the clock on the wall: whoever asks again is told the same.
pub fn tick_began(tick: Tick) -> SystemTime {
    let now = nanos();
    let passed = u64::from(Tick::from_nanos(now).since(tick));
    wall_time((now >> Tick::SHIFT).saturating_sub(passed) << Tick::SHIFT)
}

impl Maps {
    /// The head of the policy in force.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn policy(&self) -> Result<Option<Policy>> {
        Ok(self.policies.get(&self.active_slot()?)?)
    }

    /// Whether `[block]` of an image names an end of a flow, as the datapath sees it.
    pub fn is_blocked_by(&self, image: &Image, pair: &Pair) -> bool {
        self.has_end(pair, |address| image.blocks(address))
    }

    /// Whether an end of a flow is one of the addresses that are blocked in some way, as the datapath sees it.
    pub fn has_end(&self, pair: &Pair, is_blocked: impl Fn(IpAddr) -> bool) -> bool {
        pair.ends(&pair.key).into_iter().any(|end| is_blocked(end.ip()) && !self.is_own(end.ip()))
    }

    /// The flow that a packet with this tuple belongs to, living or dead.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn flow_of(&self, v6: bool, tuple: &Tuple<Addr6>) -> Result<Option<Pair>> {
        if v6 { pair_of(&self.flows6, v6, tuple) } else { pair_of(&self.flows4, v6, &narrow_tuple(tuple)) }
    }

    /// Makes the datapath refuse a flow that the rules admit: it is judged again, as one of a port-forward
    /// that does not exist.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn condemn(&self, pair: &Pair) -> Result<()> {
        for key in [pair.key, pair.original.peer_key()] {
            if pair.v6 {
                condemn(self.flows6.all()[pair.part], &narrow_tuple(&key), pair.original.id)?;
            } else {
                condemn(self.flows4.all()[pair.part], &narrow_tuple(&key), pair.original.id)?;
            }
        }
        Ok(())
    }

    /// Whether the direction of the flow that starts with `key` is still there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn holds(&self, pair: &Pair, key: &Tuple<Addr6>) -> Result<bool> {
        if pair.v6 {
            holds(self.flows6.all()[pair.part], &narrow_tuple(key), pair.original.id)
        } else {
            holds(self.flows4.all()[pair.part], &narrow_tuple(key), pair.original.id)
        }
    }

    /// Removes both directions of a flow; a later flow with the same tuple keeps its entries.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget(&self, pair: &Pair) -> Result<()> {
        for key in [pair.original.peer_key(), pair.key] {
            if pair.v6 {
                remove(self.flows6.all()[pair.part], &narrow_tuple(&key), pair.original.id)?;
            } else {
                remove(self.flows4.all()[pair.part], &narrow_tuple(&key), pair.original.id)?;
            }
        }
        Ok(())
    }
}

fn pair_of<A: Address>(tables: &FlowTables<A>, v6: bool, tuple: &Tuple<A>) -> Result<Option<Pair>>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    for (part, table) in tables.all().into_iter().enumerate() {
        let Some(found) = table.get(tuple)? else { continue };
        let peer_key = found.peer_key();
        let peer = table.get(&peer_key)?.filter(|peer| peer.id == found.id);
        let (key, original, reply) = match peer {
            Some(peer) if found.is_reply() => (peer_key, peer, Some(found)),
            peer => (*tuple, found, peer),
        };
        let reply = reply.as_ref().map(widen);
        return Ok(Some(Pair { v6, part, key: widen_tuple(&key), original: widen(&original), reply }));
    }
    Ok(None)
}

fn holds<A: Address>(table: &dyn Part<A>, key: &Tuple<A>, id: u32) -> Result<bool>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    Ok(table.get(key)?.is_some_and(|flow| flow.id == id))
}

pub(super) fn remove<A: Address>(table: &dyn Part<A>, key: &Tuple<A>, id: u32) -> Result<()>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    if holds(table, key, id)? {
        table.remove(key)?;
    }
    Ok(())
}

fn condemn<A: Address>(table: &dyn Part<A>, key: &Tuple<A>, id: u32) -> Result<()>
where
    Tuple<A>: Shared,
    Flow<A>: Shared,
{
    if let Some(flow) = table.get(key)?.filter(|flow| flow.id == id) {
        // No policy has generation 0.
        table.condemn(key, &Flow { generation: 0, forward: u16::MAX, ..flow })?;
    }
    Ok(())
}

/// A tuple in the form of both families.
pub(super) fn widen_tuple<A: Address>(tuple: &Tuple<A>) -> Tuple<Addr6> {
    Tuple {
        source: tuple.source.widen(),
        destination: tuple.destination.widen(),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        protocol: tuple.protocol,
    }
}

/// A tuple in the form of its family.
pub(super) fn narrow_tuple<A: Address>(tuple: &Tuple<Addr6>) -> Tuple<A> {
    Tuple {
        source: A::narrow(tuple.source),
        destination: A::narrow(tuple.destination),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        protocol: tuple.protocol,
    }
}

pub(super) fn widen<A: Address>(flow: &Flow<A>) -> Flow<Addr6> {
    with_leaving(flow, widen_tuple(&flow.leaving))
}

/// A flow in the form of its family.
pub(super) fn narrow<A: Address>(flow: &Flow<Addr6>) -> Flow<A> {
    with_leaving(flow, narrow_tuple(&flow.leaving))
}

fn with_leaving<A, B>(flow: &Flow<A>, leaving: Tuple<B>) -> Flow<B> {
    Flow {
        packets: flow.packets,
        bytes: flow.bytes,
        leaving,
        generation: flow.generation,
        blocks: flow.blocks,
        last_seen: flow.last_seen,
        created: flow.created,
        idle_timeout: flow.idle_timeout,
        id: flow.id,
        hop: flow.hop,
        forward: flow.forward,
        origin: flow.origin,
        flags: flow.flags,
        interface: flow.interface,
        seen: flow.seen,
        end: flow.end,
        acknowledged: flow.acknowledged,
    }
}

#[cfg(test)]
mod tests {
    use netfw_common::{flow::REPLY, tcp::Seen};

    use super::*;

    fn tuple() -> Tuple<Addr6> {
        Tuple {
            source: [1, 0, 0, 0],
            destination: [2, 0, 0, 0],
            source_port: 3,
            destination_port: 4,
            protocol: 6,
        }
    }

    #[test]
    fn families_survive_the_round_trip() {
        let flow =
            Flow { id: 7, leaving: tuple(), flags: 3, seen: 9, end: 5, acknowledged: 6, ..Flow::default() };
        assert_eq!(widen(&narrow::<Addr4>(&flow)), flow);
        assert_eq!(widen(&narrow::<Addr6>(&flow)), flow);
    }

    #[test]
    fn a_forwards_own_timeout_rules_established_flows_only() {
        let policy = Policy { timeouts: [100, 10, 10, 50, 5, 1, 1], ..Policy::default() };
        let mut original = Flow { leaving: tuple(), idle_timeout: 999, ..Flow::default() };
        let pair = |original, reply| Pair { v6: false, part: 0, key: tuple(), original, reply };
        assert_eq!(pair(original, None).limit(&policy), 10);
        original.seen = Seen::PACKET | Seen::ANSWER;
        let reply = Flow { flags: REPLY, ..original };
        assert_eq!(pair(original, Some(reply)).limit(&policy), 999);
    }
}
