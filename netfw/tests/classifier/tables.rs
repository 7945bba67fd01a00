//! What stands in the tables, beyond who matches.

use netfw::{
    image::{Ids, Image, compile},
    policy::Chain,
};
use netfw_common::{
    image::{
        KEEP_REFUSED, MSS_CLAMP, ONE_TO_ONE, RANDOM, REJECT, SOURCE_NAT_ALWAYS, SOURCE_NAT_AUTO, SPOOF_LOOSE,
        Vector,
    },
    tick::Tick,
    timeout::Timeout,
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
