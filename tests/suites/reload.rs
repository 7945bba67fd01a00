//! Changes of the rules under traffic: what is no longer admitted is cut, everything else goes on.

use std::{
    env,
    net::{TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use netfw_tests::{
    lab::Lab,
    net::{Reception, SILENCE, TcpServer, UdpServer, ask, connect, exchange_line, knock_tcp, udp_socket},
    netfw::Netfw,
    rules,
    scenario::two_armed,
    wait,
};

fn forwards(ports: &[(u16, &str)]) -> String {
    let forward = |(port, to): &(u16, &str)| {
        format!(
            "[[port-forward]]\nname = \"p{port}\"\nprotocol = [\"tcp\", \"udp\"]\nport = {port}\nto = \"{to}\"\n"
        )
    };
    rules::two_armed(&ports.iter().map(forward).collect::<String>())
}

/// The master as the outside knows it, in each family.
const MASTERS: [&str; 2] = ["192.0.2.1", "[2001:db8::1]"];

/// A connection of the client to a port of the master, in each family.
fn connect_both(lab: &Lab, port: u16) -> Result<Vec<TcpStream>> {
    MASTERS.iter().map(|master| connect(lab.host("client"), &format!("{master}:{port}"))).collect()
}

/// Scenario 20: the flow through a removed forward ends, the one beside it does not notice.
#[test]
fn a_removed_forward_cuts_its_flows_and_no_other() -> Result<()> {
    two_armed(&forwards(&[(7001, "worker1:7"), (7002, "worker2:7")]), |lab, netfw| {
        let _servers = [serve(lab, "worker1")?, serve(lab, "worker2")?];
        let (mut stay, mut go) = (connect_both(lab, 7001)?, connect_both(lab, 7002)?);
        stay.iter_mut().chain(&mut go).try_for_each(|stream| exchange_line(stream, b"before"))?;
        netfw.reload(&forwards(&[(7001, "worker1:7")]))?;
        netfw.expect_drops("flow-cut", ..);
        netfw.expect_drops("policy-input", 1..);
        for stream in &mut go {
            ensure!(exchange_line(stream, b"after").is_err(), "the flow of a removed forward goes on");
        }
        stay.iter_mut().try_for_each(|stream| exchange_line(stream, b"after"))?;
        for master in MASTERS {
            assert_eq!(knock_tcp(lab.host("client"), &format!("{master}:7002"))?, Reception::Silence);
        }
        Ok(())
    })
}

/// Scenario 20: a changed target takes new flows, and no flow stays with the old one.
#[test]
fn a_changed_target_keeps_no_flow() -> Result<()> {
    two_armed(&forwards(&[(7001, "worker1:7")]), |lab, netfw| {
        let servers = [serve(lab, "worker1")?, serve(lab, "worker2")?];
        let mut streams = connect_both(lab, 7001)?;
        streams.iter_mut().try_for_each(|stream| exchange_line(stream, b"to the first"))?;
        netfw.reload(&forwards(&[(7001, "worker2:7")]))?;
        netfw.expect_drops("flow-cut", ..);
        netfw.expect_drops("policy-input", ..);
        for stream in &mut streams {
            ensure!(exchange_line(stream, b"?").is_err(), "the flow stays with the old target");
        }
        connect_both(lab, 7001)?.iter_mut().try_for_each(|stream| exchange_line(stream, b"to the second"))?;
        assert_eq!(servers.map(|both| both.map(|server| server.peers().len())), [[1, 1]; 2]);
        Ok(())
    })
}

/// The echo servers of a worker, one in each family.
fn serve(lab: &Lab, worker: &str) -> Result<[TcpServer; 2]> {
    let last = if worker == "worker1" { 3 } else { 4 };
    let [v4, v6] = [format!("192.168.80.{last}:7"), format!("[fd00:80::{last}]:7")]
        .map(|address| TcpServer::echo(lab.host(worker), &address));
    Ok([v4?, v6?])
}

/// How many changes the running conversations must survive.
const CHANGES: usize = 60;
/// Environment variable with another number.
const VARIABLE: &str = "NETFW_CHANGES";

fn changes() -> Result<usize> {
    match env::var(VARIABLE) {
        Ok(number) => number.parse().with_context(|| format!("{VARIABLE} is no number: {number}")),
        Err(_) => Ok(CHANGES),
    }
}

/// Versions of the rules that are told apart by what answers.
const VERSIONS: usize = 16;

/// Rules that forward 7001 as ever, but for another reason than those before; and 7002 and 7003 to what only this version leads to.
fn version(number: usize) -> String {
    let own = format!("worker1:{}", 9000 + number % VERSIONS);
    let forwards = forwards(&[(7001, "worker1:7"), (7002, &own), (7003, &own)]);
    let rule = "[[rule]]\nname = \"r\"\nchain = \"forward\"\naction = \"accept\"\nport-forward = \"p7001\"\n";
    if number.is_multiple_of(2) { forwards } else { forwards + rule }
}

/// Scenario 19: valid and broken rules by turns, under numbered datagrams, of which each comes back once; beside a connection,
/// and words that none of the rules let in. Whoever asks meets one version or the next, and never half of one.
#[test]
fn changes_lose_no_packet() -> Result<()> {
    let changes = changes()?;
    two_armed(&version(0), |lab, netfw| {
        for reason in ["flow-cut", "policy-forward"] {
            // Answers on their way from a target that has just gone.
            netfw.expect_drops(reason, ..);
        }
        let _tcp = serve(lab, "worker1")?;
        let _udp =
            ["192.168.80.3:7", "[fd00:80::3]:7"].map(|address| UdpServer::echo(lab.host("worker1"), address));
        let _versions: Vec<_> =
            (0..VERSIONS).map(|number| serve_version(lab, number)).collect::<Result<_>>()?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let talking = scope.spawn(|| talk(lab, &over));
            let changed = (0..changes).try_for_each(|number| change(netfw, number));
            over.store(true, Ordering::Relaxed);
            let uninvited = talking.join().map_err(|_| anyhow!("the talker panicked"))??;
            println!("{changes} changes, {uninvited} words of each kind");
            netfw.expect_drops("policy-input", uninvited..=uninvited);
            changed
        })
    })
}

