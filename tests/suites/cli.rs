//! The command as a person types it: what it prints, how it ends, what stays.

use std::fs;

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab},
    net::{UdpServer, ask, udp_socket},
    netfw::Netfw,
    rules,
    scenario::two_armed,
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ECHO: &str = "[[port-forward]]\nname = \"echo\"\nprotocol = \"udp\"\nport = 7000\nto = \"worker1:7\"\n";

/// `up -d` returns once packets flow; `status` tells what is up, in words and as JSON.
#[test]
fn up_in_the_background_and_status() -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        let netfw = Netfw::prepare(&lab, &rules::two_armed(ECHO))?;
        let path = netfw.rules().display().to_string();
        let said = netfw.command(["up", "-d", "-c", &path])?.success()?;
        ensure!(said.lines().any(|line| line.starts_with("ready")), "{said}");
        let status = netfw.json("status")?;
        assert_eq!(status["instance"], lab.name());
        assert_eq!(status["rules_file"], path);
        assert_eq!(status["last_reload"]["result"], "ok");
        assert_eq!(status["flows"]["capacity"], 262_144);
        let interfaces = status["interfaces"].as_array().context("a list of interfaces")?;
        let told: Vec<_> = interfaces.iter().map(|it| [&it["name"], &it["role"], &it["engine"]]).collect();
        let engine = engine.to_string();
        assert_eq!(told, [["eth0", "external", &engine], ["eth1", "internal", &engine]]);
        let words = netfw.command(["status"])?.success()?;
        ensure!(words.contains("eth0") && words.contains(lab.name()), "{words}");
        netfw.finish()?;
    }
    Ok(())
}

/// Where nothing is up: exit code 4, but `down` is content.
#[test]
fn nothing_is_up() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &rules::two_armed(ECHO))?;
    for command in ["status", "stats", "flows", "reload", "watch"] {
        let tried = netfw.command([command])?;
        tried.expect_code(4)?;
        ensure!(tried.stderr.contains(lab.name()), "{command} names no instance: {}", tried.stderr);
    }
    netfw.command(["down"])?.success()?;
    netfw.start()?;
    netfw.down()?;
    netfw.down()
}

/// Wrong usage has its own exit code, and so has none.
#[test]
fn wrong_usage() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, "")?;
    for words in [&["upp"][..], &["up", "--fast"], &["flows", "--state"], &[]] {
        netfw.command(words.iter().copied())?.expect_code(2)?;
    }
    netfw.command(["--help"])?.success()?;
    netfw.command(["--version"])?.success()?;
    Ok(())
}

/// A second `up` adopts the first: flows and counters go on, one daemon is left.
#[test]
fn a_second_up_adopts() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let socket = udp_socket(lab.host("client"), "203.0.113.10:4000")?;
        ask(&socket, "192.0.2.1:7000", b"one")?;
        let path = netfw.rules().display().to_string();
        netfw.command(["up", "-d", "-c", &path])?.success()?;
        netfw.wait().context("the first daemon gives way")?;
        ask(&socket, "192.0.2.1:7000", b"two")?;
        let counters = netfw.counters()?;
        assert_eq!(counters.number("port_forwards.echo.to_target.packets"), 2);
        assert_eq!(counters.number("port_forwards.echo.flows_opened"), 1);
        Ok(())
    })
}

/// Another `[flows] capacity` needs a new table: a second `up` and a reload say so, and go on with the old one.
#[test]
fn another_capacity_is_not_obeyed_in_silence() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |_, netfw| {
        let other = rules::two_armed(&format!("{ECHO}[flows]\ncapacity = 2048\n"));
        netfw.write_rules(&other)?;
        let path = netfw.rules().display().to_string();
        for words in [&["up", "-d", "-c", &path][..], &["reload"]] {
            let done = netfw.command(words.iter().copied())?;
            done.success()?;
            ensure!(done.stderr.contains("capacity = 2048 is not obeyed yet"), "{words:?}: {}", done.stderr);
        }
        ensure!(netfw.json("status")?["flows"]["capacity"] == 262_144);
        Ok(())
    })
}

/// SIGTERM ends the daemon and nothing else; every command still answers.
#[test]
fn a_stopped_daemon_leaves_the_datapath() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        netfw.signal(Signal::SIGTERM)?;
        assert_eq!(netfw.wait()?, 0);
        ask(&udp_socket(lab.host("client"), "0.0.0.0:0")?, "192.0.2.1:7000", b"still there?")?;
        for command in ["status", "stats", "flows"] {
            netfw.command([command])?.success()?;
        }
        netfw.write_rules(&rules::two_armed(&ECHO.replace("7000", "7001")))?;
        netfw.command(["reload"])?.success().context("reload without a daemon")?;
        ask(&udp_socket(lab.host("client"), "0.0.0.0:0")?, "192.0.2.1:7001", b"and now?")
    })
}

