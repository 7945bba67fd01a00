//! Asking an image what the datapath would ask its tables, with the datapath's own code.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use netfw_common::{
    family::{Address, Family},
    flow::Flow,
    image::{AddressClass, Forward, Policy, Rule, Service, Target},
    tuple::Tuple,
};
use netfw_ebpf::datapath::{classify, judge, kernel::Tables, repeat::Repeat, work::NONE};

use super::{Image, is_listed};

impl Image {
    /// Whether a live flow would be admitted if it were new, with the translation it has; `key` is the key under
    /// which the flow table holds it.
    pub fn still_admits<F: Family>(&self, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>) -> bool {
        judge::still_admitted::<F, _>(self, key, flow)
    }

    /// Whether a port-forward takes what arrives with this tuple.
    pub fn forwards<F: Family>(&self, arriving: &Tuple<F::Addr>) -> bool {
        judge::forward::<F, _>(self, arriving) != NONE
    }

    /// Whether `[block]` lists an address. The datapath spares the host's own.
    pub fn blocks(&self, address: IpAddr) -> bool {
        is_listed(&self.blocks, address)
    }

    /// What the longest prefix around an address says.
    pub fn class(&self, address: IpAddr) -> AddressClass {
        let found = match address {
            IpAddr::V4(address) => {
                longest(&self.addresses4, 32, |length| Some(Ipv4Net::new(address, length).ok()?.trunc()))
            }
            IpAddr::V6(address) => {
                longest(&self.addresses6, 128, |length| Some(Ipv6Net::new(address, length).ok()?.trunc()))
            }
        };
        found.unwrap_or_default()
    }
}

/// Value of the longest prefix in a sorted table; `prefix` gives the address's prefix of a length.
fn longest<P: Ord>(
    table: &[(P, AddressClass)],
    bits: u8,
    prefix: impl Fn(u8) -> Option<P>,
) -> Option<AddressClass> {
    (0..=bits).rev().find_map(|length| {
        let wanted = prefix(length)?;
        let place = table.binary_search_by(|(prefix, _)| prefix.cmp(&wanted)).ok()?;
        Some(table[place].1)
    })
}

impl Repeat for Image {}

impl<F: Family> Tables<F> for Image {
    fn policy(&self) -> Option<&Policy> {
        Some(&self.policy)
    }

    fn address(&self, address: F::Addr) -> AddressClass {
        self.class(address.to_ip())
    }

    fn service(&self, index: u32) -> Service {
        self.services.get(index as usize).copied().unwrap_or_default()
    }

    fn lowest<const N: usize>(&self, vectors: [u16; N], from: u32) -> u32 {
        classify::lowest(vectors.map(|number| self.vectors.get(usize::from(number))), from)
    }

    fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(number as usize)
    }

    fn forward(&self, number: u32) -> Option<&Forward> {
        self.forwards.get(number as usize)
    }

    fn target(&self, number: u32) -> Option<&Target> {
        self.targets.get(number as usize)
    }

    fn listed(&self, address: F::Addr) -> bool {
        self.blocks(address.to_ip())
    }
}
