//! Changes that wait for confirmation. (Scenario 24.)

use std::{fs, net::TcpStream, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Background, Engine, Lab},
    net::{Reception, TcpServer, connect, exchange_line, knock_tcp},
    netfw::Netfw,
    rules,
    scenario::two_armed,
    ssh::{self, Key},
    wait,
};
use nix::sys::signal::Signal;

/// Rules that forward one port to worker1's echo server.
fn forward(port: u16) -> String {
    rules::two_armed(&format!(
        "[[port-forward]]\nname = \"echo\"\nprotocol = \"tcp\"\nport = {port}\nto = \"worker1:7\"\n"
    ))
}

const OLD: u16 = 7001;
const NEW: u16 = 7002;

/// The master as the outside knows it, in each family.
const MASTERS: [&str; 2] = ["192.0.2.1", "[2001:db8::1]"];

fn serve(lab: &Lab) -> Result<[TcpServer; 2]> {
    let [v4, v6] = ["192.168.80.3:7", "[fd00:80::3]:7"].map(|at| TcpServer::echo(lab.host("worker1"), at));
    Ok([v4?, v6?])
}

/// Whether a port is forwarded, which must be so in both families or in none.
fn answers(lab: &Lab, port: u16) -> Result<bool> {
    let knock = |master| knock_tcp(lab.host("client"), &format!("{master}:{port}"));
    let (v4, v6) = thread::scope(|scope| {
        let v6 = scope.spawn(|| knock(MASTERS[1]));
        (knock(MASTERS[0]), v6.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let [v4, v6] = [v4?, v6?].map(|reception| reception == Reception::Welcome);
    ensure!(v4 == v6, "port {port} is forwarded in one family only: {v4} and {v6}");
    Ok(v4)
}

/// A connection through a port in each family, over which a line has gone.
fn connect_both(lab: &Lab, port: u16) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for master in MASTERS {
        let mut stream = connect(lab.host("client"), &format!("{master}:{port}"))?;
        exchange_line(&mut stream, b"before")?;
        streams.push(stream);
    }
    Ok(streams)
}

fn expect_drops(netfw: &Netfw<'_>) {
    for reason in ["policy-input", "policy-forward", "suspended", "flow-cut"] {
        netfw.expect_drops(reason, ..);
    }
}

fn until_old_rules_hold(lab: &Lab) -> Result<()> {
    wait::until("the old rules to hold", || answers(lab, OLD).ok()?.then_some(()))?;
    ensure!(!answers(lab, NEW)?, "half of the new rules hold beside the old ones");
    Ok(())
}

fn candidate(netfw: &Netfw<'_>, rules: &str) -> Result<PathBuf> {
    let path = netfw.rules().with_file_name("candidate.toml");
    fs::write(&path, netfw.complete(rules))?;
    Ok(path)
}

fn try_out(netfw: &Netfw<'_>, rules: &str, time: &str) -> Result<()> {
    let path = candidate(netfw, rules)?.display().to_string();
    let said = netfw.command(["reload", &path, "--confirm", time])?.success()?;
    ensure!(said.contains("netfw confirm"), "{said}");
    Ok(())
}

/// Nobody is left to do anything: the datapath goes back by itself, and the connection that was suspended goes on.
#[test]
fn unconfirmed_rules_go_by_themselves() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        let mut streams = connect_both(lab, OLD)?;
        try_out(netfw, &forward(NEW), "8s")?;
        netfw.kill()?;
        let status = netfw.json("status")?;
        assert_eq!(status["confirm"]["pending"], true);
        ensure!(status["confirm"]["deadline"].is_string(), "{status}");
        ensure!(answers(lab, NEW)? && !answers(lab, OLD)?, "the candidate does not hold");
        netfw.expect_drops("suspended", 1..);
        // TCP sends again after longer and longer pauses.
        for stream in &mut streams {
            stream.set_read_timeout(Some(wait::GENEROUS))?;
            exchange_line(stream, b"waits, is sent again, and arrives")
                .context("the suspended connection")?;
        }
        until_old_rules_hold(lab)?;
        let status = netfw.json("status")?;
        assert_eq!(status["confirm"]["pending"], false);
        assert_eq!(status["last_reload"]["result"], "error");
        let late = netfw.command(["confirm"])?;
        late.expect_code(1)?;
        ensure!(late.stderr.contains("not confirmed in time"), "{}", late.stderr);
        streams.iter_mut().try_for_each(|stream| exchange_line(stream, b"after"))?;
        netfw.start()?;
        until_old_rules_hold(lab)
    })
}

