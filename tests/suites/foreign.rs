//! Scenario 28: other users of the same kernel go on working, or are named; none is silently broken.

use std::fs;

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    foreign,
    lab::{Background, Engine, Host, Lab},
    net::{RawPort, TcpServer, UdpServer, ask, connect, exchange_line, udp_socket},
    netfw::Netfw,
    rules, wait,
};

const ECHO: &str = r#"
[[port-forward]]
name = "echo"
protocol = ["tcp", "udp"]
port = 7000
to = "worker1:7"

[[rule]]
name = "ping"
action = "accept"
protocol = "icmp"

[[rule]]
name = "published by the container host"
action = "accept"
protocol = "tcp"
port = 8088
"#;

/// Builds a lab, lets `others` move in before netfw, tells the story, and checks that `down` leaves them as they were.
fn among(others: impl Fn(&Lab) -> Result<()>, story: impl Fn(&Lab, &Netfw<'_>) -> Result<()>) -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        others(&lab)?;
        let netfw = Netfw::up(&lab, &rules::two_armed(ECHO))?;
        expect_forward(&lab)?;
        story(&lab, &netfw)?;
        netfw.finish()?;
    }
    Ok(())
}

fn expect_forward(lab: &Lab) -> Result<()> {
    let _server = TcpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
    exchange_line(&mut connect(lab.host("client"), "192.0.2.1:7000")?, b"through netfw")
}

/// A filter of somebody else on the same hook sees what goes to the master, and stays.
#[test]
fn a_foreign_tc_filter_goes_on() -> Result<()> {
    let install = |lab: &Lab| -> Result<()> {
        lab.host("master").shell(
            "ip link add copy type bridge && ip link set copy up && tc qdisc add dev eth0 clsact && \
             tc filter add dev eth0 ingress prio 7 protocol all u32 match u32 0 0 \
             action mirred egress mirror dev copy",
        )?;
        Ok(())
    };
    among(install, |lab, _| {
        let seen = || -> Result<bool> {
            let text = lab.host("master").shell("tc -statistics filter show dev eth0 ingress")?;
            Ok(text.contains("mirred") && !text.contains("Sent 0 bytes"))
        };
        lab.host("client").run(["ping", "-c1", "-W5", "192.0.2.1"])?.success()?;
        ensure!(seen()?, "the foreign filter saw nothing");
        Ok(())
    })
}

/// A foreign XDP program keeps its place; netfw works beneath it, and `status` says why not faster.
#[test]
fn a_foreign_xdp_program_keeps_its_place() -> Result<()> {
    let lab = Lab::two_armed(Engine::Xdp)?;
    let object = lab.dir().join("foreign.o");
    fs::write(&object, foreign::passing_xdp()?)?;
    let path = object.display().to_string();
    lab.host("master")
        .run(["ip", "link", "set", "dev", "eth0", "xdp", "object", &path, "section", "xdp"])?
        .success()?;
    let auto = rules::two_armed(&format!("{ECHO}[engine]\nmode = \"auto\"\n"));
    let netfw = Netfw::up(&lab, &auto)?;
    expect_forward(&lab)?;
    let status = netfw.json("status")?;
    ensure!(status["interfaces"][0]["engine"] == "tc", "{status}");
    let reason = status["interfaces"][0]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("another XDP program runs before netfw"), "{reason}");
    ensure!(
        lab.host("master").shell("ip -details link show eth0")?.contains("prog/xdp"),
        "the foreign program is gone"
    );
    netfw.finish()?;
    let only_xdp = Netfw::prepare(&lab, &rules::two_armed(ECHO))?;
    let tried = only_xdp.command(["up", "-d", "-c", &only_xdp.rules().display().to_string()])?;
    tried.expect_code(1)?;
    ensure!(tried.stderr.contains("eth0") && tried.stderr.contains("XDP"), "{}", tried.stderr);
    only_xdp.expect_untouched()
}

/// nftables with a forward chain that drops: flows that netfw manages don't depend on it, and the rules stay.
#[test]
fn an_nftables_firewall_stays() -> Result<()> {
    let install = |lab: &Lab| -> Result<()> {
        lab.host("master").shell(
            "nft 'table inet others { chain f { type filter hook forward priority 0; policy drop; }; }'",
        )?;
        Ok(())
    };
    among(install, |lab, _| {
        let _server = UdpServer::echo(lab.host("worker1"), "192.168.80.3:7")?;
        ask(&udp_socket(lab.host("client"), "0.0.0.0:0")?, "192.0.2.1:7000", b"hello")?;
        ensure!(lab.host("master").shell("nft list ruleset")?.contains("policy drop"));
        Ok(())
    })
}

/// What a container engine sets up: a bridge, its own masquerade, a published port.
const CONTAINERS: &str = r#"
table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat
        fib daddr type local tcp dport 8088 dnat to 172.17.0.2:80
    }
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
    }
}
table ip filter {
    chain forward {
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        iifname "docker0" accept
        oifname "docker0" tcp dport 80 accept
    }
}
"#;

