//! Scenario 27: the world around the master changes, and service returns by itself.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netfw::kernel::{Maps, Pins, now};
use netfw_common::changes::LASTING;
use netfw_tests::{
    lab::{Engine, Lab},
    net::{TcpServer, UdpServer, connect, exchange_line, udp_socket},
    netfw::Netfw,
    rules, wait,
};

const RULES: &str = r#"
[masquerade]
from = ["lan"]

[[port-forward]]
name = "echo"
protocol = ["tcp", "udp"]
port = 7000
to = "worker1:7"
"#;

/// What may be refused while the world is out of joint.
const TURMOIL: [&str; 7] =
    ["no-route", "spoofed", "policy-input", "policy-forward", "too-big", "flow-cut", "no-address"];

/// How soon service must be back once the kernel knows the way. Two seconds are asked for; the others are for a loaded machine,
/// where a process may wait for its turn. From 15 seconds on the kernel would probe its neighbours again, and heal what netfw has missed.
const BACK: Duration = Duration::from_secs(10);

/// Everything that a master's outer side has.
const OUTSIDE: &str = "ip link set eth0 up; ip address replace 192.0.2.1/24 dev eth0; \
     ip address replace 2001:db8::1/64 dev eth0 nodad; ip route replace default via 192.0.2.254; \
     ip route replace default via 2001:db8::fe";
/// Everything that its inner side has.
const INSIDE: &str = "ip link set eth1 up; ip address replace 192.168.80.2/24 dev eth1; \
     ip address replace fd00:80::2/64 dev eth1 nodad";

/// Tells `story` with talks going on, once for each chosen engine; after it all of them must go on.
fn among_talks(story: impl Fn(&Lab, &Netfw<'_>, &Talks) -> Result<()>) -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = Lab::two_armed(engine)?;
        let netfw = Netfw::up(&lab, &rules::two_armed(RULES))?;
        TURMOIL.iter().for_each(|reason| netfw.expect_drops(reason, 0..));
        let mut talks = Talks::begin(&lab)?;
        let told = story(&lab, &netfw, &talks).and_then(|()| talks.go_on());
        told.with_context(|| format!("engine {engine}; daemon:\n{}", netfw.log()))?;
        netfw.finish_on_changed_machine()?;
    }
    Ok(())
}

/// Talks through the master, one of each kind.
struct Talks {
    forwarded: [(UdpSocket, SocketAddr); 2],
    masqueraded: [(UdpSocket, SocketAddr); 2],
    stream: TcpStream,
    _servers: (TcpServer, [UdpServer; 4]),
}

impl Talks {
    fn begin(lab: &Lab) -> Result<Self> {
        let (client, worker) = (lab.host("client"), lab.host("worker1"));
        let servers = [
            UdpServer::echo(worker, "192.168.80.3:7")?,
            UdpServer::echo(worker, "[fd00:80::3]:7")?,
            UdpServer::echo(client, "203.0.113.10:7")?,
            UdpServer::echo(client, "[2001:db8:1::10]:7")?,
        ];
        let tcp = TcpServer::echo(worker, "192.168.80.3:7")?;
        let mut talks = Self {
            forwarded: [
                (udp_socket(client, "203.0.113.10:5000")?, "192.0.2.1:7000".parse()?),
                (udp_socket(client, "[2001:db8:1::10]:5000")?, "[2001:db8::1]:7000".parse()?),
            ],
            masqueraded: [
                (udp_socket(worker, "192.168.80.3:5000")?, "203.0.113.10:7".parse()?),
                (udp_socket(worker, "[fd00:80::3]:5000")?, "[2001:db8:1::10]:7".parse()?),
            ],
            stream: connect(client, "192.0.2.1:7000")?,
            _servers: (tcp, servers),
        };
        talks.stream.set_read_timeout(Some(wait::GENEROUS))?;
        talks.go_on()?;
        Ok(talks)
    }

    /// Waits until all are answered again; the connection is still the same.
    fn go_on(&mut self) -> Result<()> {
        self.datagrams_go_on()?;
        exchange_line(&mut self.stream, &[b'x'; 4000]).context("the connection")
    }