/// What a command that changes something did, as JSON and in words: what holds, until when, and how many flows it cost.
#[test]
fn changes_tell_what_they_did() -> Result<()> {
    let rules = |port: u16, on_change: &str| {
        let forward = ECHO.replace("7000", &port.to_string());
        rules::two_armed(&format!("{forward}[flows]\non-change = \"{on_change}\"\n[reload]\nwatch = false\n"))
    };
    two_armed(&rules(7000, "cut"), |lab, netfw| {
        let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let ask = |port: u16| {
            ask(&udp_socket(lab.host("client"), "0.0.0.0:0")?, &format!("192.0.2.1:{port}"), b"word")
        };
        let done = |words: &[&str]| -> Result<Value> {
            let line = ["--json"].into_iter().chain(words.iter().copied());
            serde_json::from_str(&netfw.command(line)?.success()?).with_context(|| format!("{words:?}"))
        };
        let reload = |port, on_change, more: &[&str]| {
            netfw.write_rules(&rules(port, on_change))?;
            done(&[&["reload"], more].concat())
        };
        ask(7000)?;
        ask(7000)?;
        let cut = reload(7001, "cut", &[])?;
        assert_eq!(cut["flows"], json!({ "cut": 2, "suspended": 0, "left": 0 }), "{cut}");
        ensure!(
            cut["generation"].is_u64() && cut["deadline"].is_null() && cut["warnings"][0].is_object(),
            "{cut}"
        );
        ask(7001)?;
        let left = reload(7002, "keep", &[])?;
        assert_eq!(left["flows"], json!({ "cut": 0, "suspended": 0, "left": 1 }), "{left}");
        assert_eq!(netfw.json("status")?["last_reload"]["flows"], json!({ "cut": 0, "left": 1 }));
        let words = netfw.command(["reload"])?.success()?;
        ensure!(words.trim_end().ends_with("holds, 1 flow left to end"), "{words}");
        ask(7002)?;
        let tried = reload(7003, "cut", &["--confirm", "1h"])?;
        assert_eq!(tried["flows"], json!({ "cut": 0, "suspended": 2, "left": 0 }), "{tried}");
        ensure!(tried["deadline"].is_string(), "{tried}");
        let confirmed = done(&["confirm"])?;
        assert_eq!(confirmed, json!({ "generation": tried["generation"], "flows": { "cut": 2 } }));
        ask(7003)?;
        reload(7004, "cut", &["--confirm", "1h"])?;
        let back = done(&["rollback"])?;
        assert_eq!(back, json!({ "generation": tried["generation"], "flows": { "cut": 0 } }));
        netfw.expect_drops("banned", ..);
        let banned = done(&["ban", "203.0.113.9/24", "--for", "1h"])?;
        let expected =
            json!({ "banned": ["203.0.113.0/24"], "expires_seconds": 3600, "flows": { "cut": 1 } });
        assert_eq!(banned, expected);
        assert_eq!(done(&["unban", "203.0.113.0/24"])?, json!({ "unbanned": ["203.0.113.0/24"] }));
        Ok(())
    })
}

/// SIGHUP applies the file where it is not watched.
#[test]
fn sighup_reloads() -> Result<()> {
    let rules = |port: u16| {
        rules::two_armed(&format!("[reload]\nwatch = false\n{}", ECHO.replace("7000", &port.to_string())))
    };
    two_armed(&rules(7000), |_, netfw| {
        let generation = netfw.json("status")?["generation"].clone();
        netfw.write_rules(&rules(7001))?;
        ensure!(netfw.json("status")?["generation"] == generation, "applied though it is not watched");
        netfw.signal(Signal::SIGHUP)?;
        wait::until("the new generation", || {
            (netfw.json("status").ok()?["generation"] != generation).then_some(())
        })
    })
}

/// `check` finds good rules good, without a kernel and without an instance.
#[test]
fn check_of_good_rules() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &rules::two_armed(ECHO))?;
    let path = netfw.rules().display().to_string();
    let report: Value =
        serde_json::from_str(&netfw.command(["--json", "check", &path])?.success()?).context("the report")?;
    assert_eq!(report["valid"], true);
    assert_eq!(report["errors"], serde_json::json!([]));
    // Nothing in these rules admits SSH.
    ensure!(report["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()), "{report}");
    netfw.command(["check", &path])?.success()?;
    netfw.expect_untouched()
}

/// The sample rules that the project ships are valid, and warn of nothing.
#[test]
fn the_shipped_rules_are_good() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("packaging/netfw.toml");
    let netfw = Netfw::prepare_verbatim(&lab, &fs::read_to_string(sample)?)?;
    let path = netfw.rules().display().to_string();
    let report: Value =
        serde_json::from_str(&netfw.command(["--json", "check", &path])?.success()?).context("the report")?;
    assert_eq!(report["warnings"], serde_json::json!([]));
    netfw.start()?;
    netfw.finish()
}

/// `stats` for people names every drop reason that counted, and every forward.
#[test]
fn stats_are_readable() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        netfw.expect_drops("policy-input", 1..);
        netfw_tests::net::knock_udp(lab.host("client"), "192.0.2.1:9")?;
        let words = netfw.command(["stats"])?.success()?;
        for word in ["eth0", "eth1", "echo", "policy-input"] {
            ensure!(words.contains(word), "no {word} in:\n{words}");
        }
        Ok(())
    })
}
