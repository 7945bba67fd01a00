//! Balanced forwards follow the health of their targets.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::Lab,
    net::{Reception, TcpServer, UdpServer, ask, connect, exchange_line, knock_tcp, knock_udp, udp_socket},
    netfw::Netfw,
    rules,
    scenario::two_armed,
    wait,
};

const WORKERS: [&str; 3] = ["worker1", "worker2", "worker3"];

const FORWARDS: &str = r#"
[[port-forward]]
name = "echo"
protocol = ["tcp", "udp"]
port = 7000
to = ["worker1:7", "worker2:7", "worker3:7"]
check = { tcp = true, interval = "1s", rise = 2, fall = 2 }

[[port-forward]]
name = "kept"
protocol = "tcp"
port = 7001
to = ["worker1:7", "worker2:7", "worker3:7"]
check = { tcp = true, interval = "1s", rise = 2, fall = 2, on-down = "keep" }
"#;

/// Addresses as they stand before a port.
struct Family {
    workers: [&'static str; 3],
    master: &'static str,
    client: &'static str,
}

const V4: Family = Family {
    workers: ["192.168.80.3", "192.168.80.4", "192.168.80.5"],
    master: "192.0.2.1",
    client: "203.0.113.10",
};
const V6: Family = Family {
    workers: ["[fd00:80::3]", "[fd00:80::4]", "[fd00:80::5]"],
    master: "[2001:db8::1]",
    client: "[2001:db8:1::10]",
};

impl Family {
    fn at(&self, worker: &str, port: u16) -> String {
        let number = WORKERS.iter().position(|name| *name == worker).expect("a worker");
        format!("{}:{port}", self.workers[number])
    }

    fn echo(&self, lab: &Lab, worker: &str) -> Result<TcpServer> {
        TcpServer::echo(lab.host(worker), &self.at(worker, 7))
    }