    fn datagrams_go_on(&self) -> Result<()> {
        self.forwarded.iter().chain(&self.masqueraded).try_for_each(|(socket, to)| comes_back(socket, *to))
    }
}

/// Waits until datagrams are answered from there, as soon as they must.
fn comes_back(socket: &UdpSocket, to: SocketAddr) -> Result<()> {
    wait::within(BACK, &format!("an answer from {to}"), || answers(socket, to).then_some(()))
}

/// Whether a datagram is answered from there, soon.
fn answers(socket: &UdpSocket, to: SocketAddr) -> bool {
    let mut room = [0; 64];
    let asked =
        socket.set_read_timeout(Some(Duration::from_millis(200))).and_then(|()| socket.send_to(b"?", to));
    asked.is_ok() && socket.recv_from(&mut room).is_ok_and(|(_, from)| from == to)
}

/// What `status` says of an interface: its link, and what is wrong.
fn interface(netfw: &Netfw<'_>, name: &str) -> Result<(String, Option<String>)> {
    let status = netfw.json("status")?;
    let all = status["interfaces"].as_array().context("a list of interfaces")?;
    let found = all.iter().find(|interface| interface["name"] == name).context("it is managed")?;
    let text = |key: &str| found[key].as_str().map(str::to_owned);
    Ok((text("link").unwrap_or_default(), text("problem")))
}

fn expect_link(netfw: &Netfw<'_>, name: &str, link: &str) -> Result<()> {
    wait::within(BACK, &format!("{name} to be {link}"), || {
        let (found, problem) = interface(netfw, name).ok()?;
        (found == link && problem.is_some() == (link != "up")).then_some(())
    })
}

/// Scenario 27: another outside address, in each family. Forwards serve it, and who was hidden behind the old one gets the new one.
#[test]
fn an_address_changes() -> Result<()> {
    const CHANGES: [(&str, &str); 2] = [
        (
            // Without the first one the kernel also removes those of its network.
            "ip address del 192.0.2.1/24 dev eth0 && ip address add 192.0.2.7/24 dev eth0 && \
             ip route replace default via 192.0.2.254",
            "192.0.2.7:7000",
        ),
        (
            "ip address del 2001:db8::1/64 dev eth0 && ip address add 2001:db8::7/64 dev eth0 nodad && \
             ip route replace default via 2001:db8::fe",
            "[2001:db8::7]:7000",
        ),
    ];
    among_talks(|lab, _, talks| {
        let master = lab.host("master");
        for (family, (change, new)) in CHANGES.iter().enumerate() {
            master.shell(change)?;
            // Nobody answers for the old one any more.
            lab.host("internet").shell("ip neigh flush dev eth0; ip -6 neigh flush dev eth0")?;
            let (socket, to) = &talks.masqueraded[family];
            comes_back(socket, *to).context("from the LAN")?;
            comes_back(&talks.forwarded[family].0, new.parse()?)?;
        }
        master.shell(&format!("ip address flush dev eth0 scope global; {OUTSIDE}"))?;
        Ok(())
    })
}

/// Scenario 27: one more address in each family, less, and none at all, which `status` tells.
#[test]
fn addresses_come_and_go() -> Result<()> {
    among_talks(|lab, netfw, talks| {
        let master = lab.host("master");
        for (family, (address, forwarded)) in
            [("192.0.2.9/24", "192.0.2.9:7000"), ("2001:db8::9/64", "[2001:db8::9]:7000")]
                .into_iter()
                .enumerate()
        {
            let nodad = if family == 1 { "nodad" } else { "" };
            master.shell(&format!("ip address add {address} dev eth0 {nodad}"))?;
            comes_back(&talks.forwarded[family].0, forwarded.parse()?)?;
            master.shell(&format!("ip address del {address} dev eth0"))?;
            talks.datagrams_go_on()?;
        }
        master.shell("ip address flush dev eth0")?;
        wait::within(BACK, "status to miss an address", || {
            let (link, problem) = interface(netfw, "eth0").ok()?;
            (link == "up" && problem? == "it has no address").then_some(())
        })?;
        master.shell(OUTSIDE)?;
        Ok(())
    })
}