fn serve_version(lab: &Lab, number: usize) -> Result<[UdpServer; 2]> {
    let [v4, v6] = ["192.168.80.3", "[fd00:80::3]"].map(|address| {
        let address = format!("{address}:{}", 9000 + number);
        UdpServer::answering(lab.host("worker1"), &address, move |_| vec![number as u8])
    });
    Ok([v4?, v6?])
}

/// Talks through a port-forward that stays, through two that change, and beside all of them, by turns in both families; how
/// often.
fn talk(lab: &Lab, over: &AtomicBool) -> Result<u64> {
    let sockets = || -> Result<Vec<_>> {
        ["0.0.0.0:0", "[::]:0"].iter().map(|any| udp_socket(lab.host("client"), any)).collect()
    };
    let (mut streams, sockets, uninvited) = (connect_both(lab, 7001)?, sockets()?, sockets()?);
    let (mut times, mut latest) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        for (family, master) in MASTERS.iter().enumerate() {
            exchange_line(&mut streams[family], b"word")?;
            uninvited[family].send_to(b"word", format!("{master}:7004"))?;
            // Their answers tell that the one before has been judged.
            exchange_numbers(&sockets[family], &format!("{master}:7001"), times)?;
            for port in [7002, 7003] {
                latest = compare_version(lab, &format!("{master}:{port}"), latest)?;
            }
            times += 1;
        }
    }
    for socket in sockets {
        socket.set_read_timeout(Some(SILENCE))?;
        ensure!(receive_number(&socket).is_err(), "a number came back twice");
    }
    Ok(times)
}

/// Datagrams that are on their way at once.
const WINDOW: u64 = 8;

/// Sends the next numbers, each of which must come back, and no other. One whose way out is looked up anew may be overtaken by
/// those behind it.
fn exchange_numbers(socket: &UdpSocket, to: &str, times: u64) -> Result<()> {
    let numbers = times * WINDOW..(times + 1) * WINDOW;
    for number in numbers.clone() {
        socket.send_to(&number.to_be_bytes(), to)?;
    }
    let back: Result<Vec<u64>> = numbers.clone().map(|_| receive_number(socket)).collect();
    let mut back = back.with_context(|| format!("some of {numbers:?}"))?;
    back.sort_unstable();
    ensure!(back.iter().copied().eq(numbers.clone()), "of {numbers:?} came back {back:?}");
    Ok(())
}

fn receive_number(socket: &UdpSocket) -> Result<u64> {
    let mut number = [0; 8];
    socket.recv(&mut number)?;
    Ok(u64::from_be_bytes(number))
}

