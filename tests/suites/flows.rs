//! The flow table, listed, sorted, paged, watched and cut.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use netfw::kernel::{Conversation, Maps, Pins};
use netfw_tests::{
    lab::Lab,
    net::{TcpServer, UdpServer, ask, connect, connect_from, exchange_line, udp_socket},
    netfw::Netfw,
    rules,
    scenario::two_armed,
    wait,
};
use serde_json::Value;

const ECHO: &str =
    "[[port-forward]]\nname = \"echo\"\nprotocol = [\"tcp\", \"udp\"]\nport = 7000\nto = \"worker1:7\"\n";

/// What `netfw --json flows WORDS` prints.
fn flows(netfw: &Netfw<'_>, words: &[&str]) -> Result<Value> {
    let line = ["--json", "flows"].into_iter().chain(words.iter().copied());
    Ok(serde_json::from_str(&netfw.command(line)?.success()?)?)
}

/// The clients' ports in the order of the list.
fn ports(document: &Value) -> Vec<u16> {
    let clients = document["flows"].as_array().into_iter().flatten();
    clients.filter_map(|flow| Some(flow["client"].as_str()?.parse::<SocketAddr>().ok()?.port())).collect()
}

/// The flows, but for what is another second later.
fn timeless(mut document: Value) -> Value {
    for flow in document["flows"].as_array_mut().into_iter().flatten() {
        for key in ["idle_seconds", "expires_seconds"] {
            flow[key] = Value::Null;
        }
    }
    document["flows"].take()
}

/// `flows` shows a flow of each family with its addresses, and filters.
#[test]
fn flows_are_listed_and_filtered() -> Result<()> {
    let unanswered =
        "[[port-forward]]\nname = \"deaf\"\nprotocol = \"udp\"\nport = 7001\nto = \"worker1:9\"\n";
    two_armed(&rules::two_armed(&format!("{ECHO}{unanswered}")), |lab, netfw| {
        let _servers =
            ["192.168.80.3:7", "[fd00:80::3]:7"].map(|address| UdpServer::echo(lab.host("worker1"), address));
        for (client, outside, inside, filters, headers) in [
            (
                "203.0.113.10:4000",
                "192.0.2.1:7000",
                "192.168.80.3:7",
                ["203.0.113.0/24", "192.168.80.3/32"],
                28,
            ),
            (
                "[2001:db8:1::10]:4000",
                "[2001:db8::1]:7000",
                "[fd00:80::3]:7",
                ["2001:db8:1::/48", "fd00:80::3/128"],
                48,
            ),
        ] {
            ask(&udp_socket(lab.host("client"), client)?, outside, b"hello")?;
            let listed = |words: &[&str]| Ok::<_, anyhow::Error>(timeless(flows(netfw, words)?));
            let flow = listed(&["--from", filters[0]])?;
            assert_eq!(flow.as_array().map(Vec::len), Some(1), "{flow}");
            assert_eq!(flow[0]["protocol"], "udp");
            assert_eq!(flow[0]["client"], client);
            assert_eq!(flow[0]["original_destination"], outside);
            assert_eq!(flow[0]["target"], inside);
            assert_eq!(flow[0]["source_nat"], Value::Null);
            assert_eq!(flow[0]["port_forward"], "echo");
            assert_eq!(flow[0]["packets"], 2);
            assert_eq!(flow[0]["bytes"], 2 * (headers + 5));
            assert_eq!(listed(&["--to", filters[1], "--port-forward", "echo"])?, flow);
        }
        assert_eq!(ports(&flows(netfw, &["--port-forward", "echo"])?).len(), 2);
        assert!(ports(&flows(netfw, &["--from", "198.51.100.0/24"])?).is_empty());
        expect_states(lab, netfw)
    })
}

/// A connection that lives beside the datagram that was answered, one that is over, and a datagram that nobody answers.
fn expect_states(lab: &Lab, netfw: &Netfw<'_>) -> Result<()> {
    let client = lab.host("client");
    let _server = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
    let mut live = connect_from(client, "203.0.113.10:4001", "192.0.2.1:7000")?;
    let mut over = connect_from(client, "203.0.113.10:4002", "192.0.2.1:7000")?;
    exchange_line(&mut live, b"hello")?;
    exchange_line(&mut over, b"goodbye")?;
    drop(over);
    udp_socket(client, "203.0.113.10:4003")?.send_to(b"anybody?", "192.0.2.1:7001")?;
    for (state, wanted) in
        [("established", &[4000, 4001][..]), ("closed", &[4002]), ("opening", &[4003]), ("closing", &[])]
    {
        wait::until(&format!("{wanted:?} to be {state}"), || {
            let words = ["--from", "203.0.113.10", "--sort", "client", "--state", state];
            (ports(&flows(netfw, &words).ok()?) == wanted).then_some(())
        })?;
    }
    Ok(())
}

