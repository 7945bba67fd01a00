//! OpenSSH through netfw: the job it was made for.

use std::fs;

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::Lab,
    netfw::Netfw,
    rules,
    scenario::{one_armed, two_armed},
    ssh::{self, Key},
    wait,
};

const SSH: &str = r#"
[[port-forward]]
name = "ssh"
protocol = "tcp"
port = "2201-2204"
to = ["worker1:22", "worker2:22", "worker3:22", "worker4:22"]
spread = "one-to-one"
from = ["office"]

[[rule]]
name = "ssh to the master"
action = "accept"
protocol = "tcp"
port = 22
from = ["office"]
"#;

/// Four ports, four workers, both families; the master at its own port; nobody from elsewhere.
#[test]
fn every_port_reaches_its_host() -> Result<()> {
    two_armed(&rules::two_armed(SSH), |lab, netfw| {
        let key = Key::create(lab)?;
        let _servers = ssh::serve_everywhere(lab, &key)?;
        for address in ["192.0.2.1", "2001:db8::1"] {
            for number in 1..=4 {
                let name = key.run(lab.host("client"), address, 2200 + number, "hostname")?;
                assert_eq!(name, format!("worker{number}"));
            }
            assert_eq!(key.run(lab.host("client"), address, 22, "hostname")?, "master");
        }
        netfw.expect_drops("policy-input", 1..);
        ensure!(key.run(lab.host("stranger"), "192.0.2.1", 2201, "hostname").is_err(), "a stranger got in");
        Ok(())
    })
}

/// One-armed, the same.
#[test]
fn one_armed_every_port_reaches_its_host() -> Result<()> {
    one_armed(&rules::one_armed(SSH), |lab, _| {
        let key = Key::create(lab)?;
        let _servers = ssh::serve_everywhere(lab, &key)?;
        for number in 1..=4 {
            let name = key.run(lab.host("client"), "192.168.80.2", 2200 + number, "hostname")?;
            assert_eq!(name, format!("worker{number}"));
        }
        Ok(())
    })
}

/// A large file arrives with the same content, in both directions.
#[test]
fn files_arrive_whole() -> Result<()> {
    two_armed(&rules::two_armed(SSH), |lab, _| {
        let key = Key::create(lab)?;
        let _server = ssh::serve(lab.host("worker1"), &key)?;
        let client = key.client("192.0.2.1", 2201).join(" ");
        let dir = lab.host("client").dir().display();
        let script = format!(
            "cd {dir} && head -c 20000000 /dev/urandom > sent && {client} cat < sent > back && cmp sent back && echo same"
        );
        assert_eq!(lab.host("client").shell(&script)?, "same");
        Ok(())
    })
}

/// A session survives changes of the rules, the death of the daemon, and its adoption.
#[test]
fn a_session_outlives_the_daemon() -> Result<()> {
    two_armed(&rules::two_armed(SSH), |lab, netfw| {
        let key = Key::create(lab)?;
        let _server = ssh::serve(lab.host("worker1"), &key)?;
        let session = key.session(lab.host("client"), "192.0.2.1", 2201)?;
        let ticks = || session.output().matches("tick").count();
        let expect_more = |what: &str| {
            let before = ticks();
            wait::until("more ticks", || (ticks() > before + 2).then_some(()))
                .with_context(|| what.to_owned())
        };
        expect_more("at first")?;
        netfw.reload(&rules::two_armed(
            &SSH.replace("2201-2204", "2201-2203").replace(", \"worker4:22\"", ""),
        ))?;
        expect_more("after a reload")?;
        netfw.kill()?;
        expect_more("with the daemon dead")?;
        netfw.start()?;
        expect_more("after adoption")
    })
}

