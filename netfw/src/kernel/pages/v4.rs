//! The IPv4 part ([`netfw_common::block::v4`]).

use ipnet::Ipv4Net;
use netfw_common::block::{
    PAGE, Page,
    v4::{EVERYTHING, MAP, NODES, NOTHING, ROOT_PAGES, group, node},
};

/// Adds up what the prefixes say, in their order.
struct Table {
    /// The root and the nodes.
    pages: Vec<Page>,
    maps: Vec<Page>,
    /// Maps in use.
    mapped: u32,
}

/// Sorted prefixes, none of which lies in another, as pages, and the first page of the maps.
pub(super) fn lay_out(prefixes: &[Ipv4Net]) -> (u32, Vec<Page>) {
    if prefixes.is_empty() {
        return (0, Vec::new());
    }
    let mut table = Table::new();
    for prefix in prefixes {
        table.add(prefix);
    }
    let maps = table.pages.len() as u32;
    table.pages.append(&mut table.maps);
    (maps, table.pages)
}

impl Table {
    fn new() -> Self {
        let mut pages = vec![[0; PAGE as usize]; NODES as usize];
        pages[..ROOT_PAGES as usize].fill([NOTHING; PAGE as usize]);
        pages[EVERYTHING as usize].fill(u32::MAX);
        Self { pages, maps: Vec::new(), mapped: 0 }
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

    /// Adds addresses of one /24: either all in one word of its map, or whole words.
    fn add_addresses(&mut self, first: u32, last: u32) {
        let ones = u32::MAX >> (31 - (last - first).min(31)) << (first % 32);
        let map = self.map(first);
        let [first, last] = [first, last].map(|address| (address / 32 % MAP) as usize);
        for word in &mut map[first..=last] {
            *word |= ones;
        }
    }

    /// The map of an address's /24: the last one, as they come in order.
    fn map(&mut self, address: u32) -> &mut [u32] {
        let next = self.mapped;
        let (node, bit) = self.node(address);
        if node[1] == 0 {
            node[2] = next;
        }
        if node[1] >> bit & 1 == 0 {
            node[1] |= 1 << bit;
            self.mapped += 1;
        }
        let place = ((self.mapped - 1) * MAP) as usize;
        let (page, place) = (place / PAGE as usize, place % PAGE as usize);
        if page == self.maps.len() {
            self.maps.push([0; PAGE as usize]);
        }
        &mut self.maps[page][place..]
    }
}
