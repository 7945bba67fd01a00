//! The LAN reaches the outside as the master.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use anyhow::{Context, Result};
use netfw_tests::{
    lab::Lab,
    net::{Reception, TcpServer, UdpServer, ask, connect, exchange_line, knock_udp, udp_socket},
    netfw::Count,
    rules,
    scenario::two_armed,
    wait::until,
};

const LAN: &str = "[masquerade]\nfrom = [\"lan\"]\n";

/// Addresses as they stand before a port.
#[derive(Clone, Copy)]
struct Family {
    /// What stands around the last number of a LAN host.
    lan: [&'static str; 2],
    master: &'static str,
    client: &'static str,
    stranger: &'static str,
    any: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        lan: ["192.168.80.", ""],
        master: "192.0.2.1",
        client: "203.0.113.10",
        stranger: "198.51.100.10",
        any: "0.0.0.0",
    },
    Family {
        lan: ["[fd00:80::", "]"],
        master: "[2001:db8::1]",
        client: "[2001:db8:1::10]",
        stranger: "[2001:db8:2::10]",
        any: "[::]",
    },
];

impl Family {
    /// A socket of the worker with this number.
    fn worker(self, lab: &Lab, number: u8, port: u16) -> Result<UdpSocket> {
        let [before, behind] = self.lan;
        udp_socket(lab.host(&format!("worker{number}")), &format!("{before}{}{behind}:{port}", number + 2))
    }

    /// The echo server of the client, and its address.
    fn server(self, lab: &Lab) -> Result<(UdpServer, String)> {
        let address = format!("{}:7", self.client);
        Ok((UdpServer::echo(lab.host("client"), &address)?, address))
    }
}

/// The ports from which a server was asked.
fn ports(server: &UdpServer) -> BTreeSet<u16> {
    server.peers().iter().map(SocketAddr::port).collect()
}

/// Scenario 1: the outside sees the master, the worker sees the server, counters are exact.
#[test]
fn the_outside_sees_the_master() -> Result<()> {
    let families = [
        ("192.168.80.3:5000", "203.0.113.10:7", "192.0.2.1", 28),
        ("[fd00:80::3]:5000", "[2001:db8:1::10]:7", "2001:db8::1", 48),
    ];
    two_armed(&rules::two_armed(LAN), |lab, netfw| {
        for (worker, outside, master, headers) in families {
            let udp = UdpServer::echo(lab.host("client"), outside)?;
            let tcp = TcpServer::echo(lab.host("client"), outside)?;
            let before = netfw.counters()?;
            let socket = udp_socket(lab.host("worker1"), worker)?;
            for _ in 0..5 {
                ask(&socket, outside, &[1; 33])?;
            }
            let moved = netfw.counters()?.since(&before);
            moved.expect("masquerade.out", Count::of(5, headers + 33))?;
            moved.expect("masquerade.in", Count::of(5, headers + 33))?;
            assert_eq!(moved.number("masquerade.flows_opened"), 1);
            exchange_line(&mut connect(lab.host("worker1"), outside)?, b"hello")?;
            for peer in udp.peers().into_iter().chain(tcp.peers()) {
                assert_eq!(peer.ip(), master.parse::<IpAddr>()?);
            }
        }
        Ok(())
    })
}

/// Scenario 4: the same source port on every worker, one server; each gets its own answers.
#[test]
fn equal_source_ports_do_not_clash() -> Result<()> {
    two_armed(&rules::two_armed(LAN), |lab, _| {
        for family in FAMILIES {
            let (server, address) = family.server(lab)?;
            let sockets =
                (1..=4).map(|number| family.worker(lab, number, 5000)).collect::<Result<Vec<_>>>()?;
            for round in 0..3_u8 {
                for (number, socket) in sockets.iter().enumerate() {
                    ask(socket, &address, format!("round {round} of worker {number}").as_bytes())?;
                }
            }
            assert_eq!(ports(&server).len(), 4, "{:?}", server.peers());
        }
        Ok(())
    })
}

/// Scenario 4: with two ports there are two flows to one server; the third fails, counted, and hurts nobody else.
#[test]
fn running_out_of_ports_is_counted() -> Result<()> {
    two_armed(&rules::two_armed(&format!("{LAN}ports = \"20000-20001\"\n")), |lab, netfw| {
        netfw.expect_drops("no-free-port", 2..=2);
        for family in FAMILIES {
            let (server, address) = family.server(lab)?;
            let (first, second) = (family.worker(lab, 1, 0)?, family.worker(lab, 2, 0)?);
            ask(&first, &address, b"first")?;
            ask(&second, &address, b"second")?;
            assert_eq!(knock_udp(lab.host("worker3"), &address)?, Reception::Silence);
            ask(&first, &address, b"first again")?;
            assert_eq!(ports(&server), [20000, 20001].into());
            let elsewhere = format!("{}:7", family.stranger);
            let other = UdpServer::echo(lab.host("stranger"), &elsewhere)?;
            ask(&family.worker(lab, 3, 0)?, &elsewhere, b"another server")?;
            assert_eq!(other.peers().len(), 1, "a port is free again towards another server");
        }
        until("the daemon warns", || netfw.log().contains("dropped, no-free-port").then_some(()))?;
        Ok(())
    })
}

