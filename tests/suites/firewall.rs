//! Policies and rules of the three chains, as hosts feel them.

use std::io::{ErrorKind, Read as _};

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::Lab,
    net::{
        Reception::{self, Refused, Silence, Welcome},
        TcpServer, UdpServer, ask, connect, exchange_line, knock_tcp, knock_udp, udp_socket,
    },
    netfw::Netfw,
    rules,
    scenario::two_armed,
    wait,
};

/// The master's own addresses outside, and those of worker1, with a port.
fn both(port: u16, v4: &str, v6: &str) -> [String; 2] {
    [format!("{v4}:{port}"), format!("[{v6}]:{port}")]
}

fn master(port: u16) -> [String; 2] {
    both(port, "192.0.2.1", "2001:db8::1")
}

fn worker1(port: u16) -> [String; 2] {
    both(port, "192.168.80.3", "fd00:80::3")
}

fn expect_tcp(lab: &Lab, from: &str, to: &[String], expected: Reception) -> Result<()> {
    for address in to {
        let received = knock_tcp(lab.host(from), address)?;
        anyhow::ensure!(received == expected, "{from} to tcp {address}: {received:?}, not {expected:?}");
    }
    Ok(())
}

fn expect_udp(lab: &Lab, from: &str, to: &[String], expected: Reception) -> Result<()> {
    for address in to {
        let received = knock_udp(lab.host(from), address)?;
        anyhow::ensure!(received == expected, "{from} to udp {address}: {received:?}, not {expected:?}");
    }
    Ok(())
}

/// TCP and UDP echo on port 7 of a host, both families.
fn serve(lab: &Lab, host: &str, port: u16) -> Result<(Vec<TcpServer>, Vec<UdpServer>)> {
    let number = match host {
        "master" => "2".to_owned(),
        worker => worker.trim_start_matches("worker").parse::<u8>().map(|number| (number + 2).to_string())?,
    };
    let wildcard = [format!("0.0.0.0:{port}")];
    let own = both(port, &format!("192.168.80.{number}"), &format!("fd00:80::{number}"));
    let tcp = own.iter().map(|address| TcpServer::echo(lab.host(host), address)).collect::<Result<_>>()?;
    let addresses = if host == "master" { &wildcard[..] } else { &own[..] };
    let udp =
        addresses.iter().map(|address| UdpServer::echo(lab.host(host), address)).collect::<Result<_>>()?;
    Ok((tcp, udp))
}

/// Without rules nobody gets in or through, and the reasons say which chain.
#[test]
fn the_default_is_shut() -> Result<()> {
    two_armed(&rules::two_armed(""), |lab, netfw| {
        let _servers = serve(lab, "worker1", 7)?;
        netfw.expect_drops("policy-input", 6..);
        netfw.expect_drops("policy-forward", 6..);
        for from in ["client", "stranger"] {
            expect_tcp(lab, from, &worker1(7), Silence)?;
            expect_udp(lab, from, &worker1(7), Silence)?;
            expect_tcp(lab, from, &master(22), Silence)?;
        }
        expect_tcp(lab, "worker1", &["192.168.80.2:22".to_owned(), "[fd00:80::2]:22".to_owned()], Silence)
    })
}

/// `reject` tells the sender: a reset for TCP, unreachable for the rest, on the way in and on the way through.
#[test]
fn reject_is_told_to_the_sender() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [policy]
        forward = "reject"

        [[rule]]
        name = "closed"
        action = "reject"
        "#,
    );
    two_armed(&rules, |lab, netfw| {
        netfw.expect_drops("rejected", 8..);
        for to in [master(7), worker1(7)] {
            expect_tcp(lab, "client", &to, Refused)?;
            expect_udp(lab, "client", &to, Refused)?;
        }
        Ok(())
    })
}

