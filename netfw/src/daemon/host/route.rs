//! The kernel's routes, one at a time.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::RouteMessageBuilder;

/// Kernel index of the interface by which a destination is reached; none: by no one. `source` is the sender's address where routes
/// may ask for it, `arrived` the interface by which the packet came; none: the host itself sends it.
///
/// # Errors
/// Netlink fails.
pub async fn way_to(
    destination: IpAddr,
    source: Option<IpAddr>,
    arrived: Option<u32>,
) -> Result<Option<u32>> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    let task = tokio::spawn(connection);
    let found = handle.route().get(question(destination, source, arrived)).execute().try_next().await;
    task.abort();
    match found {
        Ok(route) => Ok(route.as_ref().and_then(interface)),
        // What it says where there is no route, or one that refuses.
        Err(rtnetlink::Error::NetlinkError(_)) => Ok(None),
        Err(error) => Err(error).context("cannot ask for a route"),
    }
}

fn question(destination: IpAddr, source: Option<IpAddr>, arrived: Option<u32>) -> RouteMessage {
    let mut question = match destination {
        IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(ip, 32).build(),
        IpAddr::V6(ip) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(ip, 128).build()
        }
    };
    if let Some(source) = source {
        question.header.source_prefix_length = if source.is_ipv4() { 32 } else { 128 };
        question.attributes.push(RouteAttribute::Source(source.into()));
    }
    question.attributes.extend(arrived.map(RouteAttribute::Iif));
    question
}

fn interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}
