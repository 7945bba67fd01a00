//! What becomes of a packet, told by the datapath itself, which forgets the question.

use std::fs;

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab},
    net::{Reception, TcpServer, connect, exchange_line, knock_tcp},
    netfw::Netfw,
    rules,
    scenario::two_armed,
};
use serde_json::{Value, json};

/// Something of each kind.
fn everything() -> String {
    rules::two_armed(
        r#"[failsafe]
ssh-port = 22
from = ["office"]
[block]
from = ["198.51.100.0/24"]
[masquerade]
from = ["lan"]
[[port-forward]]
name = "echo"
protocol = "tcp"
port = 7001
to = "worker1:7"
[[rule]]
name = "no telnet"
chain = "forward"
action = "reject"
protocol = "tcp"
port = 23
[[rule]]
name = "names"
action = "accept"
protocol = "udp"
port = 53
from = ["office"]
limit = { rate = "10/minute", burst = 5 }
[[rule]]
action = "drop"
protocol = ["icmp", "icmpv6"]
"#,
    )
}

/// The number of the line in the rules file that begins a rule.
fn line_of(netfw: &Netfw<'_>, head: &str, nth: usize) -> Result<usize> {
    let text = fs::read_to_string(netfw.rules())?;
    let mut lines = text.lines().enumerate().filter(|(_, line)| *line == head);
    lines.nth(nth).map(|(index, _)| index + 1).with_context(|| format!("no {head} in:\n{text}"))
}

fn ask(netfw: &Netfw<'_>, question: &str) -> Result<Value> {
    let words = ["--json", "explain"].into_iter().chain(question.split(' '));
    Ok(serde_json::from_str(&netfw.command(words)?.success()?)?)
}

/// Everything that is counted but what arrives at interfaces: hosts look for each other at any time.
fn counted(netfw: &Netfw<'_>) -> Result<Value> {
    let mut stats = netfw.json("stats")?;
    stats.as_object_mut().context("a document")?.remove("interfaces");
    Ok(stats)
}

/// The words that a document is about: verdict, reason, rule, port-forward, both ends after translation, way out.
fn gist(told: &Value) -> Value {
    let translated = &told["translated"];
    json!([
        told["verdict"],
        told["reason"],
        told["rule"]["name"],
        told["port_forward"],
        translated["source"],
        translated["destination"],
        told["out_interface"]
    ])
}

/// Each kind of decision in both families, and afterwards not a counter and not a flow is another one.
#[test]
fn decisions_are_explained() -> Result<()> {
    two_armed(&everything(), |_, netfw| {
        let before = (counted(netfw)?, netfw.flows()?);
        for (question, expected) in [
            (
                "tcp 203.0.113.10:4000 192.0.2.1:7001",
                json!([
                    "forward",
                    "port-forward",
                    null,
                    "echo",
                    "203.0.113.10:4000",
                    "192.168.80.3:7",
                    "eth1"
                ]),
            ),
            (
                "tcp [2001:db8:1::10]:4000 [2001:db8::1]:7001",
                json!([
                    "forward",
                    "port-forward",
                    null,
                    "echo",
                    "[2001:db8:1::10]:4000",
                    "[fd00:80::3]:7",
                    "eth1"
                ]),
            ),
            (
                "udp 192.168.80.3:4000 203.0.113.10:53",
                json!(["forward", "masquerade", null, null, "192.0.2.1:4000", "203.0.113.10:53", "eth0"]),
            ),
            (
                "tcp 192.168.80.3 203.0.113.10:23",
                json!(["reject", "rejected", "no telnet", null, null, null, null]),
            ),
            ("udp 203.0.113.10 192.0.2.1:53", json!(["accept", "rule", "names", null, null, null, null])),
            ("tcp 203.0.113.10 192.0.2.1:22", json!(["accept", "failsafe", null, null, null, null, null])),
            ("tcp 198.51.100.10 192.0.2.1:7001", json!(["drop", "blocked", null, null, null, null, null])),
            ("tcp 203.0.113.10 192.0.2.1:80", json!(["drop", "policy-input", null, null, null, null, null])),
            ("47 203.0.113.10 192.168.80.3", json!(["drop", "policy-forward", null, null, null, null, null])),
            (
                "tcp 192.168.80.3 192.0.2.1:7001 --in eth0",
                json!(["drop", "spoofed", null, null, null, null, null]),
            ),
            (
                "tcp 192.0.2.1:4000 203.0.113.10:443",
                json!(["accept", "policy", null, null, null, null, "eth0"]),
            ),
            (
                "tcp 2001:db8::1 [2001:db8:1::10]:443",
                json!(["accept", "policy", null, null, null, null, "eth0"]),
            ),
        ] {
            assert_eq!(gist(&ask(netfw, question)?), expected, "{question}");
        }
        for question in ["icmp 203.0.113.10 192.0.2.1", "icmpv6 2001:db8:1::10 2001:db8::1"] {
            let told = ask(netfw, question)?;
            let line = line_of(netfw, "[[rule]]", 2)?;
            assert_eq!(json!([told["verdict"], told["reason"]]), json!(["drop", "rule"]));
            assert_eq!(told["rule"]["line"], json!(line));
            assert_eq!(told["rule"]["file"], json!(netfw.rules().display().to_string()));
        }
        assert_eq!((counted(netfw)?, netfw.flows()?), before, "a question has left a trace");
        Ok(())
    })
}