/// The master forgets a session, as when it starts anew, and the LAN is hidden: what the remote command prints then finds its way to
/// the client, who says nothing himself. (Scenario 17.)
#[test]
fn a_session_outlives_the_master() -> Result<()> {
    let rules = rules::two_armed(&format!("{SSH}[masquerade]\nfrom = [\"lan\"]\n"));
    two_armed(&rules, |lab, netfw| {
        let key = Key::create(lab)?;
        let worker = lab.host("worker1");
        let _server = ssh::serve(worker, &key)?;
        for (number, address) in ["192.0.2.1", "2001:db8::1"].into_iter().enumerate() {
            let sign = worker.dir().join(format!("speak-{number}"));
            let remote =
                format!("echo there; until test -e {}; do sleep 0.1; done; echo spoken", sign.display());
            let mut words = key.client(address, 2201);
            words.push(remote);
            let session = lab.host("client").spawn(words)?;
            session.wait_for("there")?;
            // Without netfw the master would answer the client's acknowledgment with a reset.
            wait::until("silence", || {
                let flows = netfw.flows().ok()?;
                flows.iter().all(|flow| flow["idle_seconds"].as_u64() > Some(1)).then_some(())
            })?;
            netfw.down()?;
            netfw.start()?;
            fs::write(&sign, "")?;
            session.wait_for("spoken").with_context(|| format!("from {address}"))?;
        }
        Ok(())
    })
}

/// A port leaves the rules: the session through it closes by itself, the one beside it goes on.
#[test]
fn a_removed_port_closes_its_session() -> Result<()> {
    two_armed(&rules::two_armed(SSH), |lab, netfw| {
        let key = Key::create(lab)?;
        let _servers = ssh::serve_everywhere(lab, &key)?;
        netfw.expect_drops("flow-cut", ..);
        netfw.expect_drops("policy-input", ..);
        // What an end still had under way when its reset arrived.
        netfw.expect_drops("policy-forward", ..);
        let stays = key.session(lab.host("client"), "192.0.2.1", 2201)?;
        let mut closes = key.session(lab.host("client"), "192.0.2.1", 2204)?;
        shorten(netfw)?;
        wait::until("the session to close", || (!closes.is_running()).then_some(()))?;
        let before = stays.output().len();
        wait::until("more ticks", || (stays.output().len() > before).then_some(()))
    })
}

fn shorten(netfw: &Netfw<'_>) -> Result<()> {
    netfw.write_rules(&rules::two_armed(
        &SSH.replace("2201-2204", "2201-2203").replace(", \"worker4:22\"", ""),
    ))
}

/// Rules that shut everything but the fail-safe door.
const SHUT: &str = r#"
[policy]
input = "drop"
output = "drop"

[failsafe]
ssh-port = 22
from = ["office"]

[[rule]]
name = "nobody"
action = "drop"
protocol = "tcp"
"#;

/// The door stays open under rules that shut everything, under a broken and a missing file, and without the daemon.
/// (Scenario 23.)
#[test]
fn the_door_stays_open() -> Result<()> {
    two_armed(&rules::two_armed(SHUT), |lab, netfw| {
        let key = Key::create(lab)?;
        let _server = ssh::serve(lab.host("master"), &key)?;
        netfw.expect_drops("rule", 1..);
        // What the master's own programs send is shut as well.
        netfw.expect_drops("policy-output", ..);
        let expect_open = |when: &str| {
            for address in ["192.0.2.1", "2001:db8::1"] {
                let name = key.run(lab.host("client"), address, 22, "hostname");
                ensure!(name.with_context(|| format!("{when}, {address}"))? == "master");
            }
            Ok(())
        };
        expect_open("at first")?;
        ensure!(key.run(lab.host("stranger"), "192.0.2.1", 22, "hostname").is_err(), "a stranger got in");
        netfw.write_rules("nonsense")?;
        netfw.command(["reload"])?.expect_code(3)?;
        expect_open("with a broken file")?;
        fs::remove_file(netfw.rules())?;
        netfw.kill()?;
        expect_open("with neither file nor daemon")?;
        netfw.start()?;
        expect_open("from the last valid rules")
    })
}

/// A session of before netfw goes on when netfw comes up: the master's own sockets are entered as flows.
#[test]
fn the_session_that_typed_up_goes_on() -> Result<()> {
    for &engine in netfw_tests::lab::Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        let key = Key::create(&lab)?;
        let _server = ssh::serve(lab.host("master"), &key)?;
        let session = key.session(lab.host("client"), "192.0.2.1", 22)?;
        // Nothing in these rules admits SSH: only the flow itself does.
        let netfw = Netfw::up(&lab, &rules::two_armed(""))?;
        let before = session.output().len();
        wait::until("more ticks", || (session.output().len() > before + 20).then_some(()))?;
        drop(session);
        netfw.finish()?;
    }
    Ok(())
}
