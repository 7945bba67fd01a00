//! From the plan to interfaces: each is a veth whose other end is a port of its segment's bridge in `switch`.

use std::{collections::BTreeSet, fmt::Write};

use anyhow::Result;

use super::{
    Engine, Lab, command,
    topology::{Nic, Plan},
};

/// The host that holds the bridges.
pub(super) const SWITCH: &str = "switch";

/// Joins the hosts of `lab` as `plan` says.
pub(super) fn wire(lab: &Lab, plan: &Plan) -> Result<()> {
    plain_switch(lab)?;
    for router in plan.routers {
        let namespace = lab.host(router).namespace();
        namespace.sysctl("net/ipv4/ip_forward", "1")?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    command::feed(["ip", "-batch", "-"], &veths(lab, plan))?.success()?;
    lab.host(SWITCH).namespace().ip_batch(&bridges(plan))?;
    let hosts: BTreeSet<_> = plan.nics.iter().map(|nic| nic.host).collect();
    for host in hosts {
        lab.host(host).namespace().ip_batch(&addresses(plan, host))?;
    }
    if lab.engine() == Engine::Xdp {
        plan.nics.iter().try_for_each(|nic| prepare_for_xdp(lab, nic))?;
    }
    Ok(())
}

/// A switch has no addresses, and looks at no packet that it passes on.
fn plain_switch(lab: &Lab) -> Result<()> {
    let namespace = lab.host(SWITCH).namespace();
    namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    for family in ["ip", "ip6", "arp"] {
        let key = format!("net/bridge/bridge-nf-call-{family}tables");
        // Only where the kernel has br_netfilter.
        if namespace.read_sysctl(&key).is_ok() {
            namespace.sysctl(&key, "0")?;
        }
    }
    Ok(())
}

fn port(nic: &Nic) -> String {
    format!("{}-{}", nic.host, nic.name)
}

fn veths(lab: &Lab, plan: &Plan) -> String {
    let switch = lab.host(SWITCH).namespace().name();
    lines(plan.nics, |nic| {
        let host = lab.host(nic.host).namespace().name();
        format!("link add {} netns {host} type veth peer name {} netns {switch}", nic.name, port(nic))
    })
}

fn bridges(plan: &Plan) -> String {
    let segments: BTreeSet<_> = plan.nics.iter().map(|nic| nic.segment).collect();
    let bridges = lines(segments, |segment| {
        format!("link add {segment} type bridge mcast_snooping 0\nlink set {segment} up")
    });
    bridges + &lines(plan.nics, |nic| format!("link set {} master {} up", port(nic), nic.segment))
}

fn addresses(plan: &Plan, host: &str) -> String {
    let nics = || plan.nics.iter().filter(|nic| nic.host == host);
    let links = lines(nics(), |nic| {
        let Nic { name, addresses: [v4, v6], .. } = nic;
        format!("link set {name} up\naddress add {v4} dev {name}\naddress add {v6} dev {name} nodad")
    });
    let defaults = lines(nics().filter_map(|nic| nic.gateways), |[v4, v6]| {
        format!("route add default via {v4}\nroute add default via {v6}")
    });
    let further = plan.routes.iter().filter(|(router, ..)| *router == host);
    links + &defaults + &lines(further, |(_, to, via)| format!("route add {to} via {via}"))
}

/// XDP cannot complete the partial checksums of local stacks, and a redirect to a veth is lost unless the other end polls.
fn prepare_for_xdp(lab: &Lab, nic: &Nic) -> Result<()> {
    lab.host(nic.host).run(["ethtool", "-K", nic.name, "tx", "off"])?.success()?;
    // What GRO merged leaves with a partial checksum, too, where the port may offload it.
    lab.host(SWITCH).run(["ethtool", "-K", &port(nic), "gro", "on", "tx", "off"])?.success()?;
    Ok(())
}

fn lines<T>(items: impl IntoIterator<Item = T>, line: impl Fn(T) -> String) -> String {
    items.into_iter().fold(String::new(), |mut text, item| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(item));
        text
    })
}
