//! Ports of the master that lead to workers: who sees what, and what is counted.

use anyhow::{Result, ensure};
use netfw_tests::{
    net::{
        RawPort, Reception, TcpServer, UdpServer, ask, connect, connect_from, exchange_line, knock_tcp,
        udp_socket,
    },
    netfw::Count,
    rules,
    scenario::{one_armed, two_armed},
};

const ECHO: &str = r#"
[[port-forward]]
name = "echo"
protocol = ["tcp", "udp"]
port = 7000
to = "worker1:7"
"#;

/// Scenario 1, UDP over IPv4 and IPv6: addresses on both sides, counters to the packet and byte.
#[test]
fn udp_is_translated_and_counted_exactly() -> Result<()> {
    let families = [
        ("203.0.113.10:4000", "192.0.2.1:7000", "192.168.80.3:7", 28),
        ("[2001:db8:1::10]:4000", "[2001:db8::1]:7000", "[fd00:80::3]:7", 48),
    ];
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        for (client, outside, inside, headers) in families {
            let server = UdpServer::echo(lab.host("worker1"), inside)?;
            let socket = udp_socket(lab.host("client"), client)?;
            let before = netfw.counters()?;
            for _ in 0..10 {
                ask(&socket, outside, &[0x5a; 101])?;
            }
            assert_eq!(server.peers(), [client.parse()?; 10], "the worker sees the client itself");
            let moved = netfw.counters()?.since(&before);
            let ten = Count::of(10, headers + 101);
            moved.expect("port_forwards.echo.to_target", ten)?;
            moved.expect("port_forwards.echo.from_target", ten)?;
            moved.expect("interfaces.eth0.forwarded", ten)?;
            moved.expect("interfaces.eth1.forwarded", ten)?;
            assert_eq!(moved.number("port_forwards.echo.flows_opened"), 1);
        }
        Ok(())
    })
}

/// Scenario 1, TCP: netfw counts as many packets as the worker's own kernel does.
#[test]
fn tcp_is_translated_and_counted() -> Result<()> {
    let families = [
        ("203.0.113.10:4000", "192.0.2.1:7000", "192.168.80.3:7"),
        ("[2001:db8:1::10]:4000", "[2001:db8::1]:7000", "[fd00:80::3]:7"),
    ];
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let segments = || -> Result<Vec<u64>> {
            let line = lab.host("worker1").shell("grep '^Tcp: [0-9]' /proc/self/net/snmp")?;
            Ok(line.split(' ').skip(10).take(2).filter_map(|word| word.parse().ok()).collect())
        };
        for (client, outside, inside) in families {
            let server = TcpServer::echo(lab.host("worker1"), inside)?;
            let (before, seen) = (netfw.counters()?, segments()?);
            let mut stream = connect_from(lab.host("client"), client, outside)?;
            for _ in 0..10 {
                exchange_line(&mut stream, b"some words")?;
            }
            assert_eq!(server.peers(), [client.parse()?], "the worker sees the client itself");
            // The client's last acknowledgement may be on its way: wait until both have seen it.
            netfw_tests::wait::until("equal numbers of segments", || {
                let (moved, now) = (netfw.counters().ok()?.since(&before), segments().ok()?);
                let counted =
                    ["to_target", "from_target"].map(|way| moved.count(&format!("port_forwards.echo.{way}")));
                let kernel = [now[0] - seen[0], now[1] - seen[1]];
                (counted.map(|count| count.packets) == kernel).then_some(())
            })?;
        }
        Ok(())
    })
}

/// Scenario 1: who isn't the target sees nothing of it.
#[test]
fn bystanders_see_nothing() -> Result<()> {
    const WORD: &[u8] = b"a very private word";
    two_armed(&rules::two_armed(ECHO), |lab, _| {
        let ports = ["worker2", "stranger"].map(|host| RawPort::open(lab.host(host), "eth0"));
        for (inside, client, outside) in [
            ("192.168.80.3:7", "203.0.113.10:4000", "192.0.2.1:7000"),
            ("[fd00:80::3]:7", "[2001:db8:1::10]:4000", "[2001:db8::1]:7000"),
        ] {
            let _server = UdpServer::echo(lab.host("worker1"), inside)?;
            ask(&udp_socket(lab.host("client"), client)?, outside, WORD)?;
        }
        for port in ports {
            port?.expect_none("the private word", |frame| {
                frame.windows(WORD.len()).any(|window| window == WORD).then_some(())
            })?;
        }
        Ok(())
    })
}

