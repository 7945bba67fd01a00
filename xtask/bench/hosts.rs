//! The test bed with a client and a server in it: two hosts with stacks of their own, and a direct link between them.

use std::net::Ipv4Addr;

use anyhow::Result;
use netfw_tests::{
    lab::{Namespace, command},
    wait,
};
use nix::unistd::{Pid, gettid};

use crate::{
    Common,
    ends::Traffic,
    gateway::{Gateway, Guard, netfw_rules, nftables_rules},
    testbed::{FORWARDED, TARGET, Testbed, place, receiving_thread},
    wire,
};

/// The core of client and server, where they share one.
pub(crate) const ENDS_CORE: usize = 0;
/// The core of the gateway, or of the server.
pub(crate) const OTHER_CORE: usize = 1;
/// The server on the direct link.
const DIRECT: &str = "10.99.0.2";

/// Who polls each interface.
const APART: [(&str, usize); 4] =
    [("nb0", OTHER_CORE), ("nbc", ENDS_CORE), ("nb1", OTHER_CORE), ("nbs", ENDS_CORE)];

/// Address and port to speak to.
pub(crate) type Door = (Ipv4Addr, u16);

/// Where the work of each interface is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// On the core of whoever sends, as by default.
    Inline,
    /// The gateway's on its core, that of client and server on the other: what its core has to do is the gateway's alone.
    Apart,
    /// The same, but what arrives at the server is taken, and sent back, by the gateway's core in passing: a source of frames that
    /// waits for it on the other lets nothing else run there.
    Loop,
    /// The same, where it is the client's side to which the gateway sends what is waited for.
    ShortLoop,
}

/// How client and server hand over what they send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offload {
    /// As large segments, without checksums: as veth takes them.
    On,
    /// With checksums, as from a wire; XDP needs that.
    Off,
}

/// Client, gateway, server.
pub(crate) struct Hosts {
    pub(crate) bed: Testbed,
}

impl Hosts {
    /// Gives the ends addresses and routes.
    pub(crate) fn new(offload: Offload) -> Result<Self> {
        let bed = Testbed::new()?;
        let server = bed.sink.name().to_owned();
        bed.source.ip_batch(&format!(
            "address add 198.51.100.10/24 dev nbc\n\
             neighbour add 198.51.100.1 lladdr 02:00:00:00:00:02 dev nbc\n\
             route add 192.168.80.0/24 via 198.51.100.1\n\
             link add nbd type veth peer name nbd netns {server}\n\
             address add 10.99.0.1/24 dev nbd\n\
             link set nbd up\n"
        ))?;
        bed.sink.ip_batch(&format!(
            "address add {}/24 dev nbs\n\
             neighbour add 192.168.80.1 lladdr 02:00:00:00:00:03 dev nbs\n\
             route add default via 192.168.80.1\n\
             address add {DIRECT}/24 dev nbd\n\
             link set nbd up\n",
            TARGET.0
        ))?;
        let hosts = Self { bed };
        for interface in ["nbc", "nbs", "nbd"] {
            for host in [&hosts.bed.source, &hosts.bed.sink] {
                hosts.prepare(host, interface, offload)?;
            }
        }
        Ok(hosts)
    }

    /// Frames that XDP redirects to a veth are lost unless the other end polls, which GRO asks for.
    fn prepare(&self, host: &Namespace, interface: &str, offload: Offload) -> Result<()> {
        let here = shell(host, &format!("test -e /sys/class/net/{interface} && echo yes || true"))?;
        if here == "yes" {
            let tx = if offload == Offload::On { "on" } else { "off" };
            shell(host, &format!("ethtool -K {interface} gro on tx {tx}"))?;
        }
        Ok(())
    }

    /// Puts a gateway into place, its work where it is to be done.
    pub(crate) fn stand_up<'a>(
        &'a self,
        gateway: &'a Gateway,
        common: &'a Common,
        placement: Placement,
    ) -> Result<Guard<'a>> {
        // The gateway expects its first thread, wherever that goes afterwards.
        self.thread("nb0", true)?;
        let guard = gateway.stand_up(&self.bed, common, Traffic::Forwarded { flows: 1 })?;
        match placement {
            Placement::Inline => self.thread("nb0", false)?,
            Placement::Apart => self.part(&APART)?,
            Placement::Loop => self.part(&APART[..2])?,
            Placement::ShortLoop => self.part(&[APART[0], APART[3]])?,
        }
        Ok(guard)
    }

    /// Frames that the gateway has received from the client's side.
    pub(crate) fn handled(&self) -> Result<u64> {
        Ok(shell(&self.bed.gateway, "cat /sys/class/net/nb0/statistics/rx_packets")?.parse()?)
    }

    fn part(&self, interfaces: &[(&str, usize)]) -> Result<()> {
        for &(interface, core) in interfaces {
            self.thread(interface, true)?;
            let what = format!("the receiving thread of {interface}");
            let thread = wait::until(&what, || receiving_thread(interface))?;
            place(thread, core)?;
            // At real-time priority one interface would have to wait until the other is idle.
            command::run(["chrt", "--other", "--pid", "0", &thread.to_string()])?.success()?;
        }
        Ok(())
    }

    /// Whether an interface is polled in a thread.
    fn thread(&self, interface: &str, threaded: bool) -> Result<()> {
        let host = match interface {
            "nbc" => &self.bed.source,
            "nbs" => &self.bed.sink,
            _ => &self.bed.gateway,
        };
        let threaded = u8::from(threaded);
        shell(host, &format!("echo {threaded} > /sys/class/net/{interface}/threaded"))?;
        Ok(())
    }
}