/// Confirmed with the daemon dead: they hold, cut what they refuse, and the candidate is the rules file.
#[test]
fn confirmed_rules_stay() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        let mut streams = connect_both(lab, OLD)?;
        netfw.kill()?;
        let old = fs::read_to_string(netfw.rules())?;
        try_out(netfw, &forward(NEW), "60s")?;
        ensure!(fs::read_to_string(netfw.rules())? == old, "the candidate is the rules file already");
        netfw.command(["confirm"])?.success()?;
        ensure!(
            fs::read_to_string(netfw.rules())? == netfw.complete(&forward(NEW)),
            "the file is the old one"
        );
        for stream in &mut streams {
            ensure!(exchange_line(stream, b"after").is_err(), "a refused connection goes on");
        }
        ensure!(answers(lab, NEW)? && !answers(lab, OLD)?, "the confirmed rules do not hold");
        netfw.command(["confirm"])?.expect_code(1)?;
        netfw.start()?;
        ensure!(answers(lab, NEW)?, "the confirmed rules are gone");
        Ok(())
    })
}

/// Taken back at once. A second candidate takes the place of the first, and the same rules come back.
#[test]
fn rules_are_taken_back() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        let generation = netfw.json("status")?["generation"].clone();
        try_out(netfw, &forward(7003), "60s")?;
        let path = candidate(netfw, &forward(NEW))?.display().to_string();
        netfw.command(["reload", &path])?.success()?;
        assert_eq!(netfw.json("status")?["confirm"]["pending"], true);
        ensure!(answers(lab, NEW)? && !answers(lab, OLD)?, "the second candidate does not hold");
        netfw.command(["rollback"])?.success()?;
        until_old_rules_hold(lab)?;
        assert_eq!(netfw.json("status")?["generation"], generation);
        Ok(())
    })
}

/// Whoever is killed, and whenever: from the deadline on the old rules hold.
#[test]
fn killed_while_it_is_applied() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        let path = candidate(netfw, &forward(NEW))?.display().to_string();
        for step in 0..16 {
            if step == 8 {
                netfw.kill()?;
            }
            let mut terminal =
                lab.host("master").spawn(netfw.line(["reload", &path, "--confirm", "1s"])?)?;
            thread::sleep(Duration::from_millis(15 * step));
            let _ = terminal.signal(Signal::SIGKILL);
            let _ = terminal.wait()?;
            // Waits for the deadline of what was just applied, if it was.
            wait::until("nothing to be pending", || {
                (netfw.json("status").ok()?["confirm"]["pending"] == false).then_some(())
            })?;
            until_old_rules_hold(lab).with_context(|| format!("step {step}"))?;
        }
        netfw.start()?;
        until_old_rules_hold(lab)
    })
}

/// Which of two ports is forwarded, and only that one.
fn holding(lab: &Lab, one: u16, other: u16) -> Result<u16> {
    wait::until("one of two rule sets to hold", || {
        match (answers(lab, one).ok()?, answers(lab, other).ok()?) {
            (true, false) => Some(one),
            (false, true) => Some(other),
            _ => None,
        }
    })
}

/// A confirmation or a rollback that is killed is done or not, never half.
#[test]
fn killed_while_it_is_decided() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        for step in 0..10 {
            let (now, then) = if answers(lab, OLD)? { (OLD, NEW) } else { (NEW, OLD) };
            try_out(netfw, &forward(then), "60s")?;
            let word = if step % 2 == 0 { "confirm" } else { "rollback" };
            let mut terminal = lab.host("master").spawn(netfw.line([word])?)?;
            thread::sleep(Duration::from_millis(8 * step));
            let _ = terminal.signal(Signal::SIGKILL);
            let _ = terminal.wait()?;
            let held = holding(lab, now, then).with_context(|| format!("step {step}"))?;
            // Decides it where the word came too early to be heard.
            let _ = netfw.command(["rollback"])?;
            let decided = holding(lab, now, then).with_context(|| format!("after step {step}"))?;
            ensure!(held == then || decided == now, "step {step} was taken back and came again");
            let _ = netfw.command(["confirm"])?;
        }
        netfw.reload(&forward(OLD))
    })
}

/// A text that was taken back is applied by nobody but a person: not by a signal, not by a change of the file, not by
/// the next `up`.
#[test]
fn a_refused_text_waits_for_a_person() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        netfw.signal(Signal::SIGSTOP)?;
        netfw.write_rules(&forward(NEW))?;
        netfw.command(["reload", "--confirm", "60s"])?.success()?;
        netfw.command(["rollback"])?.success()?;
        netfw.signal(Signal::SIGCONT)?;
        let error = || {
            let status = netfw.json("status").ok()?;
            status["last_reload"]["error"].as_str().map(str::to_owned)
        };
        netfw.signal(Signal::SIGHUP)?;
        wait::until("the signal to be refused", || error()?.contains("netfw reload").then_some(()))?;
        until_old_rules_hold(lab)?;
        netfw.kill()?;
        netfw.start()?;
        ensure!(netfw.log().contains("netfw reload"), "{}", netfw.log());
        until_old_rules_hold(lab)?;
        netfw.command(["reload"])?.success()?;
        ensure!(answers(lab, NEW)?, "a person's word does nothing");
        Ok(())
    })
}

