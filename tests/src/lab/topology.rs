//! The networks of the lab, as tables: which host has which interface on which segment.
//!
//! ```text
//!  client   203.0.113.10 ──(office)───┐
//!                                     internet ──(outside)── master ──(lan)── worker1…4
//!  stranger 198.51.100.10 ─(foreign)──┘  .254    192.0.2/24  .1   .2  192.168.80/24  .3–.6
//! ```
//!
//! One-armed, the master has a single interface in the LAN, and the LAN's gateway is `internet` itself (.1).
//! IPv6 runs beside everywhere, with the same last numbers.

/// One interface of one host.
#[derive(Debug)]
pub(super) struct Nic {
    pub(super) host: &'static str,
    pub(super) name: &'static str,
    pub(super) segment: &'static str,
    pub(super) addresses: [&'static str; 2],
    /// Default gateways, if this interface has them.
    pub(super) gateways: Option<[&'static str; 2]>,
}

/// A lab on paper.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) nics: &'static [Nic],
    /// Hosts that forward from the start; the master is netfw's to switch on.
    pub(super) routers: &'static [&'static str],
    /// Further routes: host, destination, gateway.
    pub(super) routes: &'static [(&'static str, &'static str, &'static str)],
}

pub(super) const TWO_ARMED: Plan = Plan {
    nics: &[
        CLIENT,
        STRANGER,
        nic("internet", "eth0", "outside", ["192.0.2.254/24", "2001:db8::fe/64"], None),
        nic("internet", "eth1", "office", ["203.0.113.1/24", "2001:db8:1::1/64"], None),
        nic("internet", "eth2", "foreign", ["198.51.100.1/24", "2001:db8:2::1/64"], None),
        nic(
            "master",
            "eth0",
            "outside",
            ["192.0.2.1/24", "2001:db8::1/64"],
            Some(["192.0.2.254", "2001:db8::fe"]),
        ),
        nic("master", "eth1", "lan", ["192.168.80.2/24", "fd00:80::2/64"], None),
        nic("worker1", "eth0", "lan", ["192.168.80.3/24", "fd00:80::3/64"], VIA_MASTER),
        nic("worker2", "eth0", "lan", ["192.168.80.4/24", "fd00:80::4/64"], VIA_MASTER),
        nic("worker3", "eth0", "lan", ["192.168.80.5/24", "fd00:80::5/64"], VIA_MASTER),
        nic("worker4", "eth0", "lan", ["192.168.80.6/24", "fd00:80::6/64"], VIA_MASTER),
    ],
    routers: &["internet"],
    // The outside knows a way to the LAN, so that it is the firewall and not a missing route that keeps people out.
    routes: &[("internet", "192.168.80.0/24", "192.0.2.1"), ("internet", "fd00:80::/64", "2001:db8::1")],
};

pub(super) const ONE_ARMED: Plan = Plan {
    nics: &[
        CLIENT,
        STRANGER,
        nic("internet", "eth0", "lan", ["192.168.80.1/24", "fd00:80::1/64"], None),
        nic("internet", "eth1", "office", ["203.0.113.1/24", "2001:db8:1::1/64"], None),
        nic("internet", "eth2", "foreign", ["198.51.100.1/24", "2001:db8:2::1/64"], None),
        nic("master", "eth0", "lan", ["192.168.80.2/24", "fd00:80::2/64"], VIA_ROUTER),
        nic("worker1", "eth0", "lan", ["192.168.80.3/24", "fd00:80::3/64"], VIA_ROUTER),
        nic("worker2", "eth0", "lan", ["192.168.80.4/24", "fd00:80::4/64"], VIA_ROUTER),
        nic("worker3", "eth0", "lan", ["192.168.80.5/24", "fd00:80::5/64"], VIA_ROUTER),
        nic("worker4", "eth0", "lan", ["192.168.80.6/24", "fd00:80::6/64"], VIA_ROUTER),
    ],
    routers: &["internet"],
    routes: &[],
};

const CLIENT: Nic = nic(
    "client",
    "eth0",
    "office",
    ["203.0.113.10/24", "2001:db8:1::10/64"],
    Some(["203.0.113.1", "2001:db8:1::1"]),
);
const STRANGER: Nic = nic(
    "stranger",
    "eth0",
    "foreign",
    ["198.51.100.10/24", "2001:db8:2::10/64"],
    Some(["198.51.100.1", "2001:db8:2::1"]),
);
const VIA_MASTER: Option<[&str; 2]> = Some(["192.168.80.2", "fd00:80::2"]);
const VIA_ROUTER: Option<[&str; 2]> = Some(["192.168.80.1", "fd00:80::1"]);

const fn nic(
    host: &'static str,
    name: &'static str,
    segment: &'static str,
    addresses: [&'static str; 2],
    gateways: Option<[&'static str; 2]>,
) -> Nic {
    Nic { host, name, segment, addresses, gateways }
}
