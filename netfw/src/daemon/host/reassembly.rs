//! A network namespace in which the kernel puts fragments in order: it has one end of a veth pair, reassembles what
//! comes in there, and routes it back out of the same end, cut where the sender had cut it.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures_util::TryStreamExt as _;
use netfw_common::fragment::REASSEMBLY_TIME;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use nix::{
    net::if_::if_indextoname,
    sched::{CloneFlags, unshare},
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::sysctl;

/// Our end; the kernel puts in a number.
const NAME: &str = "netfw%d";
/// What every name that it makes of this begins with.
const PREFIX: &str = "netfw";
/// The end in the namespace.
const FAR: &str = "reassembly";
/// Of both ends, so that what the far one sends is for the near one. Locally administered.
const MAC: [u8; 6] = [0x02, 0x6e, 0x65, 0x74, 0x66, 0x77];
/// The largest packet there is.
const MTU: u32 = 65_535;
/// The next hop towards everywhere. Nobody has these addresses: without ARP nobody asks.
const NEXT_HOP: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(169, 254, 0, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// Makes one; `reassemble` is called in it, switches the reassembly on and keeps the namespace. Returns the index of
/// our end.
///
/// # Errors
/// The kernel has no veth pairs, or what `reassemble` says; then nothing is left.
pub async fn build(reassemble: impl FnOnce() -> Result<()> + Send + 'static) -> Result<u32> {
    let home = File::open("/proc/thread-self/ns/net")?;
    let furnished = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("it gives no network namespace")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(furnish(&home, reassemble))
    });
    let index = furnished.join().map_err(|_| anyhow!("a thread has panicked"))??;
    open_up(index).await?;
    Ok(index)
}

/// Our end only takes packets from the datapath and gives them back.
async fn open_up(index: u32) -> Result<()> {
    let name = if_indextoname(index)?;
    optional(&format!("net/ipv6/conf/{}/disable_ipv6", name.to_string_lossy()), "1")?;
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    task.abort();
    Ok(())
}

async fn furnish(home: &File, reassemble: impl FnOnce() -> Result<()>) -> Result<u32> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    switch_on_forwarding()?;
    handle.link().add(veth(home)).execute().await.context("it makes no veth pair")?;
    let (far, near) = ends(&handle).await?;
    route_back(&handle, far).await?;
    reassemble()?;
    limit_waiting()?;
    task.abort();
    Ok(near)
}

fn switch_on_forwarding() -> Result<()> {
    sysctl::write("net/ipv4/ip_forward", "1")?;
    // What goes back where it came from is meant to.
    sysctl::write("net/ipv4/conf/all/send_redirects", "0")?;
    sysctl::write("net/ipv4/conf/default/send_redirects", "0")?;
    // Without addresses of its own the namespace has nothing to say.
    optional("net/ipv6/conf/default/addr_gen_mode", "1")?;
    optional("net/ipv6/conf/all/forwarding", "1")
}

/// The switch for IPv6 is there since its reassembly was switched on.
fn limit_waiting() -> Result<()> {
    let seconds = REASSEMBLY_TIME.to_string();
    sysctl::write("net/ipv4/ipfrag_time", &seconds)?;
    optional("net/netfilter/nf_conntrack_frag6_timeout", &seconds)
}

/// Sets a switch that is not there without IPv6.
fn optional(path: &str, value: &str) -> Result<()> {
    match sysctl::write(path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.with_context(|| format!("cannot set the sysctl {path} to {value}")),
    }
}

fn veth(home: &File) -> LinkMessage {
    let near = LinkMessageBuilder::<LinkUnspec>::new()
        .name(NAME)
        .alias("where netfw has fragments put in order")
        .address(MAC.to_vec())
        .mtu(MTU)
        .setns_by_fd(home.as_raw_fd());
    LinkVeth::new(FAR, "")
        .set_info_data(InfoData::Veth(InfoVeth::Peer(near.build())))
        .address(MAC.to_vec())
        .mtu(MTU)
        .arp(false)
        .up()
        .build()
}

/// Indexes of the far and the near end.
async fn ends(handle: &Handle) -> Result<(u32, u32)> {
    let mut found = handle.link().get().match_name(FAR.to_owned()).execute();
    let far = found.try_next().await?.context("the veth pair is gone")?;
    let near = far.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    });
    Ok((far.header.index, near.context("the kernel doesn't tell the other end of a veth pair")?))
}

/// Everywhere is where it came from.
async fn route_back(handle: &Handle, far: u32) -> Result<()> {
    // The kernel checks next hops in a table that is made for the first local address.
    let mut loopback = handle.link().get().match_name("lo".to_owned()).execute();
    let loopback = loopback.try_next().await?.context("the namespace has no loopback")?.header.index;
    handle.link().set(LinkUnspec::new_with_index(loopback).up().build()).execute().await?;
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(far).gateway(NEXT_HOP.0).onlink();
    handle.route().add(v4.build()).execute().await.context("it takes no route")?;
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(far).gateway(NEXT_HOP.1);
    if let Err(error) = handle.route().add(v6.build()).execute().await {
        tracing::info!("IPv6 fragments are not reassembled: {error}");
    }
    Ok(())
}

/// Whether our end of such a namespace has this index.
pub fn is_there(index: u32) -> bool {
    index != 0 && if_indextoname(index).is_ok_and(|name| name.to_bytes().starts_with(PREFIX.as_bytes()))
}

/// Removes our end, at once; the namespace goes with what keeps it.
///
/// # Errors
/// Netlink fails.
pub async fn remove(index: u32) -> Result<()> {
    ensure!(is_there(index), "the interface {index} is another");
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    handle.link().del(index).execute().await?;
    task.abort();
    Ok(())
}
