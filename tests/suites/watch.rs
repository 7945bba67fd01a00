//! `netfw watch` and the log of rules, with real packets.

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Background, Host, Lab},
    net::{UdpServer, ask, knock_udp, udp_socket},
    netfw::Netfw,
    rules,
    scenario::two_armed,
    wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const RULES: &str = r#"
[[port-forward]]
name = "echo"
protocol = "udp"
port = 7000
to = "worker1:7"

[[rule]]
name = "asked"
action = "accept"
protocol = "udp"
port = 53
log = true
"#;

fn start(lab: &Lab, netfw: &Netfw<'_>, words: &[&str]) -> Result<Background> {
    let words = ["--json", "watch"].iter().chain(words).copied();
    lab.host("master").spawn(netfw.line(words)?)
}

/// Every line so far.
fn told(watcher: &Background) -> Vec<Value> {
    watcher.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Sends datagrams until the watcher has told of one for which `is_it` holds: it says nothing when it begins.
fn expect(watcher: &Background, from: &Host, to: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = wait::until("the event", || {
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = udp_socket(from, any).ok()?;
        socket.send_to(b"?", to).ok()?;
        told(watcher).into_iter().find(&is_it)
    });
    found.with_context(|| format!("told so far:\n{}", watcher.output()))
}

/// Drops and new flows with every name, both families; what was not asked for is not told.
#[test]
fn what_happens_is_told() -> Result<()> {
    let families = [
        ("192.0.2.1", "203.0.113.10", "192.168.80.3:7"),
        ("[2001:db8::1]", "[2001:db8:1::10]", "[fd00:80::3]:7"),
    ];
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        netfw.expect_drops("policy-input", 1..);
        let watcher = start(lab, netfw, &[])?;
        for (master, client, worker) in families {
            let from = lab.host("client");
            let drop = expect(&watcher, from, &format!("{master}:99"), |event| {
                event["event"] == "drop" && event["destination"] == format!("{master}:99")
            })?;
            assert_eq!(drop["reason"], "policy-input");
            assert_eq!((&drop["interface"], &drop["direction"]), (&"eth0".into(), &"in".into()));
            assert_eq!((&drop["protocol"], &drop["rule"]), (&"udp".into(), &Value::Null));
            let source = drop["source"].as_str().context("a source")?;
            ensure!(source.starts_with(client), "{drop}");
            let open = expect(&watcher, from, &format!("{master}:7000"), |event| {
                event["event"] == "new" && event["destination"] == format!("{master}:7000")
            })?;
            assert_eq!(
                (&open["port_forward"], &open["translated"]["destination"]),
                (&"echo".into(), &worker.into())
            );
            let ruled = expect(&watcher, from, &format!("{master}:53"), |event| {
                event["event"] == "new" && event["destination"] == format!("{master}:53")
            })?;
            assert_eq!((&ruled["rule"], &ruled["chain"]), (&"asked".into(), &"input".into()));
        }
        drop(watcher);
        let watcher = start(lab, netfw, &["--reason", "policy-input", "--from", "203.0.113.0/24"])?;
        expect(&watcher, lab.host("client"), "192.0.2.1:99", |event| event["event"] == "drop")?;
        knock_udp(lab.host("stranger"), "192.0.2.1:99")?;
        knock_udp(lab.host("client"), "192.0.2.1:53")?;
        expect(&watcher, lab.host("client"), "192.0.2.1:98", |event| event["destination"] == "192.0.2.1:98")?;
        let others = told(&watcher).into_iter().find(|event| {
            event["event"] != "drop"
                || !event["source"].as_str().is_some_and(|it| it.starts_with("203.0.113."))
        });
        assert_eq!(others, None);
        Ok(())
    })
}

/// One watcher at a time, which ends cleanly; a killed one keeps nobody out, nor does the death of the daemon.
#[test]
fn watchers_come_and_go() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        netfw.expect_drops("policy-input", 1..);
        let mut first = start(lab, netfw, &["--drops"])?;
        let dropped = |event: &Value| event["event"] == "drop";
        expect(&first, lab.host("client"), "192.0.2.1:99", dropped)?;
        let second = netfw.command(["watch"])?;
        second.expect_code(1)?;
        ensure!(second.stderr.contains(&first.pid().to_string()), "who watches? {}", second.stderr);
        first.signal(Signal::SIGTERM)?;
        ensure!(first.wait()? == 0, "the watcher failed: {}", first.output());
        netfw.kill()?;
        let mut third = start(lab, netfw, &["--drops"])?;
        expect(&third, lab.host("client"), "192.0.2.1:99", dropped)?;
        third.signal(Signal::SIGKILL)?;
        third.wait()?;
        let fourth = start(lab, netfw, &["--drops"])?;
        expect(&fourth, lab.host("client"), "192.0.2.1:99", dropped)?;
        Ok(())
    })
}

/// What comes too fast is counted, and told with the reason.
#[test]
fn a_flood_is_counted() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        netfw.expect_drops("policy-input", 1..);
        let watcher = start(lab, netfw, &["--drops"])?;
        let socket = udp_socket(lab.host("client"), "0.0.0.0:0")?;
        let left_out = wait::until("events to be left out", || {
            for _ in 0..1000 {
                // A lost datagram is none of ours.
                let _ = socket.send_to(b"flood", "192.0.2.1:99");
            }
            told(&watcher).into_iter().find(|event| event["event"] == "left-out")
        })?;
        assert_eq!((&left_out["of"], &left_out["reason"]), (&"drop".into(), &"policy-input".into()));
        ensure!(left_out["events"].as_u64() > Some(0), "{left_out}");
        Ok(())
    })
}

/// `log = true`: the daemon's log has the rule's name and the addresses of each new flow, once.
#[test]
fn rules_that_log() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        let _server = UdpServer::echo(lab.host("master"), "192.0.2.1:53")?;
        let socket = udp_socket(lab.host("client"), "0.0.0.0:0")?;
        for _ in 0..5 {
            ask(&socket, "192.0.2.1:53", b"name?")?;
        }
        let port = socket.local_addr()?.port();
        let line = format!("new flow, in eth0: udp 203.0.113.10:{port} -> 192.0.2.1:53, rule \"asked\"");
        let other = udp_socket(lab.host("client"), "0.0.0.0:0")?;
        ask(&other, "192.0.2.1:53", b"name?")?;
        let last = format!("203.0.113.10:{} ->", other.local_addr()?.port());
        wait::until("the log of the last flow", || netfw.log().contains(&last).then_some(()))
            .with_context(|| netfw.log())?;
        let times = netfw.log().matches(&line).count();
        ensure!(times == 1, "logged {times} times:\n{}", netfw.log());
        Ok(())
    })
}
