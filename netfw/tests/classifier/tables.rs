//! What stands in the tables, beyond who matches.

use netfw::{
    image::{Ids, Image, compile},
    policy::Chain,
};
use netfw_common::{
    family::addr6,
    image::{
        KEEP_REFUSED, MSS_CLAMP, ONE_TO_ONE, RANDOM, REJECT, SOURCE_NAT_ALWAYS, SOURCE_NAT_AUTO, SPOOF_LOOSE,
        Vector, service_index,
    },
    tick::Tick,
    timeout::Timeout,
    wire::TCP,
};

use crate::{host, image, load};

#[test]
fn the_header_repeats_the_settings() {
    let header = image(
        r#"
        interfaces = { external = ["eth0"], internal = ["eth1"], anti-spoof = "loose" }
        policy = { input = "reject" }
        timeouts = { udp = "7m" }
        flows = { on-change = "keep" }
        [[masquerade]]
        from = ["192.0.2.0/24"]
        [[masquerade]]
        from = ["198.51.100.0/24"]
        ports = "20000-60000"
        "#,
    )
    .policy;
    assert_eq!(header.generation, 0);
    assert_eq!((header.anti_spoof, header.flags), (SPOOF_LOOSE, KEEP_REFUSED | MSS_CLAMP));
    assert_eq!(header.default_actions[Chain::Input as usize], REJECT);
    assert_eq!(header.timeouts[Timeout::Udp as usize], Tick::ticks(420));
    assert_eq!(header.timeouts[Timeout::TcpEstablished as usize], Tick::ticks(7440));
    let ports = header.masquerades.map(|masquerade| (masquerade.first, masquerade.last));
    assert_eq!(ports[..3], [(0, 0), (20_000, 60_000), (0, 0)]);
}

const FORWARDS: &str = r#"
    interfaces = { external = ["eth0"], internal = ["eth1"] }
    [hosts]
    worker1 = "192.0.2.3"
    worker2 = ["192.0.2.4", "2001:db8::4"]
    [[port-forward]]
    name = "ssh"
    protocol = "tcp"
    port = "2201-2202"
    to = ["worker1:22", "worker2:22"]
    spread = "one-to-one"
    idle-timeout = "24h"
    [[port-forward]]
    name = "pages"
    protocol = ["tcp", "udp"]
    port = [8081, 8083]
    to = ["worker1:80", "worker2:80"]
    balance = "random"
    source-nat = "always"
"#;

#[test]
fn a_port_forward_is_an_entry_for_each_range_and_family() {
    let image = image(FORWARDS);
    let ranges = image.forwards.iter().map(|entry| (entry.id, entry.first_port, entry.targets));
    let expected = [(0, 2201, 2), (0, 2202, 1), (1, 8081, 2), (1, 8083, 2), (1, 8081, 1), (1, 8083, 1)];
    assert_eq!(ranges.collect::<Vec<_>>(), expected);
    let (ssh, pages) = (image.forwards[0], image.forwards[2]);
    assert_eq!(
        (ssh.spread, ssh.source_nat, ssh.idle_timeout),
        (ONE_TO_ONE, SOURCE_NAT_AUTO, Tick::ticks(86_400))
    );
    assert_eq!((pages.spread, pages.source_nat, pages.idle_timeout), (RANDOM, SOURCE_NAT_ALWAYS, 0));
    assert_eq!(pages.first_target, image.forwards[3].first_target, "ranges share their targets");
    assert_eq!(image.targets.len(), 2 + 1 + 2 + 1);
}

/// Entries of port-forwards that lead to an address and, over TCP, to a port there.
fn leading_to(image: &Image, address: &str, port: u16) -> Vec<u16> {
    let class = image.class(address.parse().unwrap());
    let service = image.services[service_index(TCP.into(), port) as usize];
    let [address, port] = [class.targets, service.targets].map(|index| image.vectors[usize::from(index)]);
    let both = (0..image.forwards.len()).filter(|&number| address.contains(number) && port.contains(number));
    both.map(|number| image.forwards[number].first_port).collect()
}