    fn serve(&self, lab: &Lab, workers: &[&'static str]) -> Result<Servers> {
        workers.iter().map(|&worker| Ok((worker, self.echo(lab, worker)?))).collect()
    }

    /// The targets of a forward in this state, by `status`.
    fn in_state(&self, netfw: &Netfw<'_>, forward: &str, state: &str) -> Result<Vec<String>> {
        let status = netfw.json("status")?;
        let targets = status["targets"].as_array().context("a list of targets")?;
        let wanted =
            targets.iter().filter(|target| target["port_forward"] == forward && target["state"] == state);
        let labels = wanted.filter_map(|target| target["target"].as_str());
        let ours = |label: &&str| self.workers.iter().any(|worker| label.starts_with(worker));
        Ok(labels.filter(ours).map(str::to_owned).collect())
    }

    /// Waits until exactly these workers are in this state.
    fn expect_state(&self, netfw: &Netfw<'_>, forward: &str, state: &str, workers: &[&str]) -> Result<()> {
        let wanted: Vec<String> = workers.iter().map(|worker| self.at(worker, 7)).collect();
        wait::until(&format!("{wanted:?} to be {state}"), || {
            (self.in_state(netfw, forward, state).ok()? == wanted).then_some(())
        })
    }

    /// A connection whose other end is the server.
    fn connect_until_at(&self, lab: &Lab, port: u16, server: &TcpServer) -> Result<TcpStream> {
        for _ in 0..2 * WORKERS.len() {
            let mut stream = connect(lab.host("client"), &format!("{}:{port}", self.master))?;
            exchange_line(&mut stream, b"who is there?")?;
            if server.peers().contains(&stream.local_addr()?) {
                return Ok(stream);
            }
        }
        anyhow::bail!("no connection reached the server")
    }
}

/// The echo servers of some workers.
type Servers = Vec<(&'static str, TcpServer)>;

/// Whose server answers each of `count` new connections to `port`.
fn visited(lab: &Lab, servers: &[(&'static str, TcpServer)], count: usize) -> Result<Vec<&'static str>> {
    // Checks come from the master.
    let clients = |server: &TcpServer| {
        server.peers().iter().filter(|peer| peer.ip().to_string() == "203.0.113.10").count()
    };
    let before: Vec<usize> = servers.iter().map(|(_, server)| clients(server)).collect();
    for number in 0..count {
        let mut stream =
            connect(lab.host("client"), "192.0.2.1:7000").with_context(|| format!("{number}"))?;
        exchange_line(&mut stream, b"hello")?;
    }
    let visited = servers.iter().zip(before).filter(|((_, server), before)| clients(server) > *before);
    Ok(visited.map(|((worker, _), _)| *worker).collect())
}

/// A target dies: the others take its share, until it comes back. Nobody left: refused at once.
#[test]
fn a_dead_target_gets_no_new_flows() -> Result<()> {
    two_armed(&rules::two_armed(FORWARDS), |lab, netfw| {
        netfw.expect_drops("no-target-up", 1..);
        let mut servers = V4.serve(lab, &WORKERS)?;
        V4.expect_state(netfw, "echo", "up", &WORKERS)?;
        ensure!(visited(lab, &servers, 9)? == WORKERS, "all take part");
        servers.remove(1);
        V4.expect_state(netfw, "echo", "down", &["worker2"])?;
        ensure!(visited(lab, &servers, 9)? == ["worker1", "worker3"], "the others take over");
        let stats = netfw.json("stats")?;
        let target = &stats["port_forwards"][0]["targets"][2];
        ensure!(target["target"] == "192.168.80.4:7" && target["state"] == "down", "{target}");
        ensure!(target["last_error"] == "connection refused" && target["since"].is_string(), "{target}");
        let line = "target 192.168.80.4:7 of port-forward \"echo\" is down: connection refused";
        ensure!(netfw.log().contains(line), "the log says nothing");

        servers.insert(1, ("worker2", V4.echo(lab, "worker2")?));
        V4.expect_state(netfw, "echo", "up", &WORKERS)?;
        ensure!(visited(lab, &servers, 9)? == WORKERS, "it takes part again");

        servers.clear();
        V4.expect_state(netfw, "echo", "down", &WORKERS)?;
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7000")? == Reception::Refused);
        ensure!(knock_udp(lab.host("client"), "192.0.2.1:7000")? == Reception::Refused);
        Ok(())
    })
}

/// A target dies that still has flows: they are cut or kept as said, and no datagram stays with it. In both families.
#[test]
fn flows_of_a_dead_target_are_cut_or_kept() -> Result<()> {
    two_armed(&rules::two_armed(FORWARDS), |lab, netfw| {
        netfw.expect_drops("flow-cut", 1..);
        [V4, V6].iter().try_for_each(|family| cut_or_kept(lab, netfw, family))
    })
}

fn cut_or_kept(lab: &Lab, netfw: &Netfw<'_>, family: &Family) -> Result<()> {
    let mut servers = family.serve(lab, &WORKERS)?;
    let mut datagrams = WORKERS
        .iter()
        .map(|worker| UdpServer::echo(lab.host(worker), &family.at(worker, 7)))
        .collect::<Result<Vec<_>>>()?;
    for forward in ["echo", "kept"] {
        family.expect_state(netfw, forward, "up", &WORKERS)?;
    }
    let mut cut = family.connect_until_at(lab, 7000, &servers[1].1)?;
    let mut kept = family.connect_until_at(lab, 7001, &servers[1].1)?;
    let mut elsewhere = family.connect_until_at(lab, 7000, &servers[0].1)?;
    let sockets = WORKERS
        .iter()
        .map(|_| udp_socket(lab.host("client"), &format!("{}:0", family.client)))
        .collect::<Result<Vec<_>>>()?;
    let called = format!("{}:7000", family.master);
    sockets.iter().try_for_each(|socket| ask(socket, &called, b"hello"))?;

    // The connections that its server has already accepted go on.
    servers.remove(1);
    datagrams.remove(1);
    for forward in ["echo", "kept"] {
        family.expect_state(netfw, forward, "down", &["worker2"])?;
    }
    let end = cut.read(&mut [0; 16]).map_err(|error| error.kind());
    ensure!(end == Err(ErrorKind::ConnectionReset), "the one to the dead target ended with {end:?}");
    exchange_line(&mut kept, b"still there?").context("a connection that is to be kept")?;
    exchange_line(&mut elsewhere, b"still there?").context("a connection to another target")?;
    sockets.iter().try_for_each(|socket| ask(socket, &called, b"anybody?"))
}

/// With the daemon dead the last state stays and is told; the next daemon goes on from there.
#[test]
fn the_last_state_outlives_the_daemon() -> Result<()> {
    two_armed(&rules::two_armed(FORWARDS), |lab, netfw| {
        let mut servers = V4.serve(lab, &["worker1", "worker3"])?;
        V4.expect_state(netfw, "echo", "down", &["worker2"])?;
        V4.expect_state(netfw, "echo", "up", &["worker1", "worker3"])?;
        netfw.kill()?;
        servers.insert(1, ("worker2", V4.echo(lab, "worker2")?));
        V4.expect_state(netfw, "echo", "down", &["worker2"])?;
        ensure!(visited(lab, &servers, 6)? == ["worker1", "worker3"]);
        netfw.start()?;
        V4.expect_state(netfw, "echo", "up", &WORKERS)?;
        ensure!(visited(lab, &servers, 9)? == WORKERS);
        Ok(())
    })
}

/// Drain: no new flows, live ones go on; and back.
#[test]
fn a_target_is_drained() -> Result<()> {
    let rules = |drain: bool| {
        rules::two_armed(&format!(
            r#"
            [[port-forward]]
            name = "echo"
            protocol = "tcp"
            port = 7000
            to = ["worker1:7", {{ target = "worker2:7", drain = {drain} }}, "worker3:7"]
            check = {{ tcp = true, interval = "1s" }}
            "#
        ))
    };
    two_armed(&rules(false), |lab, netfw| {
        let servers = V4.serve(lab, &WORKERS)?;
        V4.expect_state(netfw, "echo", "up", &WORKERS)?;
        let mut live = V4.connect_until_at(lab, 7000, &servers[1].1)?;
        netfw.reload(&rules(true))?;
        ensure!(V4.in_state(netfw, "echo", "draining")? == ["192.168.80.4:7"]);
        ensure!(visited(lab, &servers, 9)? == ["worker1", "worker3"]);
        exchange_line(&mut live, b"take your time")?;
        netfw.reload(&rules(false))?;
        V4.expect_state(netfw, "echo", "up", &WORKERS)?;
        ensure!(visited(lab, &servers, 9)? == WORKERS);
        exchange_line(&mut live, b"still there")
    })
}

fn speaks_ssh(mut stream: TcpStream) {
    let _ = stream.write_all(b"SSH-2.0-lab\r\n");
}

fn says_ok(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1024]);
    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
}

fn says_error(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1024]);
    let _ = stream.write_all(b"HTTP/1.1 500 Broken\r\n\r\n");
}

/// A port that is open is not enough where a page or a banner is asked for; checks pass chain output where a rule lets
/// them.
#[test]
fn pages_and_banners_are_looked_at() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [policy]
        output = "drop"

