//! The addresses of the two-armed lab, by family, and who stands behind which interface.

use std::net::{IpAddr, SocketAddr};

use super::gateway::Side;

/// Link addresses of the master.
pub const MASTER_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// Link address of the router outside.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

/// An IP family's part of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    v6: bool,
}

/// IPv4.
pub const V4: World = World { v6: false };
/// IPv6.
pub const V6: World = World { v6: true };

impl World {
    /// Whether this is IPv6.
    pub fn is_v6(self) -> bool {
        self.v6
    }

    /// The one of two addresses that belongs to this family.
    pub fn address(self, v4: &str, v6: &str) -> IpAddr {
        let text = if self.v6 { v6 } else { v4 };
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// A port of a host by name.
    pub fn at(self, host: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.host(host), port)
    }

    /// Address of a host by name: `client` and `stranger` outside, `tunnelled` at the end of an encapsulated
    /// route, `router` between them and the master, `master` as the
    /// outside knows it, `gateway` as the LAN knows it, `worker1` to `worker4` inside.
    pub fn host(self, name: &str) -> IpAddr {
        match name {
            "client" => self.address("203.0.113.10", "2001:db8:1::10"),
            "neighbour" => self.address("203.0.113.11", "2001:db8:1::11"),
            "stranger" => self.address("198.51.100.10", "2001:db8:2::10"),
            "tunnelled" => self.address("198.18.0.10", "2001:db8:18::10"),
            "router" => self.address("192.0.2.254", "2001:db8::fe"),
            "master" => self.address("192.0.2.1", "2001:db8::1"),
            "second" => self.address("192.0.2.9", "2001:db8::9"),
            "gateway" => self.address("192.168.80.2", "fd00:80::2"),
            "worker1" => self.address("192.168.80.3", "fd00:80::3"),
            "worker2" => self.address("192.168.80.4", "fd00:80::4"),
            "worker3" => self.address("192.168.80.5", "fd00:80::5"),
            "worker4" => self.address("192.168.80.6", "fd00:80::6"),
            other => panic!("nobody is called {other}"),
        }
    }
}

/// Whether an address lies in the LAN.
pub fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [192, 168, 80],
        IpAddr::V6(address) => address.segments()[..4] == [0xfd00, 0x80, 0, 0],
    }
}

/// Where the way to an address leads.
pub fn side_of(address: IpAddr) -> Side {
    if is_inside(address) { Side::Inside } else { Side::Outside }
}

/// Link address of who must get a frame next on its way to an address: a LAN host itself, or the router.
pub fn next_mac(address: IpAddr) -> [u8; 6] {
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    if is_inside(address) { [2, 0, 0, 0, 80, last] } else { ROUTER_MAC }
}
