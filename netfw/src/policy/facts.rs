//! What must be known about the host to judge a rules file; gathered elsewhere, so that judging stays pure.

use std::net::IpAddr;

/// The host as it is now. Empty lists mean "not known": nothing is warned about on their account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Existing interfaces.
    pub interfaces: Vec<HostInterface>,
    /// The host's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports on which local programs listen.
    pub listening: Vec<ListeningPort>,
    /// Whether the kernel is known to make no SYN cookies for programs.
    pub lacks_syn_cookies: bool,
}

/// An interface that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub index: u32,
}

/// A socket of the host that waits for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListeningPort {
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
    /// Address it is bound to; unspecified: all.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}