        [[rule]]
        name = "checks"
        chain = "output"
        action = "accept"
        to = ["worker1", "worker2"]

        [[port-forward]]
        name = "page"
        protocol = "tcp"
        port = 8080
        to = ["worker1:7", "worker2:7", "worker3:7"]
        check = { http = "/health", interval = "1s", port = 80 }

        [[port-forward]]
        name = "banner"
        protocol = "tcp"
        port = 2222
        to = ["worker1:7", "worker2:7", "worker3:7"]
        check = { banner = "SSH-", interval = "1s", port = 22 }
        "#,
    );
    two_armed(&rules, |lab, netfw| {
        let serve = |worker: &str, port: u16, serve: fn(TcpStream)| {
            TcpServer::start(lab.host(worker), &V4.at(worker, port), serve)
        };
        let _servers = [
            serve("worker1", 80, says_ok)?,
            serve("worker2", 80, says_error)?,
            serve("worker3", 80, says_ok)?,
            serve("worker1", 22, says_error)?,
            serve("worker2", 22, speaks_ssh)?,
            serve("worker3", 22, speaks_ssh)?,
        ];
        netfw.expect_drops("policy-output", 1..);
        V4.expect_state(netfw, "page", "up", &["worker1"])?;
        V4.expect_state(netfw, "page", "down", &["worker2", "worker3"])?;
        V4.expect_state(netfw, "banner", "up", &["worker2"])?;
        V4.expect_state(netfw, "banner", "down", &["worker1", "worker3"])
    })
}
