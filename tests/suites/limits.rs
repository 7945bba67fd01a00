//! Scenario 22: rate limits of rules, with real packets and the real clock, from several hosts at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use netfw_tests::{
    lab::Lab,
    net::udp_socket,
    netfw::{Counters, Netfw},
    rules,
    scenario::two_armed,
};

/// So long the limits must hold to within 5 %.
const LONG: Duration = Duration::from_secs(10);
/// Flows a second.
const RATE: f64 = 200.0;
/// Flows at once: two seconds' worth, because a bucket that is full gains nothing while its sender waits for a processor.
const BURST: f64 = 400.0;

/// Sends datagrams that are each a flow of their own, for so long and as fast as it goes; how long it took.
fn flood(lab: &Lab, host: &str, local: &str, to: &str) -> Result<Duration> {
    let socket = udp_socket(lab.host(host), local)?;
    let start = Instant::now();
    for port in (1..=u16::MAX).cycle() {
        // A closed port may be told about by the next call.
        let _ = socket.send_to(b"flood", (to, port));
        if start.elapsed() >= LONG {
            break;
        }
    }
    Ok(start.elapsed())
}

/// Two hosts flood the master at once, on two interfaces and in the two families; how many flows were admitted, and for how long it
/// went.
fn flood_twice(lab: &Lab, netfw: &Netfw<'_>) -> Result<(f64, f64)> {
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(|| flood(lab, "worker1", "0.0.0.0:0", "192.168.80.2"));
        (flood(lab, "client", "[::]:0", "2001:db8::1"), other.join())
    });
    let other = other.map_err(|_| anyhow::anyhow!("the other host panicked"))??;
    let counters: Counters = netfw.counters()?;
    let decided = counters.number("rules.limited.matched.packets");
    let dropped = counters.drops("rate-limited");
    ensure!(dropped > decided / 2, "no flood: {counters}");
    Ok(((decided - dropped) as f64, one?.max(other).as_secs_f64()))
}

fn expect_flows(per: &str, buckets: f64) -> Result<()> {
    let rules = rules::two_armed(&format!(
        "[[rule]]\nname = \"limited\"\naction = \"accept\"\nprotocol = \"udp\"\n\
         limit = {{ rate = \"{RATE}/second\", burst = {BURST}, per = \"{per}\" }}\n"
    ));
    two_armed(&rules, |lab, netfw| {
        netfw.expect_drops("rate-limited", 1..);
        let (admitted, seconds) = flood_twice(lab, netfw)?;
        let (steady, expected) = (admitted - buckets * BURST, buckets * RATE * seconds);
        println!("{steady} flows admitted after the burst in {seconds} s, {expected} expected");
        ensure!((steady / expected - 1.0).abs() < 0.05, "{steady} flows admitted, {expected} expected");
        Ok(())
    })
}

/// One bucket, exact to within 5 % however many cores draw from it. (Scenario 22.)
#[test]
fn one_limit_for_all() -> Result<()> {
    expect_flows("rule", 1.0)
}

/// A bucket for each source. (Scenario 22.)
#[test]
fn a_limit_for_each_source() -> Result<()> {
    expect_flows("source", 2.0)
}
