//! Scenarios 9 and 11: what looks for the way and its width finds them through the master, in both directions.

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab},
    net::{SILENCE, TcpServer, UdpServer, ask, connect, exchange_line, udp_socket},
    netfw::Netfw,
    rules,
    scenario::{one_armed, two_armed},
    wait,
};

const RULES: &str = r#"
[masquerade]
from = ["lan"]

[[port-forward]]
name = "range"
protocol = ["tcp", "udp"]
port = "7000-7099"
to = "worker1:7000-7099"
"#;

/// A way out of the LAN: the worker's next hop, the one after it, and the client.
const OUT: [(&str, &str, &str); 2] =
    [("192.168.80.2", "192.0.2.254", "203.0.113.10"), ("fd00:80::2", "2001:db8::fe", "2001:db8:1::10")];
/// A way in: the client's next hop, and the master.
const IN: [(&str, &str); 2] = [("203.0.113.1", "192.0.2.1"), ("2001:db8:1::1", "2001:db8::1")];

/// A worker, the master as the outside knows it, and the client, as they stand before a port.
const ENDS: [(&str, &str, &str); 2] =
    [("192.168.80.3", "192.0.2.1", "203.0.113.10"), ("[fd00:80::3]", "[2001:db8::1]", "[2001:db8:1::10]")];

/// Each hop once, by UDP, ICMP and TCP.
#[test]
fn traceroute_from_the_lan() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        netfw.expect_drops("ttl-exceeded", 1..);
        for (first, second, client) in OUT {
            for method in ["--udp", "--icmp", "--tcp"] {
                expect_hops(lab, "worker1", &[method, client], &[first, second, client])?;
            }
        }
        Ok(())
    })
}

/// The worker behind the forward is the hop after the master, under the master's name.
#[test]
fn traceroute_through_a_port_forward() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        netfw.expect_drops("ttl-exceeded", 1..);
        for (first, master) in IN {
            for method in ["--udp", "--tcp"] {
                let words = [method, "--port=7000", master];
                expect_hops(lab, "client", &words, &[first, master, master])?;
            }
        }
        Ok(())
    })
}

/// The same where the worker is reached through the interface that the probe came in on.
#[test]
fn traceroute_with_one_arm() -> Result<()> {
    one_armed(&rules::one_armed(RULES), |lab, netfw| {
        netfw.expect_drops("ttl-exceeded", 1..);
        for (first, master) in [("203.0.113.1", "192.168.80.2"), ("2001:db8:1::1", "fd00:80::2")] {
            for method in ["--udp", "--tcp"] {
                let words = [method, "--port=7000", master];
                expect_hops(lab, "client", &words, &[first, master, master])?;
            }
        }
        Ok(())
    })
}

/// A hop beyond the master is narrow: the worker is told by that hop.
#[test]
fn tracepath_from_the_lan() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        netfw.expect_drops("ttl-exceeded", 1..);
        narrow_outside(lab)?;
        OUT.iter().try_for_each(|(_, _, client)| expect_width(lab, "worker1", &[client]))
    })
}

/// The LAN is narrow: the client is told by the master.
#[test]
fn tracepath_through_a_port_forward() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        netfw.expect_drops("ttl-exceeded", 1..);
        netfw.expect_drops("too-big", 1..);
        lab.host("master").shell("ip link set eth1 mtu 1300")?;
        lab.host("worker1").shell("ip link set eth0 mtu 1300")?;
        IN.iter().try_for_each(|(_, master)| expect_width(lab, "client", &["-p", "7000", master]))?;
        restore(lab, "eth1")
    })
}

/// Large datagrams, which their senders learn to cut: of a forward's answers, and of the LAN; whole and in fragments.
/// (Scenario 10.)
#[test]
fn datagrams_through_a_narrow_hop() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        narrow_outside(lab)?;
        for (worker, master, client) in ENDS {
            let _inside = UdpServer::echo(lab.host("worker1"), &format!("{worker}:7000"))?;
            let _outside = UdpServer::echo(lab.host("client"), &format!("{client}:9"))?;
            for size in [1_400, 4_000, 60_000] {
                ask_until_answered(lab, "worker1", &format!("{client}:9"), size)?;
                ask_until_answered(lab, "client", &format!("{master}:7000"), size)?;
            }
        }
        Ok(())
    })
}

/// ICMP gets lost and the outside is narrower than its other hosts believe: TCP goes through all the same, because
/// neither end sends segments that don't fit.
#[test]
fn the_segment_size_fits_without_icmp() -> Result<()> {
    each_way_of_narrowness(|lab, netfw| {
        netfw.start()?;
        for (worker, master, client) in ENDS {
            let _inside = TcpServer::echo(lab.host("worker1"), &format!("{worker}:7000"))?;
            let _outside = TcpServer::echo(lab.host("client"), &format!("{client}:9"))?;
            for (from, to) in [("client", format!("{master}:7000")), ("worker2", format!("{client}:9"))] {
                let mut stream = connect(lab.host(from), &to)?;
                exchange_line(&mut stream, &[b'x'; 200_000]).with_context(|| format!("{from} to {to}"))?;
            }
        }
        Ok(())
    })
}

