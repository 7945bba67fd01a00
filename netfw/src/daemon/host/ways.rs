//! Changes of whatever a look-up of a way depends on, as the kernel announces them.

use std::{collections::HashMap, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{BoxStream, ReadyChunks},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
};
use tokio::task::JoinSet;

/// What a look-up depends on, but for path MTUs and sysctls, of which nothing is announced.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Neigh,
];
/// Messages that are taken as one change: a routing daemon may announce a million routes.
const AT_ONCE: usize = 1024;

/// Listens to them.
pub struct Ways {
    messages: ReadyChunks<BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>>,
    neighbours: Neighbours,
    _connection: JoinSet<()>,
}

impl Ways {
    /// From now on.
    ///
    /// # Errors
    /// Netlink fails.
    pub async fn listen() -> Result<Self> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&GROUPS)
            .context("cannot subscribe to changes of the routes")?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        let mut neighbours = Neighbours::default();
        let mut known = handle.neighbours().get().execute();
        while let Some(neighbour) = known.try_next().await.context("cannot list the neighbours")? {
            neighbours.learn(&neighbour);
        }
        let payloads = messages.map(|(message, _): (NetlinkMessage<_>, _)| message.payload).boxed();
        Ok(Self { messages: payloads.ready_chunks(AT_ONCE), neighbours, _connection: task })
    }

    /// Waits for the next messages; says whether a way may lead elsewhere now.
    ///
    /// # Errors
    /// Messages were lost, or no more will come.
    pub async fn next(&mut self) -> Result<bool> {
        let messages = self.messages.next().await.context("the kernel announces nothing more")?;
        let mut changed = false;
        for message in messages {
            changed |= match message {
                NetlinkPayload::InnerMessage(message) => self.is_change(message),
                _ => bail!("the kernel has announced more than there was room for"),
            };
        }
        Ok(changed)
    }

    fn is_change(&mut self, message: RouteNetlinkMessage) -> bool {
        match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.neighbours.learn(&neighbour),
            RouteNetlinkMessage::DelNeighbour(neighbour) => self.neighbours.forget(&neighbour),
            _ => true,
        }
    }
}

/// The link addresses of neighbours, by interface and address. How a neighbour's state changes is announced, too, every some seconds.
#[derive(Default)]
struct Neighbours(HashMap<(u32, IpAddr), Vec<u8>>);

impl Neighbours {
    /// Whether ways to the neighbour led elsewhere before. To one that was not there none did.
    fn learn(&mut self, message: &NeighbourMessage) -> bool {
        let lost = matches!(
            message.header.state,
            NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
        );
        let link_address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(address) if !lost => Some(address.clone()),
            _ => None,
        });
        let (Some(name), Some(link_address)) = (name(message), link_address) else {
            return self.forget(message);
        };
        let before = self.0.insert(name, link_address);
        before.is_some_and(|before| self.0.get(&name) != Some(&before))
    }

    /// Whether ways to the neighbour end.
    fn forget(&mut self, message: &NeighbourMessage) -> bool {
        name(message).is_some_and(|name| self.0.remove(&name).is_some())
    }
}

/// None for the entries of a bridge, which are no neighbours.
fn name(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    Some((message.header.ifindex, address?))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn neighbour(state: NeighbourState, link_address: Option<u8>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = state;
        message.attributes =
            vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(192, 168, 80, 3)))];
        message
            .attributes
            .extend(link_address.map(|last| NeighbourAttribute::LinkLayerAddress(vec![last; 6])));
        message
    }

    #[test]
    fn only_another_link_address_is_a_change() {
        let mut neighbours = Neighbours::default();
        let mut learn = |state, last| neighbours.learn(&neighbour(state, last));
        assert!(!learn(NeighbourState::Incomplete, None) && !learn(NeighbourState::Reachable, Some(1)));
        assert!(!learn(NeighbourState::Stale, Some(1)) && !learn(NeighbourState::Probe, Some(1)));
        assert!(learn(NeighbourState::Reachable, Some(2)));
        assert!(learn(NeighbourState::Failed, Some(2)), "it does not answer any more");
        assert!(!learn(NeighbourState::Failed, None));
    }

    #[test]
    fn a_neighbour_that_is_removed_is_a_change() {
        let mut neighbours = Neighbours::default();
        neighbours.learn(&neighbour(NeighbourState::Permanent, Some(1)));
        assert!(neighbours.forget(&neighbour(NeighbourState::Permanent, Some(1))));
        assert!(!neighbours.forget(&neighbour(NeighbourState::Permanent, Some(1))));
    }
}