/// Scenario 3: two targets answer one socket of the client's from the same port, and one target answers it through two ports of
/// the master: each answer comes from the port that was asked.
#[test]
fn answers_that_look_alike() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [[port-forward]]
        name = "each"
        protocol = ["tcp", "udp"]
        port = "7001-7002"
        to = ["worker1:7", "worker2:7"]
        spread = "one-to-one"

        [[port-forward]]
        name = "same"
        protocol = ["tcp", "udp"]
        port = "7003-7004"
        to = "worker3:7"
        "#,
    );
    let families = [
        ("203.0.113.10:4000", "192.0.2.1", ["192.168.80.3:7", "192.168.80.4:7", "192.168.80.5:7"]),
        ("[2001:db8:1::10]:4000", "[2001:db8::1]", ["[fd00:80::3]:7", "[fd00:80::4]:7", "[fd00:80::5]:7"]),
    ];
    two_armed(&rules, |lab, _| {
        for (client, outside, inside) in families {
            let mut servers = Vec::new();
            for (worker, address) in ["worker1", "worker2", "worker3"].iter().zip(inside) {
                let host = lab.host(worker);
                servers.push((UdpServer::echo(host, address)?, TcpServer::echo(host, address)?));
            }
            let asked = [7001, 7002, 7003, 7004].map(|port| format!("{outside}:{port}"));
            let socket = udp_socket(lab.host("client"), client)?;
            let mut streams = Vec::new();
            for to in &asked {
                streams.push(connect_from(lab.host("client"), client, to)?);
            }
            for _ in 0..3 {
                for (to, stream) in asked.iter().zip(&mut streams) {
                    ask(&socket, to, to.as_bytes())?;
                    exchange_line(stream, to.as_bytes())?;
                }
            }
            let seen = servers[2].0.peers();
            ensure!(seen.iter().any(|peer| *peer != seen[0]), "worker3 cannot tell two conversations apart");
        }
        Ok(())
    })
}

/// A range keeps or shifts its places; one-to-one gives each target its port.
#[test]
fn ranges_shift_and_spread() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [[port-forward]]
        name = "shifted"
        protocol = "udp"
        port = "4040-4049"
        to = "worker1:5040-5049"

        [[port-forward]]
        name = "spread"
        protocol = "udp"
        port = ["2201-2202", 2210]
        to = ["worker1:22", "worker2:22", "worker3:23"]
        spread = "one-to-one"
        "#,
    );
    let cases = [
        (4040, "worker1", "192.168.80.3:5040"),
        (4049, "worker1", "192.168.80.3:5049"),
        (2201, "worker1", "192.168.80.3:22"),
        (2202, "worker2", "192.168.80.4:22"),
        (2210, "worker3", "192.168.80.5:23"),
    ];
    two_armed(&rules, |lab, netfw| {
        for (port, worker, inside) in cases {
            let server = UdpServer::echo(lab.host(worker), inside)?;
            ask(&udp_socket(lab.host("client"), "203.0.113.10:0")?, &format!("192.0.2.1:{port}"), b"there?")?;
            ensure!(server.peers().len() == 1, "port {port} did not reach {inside}");
        }
        netfw.expect_drops("policy-input", 1..);
        assert_eq!(knock_tcp(lab.host("client"), "192.0.2.1:2203")?, Reception::Silence);
        Ok(())
    })
}

/// Several targets share the flows: in turn, by source, by chance.
#[test]
fn targets_share_the_flows() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [[port-forward]]
        name = "turns"
        protocol = "tcp"
        port = 7001
        to = ["worker1:7", "worker2:7"]

        [[port-forward]]
        name = "source"
        protocol = "tcp"
        port = 7002
        to = ["worker1:7", "worker2:7"]
        balance = "source-hash"

        [[port-forward]]
        name = "chance"
        protocol = "tcp"
        port = 7003
        to = ["worker1:7", "worker2:7"]
        balance = "random"
        "#,
    );
    two_armed(&rules, |lab, _| {
        let servers = [
            TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?,
            TcpServer::echo(lab.host("worker2"), "192.168.80.4:7")?,
        ];
        let shares = |port: u16, flows: usize| -> Result<[usize; 2]> {
            let before = [0, 1].map(|index: usize| servers[index].peers().len());
            for _ in 0..flows {
                exchange_line(&mut connect(lab.host("client"), &format!("192.0.2.1:{port}"))?, b"hello")?;
            }
            Ok([0, 1].map(|index: usize| servers[index].peers().len() - before[index]))
        };
        assert_eq!(shares(7001, 10)?, [5, 5], "in turn");
        let by_source = shares(7002, 10)?;
        assert!(by_source == [10, 0] || by_source == [0, 10], "one source, one target: {by_source:?}");
        // A fair coin shows one side only once in 2^39 times.
        assert!(shares(7003, 40)?.iter().all(|share| *share > 0), "by chance");
        Ok(())
    })
}

