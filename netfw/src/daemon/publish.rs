//! What the datapath is told about the host.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use anyhow::Result;
use netfw_common::{
    family::{addr4, addr6},
    interface::{EXTERNAL, INTERNAL, Interface, LOCAL_EXTERNAL, LOCAL_OTHER, ONE_ADDRESS, XDP_TRANSMIT},
};

use super::{
    controller::Controller,
    engine::Engine,
    host::{Connection, Host, Link, features::Drivers},
    state::Managed,
    sweep,
};
use crate::kernel::Conversation;

impl Controller {
    /// Tells the datapath about interfaces and addresses.
    pub(super) fn publish(&mut self, managed: &BTreeMap<String, Managed>, host: &Host) -> Result<()> {
        self.publish_interfaces(managed, host)?;
        let gone = self.maps.forget_other_locals(&locals(managed, host))?;
        sweep::cut_homeless(&self.maps, &gone)
    }

    /// Tells the datapath about interfaces, and about addresses that are new. Those that are gone may be back in a moment.
    pub(super) fn publish_interfaces(
        &mut self,
        managed: &BTreeMap<String, Managed>,
        host: &Host,
    ) -> Result<()> {
        let mut by_slot = BTreeMap::new();
        // Not as the host was found: they announce more once they run a program.
        let drivers = Drivers::ask();
        for (name, managed) in managed {
            let slot = self.state.slot(name)?;
            if let Some(link) = host.link(name).filter(|link| link.index == managed.index) {
                let transmits = match managed.engine {
                    Engine::Tc => false,
                    Engine::Xdp => drivers.transmit(link.index),
                    Engine::XdpGeneric => true,
                };
                by_slot.insert(slot, describe(link, managed, transmits));
            }
        }
        self.maps.add_locals(&locals(managed, host))?;
        self.maps.set_interfaces(&by_slot)
    }

    /// Tells the datapath about interfaces that have just come, before they carry programs: no packet meets a program that
    /// does not know its interface.
    pub(super) fn announce(&mut self, planned: &BTreeMap<String, Managed>, host: &Host) -> Result<()> {
        let mut announced = planned.clone();
        for (name, managed) in &mut announced {
            let known = self.state.interfaces.get(name).filter(|known| known.index == managed.index);
            managed.engine = known.map_or(Engine::Tc, |known| known.engine);
        }
        self.publish_interfaces(&announced, host)
    }

    /// What the host's own programs are talking about with the world.
    pub(super) fn conversations(&self, host: &Host) -> Vec<Conversation> {
        let connections = host.connections();
        let own: HashSet<IpAddr> = host.addresses().collect();
        // What the host says to itself never passes an interface.
        let distant = connections.iter().filter(|connection| {
            let remote = connection.remote.ip();
            !remote.is_loopback() && !own.contains(&remote)
        });
        let slot = |local: IpAddr| {
            let owns = |link: &&Link| link.addresses.iter().any(|address| address.ip == local);
            host.links
                .iter()
                .find(owns)
                .and_then(|link| self.state.slots.get(&link.name))
                .copied()
                .unwrap_or(0)
        };
        let conversation = |connection: &Connection| Conversation {
            protocol: connection.protocol,
            local: connection.local,
            remote: connection.remote,
            incoming: connection.incoming,
            interface: slot(connection.local.ip()) as u8,
        };
        distant.map(conversation).collect()
    }
}

/// The host's own addresses, and where they belong.
fn locals(managed: &BTreeMap<String, Managed>, host: &Host) -> HashMap<IpAddr, u32> {
    let mut locals = HashMap::new();
    for link in &host.links {
        let external = managed.get(&link.name).is_some_and(|managed| managed.external);
        let owner = if external { LOCAL_EXTERNAL } else { LOCAL_OTHER };
        for address in &link.addresses {
            let owners = locals.entry(address.ip).or_insert(owner);
            // The same link-local address may stand on several.
            *owners = owner.min(*owners);
        }
    }
    locals
}

/// [`ONE_ADDRESS`] of the families in which the interface has one that others can call it by.
fn one_address(link: &Link) -> u32 {
    let count = |v6| {
        let own = link.addresses.iter().map(|address| address.ip).filter(|ip| ip.is_ipv6() == v6);
        own.filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())).count()
    };
    let flag = |v6: bool| if count(v6) == 1 { ONE_ADDRESS[usize::from(v6)] } else { 0 };
    flag(false) | flag(true)
}

fn describe(link: &Link, managed: &Managed, transmits: bool) -> Interface {
    let side = if managed.external { EXTERNAL } else { INTERNAL };
    let transmits = if transmits { XDP_TRANSMIT } else { 0 };
    let [a, b, c, d, e, f] = link.mac.unwrap_or_default();
    let mut described = Interface {
        ifindex: link.index,
        flags: side | transmits | one_address(link),
        mac_high: u32::from_ne_bytes([a, b, c, d]),
        mac_low: u16::from_ne_bytes([e, f]),
        mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
        ..Default::default()
    };
    let mut global = link.addresses.iter().filter(|address| address.global).map(|address| address.ip);
    if let Some(IpAddr::V4(address)) = global.clone().find(IpAddr::is_ipv4) {
        described.address4 = addr4(address);
    }
    if let Some(IpAddr::V6(address)) = global.find(IpAddr::is_ipv6) {
        described.address6 = addr6(address);
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::host::Address;

    #[test]
    fn an_interface_that_has_one_address_of_a_family() {
        let flags = |addresses: &[&str]| {
            let address = |ip: &&str| Address { ip: ip.parse().expect("an address"), global: true };
            one_address(&Link { addresses: addresses.iter().map(address).collect(), ..Link::default() })
        };
        let [v4, v6] = ONE_ADDRESS;
        assert_eq!(flags(&[]), 0);
        assert_eq!(flags(&["192.0.2.1", "fe80::1", "2001:db8::1"]), v4 | v6);
        assert_eq!(flags(&["192.0.2.1", "192.0.2.9", "2001:db8::1"]), v6);
        assert_eq!(flags(&["192.0.2.1", "2001:db8::1", "2001:db8::9"]), v4);
        assert_eq!(flags(&["fe80::1"]), 0);
    }
}