/// Scenario 14: two workers ping with the same identifier at the same time.
#[test]
fn equal_echo_identifiers_do_not_clash() -> Result<()> {
    two_armed(&rules::two_armed(LAN), |lab, netfw| {
        for target in ["203.0.113.10", "2001:db8:1::10"] {
            let before = netfw.counters()?;
            let mut pings = ["worker1", "worker2"].map(|host| {
                lab.host(host).spawn(["ping", "-e", "77", "-c", "3", "-i", "0.2", "-W", "10", target])
            });
            for ping in &mut pings {
                let ping = ping.as_mut().ok().context("ping starts")?;
                assert_eq!(ping.wait()?, 0, "{}", ping.output());
            }
            let moved = netfw.counters()?.since(&before);
            assert_eq!(moved.number("masquerade.flows_opened"), 2);
            assert_eq!(moved.number("masquerade.in.packets"), 6);
        }
        Ok(())
    })
}

/// Scenario 4: once the conversations that hold the ports are over, others get them.
#[test]
fn running_out_of_ports_heals() -> Result<()> {
    let short = format!("{LAN}ports = \"20000-20001\"\n[timeouts]\nudp = \"1s\"\nudp-unanswered = \"1s\"\n");
    two_armed(&rules::two_armed(&short), |lab, netfw| {
        netfw.expect_drops("no-free-port", 1..=1000);
        for family in FAMILIES {
            let (_server, address) = family.server(lab)?;
            for port in [5000, 5001] {
                ask(&family.worker(lab, 1, port)?, &address, b"first")?;
            }
            until("a port is free again", || {
                (knock_udp(lab.host("worker3"), &address).ok()? == Reception::Welcome).then_some(())
            })?;
        }
        Ok(())
    })
}

/// Two outside addresses: each worker has one of them for all it does, and answers come back to both.
#[test]
fn two_outside_addresses_share_the_lan() -> Result<()> {
    const BOTH: &str = "to = [\"192.0.2.1\", \"192.0.2.9\", \"2001:db8::1\", \"2001:db8::9\"]\n";
    const SECOND: [&str; 2] = ["192.0.2.9/24 dev eth0", "2001:db8::9/64 dev eth0 nodad"];
    two_armed(&rules::two_armed(&format!("{LAN}{BOTH}")), |lab, _| {
        let master = lab.host("master");
        SECOND.iter().try_for_each(|address| master.shell(&format!("ip address add {address}")).map(drop))?;
        for (family, outside) in
            FAMILIES.into_iter().zip([["192.0.2.1", "192.0.2.9"], ["2001:db8::1", "2001:db8::9"]])
        {
            let used = addresses_used(lab, family)?;
            assert_eq!(used, [outside[0].parse()?, outside[1].parse()?].into());
        }
        SECOND.iter().try_for_each(|address| {
            master.shell(&format!("ip address del {}", address.trim_end_matches(" nodad"))).map(drop)
        })
    })
}