/// Scenario 27: the way to the workers gets narrower, and wider again; large segments find their size.
#[test]
fn the_mtu_changes() -> Result<()> {
    among_talks(|lab, _, talks| {
        // A veth drops what is longer than its own MTU also when it arrives, so both ends change.
        let resize = |mtu: u16| -> Result<()> {
            lab.host("worker1").shell(&format!("ip link set eth0 mtu {mtu}"))?;
            lab.host("master").shell(&format!("ip link set eth1 mtu {mtu}"))?;
            Ok(())
        };
        resize(1280)?;
        let mut stream = talks.stream.try_clone()?;
        exchange_line(&mut stream, &[b'x'; 20_000]).context("through the narrow way")?;
        resize(1500)
    })
}

/// Scenario 27: the master gets other link addresses, which the others learn from the kernel.
#[test]
fn the_master_gets_other_link_addresses() -> Result<()> {
    among_talks(|lab, _, _| {
        lab.host("master").shell(
            "ip link set eth0 address 02:00:00:00:aa:01; ip link set eth1 address 02:00:00:00:aa:02",
        )?;
        for host in ["worker1", "internet"] {
            lab.host(host).shell("ip neigh flush all; ip -6 neigh flush all")?;
        }
        Ok(())
    })
}

/// Scenario 27: the router is replaced by one with another link address, and says nothing of it: when the kernel has found it (it
/// probes soon here), packets go there.
#[test]
fn the_next_hop_is_another_machine() -> Result<()> {
    among_talks(|lab, _, talks| {
        let master = lab.host("master");
        master.shell(
            "for f in ipv4 ipv6; do cd /proc/sys/net/$f/neigh/eth0; echo 1000 >base_reachable_time_ms; \
             echo 1 >delay_first_probe_time; echo 200 >retrans_time_ms; done",
        )?;
        lab.host("internet").shell("ip link set eth0 address 02:00:00:00:bb:01")?;
        for (router, (socket, to)) in ["192.0.2.254", "2001:db8::fe"].iter().zip(&talks.masqueraded) {
            wait::until(&format!("the kernel to find {router}"), || {
                answers(socket, *to);
                let neighbour = master.shell(&format!("ip neigh show {router} dev eth0")).ok()?;
                neighbour.contains("02:00:00:00:bb:01").then_some(())
            })?;
        }
        Ok(())
    })
}

/// Scenario 27: the way out leads to nobody, and back to the router: live flows follow the route both times.
#[test]
fn the_next_hop_changes() -> Result<()> {
    among_talks(|lab, _, talks| {
        let maps = Maps::open(&Pins::of(lab.name()))?;
        let first = maps.changes()?;
        wait::until("the daemon to listen for some time", || {
            maps.changes().is_ok_and(|later| later.heard_until != first.heard_until).then_some(())
        })?;
        let (master, before) = (lab.host("master"), now());
        master.shell("ip route replace default via 192.0.2.99; ip route replace default via 2001:db8::99")?;
        for (socket, to) in &talks.forwarded {
            let lost = format!("answers of {to} to go where nobody is");
            wait::within(BACK, &lost, || (!answers(socket, *to)).then_some(()))?;
        }
        let changes = maps.changes()?;
        let is_noted = changes.last.wrapping_sub(before.0) < LASTING;
        ensure!(is_noted, "it was found only when the way was looked up anyway: {changes:?}");
        master.shell(OUTSIDE)?;
        Ok(())
    })
}

/// Scenario 27: links go down and come up; `status` tells meanwhile, and exits with 0: netfw is up.
#[test]
fn links_go_down_and_come_up() -> Result<()> {
    among_talks(|lab, netfw, talks| {
        for (name, restore) in [("eth0", OUTSIDE), ("eth1", INSIDE)] {
            lab.host("master").shell(&format!("ip link set {name} down"))?;
            expect_link(netfw, name, "down")?;
            lab.host("master").shell(restore)?;
            expect_link(netfw, name, "up")?;
            talks.datagrams_go_on().with_context(|| format!("after {name}"))?;
        }
        lab.host("switch").shell("ip link set master-eth1 down")?;
        expect_link(netfw, "eth1", "no-carrier")?;
        lab.host("switch").shell("ip link set master-eth1 up")?;
        expect_link(netfw, "eth1", "up")
    })
}