/// A person reads the way step by step.
#[test]
fn the_way_is_explained() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::up(&lab, &everything())?;
    let text = netfw.command(["explain", "udp", "203.0.113.10:4000", "192.0.2.1:53"])?.success()?;
    let text = text.replace(&netfw.rules().display().to_string(), "netfw.toml");
    let expected = format!(
        "udp 203.0.113.10:4000 → 192.0.2.1:53, arriving on eth0\n\
         \n  hook          TC on eth0\
         \n  checks        a sound packet\
         \n  flow          none: the packet would open one\
         \n  block         neither end is blocked or banned\
         \n  way back      203.0.113.10 is reached by eth0\
         \n  port-forward  none applies\
         \n  route         to this host\
         \n  rules         chain input: \"names\" (netfw.toml:{}) says accept\
         \n  limit         not reached\
         \n  verdict       accept",
        line_of(&netfw, "[[rule]]", 1)?
    );
    assert_eq!(text, expected);
    netfw.finish()
}

/// The packets of a flow follow it, and so does the explanation: also with the daemon dead, in both directions.
#[test]
fn a_flow_is_explained() -> Result<()> {
    two_armed(&everything(), |lab, netfw| {
        let _server = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let mut stream = connect(lab.host("client"), "192.0.2.1:7001")?;
        exchange_line(&mut stream, b"hello")?;
        netfw.kill()?;
        let client = netfw.flows()?[0]["client"].as_str().context("a client")?.to_owned();
        let before = counted(netfw)?;
        for (question, source, destination, out) in [
            (format!("tcp {client} 192.0.2.1:7001"), client.as_str(), "192.168.80.3:7", "eth1"),
            (format!("tcp 192.168.80.3:7 {client}"), "192.0.2.1:7001", client.as_str(), "eth0"),
        ] {
            let told = ask(netfw, &question)?;
            let expected = json!(["forward", "flow", null, "echo", source, destination, out]);
            assert_eq!(gist(&told), expected, "{told}");
            assert_eq!(told["flow"]["state"], "established", "{told}");
        }
        assert_eq!(counted(netfw)?, before, "a question was counted");
        exchange_line(&mut stream, b"nothing has happened")?;
        netfw.start()
    })
}

/// Rules that nobody has applied are asked beside those in force, which go on; the place where they lay is free again.
#[test]
fn rules_are_explained_before_they_hold() -> Result<()> {
    two_armed(&everything(), |lab, netfw| {
        let _server = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let mut stream = connect(lab.host("client"), "192.0.2.1:7001")?;
        exchange_line(&mut stream, b"hello")?;
        let client = netfw.flows()?[0]["client"].as_str().context("a client")?.to_owned();
        let path = netfw.rules().with_file_name("candidate.toml");
        fs::write(&path, netfw.complete(&everything().replace("port = 7001", "port = 7002")))?;
        let path = path.display().to_string();
        let generation = netfw.json("status")?["generation"].clone();
        for _ in 0..5 {
            let word = |port: u16| ask(netfw, &format!("tcp 203.0.113.10:1 192.0.2.1:{port} --with {path}"));
            assert_eq!(word(7002)?["port_forward"], "echo");
            assert_eq!(word(7001)?["reason"], "policy-input");
        }
        let cut = ask(netfw, &format!("tcp {client} 192.0.2.1:7001 --with {path}"))?;
        assert_eq!(json!([cut["verdict"], cut["reason"]]), json!(["reject", "flow-cut"]), "{cut}");
        exchange_line(&mut stream, b"nothing has happened")?;
        assert_eq!(netfw.json("status")?["generation"], generation);
        let seen = knock_tcp(lab.host("client"), "192.0.2.1:7002")?;
        ensure!(seen != Reception::Welcome, "rules hold that were only asked");
        netfw.expect_drops("policy-input", 1..);
        for port in ["7003", "7004", "7001"] {
            netfw.reload(&everything().replace("7001", port))?;
            ask(netfw, &format!("tcp 203.0.113.10:1 192.0.2.1:7002 --with {path}"))?;
        }
        netfw.expect_drops("flow-cut", ..);
        Ok(())
    })
}

/// Questions that have no answer are refused with what to do.
#[test]
fn what_cannot_be_explained() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &everything())?;
    let refused = |question: &str, code: i32, help: &str| -> Result<()> {
        let said = netfw.command(["explain"].into_iter().chain(question.split(' ')))?;
        said.expect_code(code)?;
        ensure!(said.stderr.contains(help), "{question}: {}", said.stderr);
        Ok(())
    };
    refused("tcp 203.0.113.10 192.0.2.1:80", 4, "netfw up")?;
    netfw.start()?;
    let broken = netfw.rules().with_file_name("broken.toml");
    fs::write(&broken, "colour = \"blue\"\n")?;
    refused(&format!("tcp 203.0.113.10 192.0.2.1:80 --with {}", broken.display()), 3, "colour")?;
    refused("tcp 203.0.113.10 192.0.2.1", 2, "192.0.2.1:22")?;
    refused("tcp 203.0.113.10 [2001:db8::1]:80", 2, "one family")?;
    refused("icmp 2001:db8:1::10 2001:db8::1", 2, "icmpv6")?;
    refused("47 203.0.113.10:5 192.0.2.1", 2, "addresses alone")?;
    refused("tcp nobody 192.0.2.1:80", 2, "write an address")?;
    refused("tcp 203.0.113.10 192.0.2.1:80 --in eth7", 2, "eth0, eth1")?;
    refused("tcp 203.0.113.10 127.0.0.1:80 --in lo", 2, "--in")?;
    refused("tcp 192.0.2.1 192.168.80.2:80", 1, "never leave")?;
    netfw.finish()
}
