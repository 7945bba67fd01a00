//! Random rules for the lab, valid whatever chance brings, about the hosts and ports of [`crate::sketch`].

use netfw_tests::rules::two_armed;
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};

/// Outside ports of port-forwards, each for one of them.
const PORTS: [&str; 4] = ["50", "51", "53", "60"];

/// A rules file.
pub(crate) fn rules() -> impl Strategy<Value = String> {
    let spoof = select(vec!["strict", "loose", "off"]);
    (spoof, policy(), door(), block(), masquerade(), forwards(), vec(rule(), 0..8)).prop_map(
        |(spoof, policy, door, block, masquerade, forwards, rules)| {
            let more = [policy, door, block, masquerade, forwards, rules.concat()].concat();
            two_armed(&more).replacen("[hosts]", &format!("anti-spoof = \"{spoof}\"\n[hosts]"), 1)
        },
    )
}

fn policy() -> impl Strategy<Value = String> {
    let action = || select(vec!["accept", "drop", "reject"]);
    (action(), action(), action()).prop_map(|(input, forward, output)| {
        format!("[policy]\ninput = \"{input}\"\nforward = \"{forward}\"\noutput = \"{output}\"\n")
    })
}

fn door() -> impl Strategy<Value = String> {
    option::of(Just("[failsafe]\nssh-port = 54\nfrom = [\"office\"]\n".to_owned()))
        .prop_map(Option::unwrap_or_default)
}

fn block() -> impl Strategy<Value = String> {
    let list = select(vec![
        "",
        "[block]\nfrom = [\"198.51.100.0/24\", \"2001:db8:2::/48\"]\n",
        "[block]\nfrom = [\"worker4\"]\n",
    ]);
    list.prop_map(str::to_owned)
}

fn masquerade() -> impl Strategy<Value = String> {
    let whom = select(vec![
        "",
        "[masquerade]\nfrom = [\"lan\"]\n",
        "[masquerade]\nfrom = [\"worker1\", \"worker2\"]\n",
    ]);
    let how = select(vec!["", "ports = \"4000-4003\"\n", "mapping = \"endpoint-independent\"\n"]);
    (whom, how).prop_map(|(whom, how)| if whom.is_empty() { String::new() } else { format!("{whom}{how}") })
}

fn forwards() -> impl Strategy<Value = String> {
    let one = || {
        let targets = subsequence(vec!["worker1:60", "worker2:70", "worker3:60", "master:54"], 1..4);
        // What chance chooses it may choose otherwise when the packet is sent.
        let balance = select(vec!["round-robin", "source-hash"]);
        let source_nat = select(vec!["auto", "always", "never"]);
        let more = select(vec!["", "from = [\"office\"]\n", "from = [\"lan\"]\n"]);
        (targets, balance, source_nat, more)
    };
    (subsequence(PORTS.to_vec(), 0..4), vec(one(), PORTS.len())).prop_map(|(ports, forwards)| {
        let text = |(port, (targets, balance, source_nat, more)): (&str, (Vec<&str>, &str, &str, &str))| {
            format!(
                "[[port-forward]]\nname = \"to {port}\"\nprotocol = [\"tcp\", \"udp\"]\nport = {port}\nto = {targets:?}\nbalance = \
                 \"{balance}\"\nsource-nat = \"{source_nat}\"\n{more}"
            )
        };
        ports.into_iter().zip(forwards).map(text).collect()
    })
}

fn rule() -> impl Strategy<Value = String> {
    let head = (select(vec!["input", "forward", "output"]), select(vec!["accept", "drop", "reject"]));
    let service = select(vec![
        "",
        "protocol = \"tcp\"\n",
        "protocol = \"udp\"\nport = [53, 54]\n",
        "protocol = [\"tcp\", \"udp\"]\nport = \"50-60\"\n",
        "protocol = [\"tcp\", \"udp\"]\nfrom-port = 4000\n",
        "protocol = [\"icmp\", \"icmpv6\"]\n",
        "protocol = 47\n",
    ]);
    let end = || select(vec!["", "office", "lan", "worker2", "!worker1", "198.51.100.10", "2001:db8:2::10"]);
    let more = select(vec![
        "",
        "",
        "",
        "interface = \"eth0\"\n",
        "limit = { rate = \"2/hour\", burst = 2 }\n",
        "limit = { rate = \"2/hour\", burst = 1, per = \"source\" }\n",
        "log = true\n",
    ]);
    (head, service, end(), end(), more).prop_map(|((chain, action), service, from, to, more)| {
        let list = |key: &str, value: &str| match value {
            "" => String::new(),
            value => format!("{key} = [\"{value}\"]\n"),
        };
        let (from, to) = (list("from", from), list("to", to));
        format!("[[rule]]\nchain = \"{chain}\"\naction = \"{action}\"\n{service}{from}{to}{more}")
    })
}
