//! Scenario 15: TCP where it is not straight: retransmissions, every way to end, reuse, and liars.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use etherparse::PacketBuilderStep;
use netfw_tests::{
    lab::Lab,
    net::{RawPort, TcpServer, connect, connect_from, exchange_line, frame},
    rules,
    scenario::two_armed,
    wait,
};
use socket2::{SockRef, TcpKeepalive};

const RULES: &str =
    "[[port-forward]]\nname = \"port\"\nprotocol = \"tcp\"\nport = 7000\nto = \"worker1:7\"\n";
const FAMILIES: [(&str, &str, &str); 2] = [
    ("203.0.113.10:4000", "192.0.2.1:7000", "192.168.80.3:7"),
    ("[2001:db8:1::10]:4000", "[2001:db8::1]:7000", "[fd00:80::3]:7"),
];

/// The client has said everything, the server answers at length.
#[test]
fn half_close() -> Result<()> {
    fn answer_at_length(mut stream: TcpStream) {
        let mut request = Vec::new();
        if stream.read_to_end(&mut request).is_ok() {
            // A failure shows at the client.
            let _ = stream.write_all(&request.repeat(100_000));
        }
    }
    two_armed(&rules::two_armed(RULES), |lab, _| {
        for (client, outside, inside) in FAMILIES {
            let _server = TcpServer::start(lab.host("worker1"), inside, answer_at_length)?;
            let mut stream = connect_from(lab.host("client"), client, outside)?;
            stream.write_all(b"everything")?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            assert_eq!(answer.len(), 1_000_000);
        }
        Ok(())
    })
}

/// The first SYN is lost behind the master; the client's retransmission gets through on the same flow.
#[test]
fn a_retransmitted_syn_is_the_same_flow() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        let (client, outside, inside) = FAMILIES[0];
        let worker = lab.host("worker1");
        let server = TcpServer::echo(worker, inside)?;
        worker.shell("nft 'table ip lossy { chain in { type filter hook input priority 0; tcp dport 7 counter drop; }; }'")?;
        thread::scope(|scope| {
            let connecting = scope.spawn(|| connect_from(lab.host("client"), client, outside));
            wait::until("a lost SYN", || {
                let rules = worker.shell("nft list table ip lossy").ok()?;
                (!rules.contains("packets 0 ")).then_some(())
            })?;
            worker.shell("nft delete table ip lossy")?;
            let mut stream = connecting.join().map_err(|_| anyhow!("the client panicked"))??;
            exchange_line(&mut stream, b"at last")
        })?;
        assert_eq!(server.peers(), [client.parse::<SocketAddr>()?]);
        assert_eq!(netfw.counters()?.number("port_forwards.port.flows_opened"), 1);
        Ok(())
    })
}

/// However a connection ends, its ports can be used again at once.
#[test]
fn a_tuple_can_be_used_again_at_once() -> Result<()> {
    fn close_first(mut stream: TcpStream) {
        // What matters is who closes first; failures show at the client.
        let _ = stream.write_all(b"bye");
    }
    two_armed(&rules::two_armed(RULES), |lab, _| {
        for (client, outside, inside) in FAMILIES {
            let _server = TcpServer::start(lab.host("worker1"), inside, close_first)?;
            for attempt in 0..5 {
                let again = || format!("connection {attempt} from {client}");
                let mut stream = connect_from(lab.host("client"), client, outside).with_context(again)?;
                let mut word = String::new();
                stream.read_to_string(&mut word).with_context(again)?;
                assert_eq!(word, "bye");
            }
        }
        Ok(())
    })
}

/// A reset ends a flow: the same ports serve the next connection.
#[test]
fn a_reset_frees_the_tuple() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        for (client, outside, inside) in FAMILIES {
            let _server = TcpServer::echo(lab.host("worker1"), inside)?;
            for _ in 0..5 {
                let mut stream = connect_from(lab.host("client"), client, outside)?;
                exchange_line(&mut stream, b"hello")?;
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    })
}

/// Both ends close at the same moment.
#[test]
fn a_simultaneous_close_leaves_nothing_behind() -> Result<()> {
    fn close_after_a_word(mut stream: TcpStream) {
        // Failures show at the client.
        let _ = stream.read_exact(&mut [0; 3]);
        let _ = stream.shutdown(Shutdown::Both);
    }
    two_armed(&rules::two_armed(RULES), |lab, _| {
        let (_, outside, inside) = FAMILIES[0];
        let _server = TcpServer::start(lab.host("worker1"), inside, close_after_a_word)?;
        for _ in 0..50 {
            let mut stream = connect(lab.host("client"), outside)?;
            stream.write_all(b"now")?;
            stream.shutdown(Shutdown::Write)?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest)?;
            ensure!(rest.is_empty());
        }
        Ok(())
    })
}

