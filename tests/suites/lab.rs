//! The lab by itself, without netfw: what the other suites stand on.

use anyhow::Result;
use netfw_tests::{
    lab::{Engine, Lab, namespaces},
    net::{RawPort, TcpServer, UdpServer, ask, connect_from, exchange_line, frame, udp_socket},
    ssh::{self, Key},
};

fn forward_plainly(lab: &Lab) -> Result<()> {
    lab.host("master").namespace().sysctl("net/ipv4/ip_forward", "1")?;
    lab.host("master").namespace().sysctl("net/ipv6/conf/all/forwarding", "1")
}

fn ping(lab: &Lab, from: &str, to: &str) -> Result<()> {
    lab.host(from).run(["ping", "-c1", "-W5", to])?.success().map(drop)
}

#[test]
fn every_host_of_a_two_armed_lab_is_reached() -> Result<()> {
    for engine in [Engine::Tc, Engine::Xdp] {
        let lab = Lab::two_armed(engine)?;
        forward_plainly(&lab)?;
        for last in 2..=6 {
            ping(&lab, "client", &format!("192.168.80.{last}"))?;
            ping(&lab, "stranger", &format!("fd00:80::{last}"))?;
        }
    }
    Ok(())
}

#[test]
fn every_host_of_a_one_armed_lab_is_reached() -> Result<()> {
    let lab = Lab::one_armed(Engine::Tc)?;
    for last in 2..=6 {
        ping(&lab, "client", &format!("192.168.80.{last}"))?;
        ping(&lab, "stranger", &format!("fd00:80::{last}"))?;
    }
    Ok(())
}

#[test]
fn a_master_that_nobody_told_to_forward_does_not() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let answer = lab.host("client").run(["ping", "-c1", "-W1", "192.168.80.3"])?;
    answer.expect_code(1)?;
    Ok(())
}

#[test]
fn ssh_reaches_a_worker_under_its_own_name() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    forward_plainly(&lab)?;
    let key = Key::create(&lab)?;
    let _server = ssh::serve(lab.host("worker2"), &key)?;
    assert_eq!(key.run(lab.host("client"), "192.168.80.4", 22, "hostname")?, "worker2");
    assert_eq!(key.run(lab.host("stranger"), "fd00:80::4", 22, "hostname")?, "worker2");
    Ok(())
}

#[test]
fn servers_remember_who_came() -> Result<()> {
    for engine in [Engine::Tc, Engine::Xdp] {
        let lab = Lab::two_armed(engine)?;
        forward_plainly(&lab)?;
        let udp = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let tcp = TcpServer::echo(lab.host("worker1"), "[fd00:80::3]:7")?;
        ask(&udp_socket(lab.host("client"), "203.0.113.10:4000")?, "192.168.80.3:7", b"")?;
        let mut stream = connect_from(lab.host("client"), "[2001:db8:1::10]:4001", "[fd00:80::3]:7")?;
        exchange_line(&mut stream, b"hello")?;
        assert_eq!(udp.peers(), ["203.0.113.10:4000".parse()?]);
        assert_eq!(tcp.peers(), ["[2001:db8:1::10]:4001".parse()?]);
    }
    Ok(())
}

#[test]
fn a_raw_port_sends_and_sees_frames() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let (from, to) =
        (RawPort::open(lab.host("worker1"), "eth0")?, RawPort::open(lab.host("worker2"), "eth0")?);
    let addresses = ("192.168.80.3".parse()?, "192.168.80.4".parse()?);
    let frame = frame::udp((from.mac(), to.mac()), addresses, (1000, 2000), b"odd")?;
    from.send(&frame)?;
    to.expect("the frame as it was sent", |seen| (seen == frame).then_some(()))?;
    to.expect_none("the frame a second time", |seen| (seen == frame).then_some(()))
}

#[test]
fn nothing_is_left_of_a_lab() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let name = lab.name().to_owned();
    let mut sleeper = lab.host("worker1").spawn(["sleep", "1000"])?;
    let dir = lab.dir().to_owned();
    drop(lab);
    assert_eq!(sleeper.wait()?, -1, "ended by a signal");
    assert!(!dir.exists());
    assert!(namespaces().all(|left| !left.starts_with(&name)));
    Ok(())
}