/// Asks as somebody new which version answers at `to`: it may be no older than `latest`, which did before.
fn compare_version(lab: &Lab, to: &str, latest: usize) -> Result<usize> {
    // Who asks the target that has just gone gets no answer.
    let Some(answer) = ask_version(lab, to)? else { return Ok(latest) };
    let ahead = (answer + VERSIONS - latest) % VERSIONS;
    ensure!(ahead < VERSIONS / 2, "{to} leads to version {answer} after {latest} has answered");
    Ok(answer)
}

fn ask_version(lab: &Lab, to: &str) -> Result<Option<usize>> {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = udp_socket(lab.host("client"), any)?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.send_to(b"?", to)?;
    let mut answer = [0];
    Ok(socket.recv(&mut answer).is_ok().then_some(answer[0].into()))
}

/// Every third text is broken, the others are the next version each.
fn change(netfw: &Netfw<'_>, number: usize) -> Result<()> {
    let next = version(1 + number - number.div_ceil(3));
    match number % 3 {
        0 => {
            netfw.write_rules(&format!("{next}\ncolour = \"blue\"\n"))?;
            netfw.command(["reload"])?.expect_code(3).map(drop)
        }
        _ => netfw.reload(&next),
    }
    .with_context(|| format!("change {number}"))
}

/// The generation tells that something changed, and the counters of what has the same name go on.
#[test]
fn counters_go_on() -> Result<()> {
    two_armed(&forwards(&[(7001, "worker1:7")]), |lab, netfw| {
        let _udp = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let socket = udp_socket(lab.host("client"), "0.0.0.0:0")?;
        let generation = |netfw: &Netfw<'_>| netfw.json("status").map(|status| status["generation"].clone());
        ask(&socket, "192.0.2.1:7001", b"one")?;
        let before = generation(netfw)?;
        netfw.reload(&forwards(&[(7000, "worker2:7"), (7001, "worker1:7")]))?;
        ensure!(generation(netfw)? != before, "the generation is the same");
        ask(&socket, "192.0.2.1:7001", b"two")?;
        assert_eq!(netfw.counters()?.number("port_forwards.p7001.to_target.packets"), 2);
        Ok(())
    })
}

/// Rules that take a set from another file.
const INCLUDING: &str = r#"
[interfaces]
external = ["eth0"]
internal = ["eth1"]

[sets]
office = { file = "office.txt" }

[[port-forward]]
name = "p"
protocol = "tcp"
port = 7001
to = "192.168.80.3:7"
from = ["office"]
"#;

/// The file is watched: replaced by rename, written in place, and so are the files it includes.
#[test]
fn a_change_is_noticed() -> Result<()> {
    two_armed(&forwards(&[(7001, "worker1:7")]), |lab, netfw| {
        let _servers = [serve(lab, "worker1")?, serve(lab, "worker2")?];
        netfw.expect_drops("policy-input", ..);
        // The last words of a connection that was closing when its forward went; or, taken for those of one through the forward
        // that leads there now, when that goes.
        netfw.expect_drops("policy-forward", ..);
        netfw.expect_drops("flow-cut", ..);
        let received = |port: u16| knock_tcp(lab.host("client"), &format!("192.0.2.1:{port}")).ok();
        netfw.write_rules(&forwards(&[(7002, "worker1:7")]))?;
        wait::until("the replaced file to be applied", || {
            (received(7002)? == Reception::Welcome).then_some(())
        })?;
        let office = netfw.rules().with_file_name("office.txt");
        std::fs::write(&office, "198.51.100.0/24 # not yet\n")?;
        std::fs::write(netfw.rules(), netfw.complete(INCLUDING))?;
        wait::until("the file written in place to be applied", || {
            (received(7002)? == Reception::Silence).then_some(())
        })?;
        assert_eq!(received(7001), Some(Reception::Silence));
        std::fs::write(&office, "203.0.113.0/24\n")?;
        wait::until("the included file to be applied", || {
            (received(7001)? == Reception::Welcome).then_some(())
        })
    })
}

/// Rules that block whom another file names, and forward a port.
const BLOCKING: &str = r#"
bad = { file = "bad.txt" }

[block]
from = ["bad"]

[[port-forward]]
name = "p"
protocol = "tcp"
port = 7001
to = "worker1:7"
"#;

