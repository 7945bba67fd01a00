//! Scenario 23: the machine starts. What is there is protected at once, what comes later the moment it comes, and the
//! fail-safe door is open whatever the rules file looks like.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab},
    net::{
        Reception::{Silence, Welcome},
        TcpServer, UdpServer, ask, knock_tcp, udp_socket,
    },
    netfw::Netfw,
    rules,
    ssh::{self, Key},
    wait,
};
use nix::sys::signal::Signal;

const RULES: &str = r#"
[failsafe]
ssh-port = 22
from = ["office"]

[[port-forward]]
name = "echo"
protocol = ["tcp", "udp"]
port = 7000
to = "worker1:7"
"#;
/// What gives the interface to the LAN, which `ip link set down` empties, its address back.
const INSIDE: &str = "ip link set eth1 up; ip address replace fd00:80::2/64 dev eth1 nodad";

/// Tells `story` of a master that has not started yet, once for each chosen engine.
fn before_the_start(story: impl Fn(&Lab, &Netfw<'_>) -> Result<()>) -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        let netfw = Netfw::prepare(&lab, &rules::two_armed(RULES))?;
        netfw.expect_drops("policy-input", ..);
        let told = story(&lab, &netfw);
        told.with_context(|| format!("engine {engine}; daemon:\n{}", netfw.log()))?;
        netfw.finish_on_changed_machine()?;
    }
    Ok(())
}

/// What `status` says of an interface: the key's value.
fn interface(netfw: &Netfw<'_>, name: &str, key: &str) -> Option<String> {
    let status = netfw.json("status").ok()?;
    let found = status["interfaces"].as_array()?.iter().find(|interface| interface["name"] == name)?;
    found[key].as_str().map(str::to_owned)
}

/// The fail-safe door is open for those it is meant for, and nothing else is.
fn expect_only_the_door(lab: &Lab, key: &Key) -> Result<()> {
    for address in ["192.0.2.1", "2001:db8::1"] {
        ensure!(key.run(lab.host("client"), address, 22, "hostname")? == "master");
    }
    ensure!(knock_tcp(lab.host("stranger"), "192.0.2.1:22")? == Silence, "a stranger may knock");
    ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7000")? == Silence);
    ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7")? == Silence);
    Ok(())
}

/// An interface comes late: the others do not wait for it, and it carries netfw before it is switched on.
#[test]
fn an_interface_comes_late() -> Result<()> {
    before_the_start(|lab, netfw| {
        let (master, worker) = (lab.host("master"), lab.host("worker1"));
        let _servers = [UdpServer::echo(worker, "192.168.80.3:7")?, UdpServer::echo(master, "0.0.0.0:9")?];
        let secret = TcpServer::echo(master, "0.0.0.0:9")?;
        master.shell("ip link set eth1 down && ip link set eth1 name late0")?;
        netfw.boot()?;
        ensure!(netfw.log().contains("eth1 (internal, waited for)"), "no word of eth1 in `ready`");
        ensure!(interface(netfw, "eth1", "link").as_deref() == Some("gone"));
        ensure!(interface(netfw, "eth1", "reason").is_some_and(|reason| reason.contains("waits")));
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:9")? == Silence, "eth0 is not protected");
        master.shell("ip link set late0 name eth1")?;
        wait::until("netfw to be on eth1", || {
            (interface(netfw, "eth1", "problem")? == "it is switched off").then_some(())
        })?;
        master.shell(INSIDE)?;
        wait::until("eth1 to be up", || (interface(netfw, "eth1", "link")? == "up").then_some(()))?;
        ensure!(knock_tcp(worker, "192.168.80.2:9")? == Silence, "eth1 is not protected");
        ensure!(secret.peers().is_empty(), "somebody got through");
        ask(&udp_socket(lab.host("client"), "0.0.0.0:0")?, "192.0.2.1:7000", b"through both")
    })
}

/// No interface is there yet: the start does not wait for one, and the first that comes is served.
#[test]
fn all_interfaces_come_late() -> Result<()> {
    before_the_start(|lab, netfw| {
        let master = lab.host("master");
        let _server = TcpServer::echo(master, "0.0.0.0:9")?;
        master.shell("for i in 0 1; do ip link set eth$i down; ip link set eth$i name late$i; done")?;
        netfw.boot()?;
        master.shell(
            "ip link set late0 name eth0 && ip link set eth0 up && ip route replace default via 192.0.2.254",
        )?;
        wait::until("eth0 to be served", || (interface(netfw, "eth0", "link")? == "up").then_some(()))?;
        wait::until("netfw to be on it", || interface(netfw, "eth0", "problem").is_none().then_some(()))?;
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:9")? == Silence, "eth0 is not protected");
        Ok(())
    })
}

