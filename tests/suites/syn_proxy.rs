//! Scenario 29: a flood of SYNs from sources that are not there, through a port-forward with `syn-proxy`, beside people who are.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use netfw_tests::{
    lab::{Host, Lab, command},
    net::{RawPort, TcpServer, connect, exchange_line, frame},
    netfw::Netfw,
    rules,
    scenario::two_armed,
    wait,
};
use serde_json::{Value, json};

/// A table so small that every flood is too much for it.
const RULES: &str = "[flows]\ncapacity = 1024\n\n\
    [[port-forward]]\nname = \"echo\"\nprotocol = \"tcp\"\nport = 7001\nto = \"worker1:7\"\nsyn-proxy = \"auto\"\n";
/// Where the clients call, and where they arrive.
const DOORS: [(&str, &str); 2] =
    [("192.0.2.1:7001", "192.168.80.3:7"), ("[2001:db8::1]:7001", "[fd00:80::3]:7")];

/// The port-forward under a flood, in both families, while `story` is told.
fn under_a_flood(lab: &Lab, netfw: &Netfw<'_>, story: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| flood(lab, &over));
        let told = wait::until("that strangers are challenged", || {
            let challenging = netfw.json("status").ok()?["challenging"].clone();
            (challenging == json!(["echo"])).then_some(())
        })
        .and_then(|()| story());
        over.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        told
    })
}

/// Sends SYNs from one made-up source after the other, as the router outside would pass them on.
fn flood(lab: &Lab, over: &AtomicBool) -> Result<()> {
    let port = RawPort::open(lab.host("internet"), "eth0")?;
    let macs = (port.mac(), lab.host("master").mac("eth0")?);
    for number in (0..1_u32 << 16).cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let v4 = (Ipv4Addr::from(0x6440_0000 | number), Ipv4Addr::new(192, 0, 2, 1));
        let v6 =
            (Ipv6Addr::from(0x2001_0db8_0005 << 80 | u128::from(number)), "2001:db8::1".parse::<Ipv6Addr>()?);
        for (from, to) in [(IpAddr::from(v4.0), IpAddr::from(v4.1)), (v6.0.into(), v6.1.into())] {
            let mut syn = Vec::new();
            frame::packet(macs, from, to, 64)?.tcp(4000, 7001, number, 64_240).syn().write(&mut syn, &[])?;
            port.send(&syn)?;
        }
    }
    Ok(())
}

/// What is sent to sources that are not there gets lost.
fn nobody_is_there(lab: &Lab) -> Result<()> {
    lab.host("internet")
        .namespace()
        .ip_batch("route add blackhole 100.64.0.0/16\nroute add blackhole 2001:db8:5::/48\n")
}

fn expected(netfw: &Netfw<'_>) {
    netfw.expect_drops("syn-challenged", 1..);
    netfw.expect_drops("challenge-met", 1..);
    // Until the table is full enough, and after the flood.
    netfw.expect_drops("flow-table-full", ..);
}

/// What becomes of the SYN of the client, who has proved to be there, and of his neighbour's, who has not.
fn explained(netfw: &Netfw<'_>, door: &str) -> Result<()> {
    let clients = match door.starts_with('[') {
        true => ["[2001:db8:1::10]:4000", "[2001:db8:1::11]:4000"],
        false => ["203.0.113.10:4000", "203.0.113.11:4000"],
    };
    let expected = [["forward", "port-forward"], ["reject", "syn-challenged"]];
    for (client, expected) in clients.into_iter().zip(expected) {
        // While an emulated processor verifies the programs that are asked, the flood pauses.
        wait::until(&format!("{client} is told {expected:?}"), || {
            let words = ["--json", "explain", "tcp", client, door, "--in", "eth0"];
            let told = netfw.command(words).ok()?.success().ok()?;
            let told: Value = serde_json::from_str(&told).ok()?;
            let step = told["steps"].as_array()?.iter().find(|step| step["step"] == "syn-proxy")?;
            println!("{client}: {}", step["outcome"]);
            ([&told["verdict"], &told["reason"]] == expected).then_some(())
        })?;
    }
    Ok(())
}

/// A conversation that begins now.
fn call(client: &Host, door: &str) -> Result<()> {
    let mut stream = connect(client, door)?;
    exchange_line(&mut stream, b"a line")
}

/// Who was there before goes on, and who comes gets in: the first time after a challenge, then at once.
#[test]
fn people_get_through_a_flood() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        nobody_is_there(lab)?;
        expected(netfw);
        let (mut servers, mut sessions) = (Vec::new(), Vec::new());
        for (door, target) in DOORS {
            servers.push(TcpServer::echo(lab.host("worker1"), target)?);
            let mut session = connect(lab.host("client"), door)?;
            exchange_line(&mut session, b"before")?;
            sessions.push(session);
        }
        under_a_flood(lab, netfw, || {
            for (door, _) in DOORS {
                let met = netfw.counters()?.drops("challenge-met");
                for attempt in 0..5 {
                    let begin = Instant::now();
                    call(lab.host("client"), door)?;
                    println!("{door}: connection {attempt} took {:?}", begin.elapsed());
                }
                let met = netfw.counters()?.drops("challenge-met") - met;
                ensure!(met == 1, "the client was challenged {met} times at {door}");
                explained(netfw, door)?;
                call(lab.host("stranger"), door)?;
            }
            sessions.iter_mut().try_for_each(|session| exchange_line(session, b"meanwhile"))
        })?;
        sessions.iter_mut().try_for_each(|session| exchange_line(session, b"afterwards"))?;
        wait::until("that nobody is challenged any more", || {
            netfw.json("status").ok()?["challenging"].as_array()?.is_empty().then_some(())
        })
    })
}

/// Behind a router that hides the office, and has its connection tracking drop whatever is not valid.
#[test]
fn connection_tracking_lets_it_through() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        nobody_is_there(lab)?;
        expected(netfw);
        lab.host("internet")
            .enter(|| command::feed(["nft", "-f", "-"], TRACKING)?.success())
            .context("connection tracking outside")?;
        let servers: Result<Vec<_>> =
            DOORS.iter().map(|(_, target)| TcpServer::echo(lab.host("worker1"), target)).collect();
        let servers = servers?;
        under_a_flood(lab, netfw, || {
            DOORS.iter().try_for_each(|(door, _)| (0..3).try_for_each(|_| call(lab.host("client"), door)))
        })?;
        let hidden = ["192.0.2.254", "2001:db8::fe"].map(str::parse::<IpAddr>);
        for (server, hidden) in servers.iter().zip(hidden) {
            let peers = server.peers();
            let hidden = hidden?;
            ensure!(peers.iter().any(|peer| peer.ip() == hidden), "nobody was hidden: {peers:?}");
        }
        Ok(())
    })
}

const TRACKING: &str = "table inet outside {
    chain hide {
        type nat hook postrouting priority srcnat;
        iifname \"eth1\" oifname \"eth0\" masquerade
    }
    chain pass {
        type filter hook forward priority filter;
        iifname \"eth0\" oifname \"eth1\" ct state invalid counter drop
        iifname \"eth1\" oifname \"eth0\" ct state invalid counter drop
    }
    chain own {
        type filter hook input priority filter;
        ct state invalid counter drop
    }
}";
