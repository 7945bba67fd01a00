//! Links and addresses, by rtnetlink.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp},
};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Link {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// What made it, such as `veth`; none: a driver of hardware.
    pub kind: Option<String>,
    /// Its address, where its frames have Ethernet headers.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether something answers at its other end.
    pub carrier: bool,
    /// XDP program on it: the kernel's number.
    pub xdp: Option<u32>,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Whether packets to the world may carry it as source.
    pub global: bool,
}

/// Everything of this network namespace.
pub(super) async fn gather() -> Result<Vec<Link>> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    let task = tokio::spawn(connection);
    let messages: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.context("cannot list the network interfaces")?;
    let mut links: Vec<Link> = messages.into_iter().filter_map(link).collect();
    let addresses: Vec<AddressMessage> =
        handle.address().get().execute().try_collect().await.context("cannot list the addresses")?;
    task.abort();
    for message in &addresses {
        let owner = links.iter_mut().find(|link| link.index == message.header.index);
        if let (Some(link), Some(address)) = (owner, address(message)) {
            link.addresses.push(address);
        }
    }
    Ok(links)
}

fn link(message: LinkMessage) -> Option<Link> {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) if ethernet => link.mac = bytes.try_into().ok(),
            LinkAttribute::Xdp(parts) => link.xdp = parts.iter().find_map(xdp_program),
            LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn xdp_program(part: &LinkXdp) -> Option<u32> {
    match part {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut prefix) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => prefix = Some(*ip),
            _ => {}
        }
    }
    // On point-to-point links the other attribute is the peer's address.
    let ip = local.or(prefix)?;
    let world = message.header.scope == AddressScope::Universe;
    Some(Address { ip, global: world && !passing(message) })
}

/// Whether the address is one of those that come and go: not to be used for new flows.
fn passing(message: &AddressMessage) -> bool {
    let temporary = message.header.family == netlink_packet_route::AddressFamily::Inet6
        && message.header.flags.contains(AddressHeaderFlags::Secondary);
    let unusable = AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
    let mut flags = message.attributes.iter().filter_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(flags),
        _ => None,
    });
    temporary || flags.any(|flags| flags.intersects(unusable))
}