/// So is a block list: whom a change names loses his live connections, and nobody else does.
#[test]
fn a_change_of_a_block_list_is_noticed() -> Result<()> {
    two_armed(&forwards(&[(7001, "worker1:7")]), |lab, netfw| {
        let _servers = [serve(lab, "worker1")?, serve(lab, "worker2")?];
        netfw.expect_drops("blocked", 1..);
        // The end of the last welcome, where the list comes into force before it is said.
        netfw.expect_drops("flow-cut", ..);
        let list = netfw.rules().with_file_name("bad.txt");
        std::fs::write(&list, "203.0.113.77\n")?;
        netfw.reload(&rules::two_armed(BLOCKING))?;
        let client = lab.host("client");
        let mut other = connect(lab.host("stranger"), "192.0.2.1:7001")?;
        let mut live = connect(client, "192.0.2.1:7001")?;
        exchange_line(&mut live, b"before")?;
        let candidate = netfw.rules().with_file_name("candidate.toml");
        let more = BLOCKING.replace("[\"bad\"]", "[\"bad\", \"203.0.113.10\", \"192.0.2.0/24\"]");
        std::fs::write(&candidate, netfw.complete(&rules::two_armed(&more)))?;
        let planned = netfw.command(["--json", "plan", &candidate.display().to_string()])?.success()?;
        let planned: serde_json::Value = serde_json::from_str(&planned)?;
        ensure!(planned["flows"]["cut"] == 1 && planned["flows"]["redirected"] == 0, "{planned}");
        std::fs::write(&list, "203.0.113.77\n203.0.113.10 # the client\n")?;
        let received = || knock_tcp(client, "192.0.2.1:7001").ok();
        wait::until("the longer list", || (received()? == Reception::Silence).then_some(()))?;
        ensure!(exchange_line(&mut live, b"after").is_err(), "a live connection went on");
        exchange_line(&mut other, b"after")?;
        std::fs::write(&list, "203.0.113.77\n")?;
        wait::until("the shorter list", || (received()? == Reception::Welcome).then_some(()))?;
        exchange_line(&mut other, b"at last")
    })
}

/// Whom a list names loses his idle connections at once, also where flows that a change no longer admits are left to end.
#[test]
fn a_block_list_ends_idle_flows() -> Result<()> {
    let keep = "[flows]\non-change = \"keep\"\n";
    let rules = |more: &str| format!("{}{keep}{more}", forwards(&[(7001, "worker1:7")]));
    two_armed(&rules(""), |lab, netfw| {
        let _udp = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        for host in ["client", "stranger"] {
            ask(&udp_socket(lab.host(host), "0.0.0.0:0")?, "192.0.2.1:7001", b"word")?;
        }
        netfw.reload(&rules("[block]\nfrom = [\"203.0.113.0/24\"]\n"))?;
        let left = netfw.flows()?;
        ensure!(left.len() == 1, "{left:?}");
        netfw.reload(&format!("{}{keep}", forwards(&[])))?;
        ensure!(netfw.flows()?.len() == 1, "a flow that may end by itself was ended");
        Ok(())
    })
}

/// A list that the rules have just come to name, with a mistake in it or not there at all: mending nothing but the list is noticed.
#[test]
fn mending_a_list_is_noticed() -> Result<()> {
    two_armed(&forwards(&[(7001, "worker1:7")]), |lab, netfw| {
        let _servers = [serve(lab, "worker1")?, serve(lab, "worker2")?];
        netfw.expect_drops("blocked", 1..);
        // The end of the last welcome, where the list comes into force before it is said.
        netfw.expect_drops("flow-cut", ..);
        let blocking = |list: &str| rules::two_armed(&BLOCKING.replace("bad.txt", list));
        let lists = netfw.rules().with_file_name("lists");
        std::fs::create_dir_all(&lists)?;
        std::fs::write(lists.join("wrong.txt"), "203.0.113.300\n")?;
        let refused = |list: &str| {
            wait::until("the mistake to be told", || {
                let status = netfw.json("status").ok()?;
                status["last_reload"]["error"].as_str()?.contains(list).then_some(())
            })
        };
        for (list, reception) in [("wrong.txt", Reception::Silence), ("missing.txt", Reception::Welcome)] {
            netfw.write_rules(&blocking(&format!("lists/{list}")))?;
            refused(list)?;
            let members = if reception == Reception::Silence { "203.0.113.10\n" } else { "203.0.113.77\n" };
            std::fs::write(lists.join(list), members)?;
            wait::until("the mended list to be applied", || {
                (knock_tcp(lab.host("client"), "192.0.2.1:7001").ok()? == reception).then_some(())
            })?;
        }
        Ok(())
    })
}