/// The machine goes down in the middle of a trial: what is kept on disk finds the old rules, though the file has the new.
#[test]
fn a_reboot_finds_the_old_rules() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        let generation = netfw.json("status")?["generation"].as_u64();
        netfw.kill()?;
        netfw.write_rules(&forward(NEW))?;
        netfw.command(["reload", "--confirm", "60s"])?.success()?;
        netfw.command(["down"])?.success()?;
        netfw.start()?;
        ensure!(netfw.log().contains("netfw reload"), "{}", netfw.log());
        ensure!(netfw.json("status")?["generation"].as_u64() > generation, "numbers are used again");
        until_old_rules_hold(lab)
    })
}

/// The watcher was quicker: what it has applied a moment ago is not what comes back.
#[test]
fn the_watcher_was_quicker() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        netfw.write_rules(&forward(NEW))?;
        wait::until("the watcher", || answers(lab, NEW).ok()?.then_some(()))?;
        netfw.command(["reload", "--confirm", "1s"])?.success()?;
        until_old_rules_hold(lab)?;
        netfw.kill()?;
        netfw.start()?;
        until_old_rules_hold(lab)
    })
}

/// `[reload] confirm`: a change of the file that nobody confirms goes too.
#[test]
fn a_watched_change_waits_for_confirmation() -> Result<()> {
    let with = |port, time: &str| format!("{}\n[reload]\nconfirm = \"{time}\"\n", forward(port));
    two_armed(&with(OLD, "60s"), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        let pending =
            |wanted: bool| move || (netfw.json("status").ok()?["confirm"]["pending"] == wanted).then_some(());
        netfw.write_rules(&with(NEW, "5s"))?;
        wait::until("the change to be tried out", pending(true))?;
        wait::until("its time to be over", pending(false))?;
        until_old_rules_hold(lab)?;
        netfw.write_rules(&with(NEW, "59s"))?;
        wait::until("the change to be tried out", pending(true))?;
        netfw.command(["confirm"])?.success()?;
        ensure!(answers(lab, NEW)?, "the confirmed rules do not hold");
        Ok(())
    })
}

const SSH: &str = "[[rule]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 22\naction = \"accept\"\n";

/// A change of the file that would end a session with the master waits for a person.
#[test]
fn a_watched_change_ends_no_session() -> Result<()> {
    let families = [
        ("192.0.2.1", "203.0.113.10", "203.0.113.0/24"),
        ("2001:db8::1", "2001:db8:1::10", "2001:db8:1::/48"),
    ];
    two_armed(&rules::two_armed(SSH), |lab, netfw| {
        expect_drops(netfw);
        let key = Key::create(lab)?;
        let _server = ssh::serve(lab.host("master"), &key)?;
        for (master, client, network) in families {
            netfw.reload(&rules::two_armed(SSH))?;
            let session = key.session(lab.host("client"), master, 22)?;
            waits_for_a_person(netfw, &session, client, network)?;
            ensure!(
                key.run(lab.host("client"), master, 22, "hostname").is_err(),
                "a person's word does nothing"
            );
        }
        Ok(())
    })
}

/// Changes that would end the session are refused, until a person says so.
fn waits_for_a_person(netfw: &Netfw<'_>, session: &Background, client: &str, network: &str) -> Result<()> {
    let refused = || {
        let status = netfw.json("status").ok()?;
        status["last_reload"]["error"].as_str().map(|error| error.contains(client))
    };
    let blocking = format!("[block]\nfrom = [\"{network}\"]\n{SSH}");
    let narrow = format!("{SSH}from = [\"198.51.100.0/24\"]\n");
    for shut in [&blocking, &narrow] {
        netfw.reload(&rules::two_armed(&format!("{SSH}# but for {}", shut.len())))?;
        netfw.write_rules(&rules::two_armed(shut))?;
        wait::until("the change to be refused", || refused()?.then_some(()))?;
    }
    let goes_on = || {
        let before = session.output().len();
        wait::until("more ticks", || (session.output().len() > before + 20).then_some(()))
    };
    goes_on()?;
    // A daemon that begins anew is nobody's word either.
    netfw.kill()?;
    netfw.start()?;
    goes_on()?;
    netfw.command(["reload"])?.success().map(drop)
}