/// Through the gateway's port-forward.
pub(crate) fn forwarded() -> Result<Door> {
    Ok((FORWARDED.0.parse()?, FORWARDED.1))
}

/// To the server by the direct link.
pub(crate) fn direct() -> Result<Door> {
    Ok((DIRECT.parse()?, TARGET.1))
}

/// A port-forward of TCP beside that of UDP, by netfw in a mode.
pub(crate) fn netfw(mode: &str, more: &str) -> Gateway {
    let ((address, target_port), port) = (TARGET, FORWARDED.1);
    let more = format!(
        "[[port-forward]]\nname = \"tcp\"\nprotocol = \"tcp\"\nport = {port}\nto = \"{address}:{target_port}\"\n{more}"
    );
    Gateway::Netfw(netfw_rules(mode, &more), "policy-forward")
}

/// The same by nftables.
pub(crate) fn nftables() -> Gateway {
    let ((target, target_port), (address, port)) = (TARGET, FORWARDED);
    let more = format!(
        "chain streams {{
        type nat hook prerouting priority dstnat;
        ip daddr {address} tcp dport {port} dnat to {target}:{target_port}
    }}"
    );
    Gateway::Nftables(nftables_rules("", &more), "ip")
}

/// nftables first: what the others are compared with.
pub(crate) fn gateways(common: &Common) -> Vec<(&'static str, Gateway)> {
    gateways_with(common, "")
}

/// The same, with more in netfw's rules.
pub(crate) fn gateways_with(common: &Common, more: &str) -> Vec<(&'static str, Gateway)> {
    let all =
        [("nftables", nftables()), ("netfw, TC", netfw("tc", more)), ("netfw, XDP", netfw("xdp", more))];
    all.into_iter().filter(|(name, _)| is_wanted(common, name)).collect()
}

/// Names of [`guarded`] gateways.
pub(crate) const GUARDED: [&str; 2] = ["netfw, TC, syn-proxy", "netfw, XDP, syn-proxy"];

/// netfw whose port-forward challenges those who open too many connections; `more` begins a table.
pub(crate) fn guarded(common: &Common, more: &str) -> Vec<(&'static str, Gateway)> {
    let more = format!("syn-proxy = \"auto\"\n{more}");
    let all = GUARDED.into_iter().zip(["tc", "xdp"]).map(|(name, mode)| (name, netfw(mode, &more)));
    all.filter(|(name, _)| is_wanted(common, name)).collect()
}

/// Whether a row is among those that are asked for.
fn is_wanted(common: &Common, name: &str) -> bool {
    common.only.is_empty() || common.only.iter().any(|word| name.contains(word))
}

/// Anything that goes with its guard.
pub(crate) trait Standing {}

impl<T> Standing for T {}

/// What stands between client and server.
pub(crate) enum Way {
    Forwarded(Gateway),
    /// A program that sends on what arrives, unseen, so without translation.
    Wire,
}

impl Way {
    /// All that are wanted, nftables first.
    pub(crate) fn all(common: &Common) -> Vec<(&'static str, Self)> {
        let gateways = gateways(common).into_iter().map(|(name, gateway)| (name, Self::Forwarded(gateway)));
        gateways.chain([("bare XDP redirect", Self::Wire)]).collect()
    }

    /// Where the client finds the server.
    pub(crate) fn door(&self) -> Result<Door> {
        match self {
            Self::Forwarded(_) => forwarded(),
            Self::Wire => Ok((TARGET.0.parse()?, TARGET.1)),
        }
    }

    /// Puts it into place.
    pub(crate) fn stand_up<'a>(
        &'a self,
        hosts: &'a Hosts,
        common: &'a Common,
    ) -> Result<Box<dyn Standing + 'a>> {
        Ok(match self {
            Self::Forwarded(gateway) => Box::new(hosts.stand_up(gateway, common, Placement::Inline)?),
            Self::Wire => {
                hosts.thread("nb0", false)?;
                Box::new(wire::lay(&hosts.bed, &common.object)?)
            }
        })
    }
}

/// Gives the calling thread, and what it starts, a core.
pub(crate) fn pin_here(core: usize) -> Result<()> {
    place(Pid::from_raw(0), core)
}

/// Leaves the core of the ends to everybody else who needs it.
pub(crate) fn stand_aside() -> Result<()> {
    pin_here(ENDS_CORE)?;
    command::run(["renice", "-n", "19", "-p", &gettid().to_string()])?.success()?;
    Ok(())
}

fn shell(host: &Namespace, line: &str) -> Result<String> {
    command::run(["ip", "netns", "exec", host.name(), "sh", "-c", line])?.success()
}
