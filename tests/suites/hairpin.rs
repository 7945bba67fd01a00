//! Scenario 6: from the LAN to the master's outside address and back into the LAN.

use anyhow::Result;
use netfw_tests::{
    net::{TcpServer, UdpServer, ask, connect, exchange_line, udp_socket},
    rules,
    scenario::two_armed,
};

const RULES: &str = r#"
[[port-forward]]
name = "echo"
protocol = ["tcp", "udp"]
port = "7000-7009"
to = "worker1:1000-1009"
"#;

const FAMILIES: [(&str, &str, &str); 2] =
    [("192.168.80", "192.0.2.1", "192.168.80.2"), ("fd00:80:", "2001:db8::1", "fd00:80::2")];

/// The server is another host: it answers through the master, so the caller sees the address that it called.
#[test]
fn a_worker_reaches_another_through_the_outside_address() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        for port in [1000_u16, 1009] {
            call(lab, "worker2", port)?;
        }
        Ok(())
    })
}

/// The server is the caller itself.
#[test]
fn a_worker_reaches_itself_through_the_outside_address() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| call(lab, "worker1", 1000))
}

fn call(lab: &netfw_tests::lab::Lab, caller: &str, port: u16) -> Result<()> {
    for (lan, outside, master) in FAMILIES {
        let v6 = lan.contains(':');
        let (inside, dialled, any) = if v6 {
            (format!("[{lan}:3]:{port}"), format!("[{outside}]:{}", port + 6000), "[::]:0")
        } else {
            (format!("{lan}.3:{port}"), format!("{outside}:{}", port + 6000), "0.0.0.0:0")
        };
        let tcp = TcpServer::echo(lab.host("worker1"), &inside)?;
        let udp = UdpServer::echo(lab.host("worker1"), &inside)?;
        exchange_line(&mut connect(lab.host(caller), &dialled)?, b"hello")?;
        ask(&udp_socket(lab.host(caller), any)?, &dialled, b"hello")?;
        let peers: Vec<_> = tcp.peers().into_iter().chain(udp.peers()).collect();
        assert_eq!(peers.len(), 2, "no loop, nothing twice");
        for peer in peers {
            assert_eq!(peer.ip(), master.parse::<std::net::IpAddr>()?, "answers go through the master");
        }
    }
    Ok(())
}