/// A flow that was let in may answer; the other direction on its own may not.
#[test]
fn answers_follow_their_flow() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [policy]
        output = "drop"

        [[rule]]
        name = "in"
        action = "accept"
        protocol = ["tcp", "udp"]
        port = 7
        from = ["office"]

        [[rule]]
        name = "through"
        chain = "forward"
        action = "accept"
        protocol = ["tcp", "udp"]
        port = 7
        from = ["office"]
        to = ["worker1"]
        "#,
    );
    two_armed(&rules, |lab, netfw| {
        let _servers = serve(lab, "worker1", 7)?;
        let _own = TcpServer::echo(lab.host("master"), "0.0.0.0:7")?;
        let _outside = TcpServer::echo(lab.host("client"), "203.0.113.10:7")?;
        expect_tcp(lab, "client", &worker1(7), Welcome)?;
        expect_udp(lab, "client", &worker1(7), Welcome)?;
        expect_tcp(lab, "client", &master(7)[..1], Welcome)?;
        netfw.expect_drops("policy-forward", 2..);
        netfw.expect_drops("policy-output", 1..);
        expect_tcp(lab, "worker1", &["203.0.113.10:7".to_owned()], Silence)?;
        expect_tcp(lab, "stranger", &worker1(7)[..1], Silence)?;
        expect_tcp(lab, "master", &["203.0.113.10:7".to_owned()], Silence)
    })
}

/// The master's own flows: by rule, and their answers need none.
#[test]
fn the_output_chain_judges_the_master() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [policy]
        output = "drop"

        [[rule]]
        name = "out"
        chain = "output"
        action = "accept"
        protocol = ["tcp", "udp"]
        port = 7
        interface = "eth0"
        "#,
    );
    two_armed(&rules, |lab, netfw| {
        let outside = both(7, "203.0.113.10", "2001:db8:1::10");
        let _tcp: Vec<_> =
            outside.iter().map(|it| TcpServer::echo(lab.host("client"), it)).collect::<Result<_>>()?;
        let _udp: Vec<_> =
            outside.iter().map(|it| UdpServer::echo(lab.host("client"), it)).collect::<Result<_>>()?;
        let _inside = serve(lab, "worker1", 7)?;
        expect_tcp(lab, "master", &outside, Welcome)?;
        expect_udp(lab, "master", &outside, Welcome)?;
        netfw.expect_drops("policy-output", 2..);
        expect_tcp(lab, "master", &worker1(7), Silence)
    })
}

/// With an open output chain the master's answers come back through a shut input chain.
#[test]
fn the_masters_own_flows_are_answered() -> Result<()> {
    two_armed(&rules::two_armed(""), |lab, _| {
        let _server = TcpServer::echo(lab.host("client"), "203.0.113.10:7")?;
        let mut stream = connect(lab.host("master"), "203.0.113.10:7")?;
        exchange_line(&mut stream, b"hello")?;
        lab.host("master").run(["ping", "-c1", "-W5", "192.168.80.4"])?.success()?;
        lab.host("master").run(["ping", "-c1", "-W5", "2001:db8:1::10"])?.success()?;
        Ok(())
    })
}