/// Makes an interface of the master anew, with a port on the bridge of its segment; perhaps under the index it had.
fn make_anew(lab: &Lab, name: &str, segment: &str, index: &str) -> Result<()> {
    let switch = lab.host("switch").namespace().name();
    let (master, port) = (lab.host("master"), format!("master-{name}"));
    master.shell(&format!("ip link add {name} {index} type veth peer name {port} netns {switch}"))?;
    lab.host("switch").shell(&format!("ip link set {port} master {segment} up"))?;
    if lab.engine() == Engine::Xdp {
        master.shell(&format!("ethtool -K {name} tx off"))?;
        lab.host("switch").shell(&format!("ethtool -K {port} gro on tx off"))?;
    }
    Ok(())
}

/// Scenario 27: interfaces are deleted and made anew, under another index and under the same; connections survive it.
#[test]
fn interfaces_are_made_anew() -> Result<()> {
    among_talks(|lab, netfw, talks| {
        let master = lab.host("master");
        for (name, segment, restore) in [("eth0", "outside", OUTSIDE), ("eth1", "lan", INSIDE)] {
            for same in [false, true] {
                let index = master.shell(&format!("ip -o link show {name} | cut -d: -f1"))?;
                master.shell(&format!("ip link del {name}"))?;
                expect_link(netfw, name, "gone")?;
                let index = if same { format!("index {index}") } else { String::new() };
                make_anew(lab, name, segment, &index)?;
                master.shell(restore)?;
                for host in ["worker1", "internet"] {
                    lab.host(host).shell("ip neigh flush all; ip -6 neigh flush all")?;
                }
                expect_link(netfw, name, "up")?;
                talks.datagrams_go_on().with_context(|| format!("after {name}, same index: {same}"))?;
            }
        }
        Ok(())
    })
}

/// Scenario 27: so quickly that nobody sees it gone: the new one under the old name and index is not taken for the old one.
#[test]
fn an_interface_is_swapped_in_a_moment() -> Result<()> {
    among_talks(|lab, netfw, _| {
        let master = lab.host("master");
        let index = master.shell("ip -o link show eth1 | cut -d: -f1")?;
        let mac = master.shell("ip -o link show eth1 | sed 's/.*ether \\([^ ]*\\).*/\\1/'")?;
        master.shell("ip link del eth1")?;
        make_anew(lab, "eth1", "lan", &format!("index {index} address {mac}"))?;
        master.shell(INSIDE)?;
        expect_link(netfw, "eth1", "up")
    })
}

/// Scenario 27: an interface is renamed: its name has no interface any more, and it is left as it was before netfw; under
/// its old name it serves again.
#[test]
fn an_interface_is_renamed() -> Result<()> {
    among_talks(|lab, netfw, _| {
        let master = lab.host("master");
        master.shell("ip link set eth1 down && ip link set eth1 name lan0 && ip link set lan0 up")?;
        expect_link(netfw, "eth1", "gone")?;
        wait::until("the renamed interface to be let go", || {
            let forwards = master.shell("cat /proc/sys/net/ipv4/conf/lan0/forwarding").ok()?;
            (forwards == "0").then_some(())
        })?;
        master.shell("ip link set lan0 down && ip link set lan0 name eth1")?;
        master.shell(INSIDE)?;
        expect_link(netfw, "eth1", "up")
    })
}

/// Scenario 27: the daemon is dead while an interface is made anew: `status` names it, and the next `up` attaches.
#[test]
fn nobody_is_there_to_follow() -> Result<()> {
    among_talks(|lab, netfw, _| {
        let master = lab.host("master");
        netfw.kill()?;
        let index = master.shell("ip -o link show eth1 | cut -d: -f1")?;
        master.shell("ip link del eth1")?;
        expect_link(netfw, "eth1", "gone")?;
        make_anew(lab, "eth1", "lan", &format!("index {index}"))?;
        master.shell(INSIDE)?;
        let (_, problem) = interface(netfw, "eth1")?;
        ensure!(
            problem.is_some_and(|problem| problem.contains("netfw is not on it")),
            "status sees nothing wrong"
        );
        netfw.start()?;
        lab.host("worker1").shell("ip neigh flush all; ip -6 neigh flush all")?;
        expect_link(netfw, "eth1", "up")
    })
}