/// The outside addresses of all workers; each has one, whoever it asks.
fn addresses_used(lab: &Lab, family: Family) -> Result<BTreeSet<IpAddr>> {
    let addresses = [7, 8].map(|port| format!("{}:{port}", family.client));
    let servers = addresses
        .iter()
        .map(|address| UdpServer::echo(lab.host("client"), address))
        .collect::<Result<Vec<_>>>()?;
    let mut used = BTreeSet::new();
    for worker in 1..=4 {
        let socket = family.worker(lab, worker, 0)?;
        let mut seen = BTreeSet::new();
        for (server, address) in servers.iter().zip(&addresses) {
            ask(&socket, address, b"who am I?")?;
            seen.extend(server.peers().last().map(SocketAddr::ip));
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
        used.extend(seen);
    }
    Ok(used)
}

/// Scenario 2: a worker that sends from a forwarded port does not receive what is meant for the forward, whoever speaks
/// first.
#[test]
fn a_worker_cannot_shadow_a_forward() -> Result<()> {
    let rules = rules::two_armed(&format!(
        "{LAN}\n[[port-forward]]\nname = \"echo\"\nprotocol = \"udp\"\nport = 7000\nto = \"worker1:7\"\n"
    ));
    two_armed(&rules, |lab, _| {
        for family in FAMILIES {
            let [before, behind] = family.lan;
            let victim = UdpServer::echo(lab.host("worker1"), &format!("{before}3{behind}:7"))?;
            expect_no_theft(lab, family, &victim)?;
        }
        Ok(())
    })
}

/// Scenario 2: nor the port of a server on the master itself.
#[test]
fn a_worker_cannot_shadow_a_port_of_the_master() -> Result<()> {
    let rules = rules::two_armed(&format!(
        "{LAN}\n[[rule]]\nname = \"own\"\naction = \"accept\"\nprotocol = \"udp\"\nport = 7000\n"
    ));
    two_armed(&rules, |lab, _| {
        for family in FAMILIES {
            let victim = UdpServer::echo(lab.host("master"), &format!("{}:7000", family.any))?;
            expect_no_theft(lab, family, &victim)?;
        }
        Ok(())
    })
}

/// Workers send from port 7000 to somebody who will talk, and then talks, with port 7000 of the master: they are seen at other
/// ports, and the victim gets what is meant for it.
fn expect_no_theft(lab: &Lab, family: Family, victim: &UdpServer) -> Result<()> {
    let outside = udp_socket(lab.host("client"), &format!("{}:5000", family.client))?;
    for (number, asked) in [(2, 1), (3, 2)] {
        let thief = family.worker(lab, number, 7000)?;
        thief.send_to(b"mine now", outside.local_addr()?)?;
        let (_, seen) = outside.recv_from(&mut [0; 16])?;
        assert_ne!(seen.port(), 7000, "the port was given away");
        ask(&outside, &format!("{}:7000", family.master), b"for the victim")?;
        assert_eq!(victim.peers().len(), asked);
    }
    Ok(())
}

/// The master's own flows and masqueraded ones keep apart, though they use the same address.
#[test]
fn the_masters_own_ports_stay_its_own() -> Result<()> {
    two_armed(&rules::two_armed(LAN), |lab, _| {
        for family in FAMILIES {
            let (server, address) = family.server(lab)?;
            let own = udp_socket(lab.host("master"), &format!("{}:5000", family.master))?;
            let worker = family.worker(lab, 1, 5000)?;
            for _ in 0..3 {
                ask(&own, &address, b"from the master")?;
                ask(&worker, &address, b"from the worker")?;
            }
            assert_eq!(ports(&server).len(), 2, "{:?}", server.peers());
        }
        Ok(())
    })
}

const MAPPING: &str = "mapping = \"endpoint-independent\"\n";
const FILTERING: &str = "filtering = \"endpoint-independent\"\n";

/// Endpoint-independent mapping: every server sees a worker at the same port; who was not asked is kept out.
#[test]
fn one_port_towards_everyone() -> Result<()> {
    two_armed(&rules::two_armed(&format!("{LAN}{MAPPING}")), |lab, netfw| {
        netfw.expect_drops("policy-input", 2..=2);
        for family in FAMILIES {
            let servers = [
                ("client", family.client, 7),
                ("client", family.client, 8),
                ("stranger", family.stranger, 7),
            ]
            .map(|(host, address, port)| (host, format!("{address}:{port}")));
            let echoes = servers
                .iter()
                .map(|(host, address)| UdpServer::echo(lab.host(host), address))
                .collect::<Result<Vec<_>>>()?;
            let mut ports = BTreeSet::new();
            for worker in [1, 2] {
                let socket = family.worker(lab, worker, 5000)?;
                let mut seen = BTreeSet::new();
                for (echo, (_, server)) in echoes.iter().zip(&servers) {
                    ask(&socket, server, b"where am I?")?;
                    seen.extend(echo.peers().last().copied());
                }
                assert_eq!(seen.len(), 1, "{seen:?}");
                ports.extend(seen);
            }
            assert_eq!(ports.len(), 2, "{ports:?}");
            let mapped = format!("{}:5000", family.master);
            assert_eq!(knock_udp(lab.host("stranger"), &mapped)?, Reception::Silence);
        }
        Ok(())
    })
}

/// Endpoint-independent filtering: who learns a worker's outside port reaches the worker there, from outside and from the LAN.
#[test]
fn a_mapped_port_is_open_to_all() -> Result<()> {
    let families = [
        ("192.168.80.3:5000", "203.0.113.10:7", "198.51.100.10:6000", "192.0.2.1:5000", "192.168.80.4:6000"),
        (
            "[fd00:80::3]:5000",
            "[2001:db8:1::10]:7",
            "[2001:db8:2::10]:6000",
            "[2001:db8::1]:5000",
            "[fd00:80::4]:6000",
        ),
    ];
    two_armed(&rules::two_armed(&format!("{LAN}{MAPPING}{FILTERING}")), |lab, netfw| {
        for (worker, server, stranger, outside, neighbour) in families {
            let _server = UdpServer::echo(lab.host("client"), server)?;
            let socket = udp_socket(lab.host("worker1"), worker)?;
            ask(&socket, server, b"where am I?")?;
            let before = netfw.counters()?;
            for (host, from) in [("stranger", stranger), ("worker2", neighbour)] {
                let knocker = udp_socket(lab.host(host), from)?;
                knocker.send_to(b"hello", outside)?;
                let (_, seen) = socket.recv_from(&mut [0; 16])?;
                socket.send_to(b"hello yourself", seen)?;
                let (length, answered) = knocker.recv_from(&mut [0; 16])?;
                assert_eq!((length, answered), (14, outside.parse()?));
            }
            assert_eq!(netfw.counters()?.since(&before).number("masquerade.flows_opened"), 2);
        }
        Ok(())
    })
}
