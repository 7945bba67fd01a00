//! The tuple that names one direction of a flow.

use crate::{
    checksum::Sum,
    family::{Addr4, Addr6, Address},
    shared::shared,
};

/// Addresses, ports and protocol of a packet, as it arrives or as it leaves.
///
/// Addresses are in memory order, ports in host order. Those of ICMP are made up ([`crate::icmp`]), so that reversing needs no special
/// case. Other protocols have no ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tuple<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u32,
}

shared! {
    Tuple<Addr4> { source, destination, source_port, destination_port, protocol }
    Tuple<Addr6> { source, destination, source_port, destination_port, protocol }
}

impl<A: Address> Tuple<A> {
    /// The tuple of an answer to this one.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    /// Sum of both addresses.
    pub fn address_sum(&self) -> Sum {
        self.source.sum() + self.destination.sum()
    }

    /// Sum of both ports.
    pub fn port_sum(&self) -> Sum {
        Sum::of_value(self.source_port) + Sum::of_value(self.destination_port)
    }
}
