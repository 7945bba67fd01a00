//! The host as it is now: links, drivers, addresses, sockets. Gathered here, so that judging and compiling stay pure.

pub mod features;
mod links;
pub mod netns;
pub mod qdisc;
pub mod reassembly;
pub mod route;
mod sockets;
pub mod sysctl;
pub mod watch;
pub mod ways;

use std::net::IpAddr;

use anyhow::Result;

use features::Drivers;
pub use links::{Address, Link};
pub use sockets::Connection;
use sockets::Sockets;

use crate::{
    kernel,
    policy::facts::{HostFacts, HostInterface},
};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Links of this network namespace, with their addresses.
    pub links: Vec<Link>,
    /// What their drivers do.
    pub drivers: Drivers,
    sockets: Sockets,
}

impl Host {
    /// Asks the kernel.
    ///
    /// # Errors
    /// Netlink fails.
    pub async fn gather() -> Result<Self> {
        let links = links::gather().await?;
        Ok(Self { links, drivers: Drivers::ask(), sockets: Sockets::default() })
    }

    /// Whether links, with their addresses, and their drivers are the same.
    pub fn is_linked_like(&self, other: &Self) -> bool {
        (&self.links, &self.drivers) == (&other.links, &other.drivers)
    }

    /// The link called `name`.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Every address of the host.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.links.iter().flat_map(|link| &link.addresses).map(|address| address.ip)
    }

    /// What a rules file is judged by.
    pub fn facts(&self) -> HostFacts {
        let interface = |link: &Link| HostInterface { name: link.name.clone(), index: link.index };
        HostFacts {
            interfaces: self.links.iter().map(interface).collect(),
            addresses: self.addresses().collect(),
            listening: self.sockets.listening(),
            lacks_syn_cookies: kernel::makes_syn_cookies() == Some(false),
        }
    }

    /// Established TCP connections and connected UDP sockets.
    pub fn connections(&self) -> Vec<Connection> {
        self.sockets.connections()
    }
}