#[test]
fn a_port_forward_is_found_by_its_targets() {
    let image = image(&format!(
        "{FORWARDS}{}",
        r#"
        [[port-forward]]
        name = "range"
        protocol = "tcp"
        port = "4040-4049"
        to = "worker2:8040-8049"
        address = ["192.0.2.1", "192.0.2.9", "2001:db8::9"]
        [[port-forward]]
        name = "datagrams"
        protocol = "udp"
        port = 53
        to = "worker1:53"
        "#
    ));
    assert_eq!(leading_to(&image, "192.0.2.3", 22), [2201]);
    assert_eq!(leading_to(&image, "192.0.2.4", 22), [2201]);
    assert_eq!(leading_to(&image, "2001:db8::4", 22), [2202]);
    assert_eq!(leading_to(&image, "2001:db8::4", 80), [8081, 8083]);
    let nobody: [u16; 0] = [];
    for (address, port) in [("192.0.2.5", 22), ("192.0.2.3", 23), ("192.0.2.3", 8045), ("192.0.2.3", 53)] {
        assert_eq!(leading_to(&image, address, port), nobody, "{address} {port}");
    }
    for (port, found) in [(8039, false), (8040, true), (8049, true), (8050, false)] {
        assert_eq!(leading_to(&image, "192.0.2.4", port) == [4040], found, "{port}");
        assert_eq!(leading_to(&image, "2001:db8::4", port) == [4040], found, "{port}");
    }
    let ranges: Vec<_> = image.forwards.iter().filter(|entry| entry.first_port == 4040).collect();
    assert_eq!(
        ranges.iter().map(|entry| (entry.ports, entry.addresses)).collect::<Vec<_>>(),
        [(10, 2), (10, 1)]
    );
    let written = image.targets[ranges[1].first_address as usize];
    assert_eq!((written.address, written.port), (addr6("2001:db8::9".parse().unwrap()), 0));
    assert_eq!((image.forwards[0].ports, image.forwards[0].addresses), (2, 0));
}

#[test]
fn a_long_one_to_one_range_is_cut_into_entries_that_can_be_looked_through() {
    let targets: Vec<_> = (0..300).map(|port| format!("\"192.0.2.3:{}\"", 1000 + port)).collect();
    let image = image(&format!(
        r#"
        [interfaces]
        external = ["eth0"]
        [[port-forward]]
        name = "many"
        protocol = "tcp"
        port = "5000-5299"
        to = [{}]
        spread = "one-to-one"
        "#,
        targets.join(", ")
    ));
    let entries: Vec<_> =
        image.forwards.iter().map(|entry| (entry.first_port, entry.ports, entry.targets)).collect();
    assert_eq!(entries, [(5000, 128, 128), (5128, 128, 128), (5256, 44, 44)]);
    assert_eq!(leading_to(&image, "192.0.2.3", 1128), [5128]);
}

#[test]
fn prefixes_that_change_nothing_are_left_out() {
    let image = image(
        r#"
        interfaces = { external = ["eth0"] }
        sets = { some = ["192.0.2.0/24", "192.0.2.7"] }
        [[rule]]
        action = "drop"
        from = ["some"]
        [[rule]]
        action = "drop"
        from = ["192.0.2.8"]
        [[rule]]
        action = "accept"
        from = ["192.0.2.0/25"]
        to = ["!198.51.100.1"]
        "#,
    );
    let prefixes: Vec<String> = image.addresses4.iter().map(|(prefix, _)| prefix.to_string()).collect();
    let expected = ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.0/25", "192.0.2.8/32", "198.51.100.1/32"];
    assert_eq!(prefixes, expected);
    assert_eq!(image.addresses6.len(), 1);
    assert_eq!(image.vectors[0], Vector::default());
}

#[test]
fn names_keep_their_ids_from_one_rules_file_to_the_next() {
    let text = |names: &[&str]| {
        let rules = names.iter().map(|name| format!("[[rule]]\nname = \"{name}\"\naction = \"drop\"\n"));
        "[interfaces]\nexternal = [\"eth0\"]\n".to_owned() + &rules.collect::<String>()
    };
    let mut ids = Ids::default();
    let counters = |image: Image| image.rules.iter().map(|rule| rule.counter).collect::<Vec<_>>();
    let mut compile = |names| counters(compile(&load(&text(names)), &host(), &mut ids).unwrap());
    assert_eq!(compile(&["a", "b", "c"]), [0, 1, 2]);
    assert_eq!(compile(&["c", "new", "a"]), [2, 3, 0]);
    let stored = serde_json::to_string(&ids).unwrap();
    let mut ids: Ids = serde_json::from_str(&stored).unwrap();
    assert_eq!(ids.rule(Chain::Input, "b"), Some(1));
    assert_eq!(ids.rule(Chain::Output, "b"), None);
    let again = super::compile(&load(FORWARDS), &host(), &mut ids).unwrap();
    let names: Vec<_> = ids.port_forward_names().collect();
    assert!(names.contains(&(again.forwards[2].id, "pages")), "{names:?}");
}
