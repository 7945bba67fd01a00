//! The IPv4 part ([`netfw_common::block::v4`]).

use ipnet::Ipv4Net;
use netfw_common::block::{
    PAGE, Page,
    v4::{EVERYTHING, MAP, NODES, NOTHING, Part, ROOT_PAGES, group, node},
};

use super::append;

/// Adds up what the prefixes say, in their order.
struct Table {
    /// The root and the nodes.
    pages: Vec<Page>,
    leaves: Vec<u32>,
    maps: Vec<[u32; MAP as usize]>,
}

/// Lays out sorted prefixes, none of which lies in another: their pages, the first one of the leaves and that of the maps.
pub(super) fn lay_out(prefixes: &[Ipv4Net]) -> (Vec<Page>, u32, u32) {
    if prefixes.is_empty() {
        return (Vec::new(), 0, 0);
    }
    let mut table = Table::new();
    for prefix in prefixes {
        table.add(prefix);
    }
    let Table { mut pages, leaves, maps } = table;
    let leaves = append(&mut pages, &leaves);
    let maps = append(&mut pages, maps.as_flattened());
    (pages, leaves, maps)
}

impl Table {
    fn new() -> Self {
        let mut pages = vec![[0; PAGE as usize]; NODES as usize];
        pages[..ROOT_PAGES as usize].fill([NOTHING; PAGE as usize]);
        pages[EVERYTHING as usize].fill(u32::MAX);
        Self { pages, leaves: Vec::new(), maps: Vec::new() }
    }

    fn add(&mut self, prefix: &Ipv4Net) {
        let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
        match prefix.prefix_len() {
            ..=11 => self.root()[group(first) as usize..=group(last) as usize].fill(EVERYTHING),
            12..=24 => (first..=last).step_by(256).for_each(|network| self.add_network(network)),
            25.. => self.add_addresses(first, last),
        }
    }

    fn root(&mut self) -> &mut [u32] {
        self.pages[..ROOT_PAGES as usize].as_flattened_mut()
    }

    /// The words of an address's node, and the bit of its /24.
    fn node(&mut self, address: u32) -> (&mut [u32], u32) {
        let fresh = self.pages.len() as u32;
        let page = &mut self.root()[group(address) as usize];
        if *page == NOTHING {
            *page = fresh;
        }
        let page = *page;
        if page == fresh {
            self.pages.push([0; PAGE as usize]);
        }
        let (place, bit) = node(address);
        (&mut self.pages[page as usize][place as usize..], bit)
    }

    fn add_network(&mut self, network: u32) {
        let (node, bit) = self.node(network);
        node[0] |= 1 << bit;
    }

    /// Adds addresses of one /24, whose leaf is the last one if it has one: they come in order.
    fn add_addresses(&mut self, first: u32, last: u32) {
        let (low, high) = (first & 0xff, last & 0xff);
        let next = self.leaves.len() as u32;
        let (node, bit) = self.node(first);
        if node[1] == 0 {
            node[2] = next;
        }
        let fresh = node[1] >> bit & 1 == 0;
        node[1] |= 1 << bit;
        match self.leaves.last_mut() {
            Some(leaf) if !fresh => *leaf = more(Part::of(*leaf), (low, high), &mut self.maps).leaf(),
            _ => self.leaves.push(Part::Range(low, high).leaf()),
        }
    }
}

/// A part and the addresses that come next. Its map is the last one.
fn more(part: Part, (low, high): (u32, u32), maps: &mut Vec<[u32; MAP as usize]>) -> Part {
    let number = match part {
        Part::Range(first, last) if last + 1 == low => return Part::Range(first, high),
        Part::Range(first, last) => {
            maps.push([0; MAP as usize]);
            let number = maps.len() as u32 - 1;
            set(&mut maps[number as usize], first, last);
            number
        }
        Part::Map(number) => number,
    };
    set(&mut maps[number as usize], low, high);
    Part::Map(number)
}

fn set(map: &mut [u32; MAP as usize], first: u32, last: u32) {
    for host in first..=last {
        map[host as usize / 32] |= 1 << (host % 32);
    }
}