/// Somebody who guesses the ports, but not the sequence numbers, cannot end a connection, neither by a SYN nor by a FIN
/// or a reset; nor shorten its life: it outlasts the timeout of closed ones by far. (Scenarios 15, 16.)
#[test]
fn liars_do_not_end_a_connection() -> Result<()> {
    let rules = format!("{RULES}[timeouts]\ntcp-transitory = \"1s\"\n");
    two_armed(&rules::two_armed(&rules), |lab, netfw| {
        for (client, outside, inside) in FAMILIES {
            let _server = TcpServer::echo(lab.host("worker1"), inside)?;
            let mut stream = connect_from(lab.host("client"), client, outside)?;
            exchange_line(&mut stream, b"before")?;
            let liar = RawPort::open(lab.host("internet"), "eth0")?;
            for sequence in [1, 0x4000_0000, 0xc000_0000] {
                liar.send(&lie(lab, client, outside, |tcp| tcp.tcp(4000, 7000, sequence, 64240).syn())?)?;
                liar.send(&lie(lab, client, outside, |tcp| tcp.tcp(4000, 7000, sequence, 0).fin().ack(1))?)?;
                liar.send(&lie(lab, client, outside, |tcp| tcp.tcp(4000, 7000, sequence, 0).rst())?)?;
                exchange_line(&mut stream, b"and after").context("after a lie")?;
            }
            liar.send(&lie(lab, client, outside, |tcp| tcp.tcp(4000, 7000, 2, 0).fin().ack(1))?)?;
            liar.send(&lie(lab, client, outside, |tcp| tcp.tcp(4000, 7000, 2, 0).rst())?)?;
            let flow = wait::until("the flow to be idle", || {
                let flows = netfw.flows().expect("flows");
                flows
                    .into_iter()
                    .find(|flow| flow["client"] == client && flow["idle_seconds"].as_u64() > Some(2))
            })?;
            ensure!(flow["state"] == "established", "{flow}");
            exchange_line(&mut stream, b"and after").context("after some silence")?;
        }
        Ok(())
    })
}

/// Keep-alives, of one end alone, keep a connection much longer than it may be silent. (Scenario 16.)
#[test]
fn keep_alives_keep_a_connection() -> Result<()> {
    let rules = format!("{RULES}[timeouts]\ntcp-established = \"2s\"\ntcp-transitory = \"1s\"\n");
    two_armed(&rules::two_armed(&rules), |lab, netfw| {
        for (client, outside, inside) in FAMILIES {
            let _server = TcpServer::echo(lab.host("worker1"), inside)?;
            let mut stream = connect_from(lab.host("client"), client, outside)?;
            let second = Duration::from_secs(1);
            SockRef::from(&stream)
                .set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second))?;
            exchange_line(&mut stream, b"before")?;
            let flow = || netfw.flows().expect("flows").into_iter().find(|flow| flow["client"] == client);
            let packets = || flow().map_or(0, |flow| flow["packets"].as_u64().unwrap_or(0));
            let before = packets();
            wait::until("four keep-alives and their answers", || (packets() >= before + 8).then_some(()))?;
            exchange_line(&mut stream, b"and after")?;
            ensure!(flow().is_some_and(|flow| flow["state"] == "established"), "{:?}", flow());
        }
        assert_eq!(netfw.counters()?.number("port_forwards.port.flows_opened"), 2, "one a family");
        Ok(())
    })
}

/// The master forgets everything, as when it starts anew: what is established goes on with the client's next word, and is proven
/// by the answer. (Scenario 17.)
#[test]
fn connections_outlive_the_master() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, netfw| {
        let mut servers = Vec::new();
        let mut streams = Vec::new();
        for (client, outside, inside) in FAMILIES {
            servers.push(TcpServer::echo(lab.host("worker1"), inside)?);
            let mut stream = connect_from(lab.host("client"), client, outside)?;
            exchange_line(&mut stream, b"before")?;
            streams.push(stream);
        }
        netfw.down()?;
        netfw.start()?;
        ensure!(netfw.flows()?.is_empty(), "nothing is known any more");
        for stream in &mut streams {
            for _ in 0..3 {
                exchange_line(stream, b"and after")?;
            }
        }
        assert_eq!(netfw.counters()?.number("port_forwards.port.flows_opened"), 2);
        ensure!(netfw.flows()?.iter().all(|flow| flow["state"] == "established"));
        Ok(())
    })
}

/// A hidden LAN: one outside port leads to the first server, two lead to the second.
const HIDDEN: &str = r#"
[masquerade]
from = ["lan"]
[[port-forward]]
name = "one"
protocol = "tcp"
port = 7000
to = "worker1:7"
[[port-forward]]
name = "two"
protocol = "tcp"
port = "7001-7002"
to = "worker1:8"
"#;