/// `from`, `address` and the rest of the world: what a forward does not want is judged by chain input.
#[test]
fn who_is_not_meant_is_judged_by_input() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [[port-forward]]
        name = "office only"
        protocol = "tcp"
        port = 7001
        to = "worker1:7"
        from = ["office"]

        [[port-forward]]
        name = "one address"
        protocol = "tcp"
        port = 7002
        to = "worker1:7"
        address = "192.0.2.1"
        "#,
    );
    two_armed(&rules, |lab, netfw| {
        let _server = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        lab.host("master").shell("ip address add 192.0.2.9/24 dev eth0")?;
        netfw.expect_drops("policy-input", 2..);
        assert_eq!(knock_tcp(lab.host("client"), "192.0.2.1:7001")?, Reception::Welcome);
        assert_eq!(knock_tcp(lab.host("stranger"), "192.0.2.1:7001")?, Reception::Silence);
        assert_eq!(knock_tcp(lab.host("stranger"), "192.0.2.1:7002")?, Reception::Welcome);
        assert_eq!(knock_tcp(lab.host("client"), "192.0.2.9:7002")?, Reception::Silence);
        lab.host("master").shell("ip address del 192.0.2.9/24 dev eth0")?;
        Ok(())
    })
}

/// A target may be the master itself.
#[test]
fn a_forward_to_the_master_itself() -> Result<()> {
    let rules = rules::two_armed(
        "[[port-forward]]\nname = \"own\"\nprotocol = [\"tcp\", \"udp\"]\nport = 7000\nto = \"master:7\"\n",
    );
    two_armed(&rules, |lab, _| {
        for (inside, outside) in
            [("192.168.80.2:7", "192.0.2.1:7000"), ("[fd00:80::2]:7", "[2001:db8::1]:7000")]
        {
            let server = TcpServer::echo(lab.host("master"), inside)?;
            exchange_line(&mut connect(lab.host("client"), outside)?, b"hello")?;
            assert_eq!(server.peers().len(), 1);
        }
        let _server = UdpServer::echo(lab.host("master"), "192.168.80.2:7")?;
        ask(&udp_socket(lab.host("client"), "203.0.113.10:0")?, "192.0.2.1:7000", b"hello")
    })
}

/// Scenario 7: one interface for everything, the workers' gateway being someone else.
#[test]
fn one_arm_answers_through_the_master() -> Result<()> {
    one_armed(&rules::one_armed(ECHO), |lab, _| {
        for (outside, inside, master) in [
            ("192.168.80.2:7000", "192.168.80.3:7", "192.168.80.2"),
            ("[fd00:80::2]:7000", "[fd00:80::3]:7", "fd00:80::2"),
        ] {
            let tcp = TcpServer::echo(lab.host("worker1"), inside)?;
            let udp = UdpServer::echo(lab.host("worker1"), inside)?;
            exchange_line(&mut connect(lab.host("client"), outside)?, b"hello")?;
            let any = if inside.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            ask(&udp_socket(lab.host("client"), any)?, outside, b"hello")?;
            for peer in tcp.peers().into_iter().chain(udp.peers()) {
                assert_eq!(peer.ip(), master.parse::<std::net::IpAddr>()?, "the worker answers the master");
            }
        }
        Ok(())
    })
}

/// A target whose machine is off: when the kernel has given it up, the client is told.
#[test]
fn whoever_calls_an_absent_target_is_told() -> Result<()> {
    let absent = ECHO.replace("worker1:7", "192.168.80.99:7")
        + &ECHO.replace("worker1:7", "[fd00:80::99]:7").replace("echo", "six");
    two_armed(&rules::two_armed(&absent), |lab, _| {
        // Three questions, as always, but within a second.
        for family in ["ipv4", "ipv6"] {
            let interval = format!("net.{family}.neigh.eth1.retrans_time_ms=50");
            lab.host("master").run(["sysctl", "-w", &interval])?.success()?;
        }
        for outside in ["192.0.2.1:7000", "[2001:db8::1]:7000"] {
            assert_eq!(knock_tcp(lab.host("client"), outside)?, Reception::Unreachable, "{outside}");
        }
        Ok(())
    })
}

/// A port-forward's own `idle-timeout` ends its conversations, and no others.
#[test]
fn each_forward_has_its_own_patience() -> Result<()> {
    const BRIEF: &str = "[[port-forward]]\nname = \"brief\"\nprotocol = \"udp\"\nport = 7001\nto = \"worker1:7\"\n\
                         idle-timeout = \"2s\"\n";
    two_armed(&rules::two_armed(&format!("{ECHO}{BRIEF}")), |lab, netfw| {
        let mut servers = Vec::new();
        for (inside, any, outside) in
            [("192.168.80.3:7", "0.0.0.0:0", "192.0.2.1"), ("[fd00:80::3]:7", "[::]:0", "[2001:db8::1]")]
        {
            servers.push(UdpServer::echo(lab.host("worker1"), inside)?);
            for port in [7000, 7001] {
                let socket = udp_socket(lab.host("client"), any)?;
                for _ in 0..3 {
                    ask(&socket, &format!("{outside}:{port}"), b"a conversation")?;
                }
            }
        }
        let left = netfw_tests::wait::until("the brief ones to be over", || {
            let flows = netfw.flows().ok()?;
            flows.iter().all(|flow| flow["port_forward"] == "echo").then_some(flows.len())
        })?;
        assert_eq!(left, 2, "the other's are left");
        Ok(())
    })
}