/// Scenario 23: a broken file and no older rules: the door is open, everything else is shut, until the file is mended.
#[test]
fn a_broken_file_and_no_older_rules() -> Result<()> {
    before_the_start(|lab, netfw| {
        let key = Key::create(lab)?;
        let _servers = (
            ssh::serve(lab.host("master"), &key)?,
            TcpServer::echo(lab.host("master"), "[::]:7")?,
            TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?,
        );
        let broken = format!("{}[colour]\nis = \"blue\"\n", rules::two_armed(RULES));
        netfw.write_rules(&broken)?;
        netfw.boot()?;
        ensure!(
            netfw.log().contains("colour") && netfw.log().contains("everything is shut but"),
            "{}",
            netfw.log()
        );
        ensure!(netfw.json("status")?["last_reload"]["result"] == "error");
        expect_only_the_door(lab, &key)?;
        // The next start finds the same, and so does a person's.
        for start in [Netfw::boot, Netfw::start] {
            netfw.kill()?;
            start(netfw)?;
            expect_only_the_door(lab, &key)?;
        }
        netfw.write_rules(&rules::two_armed(RULES))?;
        wait::until("the mended file", || {
            (knock_tcp(lab.host("client"), "192.0.2.1:7000").ok()? == Welcome).then_some(())
        })?;
        // It is the oldest that there is now: nothing goes back to what stood in for it.
        ensure!(netfw.command(["rollback"])?.code == 1);
        netfw.write_rules(&broken)?;
        netfw.kill()?;
        netfw.boot()?;
        ensure!(
            knock_tcp(lab.host("client"), "192.0.2.1:7000")? == Welcome,
            "the last valid rules do not hold"
        );
        Ok(())
    })
}

/// Scenario 23: a trial that begins while everything is shut goes back to that.
#[test]
fn a_trial_out_of_the_shut_state() -> Result<()> {
    before_the_start(|lab, netfw| {
        let _server = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        netfw.write_rules(&format!("{}[colour]\n", rules::two_armed(RULES)))?;
        netfw.boot()?;
        netfw.kill()?;
        netfw.write_rules(&rules::two_armed(RULES))?;
        netfw.command(["reload", "--confirm", "10m"])?.success()?;
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7000")? == Welcome);
        netfw.command(["rollback"])?.success()?;
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7000")? == Silence);
        netfw.command(["reload", "--confirm", "10m"])?.success()?;
        netfw.command(["confirm"])?.success()?;
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7000")? == Welcome);
        Ok(())
    })
}

/// Scenario 23: the last valid rules hold as a whole when the file is broken or missing, and while one interface is.
#[test]
fn the_last_valid_rules_hold() -> Result<()> {
    before_the_start(|lab, netfw| {
        let (master, worker) = (lab.host("master"), lab.host("worker1"));
        let key = Key::create(lab)?;
        let _servers = (ssh::serve(master, &key)?, TcpServer::echo(worker, "192.168.80.3:7")?);
        // While nothing is up, the worker's last words reach the client under a name that it does not know; it says so.
        netfw.expect_drops("policy-forward", ..);
        netfw.boot()?;
        for broken in ["colour = 1\n", "[interfaces]\nexternal = [\"eth0\"]\n[colour]\n", ""] {
            netfw.command(["down"])?.success()?;
            match broken {
                "" => fs::remove_file(netfw.rules())?,
                text => netfw.write_rules(text)?,
            }
            master.shell("ip link set eth1 down && ip link set eth1 name late0")?;
            netfw.boot()?;
            ensure!(netfw.log().contains("valid last hold"), "{}", netfw.log());
            ensure!(key.run(lab.host("client"), "192.0.2.1", 22, "hostname")? == "master");
            master.shell(&format!("ip link set late0 name eth1; {INSIDE}"))?;
            wait::until("the forward", || {
                (knock_tcp(lab.host("client"), "192.0.2.1:7000").ok()? == Welcome).then_some(())
            })?;
        }
        Ok(())
    })
}

/// Scenario 23: what is kept is damaged, as after a power failure: the rules file holds all the same.
#[test]
fn a_damaged_memory_opens_nothing() -> Result<()> {
    before_the_start(|lab, netfw| {
        let _server = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let library = Path::new("/var/lib/netfw").join(lab.name());
        // Nothing can be read nor written there.
        fs::create_dir_all("/var/lib/netfw")?;
        fs::write(&library, "")?;
        netfw.boot()?;
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7000")? == Welcome);
        netfw.command(["stats"])?.success()?;
        netfw.command(["down"])?.success()?;
        fs::remove_file(&library)?;
        fs::create_dir_all(&library)?;
        for name in ["refused.json", "generations.json", "last-valid.json", "bans"] {
            fs::write(library.join(name), "{")?;
        }
        netfw.boot()?;
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7000")? == Welcome);
        ensure!(knock_tcp(lab.host("client"), "192.0.2.1:7")? == Silence);
        netfw.command(["generations"])?.success()?;
        Ok(())
    })
}