/// A case of [`every_field_selects`]: from whom, to which port of the master, from which own port, and what comes of it.
type Case = (&'static str, &'static str, u16, Reception, &'static str);

/// Scenario 18 on real traffic: first match wins, `!`, sets in sets, ports and source ports, the interface.
#[test]
fn every_field_selects() -> Result<()> {
    let rules = rules::two_armed(FIELDS);
    let cases: [Case; 8] = [
        ("client", "192.0.2.1:1001", 0, Welcome, "office"),
        ("stranger", "192.0.2.1:1001", 0, Silence, "not office"),
        ("client", "192.0.2.1:1003", 0, Silence, "excluded"),
        ("stranger", "192.0.2.1:1003", 0, Welcome, "not excluded"),
        ("client", "192.0.2.1:1005", 5000, Welcome, "source port"),
        ("client", "192.0.2.1:1005", 5001, Silence, "source port"),
        ("client", "192.0.2.1:1006", 0, Silence, "inside only"),
        ("worker1", "192.168.80.2:1006", 0, Welcome, "inside only"),
    ];
    two_armed(&rules, |lab, netfw| {
        netfw.expect_drops("policy-input", 1..);
        netfw.expect_drops("rule", 1..);
        let _servers = [1001, 1003, 1005, 1006]
            .map(|port| UdpServer::echo(lab.host("master"), &format!("0.0.0.0:{port}")))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        for case in cases {
            try_case(lab, case)?;
        }
        expect_matched(netfw)
    })
}

/// The first line goes on with the sets of the lab.
const FIELDS: &str = r#"
friends = ["office", "192.0.2.64/26"]

[[rule]]
name = "office"
action = "accept"
protocol = "udp"
port = "1000-1002"
from = ["friends"]

[[rule]]
name = "not office"
action = "drop"
protocol = "udp"
port = 1001

[[rule]]
name = "excluded"
action = "accept"
protocol = "udp"
port = 1003
from = ["!office"]

[[rule]]
name = "source port"
action = "accept"
protocol = "udp"
port = 1005
from-port = 5000

[[rule]]
name = "inside only"
action = "accept"
protocol = "udp"
port = 1006
interface = "eth1"
"#;

fn try_case(lab: &Lab, (from, to, own, expected, rule): Case) -> Result<()> {
    let socket = udp_socket(lab.host(from), &format!("0.0.0.0:{own}"))?;
    socket.set_read_timeout(Some(netfw_tests::net::SILENCE))?;
    let answered = if ask(&socket, to, b"?").is_ok() { Welcome } else { Silence };
    anyhow::ensure!(answered == expected, "{rule}: {from} to {to} from port {own}: {answered:?}");
    Ok(())
}

fn expect_matched(netfw: &Netfw<'_>) -> Result<()> {
    let counters = netfw.counters()?;
    for (rule, packets) in
        [("office", 1), ("not office", 1), ("excluded", 1), ("source port", 1), ("inside only", 1)]
    {
        let matched = counters.number(&format!("rules.{rule}.matched.packets"));
        anyhow::ensure!(matched == packets, "rule {rule} decided {matched} packets, not {packets}");
    }
    Ok(())
}

/// ICMP by type, both families.
#[test]
fn icmp_is_selected_by_type() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [[rule]]
        name = "ping"
        action = "accept"
        protocol = "icmp"
        icmp-type = "echo-request"
        from = ["office"]

        [[rule]]
        name = "ping6"
        action = "accept"
        protocol = "icmpv6"
        icmp-type = "echo-request"
        from = ["office"]
        "#,
    );
    two_armed(&rules, |lab, netfw| {
        netfw.expect_drops("policy-input", 2..);
        for address in ["192.0.2.1", "2001:db8::1"] {
            lab.host("client").run(["ping", "-c2", "-i0.2", "-W5", address])?.success()?;
            lab.host("stranger").run(["ping", "-c1", "-W1", address])?.expect_code(1)?;
        }
        Ok(())
    })
}

/// A rule sees a forwarded packet as it is after translation, and can name the forward.
#[test]
fn rules_see_the_target_of_a_forward() -> Result<()> {
    let rules = rules::two_armed(
        r#"
        [[port-forward]]
        name = "echo"
        protocol = "tcp"
        port = "7001-7002"
        to = ["worker1:7", "worker2:7"]
        spread = "one-to-one"

        [[rule]]
        name = "not the second"
        chain = "forward"
        action = "reject"
        port-forward = "echo"
        to = ["worker2"]
        "#,
    );
    two_armed(&rules, |lab, netfw| {
        let _servers = (serve(lab, "worker1", 7)?, serve(lab, "worker2", 7)?);
        netfw.expect_drops("rejected", 2..);
        expect_tcp(lab, "client", &master(7001), Welcome)?;
        expect_tcp(lab, "client", &master(7002), Refused)
    })
}

