//! Scenario 25: the daemon dies, again and again; packets do not notice.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use netfw_tests::{
    lab::Lab,
    net::{TcpServer, UdpServer, ask, connect, exchange_line, udp_socket},
    netfw::Netfw,
    rules,
    scenario::two_armed,
};

const ECHO: &str =
    "[[port-forward]]\nname = \"echo\"\nprotocol = [\"tcp\", \"udp\"]\nport = 7000\nto = \"worker1:7\"\n";

/// How often the daemon is killed.
const DEATHS: usize = 100;

/// Killed a hundred times under load: no packet is lost, no connection breaks, and each `up` adopts what it finds.
#[test]
fn a_hundred_deaths_lose_nothing() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let _tcp = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let _udp = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let talking = scope.spawn(|| talk(lab, &over));
            let killed = (0..DEATHS)
                .try_for_each(|death| kill_and_adopt(netfw).with_context(|| format!("death {death}")));
            over.store(true, Ordering::Relaxed);
            let exchanges = talking.join().map_err(|_| anyhow!("the talkers panicked"))??;
            killed?;
            ensure!(exchanges > DEATHS, "only {exchanges} exchanges: no load worth the name");
            let flows = netfw.flows()?.len();
            ensure!(flows == 2, "two conversations are {flows} flows");
            Ok(())
        })
    })
}

/// One connection and one stream of datagrams; each word must come back.
fn talk(lab: &Lab, over: &AtomicBool) -> Result<usize> {
    let mut stream = connect(lab.host("client"), "192.0.2.1:7000")?;
    let socket = udp_socket(lab.host("client"), "203.0.113.10:4000")?;
    let mut exchanges = 0;
    while !over.load(Ordering::Relaxed) {
        exchange_line(&mut stream, b"still there?")?;
        ask(&socket, "192.0.2.1:7000", b"still there?")?;
        exchanges += 1;
    }
    Ok(exchanges)
}

fn kill_and_adopt(netfw: &Netfw<'_>) -> Result<()> {
    netfw.kill()?;
    netfw.json("status").context("status with the daemon dead")?;
    netfw.start()
}

/// Flows that the table of this test holds.
const CAPACITY: usize = 1024;

/// The daemon is dead, and ten times the capacity in short connections comes by: each finds room.
#[test]
fn short_connections_find_room_without_a_daemon() -> Result<()> {
    let rules = rules::two_armed(&format!("{ECHO}[flows]\ncapacity = {CAPACITY}\n"));
    two_armed(&rules, |lab, netfw| {
        let _tcp = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let mut lasting = connect(lab.host("client"), "192.0.2.1:7000")?;
        exchange_line(&mut lasting, b"from the beginning")?;
        netfw.kill()?;
        for number in 0..10 * CAPACITY {
            let word = || format!("connection {number}");
            let mut stream = connect(lab.host("client"), "192.0.2.1:7000").with_context(word)?;
            exchange_line(&mut stream, b"hello").with_context(word)?;
        }
        exchange_line(&mut lasting, b"to the end").context("the one that lasted")?;
        netfw.start()
    })
}

/// The same with datagrams, each from a port of its own, and none of them ever closed.
#[test]
fn datagrams_find_room_without_a_daemon() -> Result<()> {
    let rules = rules::two_armed(&format!("{ECHO}[flows]\ncapacity = {CAPACITY}\n"));
    two_armed(&rules, |lab, netfw| {
        let _udp = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        netfw.kill()?;
        for number in 0..10 * CAPACITY {
            let socket = udp_socket(lab.host("client"), "0.0.0.0:0")?;
            ask(&socket, "192.0.2.1:7000", b"hello").with_context(|| format!("datagram {number}"))?;
        }
        netfw.start()
    })
}
