//! Asking an image what the datapath would ask its tables.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use netfw_common::image::{AddressClass, Service, Vector, service_index};

use super::{Image, vectors::SetOperations};
use crate::policy::Chain;

/// What is asked about: a packet of a new flow after destination translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Destination port, or ICMP type; 0 where there is neither.
    pub detail: u16,
}

impl Image {
    /// Number of the first rule that matches in `chain` on the interface in `slot`, for a packet that
    /// port-forward entry `forward` translated (or none did).
    pub fn first_rule(
        &self,
        chain: Chain,
        slot: usize,
        packet: &Question,
        forward: Option<usize>,
    ) -> Option<usize> {
        let service = self.service(packet.protocol, packet.detail);
        let source_service = self.service(packet.protocol, packet.source_port);
        let translation = match forward {
            Some(forward) => self.forwards.get(forward)?.rules,
            None => self.policy.untranslated_rules as u16,
        };
        self.first_of([
            self.class(packet.source).source_rules,
            self.class(packet.destination).destination_rules,
            service.rules,
            source_service.source_rules,
            *self.policy.interface_rules[chain as usize].get(slot)?,
            translation,
        ])
    }

    /// Number of the port-forward entry that translates a packet sent to an address that it may listen on.
    pub fn first_forward(&self, packet: &Question) -> Option<usize> {
        self.first_of([
            self.service(packet.protocol, packet.detail).forwards,
            self.class(packet.source).source_forwards,
            self.class(packet.destination).destination_forwards,
        ])
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

    fn service(&self, protocol: u8, detail: u16) -> Service {
        self.services.get(service_index(protocol.into(), detail) as usize).copied().unwrap_or_default()
    }

    fn first_of<const N: usize>(&self, indexes: [u16; N]) -> Option<usize> {
        let empty = Vector::default();
        let vectors = indexes.map(|index| self.vectors.get(usize::from(index)).unwrap_or(&empty));
        vectors.into_iter().copied().reduce(|a, b| a.intersection(&b))?.first()
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