/// Containers behind a bridge of their own reach the outside, and their published port is reached from there.
#[test]
fn a_container_engine_goes_on() -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        let container = add_container(&lab)?;
        let netfw = Netfw::up(&lab, &rules::two_armed(ECHO))?;
        expect_forward(&lab)?;
        let outside = TcpServer::echo(lab.host("client"), "203.0.113.10:9")?;
        let _published = TcpServer::echo(&container, "172.17.0.2:80")?;
        exchange_line(&mut connect(&container, "203.0.113.10:9")?, b"out").context("from the container")?;
        ensure!(outside.peers()[0].ip().to_string() == "192.0.2.1", "{:?}", outside.peers());
        exchange_line(&mut connect(lab.host("client"), "192.0.2.1:8088")?, b"in")
            .context("to the container")?;
        container.run(["ping", "-c1", "-W5", "192.168.80.4"])?.success().context("container to worker2")?;
        netfw.finish()?;
    }
    Ok(())
}

fn add_container(lab: &Lab) -> Result<Host> {
    let (master, container) = (lab.host("master"), lab.another_host("container")?);
    let name = container.namespace().name();
    master.namespace().sysctl("net/ipv4/ip_forward", "1")?;
    master.namespace().ip_batch(&format!(
        "link add docker0 type bridge\naddress add 172.17.0.1/16 dev docker0\nlink set docker0 up\n\
         link add box type veth peer name eth0 netns {name}\nlink set box master docker0 up\n"
    ))?;
    container.namespace().ip_batch(
        "address add 172.17.0.2/16 dev eth0\nlink set eth0 up\nroute add default via 172.17.0.1\n",
    )?;
    let rules = master.dir().join("containers.nft");
    fs::write(&rules, CONTAINERS)?;
    master.run(["nft", "-f", &rules.display().to_string()])?.success()?;
    wait::until("docker0 to be up", || {
        master.shell("ip link show docker0").ok()?.contains("state UP").then_some(())
    })?;
    Ok(container)
}

const VPN: &str = r#"
[[rule]]
name = "tunnel"
action = "accept"
protocol = "udp"
port = 1194

[[rule]]
name = "through the tunnel"
chain = "forward"
action = "accept"
protocol = "tcp"
from = "10.8.0.0/24"
port = 9
"#;

/// A VPN ends on the master: who dials in reaches the LAN and the master through it, and nothing is translated.
#[test]
fn a_vpn_goes_on() -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        let (master, client) = (lab.host("master"), lab.host("client"));
        master.namespace().sysctl("net/ipv4/ip_forward", "1")?;
        let _listens = tunnel(master, "203.0.113.10", "10.8.0.1/24")?;
        let netfw = Netfw::up(&lab, &rules::two_armed(&format!("{ECHO}{VPN}")))?;
        let _dials = tunnel(client, "192.0.2.1", "10.8.0.2/24")?;
        wait::until("the tunnel", || client.run(["ping", "-c1", "-W1", "10.8.0.1"]).ok()?.success().ok())?;
        client.shell("ip route add 192.168.80.0/24 dev vpn0")?;
        let inside = TcpServer::echo(lab.host("worker2"), "192.168.80.4:9")?;
        exchange_line(&mut connect(client, "192.168.80.4:9")?, b"through the tunnel")?;
        ensure!(inside.peers()[0].ip().to_string() == "10.8.0.2", "{:?}", inside.peers());
        expect_forward(&lab)?;
        netfw.finish()?;
    }
    Ok(())
}

/// A tunnel from `host` to `peer` over UDP, with an interface of its own that has no Ethernet header.
fn tunnel(host: &Host, peer: &str, address: &str) -> Result<Background> {
    let socat = host.spawn([
        "socat",
        &format!("UDP-DATAGRAM:{peer}:1194,bind=:1194"),
        &format!("TUN:{address},iff-no-pi,iff-up,tun-name=vpn0"),
    ])?;
    wait::until("the tunnel's interface", || host.shell("ip link show vpn0 up").ok())?;
    Ok(socat)
}

/// tcpdump makes the master listen to everything, the switch sends everything everywhere: still nothing comes twice.
#[test]
fn tcpdump_on_a_flooding_switch_duplicates_nothing() -> Result<()> {
    among(
        |_| Ok(()),
        |lab, netfw| {
            lab.host("switch").shell(
                "ip link set lan type bridge ageing_time 0 && ip link set outside type bridge ageing_time 0",
            )?;
            let dumps = ["eth0", "eth1"]
                .map(|nic| lab.host("master").spawn(["tcpdump", "-ni", nic, "-w", "/dev/null"]));
            for dump in &dumps {
                dump.as_ref().ok().context("tcpdump starts")?.wait_for("listening on")?;
            }
            let server = UdpServer::echo(lab.host("worker2"), "192.168.80.4:7")?;
            let socket = udp_socket(lab.host("worker1"), "192.168.80.3:0")?;
            let before = netfw.counters()?.count("interfaces.eth1.received");
            for _ in 0..20 {
                ask(&socket, "192.168.80.4:7", b"between the two of us")?;
            }
            let wire = RawPort::open(lab.host("worker2"), "eth0")?;
            wire.expect_none("a late copy", |frame| {
                frame.windows(21).any(|window| window == b"between the two of us").then_some(())
            })?;
            ensure!(server.peers().len() == 20, "{} of 20 arrived", server.peers().len());
            wait::until("nothing counted", || {
                (netfw.counters().ok()?.count("interfaces.eth1.received") == before).then_some(())
            })
        },
    )
}
