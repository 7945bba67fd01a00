//! Changes of links and addresses, as the kernel announces them.

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;

/// Sends `()` for every change from now on (several may become one).
///
/// # Errors
/// Netlink fails.
pub fn changes() -> Result<mpsc::Receiver<()>> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, _, mut messages) =
        rtnetlink::new_multicast_connection(&groups).context("cannot subscribe to changes of the network")?;
    tokio::spawn(connection);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while messages.next().await.is_some() {
            // A full channel already says that something changed.
            if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                return;
            }
        }
    });
    Ok(receiver)
}