/// Both ends of a connection: of a client outside, and of a server.
fn both_ends(lab: &Lab, (client, outside, inside): (&str, &str, &str)) -> Result<[TcpStream; 2]> {
    let listener = lab.host("worker1").enter(|| Ok(TcpListener::bind(inside)?))?;
    let stream = connect_from(lab.host("client"), client, outside)?;
    let (served, _) = listener.accept()?;
    served.set_read_timeout(stream.read_timeout()?)?;
    Ok([stream, served])
}

fn say(from: &mut TcpStream, to: &mut TcpStream, word: &[u8]) -> Result<()> {
    from.write_all(word)?;
    let mut heard = vec![0; word.len()];
    to.read_exact(&mut heard).with_context(|| format!("waiting for {}", String::from_utf8_lossy(word)))?;
    ensure!(heard == word, "other bytes arrived");
    Ok(())
}

/// The same, but a server speaks first, which would look like a LAN host that calls out: its client hears it from where he had
/// called. Where two ports lead to the server it waits for the client, whom nobody has cut off meanwhile. (Scenario 17.)
#[test]
fn connections_outlive_the_master_by_their_servers() -> Result<()> {
    const TWO: [(&str, &str, &str); 2] = [
        ("203.0.113.10:4000", "192.0.2.1:7002", "192.168.80.3:8"),
        ("[2001:db8:1::10]:4000", "[2001:db8::1]:7002", "[fd00:80::3]:8"),
    ];
    two_armed(&rules::two_armed(HIDDEN), |lab, netfw| {
        let mut one = FAMILIES.map(|ends| both_ends(lab, ends)).into_iter().collect::<Result<Vec<_>>>()?;
        let mut two = TWO.map(|ends| both_ends(lab, ends)).into_iter().collect::<Result<Vec<_>>>()?;
        for [client, server] in one.iter_mut().chain(&mut two) {
            say(client, server, b"before")?;
        }
        netfw.down()?;
        netfw.start()?;
        ensure!(netfw.flows()?.is_empty(), "nothing is known any more");
        for [client, server] in &mut one {
            say(server, client, b"the server first")?;
            say(client, server, b"and the client")?;
            say(server, client, b"and the server")?;
        }
        netfw.expect_drops("answers-unknown", 2..);
        for [client, server] in &mut two {
            let dropped = || Ok::<_, anyhow::Error>(netfw.counters()?.drops("answers-unknown"));
            let before = dropped()?;
            server.write_all(b"!")?;
            wait::until("the word to be dropped", || (dropped().ok()? > before).then_some(()))?;
            say(client, server, b"the client first")?;
            let mut heard = [0];
            client.read_exact(&mut heard).context("waiting for the repeated word")?;
            say(server, client, b"and the server")?;
        }
        assert_eq!(netfw.counters()?.number("port_forwards.one.flows_opened"), 2);
        assert_eq!(netfw.counters()?.number("port_forwards.two.flows_opened"), 2);
        assert_eq!(netfw.counters()?.number("masquerade.flows_opened"), 0);
        ensure!(netfw.flows()?.iter().all(|flow| flow["state"] == "established"));
        Ok(())
    })
}

type Ip = PacketBuilderStep<etherparse::IpHeaders>;
type Tcp = PacketBuilderStep<etherparse::TcpHeader>;

/// A segment that claims to be the client's.
fn lie(lab: &Lab, client: &str, outside: &str, segment: impl Fn(Ip) -> Tcp) -> Result<Vec<u8>> {
    let macs = (lab.host("internet").mac("eth0")?, lab.host("master").mac("eth0")?);
    let [from, to] = [client.parse::<SocketAddr>()?, outside.parse::<SocketAddr>()?];
    let mut bytes = Vec::new();
    segment(frame::packet(macs, from.ip(), to.ip(), 63)?).write(&mut bytes, &[])?;
    Ok(bytes)
}

/// Bulk data through a forward, both directions at once, arrives whole.
#[test]
fn bulk_data_arrives_whole() -> Result<()> {
    two_armed(&rules::two_armed(RULES), |lab, _| {
        for (client, outside, inside) in FAMILIES {
            let _server = TcpServer::echo(lab.host("worker1"), inside)?;
            let mut stream = connect_from(lab.host("client"), client, outside)?;
            let data: Vec<_> = (0..8_000_000_u32)
                .map(|index| (index.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
                .collect();
            let mut writer = stream.try_clone()?;
            let sent = data.clone();
            let sending = thread::spawn(move || {
                writer.write_all(&sent).and_then(|()| writer.shutdown(Shutdown::Write))
            });
            let mut back = Vec::new();
            stream.read_to_end(&mut back)?;
            sending.join().map_err(|_| anyhow!("the writer panicked"))??;
            assert!(back == data, "{} bytes came back of {}", back.len(), data.len());
        }
        Ok(())
    })
}
