//! Scenarios 6 and 7: from the LAN to the master's outside address and back into the LAN, with two arms and with one.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use netfw_tests::{
    lab::Lab,
    net::{TcpServer, UdpServer, ask, connect, exchange_line, udp_socket},
    rules,
    scenario::{one_armed, two_armed},
};

const RULES: &str = r#"
[[port-forward]]
name = "range"
protocol = ["tcp", "udp"]
port = "7000-7009"
to = "worker1:1000-1009"

[[port-forward]]
name = "balanced"
protocol = ["tcp", "udp"]
port = 7100
to = ["worker1:1100", "worker2:1100"]
"#;

/// A family of addresses.
struct Family {
    /// Where the addresses of the LAN begin.
    lan: &'static str,
    /// The master, as callers know it.
    outside: &'static str,
    /// The master, as targets see it.
    inside: &'static str,
}

const TWO_ARMED: [Family; 2] = [
    Family { lan: "192.168.80.", outside: "192.0.2.1", inside: "192.168.80.2" },
    Family { lan: "fd00:80::", outside: "2001:db8::1", inside: "fd00:80::2" },
];

const ONE_ARMED: [Family; 2] = [
    Family { lan: "192.168.80.", outside: "192.168.80.2", inside: "192.168.80.2" },
    Family { lan: "fd00:80::", outside: "fd00:80::2", inside: "fd00:80::2" },
];

/// The server is another host: it answers through the master, so the caller sees the address that it called.
#[test]
fn a_worker_reaches_another_through_the_outside_address() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        call_range(lab, &TWO_ARMED, "worker2")?;
        call_balanced(lab, &TWO_ARMED, "worker3")
    })
}

/// The server is the caller itself, or one of the servers is.
#[test]
fn a_worker_reaches_itself_through_the_outside_address() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        call_range(lab, &TWO_ARMED, "worker1")?;
        call_balanced(lab, &TWO_ARMED, "worker1")
    })
}

/// The same with a single interface, where the LAN's gateway is somebody else.
#[test]
fn workers_reach_each_other_and_themselves_over_one_arm() -> Result<()> {
    one_armed(&rules::one_armed(RULES), |lab, _| {
        for caller in ["worker2", "worker1"] {
            call_range(lab, &ONE_ARMED, caller)?;
            call_balanced(lab, &ONE_ARMED, caller)?;
        }
        Ok(())
    })
}

/// The master's own packets to its own address travel over `lo`: they meet no port-forward, but reach the target itself, and
/// programs of the master that listen.
#[test]
fn the_master_connects_to_the_target_itself() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        let master = lab.host("master");
        let _server = TcpServer::echo(lab.host("worker1"), "192.168.80.3:1000")?;
        ensure!(connect(master, "192.0.2.1:7000").is_err(), "nobody listens there");
        exchange_line(&mut connect(master, "192.168.80.3:1000")?, b"hello")?;
        let _own = TcpServer::echo(master, "192.0.2.1:7001")?;
        exchange_line(&mut connect(master, "192.0.2.1:7001")?, b"hello")?;
        ensure!(netfw.counters()?.number("port_forwards.range.to_target.packets") == 0, "none was forwarded");
        Ok(())
    })
}

/// Calls both ends of the range, which leads to one worker.
fn call_range(lab: &Lab, families: &[Family], caller: &str) -> Result<()> {
    for family in families {
        for port in [1000, 1009] {
            call(lab, family, caller, port + 6000, &[("worker1", port)])?;
        }
    }
    Ok(())
}

/// Calls the forward that leads to two workers.
fn call_balanced(lab: &Lab, families: &[Family], caller: &str) -> Result<()> {
    for family in families {
        call(lab, family, caller, 7100, &[("worker1", 1100), ("worker2", 1100)])?;
    }
    Ok(())
}

/// Calls the outside address once for each server, in each protocol: all are reached, from the master's address.
fn call(lab: &Lab, family: &Family, caller: &str, port: u16, servers: &[(&str, u16)]) -> Result<()> {
    let v6 = family.lan.contains(':');
    let at = |address: &str, port: u16| {
        if v6 { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    };
    let (dialled, any) = (at(family.outside, port), at(if v6 { "::" } else { "0.0.0.0" }, 0));
    let mut running = Vec::new();
    for (name, port) in servers {
        let last = if *name == "worker1" { 3 } else { 4 };
        let address = at(&format!("{}{last}", family.lan), *port);
        running
            .push((TcpServer::echo(lab.host(name), &address)?, UdpServer::echo(lab.host(name), &address)?));
    }
    for _ in servers {
        exchange_line(&mut connect(lab.host(caller), &dialled)?, b"hello")?;
        ask(&udp_socket(lab.host(caller), &any)?, &dialled, b"hello")?;
    }
    let mut called = 0;
    for (tcp, udp) in running {
        let peers: Vec<_> = tcp.peers().into_iter().chain(udp.peers()).collect();
        called += peers.len();
        for peer in peers {
            assert_eq!(peer.ip(), family.inside.parse::<IpAddr>()?, "answers go through the master");
        }
    }
    assert_eq!(called, 2 * servers.len(), "no loop, nothing twice");
    Ok(())
}