/// Four flows of different sizes: every order, and pages of it; `total` counts all that fit the filter.
#[test]
fn flows_are_sorted_and_paged() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        for (port, size) in [(4001, 20), (4002, 400), (4003, 3), (4004, 100)] {
            let socket = udp_socket(lab.host("client"), &format!("203.0.113.10:{port}"))?;
            ask(&socket, "192.0.2.1:7000", &vec![7; size])?;
        }
        let listed = |words: &[&str]| -> Result<Vec<u16>> {
            let document = flows(netfw, words)?;
            ensure!(document["total"] == 4, "{document}");
            Ok(ports(&document))
        };
        assert_eq!(listed(&["--sort", "bytes"])?, [4002, 4004, 4001, 4003]);
        assert_eq!(listed(&["--sort", "bytes", "--reverse"])?, [4003, 4001, 4004, 4002]);
        assert_eq!(listed(&["--sort", "client"])?, [4001, 4002, 4003, 4004]);
        assert_eq!(listed(&["--sort", "client", "--limit", "2", "--offset", "1"])?, [4002, 4003]);
        assert_eq!(listed(&["--sort", "client", "--offset", "3"])?, [4004]);
        assert!(listed(&["--limit", "0"])?.is_empty());
        assert_eq!(listed(&[])?.len(), 4);
        let none = flows(netfw, &["--port-forward", "another", "--limit", "2"])?;
        ensure!(none["total"] == 0 && ports(&none).is_empty(), "{none}");
        let table = netfw.command(["flows", "--limit", "3"])?.success()?;
        ensure!(table.ends_with("3 of 4 flows: --limit and --offset show others"), "{table}");
        Ok(())
    })
}

/// `--watch` prints the list again and again: a flow that begins later is in a later one.
#[test]
fn flows_are_watched() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let watch = lab.host("master").spawn(netfw.line(["--json", "flows", "--watch=0.1"])?)?;
        wait::until("an empty list", || watch.output().contains("{\"flows\":[],").then_some(()))?;
        ask(&udp_socket(lab.host("client"), "203.0.113.10:4000")?, "192.0.2.1:7000", b"hello")?;
        wait::until("a list with the flow", || watch.output().contains("203.0.113.10:4000").then_some(()))
    })
}

/// `flows cut` ends what fits the filters, at once and at both ends, and nothing else; also where changes of the rules
/// cut nothing.
#[test]
fn chosen_flows_are_cut() -> Result<()> {
    let rules = rules::two_armed(&format!("{ECHO}[flows]\non-change = \"keep\"\n"));
    two_armed(&rules, |lab, netfw| {
        netfw.expect_drops("flow-cut", 1..);
        expect_cut(lab, netfw, "192.168.80.3:7", "192.0.2.1:7000", ["203.0.113.0/24", "198.51.100.0/24"])?;
        expect_cut(lab, netfw, "[fd00:80::3]:7", "[2001:db8::1]:7000", ["2001:db8:1::/48", "2001:db8:2::/48"])
    })
}

/// A connection and datagrams from the first network are cut, those from the second are not.
fn expect_cut(lab: &Lab, netfw: &Netfw<'_>, inside: &str, outside: &str, networks: [&str; 2]) -> Result<()> {
    let _tcp = TcpServer::echo(lab.host("worker1"), inside)?;
    let _udp = UdpServer::echo(lab.host("worker1"), inside)?;
    let any = if outside.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let mut streams = Vec::new();
    let mut sockets = Vec::new();
    for host in ["client", "stranger"] {
        streams.push(connect(lab.host(host), outside)?);
        sockets.push(udp_socket(lab.host(host), any)?);
    }
    streams.iter_mut().try_for_each(|stream| exchange_line(stream, b"hello"))?;
    sockets.iter().try_for_each(|socket| ask(socket, outside, b"hello"))?;

    let cut = flows(netfw, &["cut", "--from", networks[0]])?;
    let chosen = BTreeSet::from([streams[0].local_addr()?.port(), sockets[0].local_addr()?.port()]);
    ensure!(BTreeSet::from_iter(ports(&cut)) == chosen && cut["total"] == 2, "{chosen:?}: {cut}");
    let end = streams[0].read(&mut [0; 16]).map_err(|error| error.kind());
    ensure!(end == Err(ErrorKind::ConnectionReset), "the chosen one ended with {end:?}");
    exchange_line(&mut streams[1], b"still there?")?;
    // A datagram after the cut begins another flow, elsewhere it is one more of the same.
    sockets.iter().try_for_each(|socket| ask(socket, outside, b"still there?"))?;
    for (network, packets) in networks.iter().zip([2, 4]) {
        let listed = flows(netfw, &["--from", network])?;
        let mut all = listed["flows"].as_array().into_iter().flatten();
        let flow = all.find(|flow| flow["protocol"] == "udp").context("the flow of the datagrams")?;
        ensure!(flow["packets"] == packets, "{packets} packets: {flow}");
    }
    Ok(())
}

