//! Which live flows a new rules file still admits: those that it would admit with the translation they have.

use netfw_common::{
    family::{Address, Family, Ipv4, Ipv6},
    flow::{Flow, MASQUERADED, REPLY, judged_by},
    image::{FORWARD, INPUT},
    tuple::Tuple,
    wire::TCP,
};

use crate::{image, wide};

/// Addresses of a family: client, outside address of the master, worker, server.
struct Addresses<F: Family> {
    client: F::Addr,
    outside: F::Addr,
    worker: F::Addr,
    server: F::Addr,
}

fn addresses<F: Family>() -> Addresses<F> {
    let address = |v4: &str, v6: &str| F::Addr::narrow(wide(if F::V6 { v6 } else { v4 }.parse().unwrap()));
    Addresses {
        client: address("203.0.113.9", "2001:db8:9::9"),
        outside: address("198.51.100.1", "2001:db8:ffff::1"),
        worker: address("192.0.2.3", "2001:db8::3"),
        server: address("198.51.100.80", "2001:db8:ffff::80"),
    }
}

fn tcp<F: Family>(
    source: F::Addr,
    source_port: u16,
    destination: F::Addr,
    destination_port: u16,
) -> Tuple<F::Addr> {
    Tuple { source, destination, source_port, destination_port, protocol: TCP.into() }
}

/// Asks about both halves of a flow, which must agree.
fn admits<F: Family>(
    text: &str,
    arriving: Tuple<F::Addr>,
    leaving: Tuple<F::Addr>,
    mark: Flow<F::Addr>,
) -> bool {
    let text = format!("interfaces = {{ external = [\"eth0\"], internal = [\"eth1\"] }}\n{text}");
    let image = image(&text);
    let original = image.still_admits::<F>(&arriving, &Flow { leaving, ..mark });
    let reply = Flow { leaving: arriving.reversed(), flags: mark.flags | REPLY, ..mark };
    assert_eq!(image.still_admits::<F>(&leaving.reversed(), &reply), original, "{text}");
    original
}

fn forwarded_flow<F: Family>() {
    let Addresses { client, outside, worker, .. } = addresses::<F>();
    let arriving = tcp::<F>(client, 40_000, outside, 2201);
    let leaving = tcp::<F>(client, 40_000, worker, 22);
    let mark = Flow { forward: 1, interface: 1, flags: judged_by(FORWARD), ..Flow::default() };
    let check = |port: &str, target: &str, more: &str| {
        let hosts =
            "[hosts]\nworker = [\"192.0.2.3\", \"2001:db8::3\"]\nother = [\"192.0.2.4\", \"2001:db8::4\"]\n";
        let forward =
            format!("[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = {port}\nto = {target}\n");
        admits::<F>(&format!("{hosts}{forward}{more}"), arriving, leaving, mark)
    };
    assert!(check("2201", "\"worker:22\"", ""));
    assert!(check("\"2200-2209\"", "[\"other:22\", \"worker:22\"]", ""), "still listed");
    assert!(check("\"2200-2209\"", "\"worker:21-30\"", ""), "the same port through a shifted range");
    assert!(!check("2202", "\"worker:22\"", ""), "the port is taken out");
    assert!(!check("2201", "\"other:22\"", ""), "the target is another");
    assert!(!check("2201", "\"worker:23\"", ""), "the target's port is another");
    assert!(!check("2201", "\"worker:22\"", "from = [\"192.0.2.0/24\"]\n"), "others may use it");
    let rule = |action| {
        format!(
            "[[rule]]\nchain = \"forward\"\naction = \"{action}\"\nto = [\"worker\"]\ninterface = \"eth0\"\n"
        )
    };
    assert!(!check("2201", "\"worker:22\"", &rule("reject")));
    assert!(check("2201", "\"worker:22\"", &rule("accept")));
    assert!(check("2201", "\"worker:22\"", &rule("drop").replace("eth0", "eth1")), "a rule for elsewhere");
    assert!(!admits::<F>("", arriving, leaving, mark), "the port-forward is gone");
}

#[test]
fn a_forwarded_flow_lives_as_long_as_its_translation() {
    forwarded_flow::<Ipv4>();
    forwarded_flow::<Ipv6>();
}

fn masqueraded_flow<F: Family>() {
    let Addresses { outside, worker, server, .. } = addresses::<F>();
    let arriving = tcp::<F>(worker, 40_000, server, 443);
    let leaving = tcp::<F>(outside, 20_000, server, 443);
    let mark = Flow { interface: 2, flags: judged_by(FORWARD) | MASQUERADED, ..Flow::default() };
    let check = |text: &str| admits::<F>(text, arriving, leaving, mark);
    let masquerade = "[masquerade]\nfrom = [\"192.0.2.0/24\", \"2001:db8::/64\"]\n";
    assert!(check(masquerade));
    assert!(!check("policy = { forward = \"accept\" }\n"), "accepted, but no longer as the master");
    assert!(!check(&masquerade.replace("[\"", "[\"!192.0.2.3\", \"!2001:db8::3\", \"")));
    let rule = "[[rule]]\nchain = \"forward\"\naction = \"drop\"\nprotocol = \"tcp\"\nport = 443\n";
    assert!(!check(&format!("{masquerade}{rule}")));
}

#[test]
fn a_masqueraded_flow_lives_as_long_as_its_masquerade() {
    masqueraded_flow::<Ipv4>();
    masqueraded_flow::<Ipv6>();
}

fn plain_flow<F: Family>() {
    let Addresses { client, outside, .. } = addresses::<F>();
    let tuple = tcp::<F>(client, 40_000, outside, 22);
    let mark = Flow { interface: 1, flags: judged_by(INPUT), ..Flow::default() };
    let check = |text: &str| admits::<F>(text, tuple, tuple, mark);
    assert!(check("policy = { input = \"accept\" }\n"));
    assert!(!check(""));
    assert!(check("[[rule]]\naction = \"accept\"\nprotocol = \"tcp\"\nport = 22\n"));
    assert!(!check("[[rule]]\naction = \"accept\"\nprotocol = \"tcp\"\nport = 23\n"));
}

#[test]
fn a_flow_to_the_master_lives_as_long_as_its_rule() {
    plain_flow::<Ipv4>();
    plain_flow::<Ipv6>();
}
