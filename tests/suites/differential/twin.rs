//! A gateway between two packet sockets, and nobody else who would answer.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result};
use netfw_tests::{
    lab::{Lab, command},
    net::RawPort,
    packet::{
        Packet, Side, read,
        world::{V4, V6, is_inside},
    },
};

const WORKERS: [&str; 4] = ["worker1", "worker2", "worker3", "worker4"];

/// The other hosts say nothing, so that what is seen is the gateway's doing.
const SILENCE: &str = "table inet silence {
    chain in { type filter hook prerouting priority -400; policy drop; icmpv6 type 133-137 accept; }
    chain out { type filter hook output priority -400; policy drop; icmpv6 type 133-137 accept; }
}";

/// Errors are not to be missed.
const ERRORS: [(&str, &str); 3] =
    [("net/ipv4/icmp_ratelimit", "0"), ("net/ipv4/icmp_ratemask", "0"), ("net/ipv6/icmp/ratelimit", "0")];

/// What netfilter's tracking must not be stricter in, or forget sooner, than netfw.
const SYSCTLS: [(&str, &str); 11] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("net/netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close", "240"),
    ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "240"),
    ("net/netfilter/nf_conntrack_tcp_timeout_last_ack", "240"),
    ("net/netfilter/nf_conntrack_tcp_timeout_syn_recv", "240"),
    ("net/netfilter/nf_conntrack_udp_timeout", "240"),
    ("net/netfilter/nf_conntrack_icmp_timeout", "240"),
    ("net/netfilter/nf_conntrack_icmpv6_timeout", "240"),
];

/// Makes the master of a lab a gateway with these rules of nftables.
pub(crate) fn forward_with_nftables(lab: &Lab, rules: &str) -> Result<()> {
    let master = lab.host("master");
    master.enter(|| command::feed(["nft", "-f", "-"], rules)?.success())?;
    SYSCTLS.iter().try_for_each(|(key, value)| master.namespace().sysctl(key, value))?;
    tell_every_error(lab)
}

/// Lets the stack of a master send as many errors as there is reason for.
pub(crate) fn tell_every_error(lab: &Lab) -> Result<()> {
    ERRORS.iter().try_for_each(|(key, value)| lab.host("master").namespace().sysctl(key, value))
}

/// The two ends of the gateway of a lab.
pub(crate) struct Twin {
    ports: [RawPort; 2],
    masters: [[u8; 6]; 2],
    /// Link address of who sends from an address; the router's for those outside.
    senders: BTreeMap<IpAddr, [u8; 6]>,
    router: [u8; 6],
    fences: u32,
}

impl Twin {
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        let mut senders = BTreeMap::new();
        let master = lab.host("master");
        for nic in ["eth0", "eth1"] {
            // A packet that the stack sends has its whole checksum.
            master.run(["ethtool", "-K", nic, "tx", "off"])?.success()?;
        }
        for host in WORKERS.into_iter().chain(["internet"]) {
            let mac = lab.host(host).mac("eth0")?;
            lab.host(host).enter(|| command::feed(["nft", "-f", "-"], SILENCE)?.success())?;
            for world in [V4, V6] {
                let (address, nic) = match host {
                    "internet" => (world.host("router"), "eth0"),
                    worker => (world.host(worker), "eth1"),
                };
                let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
                master.shell(&format!("ip neigh replace {address} lladdr {mac} dev {nic} nud permanent"))?;
                senders.insert(address, lab.host(host).mac("eth0")?);
            }
        }
        let port = |nic| RawPort::open(lab.host("switch"), nic);
        Ok(Self {
            ports: [port("master-eth0")?, port("master-eth1")?],
            masters: [master.mac("eth0")?, master.mac("eth1")?],
            router: lab.host("internet").mac("eth0")?,
            senders,
            fences: 0,
        })
    }

    /// Sends a packet to the gateway; everything that comes out of it, until it has evidently done its work.
    pub(crate) fn pass(&mut self, side: Side, packet: &Packet) -> Result<Vec<(Side, Packet)>> {
        self.ports[side as usize].send(&self.frame(side, packet))?;
        let mut left = Vec::new();
        let other = if side == Side::Outside { Side::Inside } else { Side::Outside };
        // What the gateway made of the packet is before the fence at the far side; what it sent back is before the second
        // one. Twice, for the order in which XDP and the stack send within one round is open.
        for from in [side, other, side, other] {
            left.extend(self.fence(from)?);
        }
        left.sort_by_key(|(side, packet)| (*side, format!("{packet:?}")));
        Ok(left)
    }

    fn frame(&self, side: Side, packet: &Packet) -> Vec<u8> {
        let from = self.senders.get(&packet.source.ip()).copied().unwrap_or(self.router);
        packet.frame(from, self.masters[side as usize])
    }

    /// Sends a datagram that both gateways carry, and waits for it at the far side.
    fn fence(&mut self, from: Side) -> Result<Vec<(Side, Packet)>> {
        self.fences += 1;
        let mut fence = match from {
            Side::Outside => Packet::udp(V4.at("client", 9), V4.at("master", 9)),
            Side::Inside => Packet::udp(V4.at("worker1", 9), V4.at("client", 9)),
        };
        fence.payload = format!("fence {:08}", self.fences).into_bytes();
        self.ports[from as usize].send(&self.frame(from, &fence))?;
        let to = if from == Side::Outside { Side::Inside } else { Side::Outside };
        let (port, master) = (&self.ports[to as usize], self.masters[to as usize]);
        let mut frames = Vec::new();
        port.expect("the fence", |frame| {
            if frame[6..12] != master || frame[0] & 1 != 0 || frame[12..14] == [0x08, 0x06] {
                return None;
            }
            if frame.ends_with(&fence.payload) {
                return Some(());
            }
            frames.push(frame.to_vec());
            None
        })?;
        let packets = frames.iter().map(|frame| {
            let packet = read(frame).with_context(|| format!("{frame:02x?}"))?;
            Ok((to, packet))
        });
        packets.filter(|packet| !packet.as_ref().is_ok_and(|(_, packet)| is_discovery(packet))).collect()
    }
}

/// Neighbour discovery of the master itself.
fn is_discovery(packet: &Packet) -> bool {
    use netfw_tests::packet::Body;
    matches!(packet.body, Body::Icmp { kind: 133..=137, .. } if packet.is_v6())
}

/// Where a packet from an address comes in.
pub(crate) fn side_of_sender(address: IpAddr) -> Side {
    if is_inside(address) { Side::Inside } else { Side::Outside }
}