/// An interface that netfw cannot manage keeps it off no other.
#[test]
fn one_interface_is_no_reason_to_leave_the_others() -> Result<()> {
    before_the_start(|lab, netfw| {
        let _server = TcpServer::echo(lab.host("master"), "0.0.0.0:9")?;
        lab.host("master").shell("ip tuntap add tun0 mode tun")?;
        let rules = rules::two_armed(RULES).replace("[\"eth1\"]", "[\"tun0\", \"eth1\"]");
        netfw.write_rules(&rules)?;
        netfw.boot()?;
        ensure!(netfw.log().contains("tun0 has no Ethernet header"), "{}", netfw.log());
        ensure!(interface(netfw, "tun0", "problem").is_some(), "status says nothing");
        for (host, address) in [("client", "192.0.2.1:9"), ("worker1", "192.168.80.2:9")] {
            ensure!(knock_tcp(lab.host(host), address)? == Silence, "{address} is open");
        }
        netfw.kill()?;
        let path = netfw.rules().display().to_string();
        ensure!(netfw.command(["up", "-d", "-c", &path])?.code != 0, "on the terminal that is an error");
        Ok(())
    })
}

/// Nothing tells what to protect: exit code 3, and nothing is touched.
#[test]
fn nothing_to_start_from() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, "")?;
    let path = netfw.rules().display().to_string();
    for text in [None, Some("[interfaces\n"), Some("[colour]\n")] {
        match text {
            None => fs::remove_file(netfw.rules())?,
            Some(text) => netfw.write_rules(text)?,
        }
        netfw.command(["up", "--boot", "-d", "-c", &path])?.expect_code(3)?;
        netfw.expect_untouched()?;
    }
    Ok(())
}

/// The service manager is told once packets meet the rules, and not before.
#[test]
fn the_service_manager_is_told() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &rules::two_armed(RULES))?;
    let path = lab.dir().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(wait::GENEROUS))?;
    netfw.start_with(&["env", &format!("NOTIFY_SOCKET={}", path.display())], &["--boot"])?;
    let mut room = [0; 64];
    let length = manager.recv(&mut room).context("no word to the service manager")?;
    ensure!(room[..length].starts_with(b"READY=1"), "{}", String::from_utf8_lossy(&room[..length]));
    netfw.finish()
}

/// The master as the outside knows it, in each family, and where worker1 is.
const FAMILIES: [(&str, &str); 2] = [("192.0.2.1", "192.168.80.3:7"), ("[2001:db8::1]", "[fd00:80::3]:7")];
/// From one datagram to the next.
const PACE: Duration = Duration::from_millis(1);

/// A restart of the service is one signal to the daemon and the same start again, and stopping it is the signal alone. Meanwhile
/// nobody gets in who should not, and who may does.
#[test]
fn a_restart_of_the_service_opens_nothing() -> Result<()> {
    before_the_start(|lab, netfw| {
        let (mut closed, mut open) = (Vec::new(), Vec::new());
        for (outside, inside) in FAMILIES {
            closed.push(UdpServer::echo(lab.host("master"), &format!("{outside}:9"))?);
            open.push(UdpServer::echo(lab.host("worker1"), inside)?);
        }
        netfw.expect_drops("policy-input", 1000..);
        netfw.boot()?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let knocking = scope.spawn(|| knock_until(lab, &over));
            let restarted = (0..2).try_for_each(|_| restart(lab, netfw));
            over.store(true, Ordering::Relaxed);
            knocking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(restarted)
        })?;
        ensure!(closed.iter().all(|server| server.peers().is_empty()), "somebody got in meanwhile");
        Ok(())
    })
}

/// What the service manager does, and what is open between the two.
fn restart(lab: &Lab, netfw: &Netfw<'_>) -> Result<()> {
    netfw.signal(Signal::SIGTERM)?;
    ensure!(netfw.wait()? == 0, "the service manager takes that for a failure");
    for (outside, _) in FAMILIES {
        let local = if outside.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        ask(&udp_socket(lab.host("client"), local)?, &format!("{outside}:7000"), b"meanwhile")?;
    }
    netfw.boot()
}

/// Datagrams to a port that nobody may use.
fn knock_until(lab: &Lab, over: &AtomicBool) -> Result<()> {
    let stranger = lab.host("stranger");
    let sockets = [udp_socket(stranger, "0.0.0.0:0")?, udp_socket(stranger, "[::]:0")?];
    while !over.load(Ordering::Relaxed) {
        for (socket, (outside, _)) in sockets.iter().zip(FAMILIES) {
            socket.send_to(b"knock", format!("{outside}:9"))?;
        }
        thread::sleep(PACE);
    }
    Ok(())
}
