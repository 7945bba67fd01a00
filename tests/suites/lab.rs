//! The lab by itself, without netfw: what the other suites stand on.

use anyhow::Result;
use netfw_tests::lab::{Engine, Lab};

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
