//! The queueing discipline that classifiers need on kernels without TCX links.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{TcHandle, TcMessage};

/// Removes `clsact` from an interface unless somebody has filters there.
///
/// # Errors
/// Netlink fails.
pub async fn remove_unused_clsact(index: u32) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    let task = tokio::spawn(connection);
    let index = index as i32;
    let mut filters = handle.traffic_filter(index);
    let arriving: Vec<TcMessage> = filters.get().ingress().execute().try_collect().await?;
    let leaving: Vec<TcMessage> = filters.get().egress().execute().try_collect().await?;
    if arriving.is_empty() && leaving.is_empty() {
        let mut removal = handle.qdisc().del(index);
        let header = &mut removal.message_mut().header;
        header.parent = TcHandle::INGRESS;
        header.handle = TcHandle { major: TcHandle::INGRESS.major, minor: 0 };
        removal.execute().await?;
    }
    task.abort();
    Ok(())
}