/// A new SSH connection proves that one gets in, by a rule or by the fail-safe door. The session from before does not.
#[test]
fn a_new_ssh_connection_confirms() -> Result<()> {
    const DOOR: &str = "[failsafe]\nssh-port = 22\nfrom = [\"office\"]\n";
    [SSH, DOOR].iter().try_for_each(|way_in| {
        two_armed(&rules::two_armed(way_in), |lab, netfw| {
            let key = Key::create(lab)?;
            let _server = ssh::serve(lab.host("master"), &key)?;
            for (more, master) in [("web4", "192.0.2.1"), ("web6", "2001:db8::1")] {
                let session = key.session(lab.host("client"), master, 22)?;
                is_confirmed_by(netfw, way_in, more, &session, || {
                    key.run(lab.host("client"), master, 22, "hostname")
                })?;
            }
            Ok(())
        })
    })
}

/// Tries out a rule of the name `more`, and opens a new session once the one that there is has gone on for a while.
fn is_confirmed_by(
    netfw: &Netfw<'_>,
    way_in: &str,
    more: &str,
    session: &Background,
    open: impl Fn() -> Result<String>,
) -> Result<()> {
    let rule = format!("[[rule]]\nname = \"{more}\"\nprotocol = \"tcp\"\nport = 80\naction = \"accept\"\n");
    let path = candidate(netfw, &rules::two_armed(&format!("{way_in}{rule}")))?.display().to_string();
    netfw.command(["reload", &path, "--confirm", "60s", "--confirm-on-ssh"])?.success()?;
    let before = session.output().len();
    let went_on = || (session.output().len() > before + 60).then_some(());
    wait::until("seconds of the old session", went_on)?;
    assert_eq!(netfw.json("status")?["confirm"]["pending"], true);
    open()?;
    wait::until("the new session to be noticed", || {
        (netfw.json("status").ok()?["confirm"]["pending"] == false).then_some(())
    })?;
    let kept = fs::read_to_string(netfw.rules())?;
    ensure!(kept.contains(more), "taken back in spite of the new session");
    Ok(())
}

/// Earlier generations are kept, can be listed, and gone back to.
#[test]
fn earlier_generations_come_back() -> Result<()> {
    two_armed(&forward(OLD), |lab, netfw| {
        let _server = serve(lab)?;
        expect_drops(netfw);
        for port in 7003..7016 {
            netfw.reload(&forward(port))?;
        }
        let listed = netfw.json("generations")?;
        ensure!(listed["generations"].as_array().is_some_and(|list| list.len() == 10), "{listed}");
        netfw.command(["rollback", "--to", "999"])?.expect_code(1)?;
        netfw.reload(&forward(OLD))?;
        let good = netfw.json("status")?["generation"].to_string();
        netfw.reload(&forward(NEW))?;
        netfw.command(["rollback", "--to", &good])?.success()?;
        until_old_rules_hold(lab)?;
        // The file still holds what was gone back from.
        netfw.kill()?;
        netfw.start()?;
        until_old_rules_hold(lab)
    })
}

/// An interface that only the candidate manages is nobody's business again when the old rules hold, though nobody is there
/// to take the programs off.
#[test]
fn an_interface_of_the_candidate_is_left_alone_again() -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        let (master, far) = (lab.host("master"), lab.another_host("far")?);
        let name = far.namespace().name();
        master.namespace().ip_batch(&format!(
            "link add eth2 type veth peer name eth0 netns {name}\naddress add 10.9.0.1/24 dev eth2\n\
             address add fd09::1/64 dev eth2\nlink set eth2 up\n"
        ))?;
        far.namespace().ip_batch(
            "address add 10.9.0.2/24 dev eth0\naddress add fd09::2/64 dev eth0\nlink set eth0 up\n",
        )?;
        let ping = |to| -> Result<bool> { Ok(far.run(["ping", "-c1", "-W1", to])?.code == 0) };
        let reaches = || -> Result<bool> {
            let [v4, v6] = [ping("10.9.0.1")?, ping("fd09::1")?];
            ensure!(v4 == v6, "it is managed in one family only");
            Ok(v4)
        };
        wait::until("the link to be up", || reaches().ok()?.then_some(()))?;
        let netfw = Netfw::up(&lab, &forward(OLD))?;
        expect_drops(&netfw);
        let three = forward(OLD).replace("[\"eth1\"]", "[\"eth1\", \"eth2\"]");
        try_out(&netfw, &three, "8s")?;
        netfw.kill()?;
        ensure!(!reaches()?, "the candidate does not manage the interface");
        wait::until("the interface to be left alone", || reaches().ok()?.then_some(()))?;
        netfw.start()?;
        ensure!(reaches()?, "it is managed still");
        let status = netfw.json("status")?;
        assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(2));
        netfw.finish()?;
    }
    Ok(())
}