/// The LAN is narrower than the outside, or the other way round, and only ICMP tells: files arrive as they were sent. (Scenario 13.)
#[test]
fn files_between_different_widths() -> Result<()> {
    for &engine in Engine::chosen()? {
        for (interface, neighbours) in [("eth1", &["worker1", "worker2"][..]), ("eth0", &["internet"])] {
            let lab = Lab::two_armed(engine)?;
            lab.host("master").shell(&format!("ip link set {interface} mtu 1300"))?;
            for neighbour in neighbours {
                lab.host(neighbour).shell("ip link set eth0 mtu 1300")?;
            }
            let rules = format!("{RULES}[engine]\nmode = \"{engine}\"\nmss-clamp = false\n");
            let netfw = Netfw::up(&lab, &rules::two_armed(&rules))?;
            netfw.expect_drops("too-big", ..);
            files_both_ways(&lab).with_context(|| format!("engine {engine}, narrow {interface}"))?;
            netfw.finish()?;
        }
    }
    Ok(())
}

/// A file through the forward and one through the masquerade, and back.
fn files_both_ways(lab: &Lab) -> Result<()> {
    let file: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (worker, master, client) in ENDS {
        let _inside = TcpServer::echo(lab.host("worker1"), &format!("{worker}:7000"))?;
        let _outside = TcpServer::echo(lab.host("client"), &format!("{client}:9"))?;
        for (from, to) in [("client", format!("{master}:7000")), ("worker2", format!("{client}:9"))] {
            let mut stream = connect(lab.host(from), &to)?;
            exchange_line(&mut stream, &file).with_context(|| format!("{from} to {to}"))?;
        }
    }
    Ok(())
}

/// The master knows of the narrow hop by its interface, or by a route.
fn each_way_of_narrowness(story: impl Fn(&Lab, &Netfw<'_>) -> Result<()>) -> Result<()> {
    for &engine in Engine::chosen()? {
        for by_route in [false, true] {
            let lab = Lab::two_armed(engine)?;
            if by_route {
                lab.host("internet").shell("ip link set eth0 mtu 1300")?;
                lab.host("master").shell(
                    "ip route change default via 192.0.2.254 mtu lock 1300; \
                     ip -6 route change default via 2001:db8::fe mtu lock 1300",
                )?;
            } else {
                lab.host("master").shell("ip link set eth0 mtu 1300")?;
            }
            for host in ["internet", "client", "worker1", "worker2"] {
                lab.host(host).shell(
                    "nft 'add table inet deaf; add chain inet deaf in { type filter hook prerouting priority -300; }; \
                     add chain inet deaf out { type filter hook output priority -300; }'; \
                     for chain in in out; do nft add rule inet deaf $chain icmp type destination-unreachable drop; \
                     nft add rule inet deaf $chain icmpv6 type packet-too-big drop; done",
                )?;
            }
            let netfw = Netfw::prepare(&lab, &rules::two_armed(RULES))?;
            story(&lab, &netfw).with_context(|| format!("engine {engine}, by route: {by_route}"))?;
            netfw.finish().with_context(|| format!("engine {engine}, by route: {by_route}"))?;
        }
    }
    Ok(())
}

/// The link between the internet and the client carries 1300 bytes.
fn narrow_outside(lab: &Lab) -> Result<()> {
    lab.host("internet").shell("ip link set eth1 mtu 1300")?;
    lab.host("client").shell("ip link set eth0 mtu 1300")?;
    Ok(())
}

/// The master's interface as it was.
fn restore(lab: &Lab, interface: &str) -> Result<()> {
    lab.host("master").shell(&format!("ip link set {interface} mtu 1500")).map(drop)
}

fn expect_hops(lab: &Lab, from: &str, words: &[&str], hops: &[&str]) -> Result<()> {
    let start = ["traceroute", "-n", "--queries=1", "--wait=5", "--max-hops=6"];
    let told = lab.host(from).run(start.iter().chain(words))?.success()?;
    let found: Vec<_> = told.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    ensure!(found == hops, "traceroute {words:?} from {from}:\n{told}");
    Ok(())
}

fn expect_width(lab: &Lab, from: &str, words: &[&str]) -> Result<()> {
    let told = lab.host(from).run(["tracepath", "-n"].iter().chain(words))?.success()?;
    ensure!(
        told.contains("pmtu 1300") && told.contains("reached"),
        "tracepath {words:?} from {from}:\n{told}"
    );
    Ok(())
}

fn ask_until_answered(lab: &Lab, from: &str, to: &str, size: usize) -> Result<()> {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = udp_socket(lab.host(from), any)?;
    let payload: Vec<_> = (0..size).map(|n| (n / 7) as u8).collect();
    wait::until(&format!("{size} bytes from {from} to {to} and back"), || {
        socket.set_read_timeout(Some(SILENCE)).ok()?;
        ask(&socket, to, &payload).ok()
    })
}