/// What the link needs survives a shut input chain: neighbours are found again after they were forgotten.
#[test]
fn neighbours_are_found_though_everything_is_shut() -> Result<()> {
    let rules = rules::two_armed(
        "[policy]\noutput = \"drop\"\n[[port-forward]]\nname = \"echo\"\nprotocol = \"tcp\"\nport = 7000\nto = \"worker1:7\"\n",
    );
    two_armed(&rules, |lab, _| {
        let _servers = serve(lab, "worker1", 7)?;
        for _ in 0..2 {
            for address in master(7000) {
                let mut stream =
                    connect(lab.host("client"), &address).context("with forgotten neighbours")?;
                exchange_line(&mut stream, b"hello")?;
            }
            for host in ["master", "worker1", "internet"] {
                lab.host(host).shell("ip neigh flush all; ip -6 neigh flush all")?;
            }
        }
        Ok(())
    })
}

const ECHO: &str = "[[port-forward]]\nname = \"echo\"\nprotocol = \"tcp\"\nport = 7000\nto = \"worker1:7\"\n";

/// A ban holds at once, for live connections too, with the daemon dead and after it came back, until it is lifted.
#[test]
fn bans_come_and_go() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let _servers = serve(lab, "worker1", 7)?;
        netfw.expect_drops("banned", 1..);
        let entry = both(7000, "192.0.2.1", "2001:db8::1");
        let banned = ["203.0.113.10", "2001:db8:1::10"];
        let expect = |from: &str, reception| expect_tcp(lab, from, &entry, reception);
        expect("client", Welcome)?;
        let mut live = connect(lab.host("client"), &entry[0])?;
        exchange_line(&mut live, b"before")?;
        netfw.command(["ban", banned[0], banned[1], "--for", "1h"])?.success()?;
        anyhow::ensure!(exchange_line(&mut live, b"after").is_err(), "a live connection went on");
        expect("client", Silence)?;
        expect("stranger", Welcome)?;
        netfw.kill()?;
        expect("client", Silence)?;
        netfw.start()?;
        expect("client", Silence)?;
        let listed = netfw.json("bans")?;
        let addresses: Vec<_> = listed["bans"].as_array().into_iter().flatten().collect();
        anyhow::ensure!(addresses.len() == 2 && addresses[0]["address"] == banned[0], "{listed}");
        anyhow::ensure!(addresses[0]["expires_seconds"].as_u64() > Some(3000), "{listed}");
        netfw.command(["unban", banned[0], banned[1]])?.success()?;
        expect("client", Welcome)?;
        let again = netfw.command(["unban", banned[0]])?;
        anyhow::ensure!(again.code == 1 && again.stderr.contains("not banned"), "{again:?}");
        Ok(())
    })
}

/// A ban ends connections that have nothing to say, as `[block]` does, whoever opened them and also where changes of the rules
/// end none: they are gone from the list, and the inside end hears it.
#[test]
fn a_ban_ends_idle_flows() -> Result<()> {
    let rules = format!("{ECHO}[masquerade]\nfrom = [\"lan\"]\n[flows]\non-change = \"keep\"\n");
    two_armed(&rules::two_armed(&rules), |lab, netfw| {
        netfw.expect_drops("banned", ..);
        let _inside = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        let _outside = TcpServer::echo(lab.host("client"), "203.0.113.10:7")?;
        let _from_outside = connect(lab.host("client"), "192.0.2.1:7000")?;
        let mut from_inside = connect(lab.host("worker1"), "203.0.113.10:7")?;
        let mut other = connect(lab.host("stranger"), "192.0.2.1:7000")?;
        ensure!(netfw.flows()?.len() == 3);
        netfw.command(["ban", "203.0.113.0/24"])?.success()?;
        wait::until("all flows but one to be gone", || (netfw.flows().ok()?.len() == 1).then_some(()))?;
        let heard = from_inside.read(&mut [0; 16]).map_err(|error| error.kind());
        ensure!(heard == Err(ErrorKind::ConnectionReset), "the inside end heard {heard:?}");
        exchange_line(&mut other, b"still there?")
    })
}

