//! The master's network: two Ethernet interfaces, routes, and neighbours that never age.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use netfw_tests::{
    lab::Namespace,
    packet::{
        Side,
        world::{ROUTER_MAC, V4, V6, next_mac},
    },
};

/// A namespace that this thread is in.
pub(crate) struct Network {
    name: String,
    _namespace: Namespace,
}

impl Network {
    /// Builds it and moves this thread into it.
    pub(crate) fn build() -> Result<Self> {
        let name = format!("nfwlab{}-kernel", std::process::id());
        let namespace = Namespace::create(&name)?;
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            namespace.sysctl(key, "1")?;
        }
        namespace.ip_batch(&plan())?;
        namespace.join_thread()?;
        Ok(Self { name, _namespace: namespace })
    }

    /// Its name, good as that of an instance.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Kernel index of an interface.
pub(crate) fn index(side: Side) -> Result<u32> {
    let path = Path::new("/sys/class/net").join(side.interface()).join("ifindex");
    // The sysfs that is mounted may show another namespace: ask the kernel instead.
    nix::net::if_::if_nametoindex(side.interface()).or_else(|_| {
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        Ok(text.trim().parse()?)
    })
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Lines for `ip -batch`.
fn plan() -> String {
    let mut lines = Vec::new();
    for side in [Side::Outside, Side::Inside] {
        let (name, far) = (side.interface(), format!("far{}", side.slot()));
        lines.push(format!("link add {name} address {} type veth peer name {far}", mac(side.mac())));
        // The far end is only there so that the near one has a carrier.
        lines.push(format!("link set {far} addrgenmode none up"));
        lines.push(format!("link set {name} up"));
    }
    for (world, length) in [(V4, 24), (V6, 64)] {
        let nodad = if world.is_v6() { " nodad" } else { "" };
        for (host, side) in [("master", Side::Outside), ("second", Side::Outside), ("gateway", Side::Inside)]
        {
            lines.push(format!("addr add {}/{length} dev {}{nodad}", world.host(host), side.interface()));
        }
        let router = world.host("router");
        lines.push(format!("neigh add {router} lladdr {} dev eth0 nud permanent", mac(ROUTER_MAC)));
        lines.push(format!("route add default via {router} dev eth0"));
        let (tunnelled, end) = (world.host("tunnelled"), V6.host("router"));
        lines.push(format!("route add {tunnelled} encap seg6 mode encap segs {end} dev eth0"));
        for worker in ["worker1", "worker2", "worker3", "worker4"] {
            let address = world.host(worker);
            let mac = mac(next_mac(address));
            lines.push(format!("neigh add {address} lladdr {mac} dev eth1 nud permanent"));
        }
    }
    lines.join("\n") + "\n"
}