/// Flows in the big table.
const MILLION: u32 = 1_000_000;
/// Memory of its own that a listing may use, bytes: a sixth of what the flows alone take. Their table is the kernel's, and shared.
const MEMORY: u32 = 64 << 20;

/// A million flows are listed, paged and counted in little memory, and traffic goes on: nothing is lost, and no answer takes as long
/// as if it had waited for a list, or for a good part of one.
#[test]
fn a_million_flows_are_listed() -> Result<()> {
    let rules = rules::two_armed(&format!("{ECHO}[flows]\ncapacity = 1400000\n"));
    two_armed(&rules, |lab, netfw| {
        let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let generation = netfw.json("status")?["generation"].as_u64().context("a generation")?;
        let maps = Maps::open(&Pins::of(lab.name()))?;
        let entered = maps.adopt(&(0..MILLION).map(conversation).collect::<Vec<_>>(), generation as u32)?;
        ensure!(entered == MILLION, "only {entered} found room");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let talking = scope.spawn(|| talk(lab, &over));
            let listed = list(lab, netfw);
            over.store(true, Ordering::Relaxed);
            let longest = talking.join().map_err(|_| anyhow!("the talker panicked"))??;
            let shortest = listed?;
            ensure!(longest < shortest / 4, "an answer took {longest:?}, a list {shortest:?}");
            Ok(())
        })
    })
}

fn conversation(number: u32) -> Conversation {
    let remote = SocketAddr::new((0x0a00_0000 + number).to_be_bytes().into(), 40_000);
    Conversation {
        protocol: 17,
        local: "192.0.2.1:9".parse().expect("an address and port"),
        remote,
        incoming: true,
        interface: 1,
    }
}

/// Asks the echo server; a lost packet is an error. How long the slowest answer took.
fn talk(lab: &Lab, over: &AtomicBool) -> Result<Duration> {
    let socket = udp_socket(lab.host("client"), "203.0.113.10:4000")?;
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        ask(&socket, "192.0.2.1:7000", b"still there?")?;
        longest = longest.max(asked.elapsed());
    }
    ensure!(longest > Duration::ZERO, "no traffic meanwhile");
    Ok(longest)
}

/// How long the shortest list took.
fn list(lab: &Lab, netfw: &Netfw<'_>) -> Result<Duration> {
    let file = lab.dir().join("flows.json");
    let limited = |words: &[&str]| -> Result<Duration> {
        let line = netfw.line(["--json", "flows"].into_iter().chain(words.iter().copied()))?.join(" ");
        let begun = Instant::now();
        lab.host("master").shell(&format!("prlimit --data={MEMORY} {line} >{}", file.display()))?;
        Ok(begun.elapsed())
    };
    let whole = limited(&[])?;
    // As text: a tree of a million flows takes a gigabyte.
    let all = fs::read_to_string(&file)?;
    ensure!(all.ends_with(&format!("],\"total\":{}}}\n", MILLION + 1)), "{}", &all[all.len() - 100..]);
    ensure!(all.matches("\"client\":").count() == MILLION as usize + 1, "the list is not complete");
    let sorted = limited(&["--sort", "client", "--offset", "5", "--limit", "2"])?;
    let page: Value = serde_json::from_reader(File::open(&file)?)?;
    let clients: Vec<_> =
        page["flows"].as_array().into_iter().flatten().map(|flow| &flow["client"]).collect();
    ensure!(clients == ["10.0.0.5:40000", "10.0.0.6:40000"] && page["total"] == MILLION + 1, "{page}");
    let filtered = limited(&["--from", "203.0.113.10"])?;
    let one: Value = serde_json::from_reader(File::open(&file)?)?;
    ensure!(ports(&one) == [4000] && one["total"] == 1, "{one}");
    Ok(whole.min(sorted).min(filtered))
}
