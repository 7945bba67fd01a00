//! Which flows are meant, and in which order.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use netfw_common::tick::Tick;

use super::state_word;
use crate::{image::Ids, kernel::Pair};

/// Which flows are meant: those that fit everything that is set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Translated by this port-forward.
    pub port_forward: Option<String>,
    /// Opened from an address in here.
    pub from: Option<IpNet>,
    /// Leading to an address in here, before or after translation.
    pub to: Option<IpNet>,
    /// In this state.
    pub state: Option<String>,
}

/// A [`Filter`] whose name is looked up.
pub struct Selection<'a> {
    filter: &'a Filter,
    /// What flows of the wanted port-forward carry; none: there is no such port-forward.
    forward: Option<u16>,
}

impl Filter {
    /// Looks the name up.
    pub fn with_ids(&self, ids: &Ids) -> Selection<'_> {
        let forward = self.port_forward.as_ref().and_then(|name| ids.port_forward(name));
        Selection { filter: self, forward: forward.map(|id| id + 1) }
    }
}

impl Selection<'_> {
    /// Whether a flow may be meant, as far as the direction tells that opened it.
    pub fn may_select(&self, pair: &Pair) -> bool {
        let Filter { port_forward, from, to, .. } = self.filter;
        let [client, destination] = pair.ends(&pair.key);
        let target = pair.ends(&pair.original.leaving)[1];
        (port_forward.is_none() || self.forward == Some(pair.original.forward))
            && from.is_none_or(|net| net.contains(&client.ip()))
            && to.is_none_or(|net| net.contains(&destination.ip()) || net.contains(&target.ip()))
    }

    /// Whether a flow is meant, both directions known.
    pub fn selects(&self, pair: &Pair) -> bool {
        let state = self.filter.state.as_ref();
        self.may_select(pair) && state.is_none_or(|wanted| state_word(pair.state()) == wanted)
    }
}

/// What flows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Those that carried a packet last come first.
    Idle,
    /// Those that carried most come first.
    Bytes,
    /// As `bytes`.
    Packets,
    /// The youngest come first.
    Age,
    /// By the client's address.
    Client,
}

/// Place of a flow in the list: the smaller the earlier.
pub(super) type Rank = (u64, u128, u16);

impl Sort {
    /// The place of a flow; equal ones stand in the order of their clients.
    pub(super) fn rank(self, pair: &Pair, now: Tick, reverse: bool) -> Rank {
        let (packets, bytes) = pair.count();
        let number = match self {
            Self::Idle => pair.idle(now).into(),
            Self::Bytes => u64::MAX - bytes,
            Self::Packets => u64::MAX - packets,
            Self::Age => now.since(Tick(pair.original.created)).into(),
            Self::Client => 0,
        };
        let [client, _] = pair.ends(&pair.key);
        let (address, port) = place(client);
        if reverse { (!number, !address, !port) } else { (number, address, port) }
    }
}

/// An address as a number: IPv4 before IPv6, as the kernel maps one into the other.
fn place(end: SocketAddr) -> (u128, u16) {
    let address = match end.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    (address.to_bits(), end.port())
}

#[cfg(test)]
mod tests {
    use netfw_common::{flow::Flow, tuple::Tuple};

    use super::*;

    /// The ports of three flows in the order in which they are shown; each value puts them into another.
    fn sorted(sort: Sort, reverse: bool) -> [u16; 3] {
        let pair = |source_port, [last_seen, created]: [u32; 2], [bytes, packets]: [u64; 2]| {
            let flow = Flow { last_seen, created, bytes, packets, ..Flow::default() };
            Pair::for_test(false, Tuple { source_port, ..Tuple::default() }, flow)
        };
        let mut pairs =
            [pair(2, [90, 50], [100, 7]), pair(3, [80, 10], [300, 8]), pair(1, [70, 30], [200, 9])];
        pairs.sort_by_key(|pair| sort.rank(pair, Tick(100), reverse));
        pairs.map(|pair| pair.key.source_port)
    }

    #[test]
    fn each_order_is_another() {
        let orders = [
            (Sort::Idle, [2, 3, 1]),
            (Sort::Bytes, [3, 1, 2]),
            (Sort::Packets, [1, 3, 2]),
            (Sort::Age, [2, 1, 3]),
            (Sort::Client, [1, 2, 3]),
        ];
        for (sort, mut expected) in orders {
            assert_eq!(sorted(sort, false), expected, "{sort:?}");
            expected.reverse();
            assert_eq!(sorted(sort, true), expected, "{sort:?} the other way round");
        }
    }
}
