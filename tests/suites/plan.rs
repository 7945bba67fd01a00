//! What a change would do, told before it is done.

use std::fs;

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab, command::Finished},
    net::{TcpServer, connect, exchange_line},
    netfw::Netfw,
    rules,
    scenario::two_armed,
};
use serde_json::{Value, json};

fn forwards(ports: &[(u16, &str)]) -> String {
    let forward = |(port, to): &(u16, &str)| {
        format!("[[port-forward]]\nname = \"p{port}\"\nprotocol = \"tcp\"\nport = {port}\nto = \"{to}\"\n")
    };
    rules::two_armed(&ports.iter().map(forward).collect::<String>())
}

fn plan(netfw: &Netfw<'_>, rules: &str) -> Result<Value> {
    let path = netfw.rules().with_file_name("candidate.toml");
    fs::write(&path, netfw.complete(rules))?;
    let path = path.display().to_string();
    let words = netfw.command(["plan", &path])?.success()?;
    let document = netfw.command(["--json", "plan", &path])?.success()?;
    let document: Value = serde_json::from_str(&document)?;
    let flows = document["flows"]["by_name"].as_array().context("a list of flows")?;
    for name in flows.iter().filter_map(|one| one["name"].as_str()) {
        ensure!(words.contains(name), "no {name} in:\n{words}");
    }
    Ok(document)
}

/// Flows that would end are told by count and by name, those that a new target would take apart from the others; and
/// not one of them notices that somebody asked.
#[test]
fn flows_that_would_end_are_named() -> Result<()> {
    let old = forwards(&[(7001, "worker1:7"), (7002, "worker1:7"), (7003, "worker1:7")]);
    two_armed(&old, |lab, netfw| {
        let (mut servers, mut streams) = (Vec::new(), Vec::new());
        for (master, inside) in [("192.0.2.1", "192.168.80.3:7"), ("[2001:db8::1]", "[fd00:80::3]:7")] {
            servers.push(TcpServer::echo(lab.host("worker1"), inside)?);
            for port in ["7001", "7002", "7003", "7003"] {
                let mut stream = connect(lab.host("client"), &format!("{master}:{port}"))?;
                exchange_line(&mut stream, b"before")?;
                streams.push(stream);
            }
        }
        let generation = netfw.json("status")?["generation"].clone();
        let told = plan(netfw, &forwards(&[(7001, "worker1:7"), (7003, "worker2:7"), (7004, "worker1:7")]))?;
        let changes: Vec<_> = told["changes"].as_array().context("a list of changes")?.iter().collect();
        let changes: Vec<_> = changes.iter().map(|one| json!([one["name"], one["change"]])).collect();
        assert_eq!(
            changes,
            [json!(["p7002", "removed"]), json!(["p7003", "changed"]), json!(["p7004", "added"])]
        );
        let flows = &told["flows"];
        assert_eq!(json!([flows["cut"], flows["redirected"]]), json!([6, 4]), "{told}");
        assert_eq!(
            flows["by_name"],
            json!([
                { "name": "port-forward \"p7002\"", "cut": 2, "redirected": 0 },
                { "name": "port-forward \"p7003\"", "cut": 4, "redirected": 4 },
            ])
        );
        for stream in &mut streams {
            exchange_line(stream, b"nothing has happened")?;
        }
        assert_eq!(netfw.json("status")?["generation"], generation);
        let same = plan(netfw, &old)?;
        assert_eq!(json!([same["changes"], same["flows"]["cut"]]), json!([[], 0]));
        Ok(())
    })
}

/// The exit codes of a question that cannot be answered.
#[test]
fn what_cannot_be_planned() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &forwards(&[(7001, "worker1:7")]))?;
    netfw.command(["plan"])?.expect_code(4)?;
    netfw.start()?;
    netfw.command(["plan"])?.success()?;
    let path = netfw.rules().with_file_name("broken.toml");
    fs::write(&path, "colour = \"blue\"\n")?;
    netfw.command(["plan", &path.display().to_string()])?.expect_code(3)?;
    netfw.finish()
}

/// Rules that would end the session of whoever types are told as such, and `reload` by SSH says how to be safe.
#[test]
fn the_own_session_is_looked_after() -> Result<()> {
    let ssh = |from: &str| {
        rules::two_armed(&format!(
            "[[rule]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 22\nfrom = [\"{from}\"]\naction = \"accept\"\n"
        ))
    };
    two_armed(&ssh("office"), |lab, netfw| {
        let families = [("203.0.113.10", "192.0.2.1"), ("2001:db8:1::10", "2001:db8::1")];
        for (client, master) in families {
            let typed = |words: &[&str]| {
                let session = format!("SSH_CONNECTION={client} 4000 {master} 22");
                let line = netfw.line(words.iter().copied())?;
                lab.host("master").run(["env".to_owned(), session].into_iter().chain(line))
            };
            is_looked_after(netfw, client, &ssh, &typed)?;
        }
        Ok(())
    })
}

/// What is told to whoever has typed it in a session with the client.
fn is_looked_after(
    netfw: &Netfw<'_>,
    client: &str,
    rules: &dyn Fn(&str) -> String,
    typed: &dyn Fn(&[&str]) -> Result<Finished>,
) -> Result<()> {
    let path = netfw.rules().with_file_name("candidate.toml").display().to_string();
    for (from, ends) in [("office", false), ("198.51.100.0/24", true)] {
        fs::write(&path, netfw.complete(&rules(from)))?;
        for word in ["check", "plan"] {
            let said = typed(&[word, &path])?;
            said.success()?;
            let told = said.stderr.contains(client);
            ensure!(told == ends, "{word} {from}: {}", said.stderr);
        }
    }
    let said = typed(&["reload"])?;
    said.success()?;
    ensure!(said.stderr.contains("reload --confirm"), "{}", said.stderr);
    let said = typed(&["reload", "--confirm", "60s"])?;
    said.success()?;
    ensure!(!said.stderr.contains("by SSH"), "{}", said.stderr);
    netfw.command(["confirm"])?.success().map(drop)
}