/// Nobody is needed to ban, nor to end a ban: the datapath lets in again whose time is over. A daemon that comes later finds what
/// holds.
#[test]
fn bans_need_no_daemon() -> Result<()> {
    two_armed(&rules::two_armed(ECHO), |lab, netfw| {
        let _servers = serve(lab, "worker1", 7)?;
        netfw.expect_drops("banned", 2..);
        let entry = both(7000, "192.0.2.1", "2001:db8::1");
        netfw.kill()?;
        let mut live = connect(lab.host("client"), &entry[0])?;
        exchange_line(&mut live, b"before")?;
        netfw.command(["ban", "203.0.113.0/24", "--for", "3s"])?.success()?;
        netfw.command(["ban", "2001:db8:1::/48"])?.success()?;
        ensure!(exchange_line(&mut live, b"after").is_err(), "a live connection went on");
        expect_tcp(lab, "client", &entry[1..], Silence)?;
        wait::until("the end of the ban", || {
            (knock_tcp(lab.host("client"), &entry[0]).ok()? == Welcome).then_some(())
        })?;
        netfw.start()?;
        expect_tcp(lab, "client", &entry[..1], Welcome)?;
        expect_tcp(lab, "client", &entry[1..], Silence)?;
        let left = netfw.json("bans")?;
        ensure!(left["bans"].as_array().is_some_and(|bans| bans.len() == 1), "{left}");
        Ok(())
    })
}

/// Bans belong to no version of the rules: changes leave them alone, also one of `[block]`, and so does taking one back.
#[test]
fn bans_outlive_changes_of_the_rules() -> Result<()> {
    let blocking = |whom: &str| {
        rules::two_armed(&format!("{ECHO}[block]\nfrom = [\"{whom}\"]\n[reload]\nwatch = false\n"))
    };
    two_armed(&blocking("198.51.100.77"), |lab, netfw| {
        let _servers = serve(lab, "worker1", 7)?;
        netfw.expect_drops("banned", 3..);
        let entry = both(7000, "192.0.2.1", "2001:db8::1");
        let expect = |reception| expect_tcp(lab, "client", &entry[..1], reception);
        netfw.command(["ban", "203.0.113.10"])?.success()?;
        netfw.reload(&blocking("198.51.100.78"))?;
        expect(Silence)?;
        netfw.write_rules(&blocking("198.51.100.79"))?;
        netfw.command(["reload", "--confirm", "1h"])?.success()?;
        expect(Silence)?;
        netfw.command(["rollback"])?.success()?;
        expect(Silence)?;
        netfw.command(["unban", "203.0.113.10"])?.success()?;
        expect(Welcome)
    })
}

/// Bans outlive `down` and `up`, as they do a reboot.
#[test]
fn bans_outlive_a_reboot() -> Result<()> {
    for &engine in netfw_tests::lab::Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        let _servers = serve(&lab, "worker1", 7)?;
        let netfw = Netfw::up(&lab, &rules::two_armed(ECHO))?;
        netfw.expect_drops("banned", 1..);
        netfw.command(["ban", "203.0.113.0/24"])?.success()?;
        // So many that what is remembered of them is written anew in between, in which they are listed once.
        let many: Vec<_> =
            (0..12_000).map(|number: u16| format!("10.0.{}.{}", number >> 8, number & 255)).collect();
        for for_a_time in [&["--for", "1h"][..], &[]] {
            let words = ["ban"].into_iter().chain(many.iter().map(String::as_str));
            netfw.command(words.chain(for_a_time.iter().copied()))?.success()?;
        }
        netfw.command(["unban", &many[7]])?.success()?;
        netfw.down()?;
        netfw.start()?;
        let listed = netfw.json("bans")?;
        let bans = listed["bans"].as_array().context("a list")?;
        anyhow::ensure!(bans.len() == many.len(), "{} bans are left", bans.len());
        anyhow::ensure!(bans.iter().all(|ban| ban["expires_seconds"].is_null() && ban["address"] != many[7]));
        let entry = both(7000, "192.0.2.1", "2001:db8::1");
        expect_tcp(&lab, "client", &entry[..1], Silence)?;
        netfw.command(["unban", "203.0.113.0/24"])?.success()?;
        expect_tcp(&lab, "client", &entry[..1], Welcome)?;
        netfw.finish()?;
    }
    Ok(())
}
