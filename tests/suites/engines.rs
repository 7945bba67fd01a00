//! Which hook handles packets: what the rules file asks for, what drivers can, who has done what, and changes under traffic.

use std::{
    collections::BTreeSet,
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use netfw_tests::{
    lab::{Engine, Lab},
    net::{UdpServer, ask, udp_socket},
    netfw::{Counters, Netfw},
    rules,
    scenario::two_armed,
    wait,
};
use serde_json::Value;

const FORWARDS: &str = r#"
[[port-forward]]
name = "echo"
protocol = "udp"
port = 7000
to = "worker1:7"

[[port-forward]]
name = "local"
protocol = "udp"
port = 7001
to = "master:7"
"#;

/// Rules for an engine, with more interfaces; applied by command alone, so that what is refused is tried only once.
fn rules(mode: &str, more: &[&str]) -> String {
    let internal: Vec<_> = ["eth1"].iter().chain(more).collect();
    rules::two_armed(&format!("{FORWARDS}[engine]\nmode = \"{mode}\"\n[reload]\nwatch = false\n"))
        .replace("internal = [\"eth1\"]", &format!("internal = {internal:?}"))
}

/// Interfaces whose drivers have no XDP, and how they are made.
const WITHOUT_XDP: [(&str, &str); 2] = [
    ("joined0", "ip link add joined0 type bridge"),
    ("part0", "ip link add base0 type veth peer name base1; ip link add link base0 name part0 type macvlan"),
];

/// What is asked for runs or is refused with a reason, and then nothing has changed; what is chosen has a reason.
#[test]
fn every_mode_on_every_kind_of_interface() -> Result<()> {
    let lab = Lab::two_armed(Engine::Xdp)?;
    let names = WITHOUT_XDP.map(|(name, _)| name);
    WITHOUT_XDP.iter().try_for_each(|(_, make)| lab.host("master").shell(make).map(drop))?;
    let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
    let netfw = Netfw::up(&lab, &rules("auto", &names))?;
    expect_engine(&lab, &netfw, 4, "tc").context("auto")?;
    netfw.reload(&rules("xdp-generic", &names))?;
    expect_engine(&lab, &netfw, 4, "xdp-generic")?;
    for name in names {
        netfw.write_rules(&rules("xdp", &[name]))?;
        let refused = netfw.command(["reload"])?;
        refused.expect_code(1)?;
        let told = [name, "cannot run xdp", "the driver has no XDP", "auto"];
        ensure!(told.iter().all(|words| refused.stderr.contains(words)), "{}", refused.stderr);
        expect_engine(&lab, &netfw, 4, "xdp-generic").context("after a refusal")?;
    }
    netfw.reload(&rules("xdp", &[]))?;
    expect_engine(&lab, &netfw, 2, "xdp")?;
    netfw.reload(&rules("auto", &names))?;
    expect_engine(&lab, &netfw, 4, "tc").context("auto again")?;
    netfw.finish()
}

/// `status` names `engine` for each of the interfaces and for each pair of them, with a reason; and packets pass.
fn expect_engine(lab: &Lab, netfw: &Netfw<'_>, interfaces: usize, engine: &str) -> Result<()> {
    let status = netfw.json("status")?;
    for (list, expected) in [("interfaces", interfaces), ("pairs", interfaces * interfaces)] {
        let listed = status[list].as_array().with_context(|| format!("no {list} in {status}"))?;
        let fits =
            |it: &Value| it["engine"] == engine && it["reason"].as_str().is_some_and(|it| !it.is_empty());
        ensure!(listed.len() == expected && listed.iter().all(fits), "{engine}: {list} of {status}");
    }
    let text = netfw.command(["status"])?.success()?;
    let shown = text.lines().any(|line| line.starts_with("eth0") && line.contains("eth0, eth1"));
    ensure!(shown, "no pairs in\n{text}");
    ask(&udp_socket(lab.host("client"), "0.0.0.0:0")?, "192.0.2.1:7000", b"hello")
}

/// Each translated packet is in one share, and a reload forgets none.
#[test]
fn shares_of_engines_and_kernel() -> Result<()> {
    two_armed(&rules::two_armed(FORWARDS), |lab, netfw| {
        let _distant = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let _local = UdpServer::echo(lab.host("master"), "192.168.80.2:7")?;
        let socket = udp_socket(lab.host("client"), "0.0.0.0:0")?;
        let words = |times| (0..times).try_for_each(|_| talk_to_both(&socket));
        words(20)?;
        netfw.reload(&rules::two_armed(&format!("{FORWARDS}[timeouts]\nudp = \"4m\"\n")))?;
        words(20)?;
        let counters = netfw.counters()?;
        let [xdp, tc, kernel] = shares(&counters, "echo");
        assert_eq!(xdp + tc + kernel, 80, "{counters}");
        // Where XDP is, TC only renews the way out, about once a second.
        ensure!(if lab.engine() == Engine::Xdp { xdp > tc } else { xdp == 0 } && kernel == 0, "{counters}");
        assert_eq!(shares(&counters, "local"), [0, 0, 80], "{counters}");
        let text = netfw.command(["stats"])?.success()?;
        ensure!(text.contains("BY KERNEL") && text.contains("100 %"), "{text}");
        Ok(())
    })
}

fn talk_to_both(socket: &UdpSocket) -> Result<()> {
    ["192.0.2.1:7000", "192.0.2.1:7001"].iter().try_for_each(|to| ask(socket, to, b"word"))
}

/// Packets of a port-forward that XDP, TC and the kernel have finished; bytes add up, too.
fn shares(counters: &Counters, forward: &str) -> [u64; 3] {
    let count = |what: &str| counters.count(&format!("port_forwards.{forward}.{what}"));
    let shares = ["xdp", "tc", "kernel"].map(|finisher| count(&format!("finished_by.{finisher}")));
    let directions = ["to_target", "from_target"].map(count);
    assert_eq!(
        shares.iter().map(|share| share.bytes).sum::<u64>(),
        directions.iter().map(|direction| direction.bytes).sum::<u64>(),
        "{counters}"
    );
    shares.map(|share| share.packets)
}

/// How often each engine takes over.
const CHANGES: usize = 24;
/// Datagrams that are on their way at once: fewer than any queue of the lab holds.
const WINDOW: u64 = 32;

/// Numbered datagrams, there and back, while engines take over from each other: none is missing, and none is counted twice.
#[test]
fn a_change_of_engine_loses_no_packet() -> Result<()> {
    let lab = Lab::two_armed(Engine::Xdp)?;
    // With XDP a veth loses its NAPI, and what waits for that is thrown away (`veth_napi_del_range`), unless GRO needs it as well.
    lab.host("master").shell("for i in eth0 eth1; do ethtool -K $i gro on; done")?;
    let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
    let netfw = Netfw::up(&lab, &rules("tc", &[]))?;
    let (over, windows) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let talked = talk(&lab, &over, &windows);
            over.store(true, Ordering::Relaxed);
            talked
        });
        let modes = ["xdp", "tc", "xdp-generic", "xdp", "xdp-generic", "tc"].iter().cycle();
        let changed = modes.take(CHANGES).try_for_each(|mode| {
            netfw.reload(&rules(mode, &[]))?;
            let before = windows.load(Ordering::Relaxed);
            let talks = || {
                (over.load(Ordering::Relaxed) || windows.load(Ordering::Relaxed) > before + 1).then_some(())
            };
            wait::until("datagrams through the new engine", talks)
        });
        over.store(true, Ordering::Relaxed);
        talking.join().map_err(|_| anyhow!("the talker panicked"))??;
        changed
    })?;
    let counters = netfw.counters()?;
    let shares = shares(&counters, "echo");
    assert_eq!(shares.iter().sum::<u64>(), 2 * WINDOW * windows.load(Ordering::Relaxed), "{counters}");
    ensure!(shares[0] > 0 && shares[1] > 0 && shares[2] == 0, "an engine has done nothing: {counters}");
    netfw.finish()
}

/// Sends numbers, a window at a time, and waits for all of them to come back.
fn talk(lab: &Lab, over: &AtomicBool, windows: &AtomicU64) -> Result<()> {
    let socket = udp_socket(lab.host("client"), "0.0.0.0:0")?;
    let mut first = 0_u64;
    while !over.load(Ordering::Relaxed) {
        let mut missing: BTreeSet<u64> = (first..first + WINDOW).collect();
        for number in &missing {
            socket.send_to(&number.to_be_bytes(), "192.0.2.1:7000")?;
        }
        while !missing.is_empty() {
            let mut number = [0; 8];
            socket.recv(&mut number).with_context(|| format!("of {first} and following, {missing:?}"))?;
            let number = u64::from_be_bytes(number);
            ensure!(missing.remove(&number), "{number} came twice");
        }
        first += WINDOW;
        windows.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
