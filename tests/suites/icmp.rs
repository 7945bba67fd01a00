//! Scenarios 10 and 11: ICMP errors find the flow they are about, and path-MTU discovery works through the master.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::Lab,
    net::{Reception, TcpServer, connect, exchange_line, knock_tcp, knock_udp, udp_socket},
    rules,
    scenario::two_armed,
    wait,
};

const RULES: &str = r#"
[masquerade]
from = ["lan"]

[[port-forward]]
name = "port"
protocol = ["tcp", "udp"]
port = 7000
to = "worker1:7"
"#;

/// Nobody listens on the worker, or on the host outside: the caller hears it from the address that it called.
#[test]
fn port_unreachable_reaches_the_caller() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        for (outside, client) in [("192.0.2.1", "203.0.113.10"), ("[2001:db8::1]", "[2001:db8:1::10]")] {
            assert_eq!(knock_udp(lab.host("client"), &format!("{outside}:7000"))?, Reception::Refused);
            assert_eq!(knock_udp(lab.host("worker1"), &format!("{client}:9"))?, Reception::Refused);
            assert_eq!(knock_tcp(lab.host("client"), &format!("{outside}:7000"))?, Reception::Refused);
        }
        Ok(())
    })
}

/// A router far outside refuses a masqueraded flow: its error reaches the worker.
#[test]
fn errors_of_routers_on_the_way_reach_the_worker() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        lab.host("internet")
            .shell("ip route add prohibit 203.0.113.77; ip route add prohibit 2001:db8:1::77")?;
        for far in ["203.0.113.77:9", "[2001:db8:1::77]:9"] {
            assert_eq!(knock_udp(lab.host("worker1"), far)?, Reception::Unreachable, "{far}");
        }
        Ok(())
    })
}

/// Scenario 10: too big for a link outside; the worker that sent it learns the size, whether it asked or answered.
#[test]
fn a_worker_learns_the_path_mtu() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        narrow(lab)?;
        for (client, any) in [("203.0.113.10", "0.0.0.0"), ("2001:db8:1::10", "[::]")] {
            let to = SocketAddr::new(client.parse()?, 9);
            let socket = udp_socket(lab.host("worker1"), &format!("{any}:0"))?;
            wait::until("worker1 to know the path MTU", || {
                socket.send_to(&[0; 1400], to).ok()?;
                let route = lab.host("worker1").shell(&format!("ip route get {client}")).ok()?;
                route.contains("mtu 1300").then_some(())
            })?;
            let ping = lab.host("worker2").run(["ping", "-Mdo", "-c2", "-W2", "-s1400", client])?;
            ensure!(format!("{}{}", ping.stdout, ping.stderr).contains("1300"), "{ping:?}");
            lab.host("worker2").run(["ping", "-Mdo", "-c1", "-W5", "-s1200", client])?.success()?;
        }
        Ok(())
    })
}

/// Scenario 11: bulk TCP in both directions through a hop of 1300 bytes, for a forward and for the masquerade.
#[test]
fn tcp_fits_a_narrow_hop() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        narrow(lab)?;
        for (worker, master, client) in [
            ("192.168.80.3", "192.0.2.1", "203.0.113.10"),
            ("[fd00:80::3]", "[2001:db8::1]", "[2001:db8:1::10]"),
        ] {
            let _inside = TcpServer::echo(lab.host("worker1"), &format!("{worker}:7"))?;
            let _outside = TcpServer::echo(lab.host("client"), &format!("{client}:9"))?;
            for (from, to) in [("client", format!("{master}:7000")), ("worker2", format!("{client}:9"))] {
                let mut stream = connect(lab.host(from), &to)?;
                exchange_line(&mut stream, &[b'x'; 60_000]).with_context(|| format!("{from} to {to}"))?;
            }
        }
        Ok(())
    })
}

/// The link between the internet and the client carries 1300 bytes.
fn narrow(lab: &Lab) -> Result<()> {
    lab.host("internet").shell("ip link set eth1 mtu 1300")?;
    lab.host("client").shell("ip link set eth0 mtu 1300")?;
    Ok(())
}
