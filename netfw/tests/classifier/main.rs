//! Compiled rules decide like a naive interpreter: random rules files and packets, both families, through the
//! front end, the compiler and the datapath's classifier. (Scenario 18.)

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod flows;
mod limits;
#[expect(dead_code, reason = "small rules files are for lives, of which there are none here")]
#[path = "../../../tests/suites/naive/mod.rs"]
mod naive;
mod tables;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use netfw::{
    config::{HostFacts, load_text},
    image::{Host, Ids, Image, compile},
    policy::ValidPolicy,
};
use netfw_common::{
    family::{Addr6, Address, Family, Ipv4, Ipv6, addr4, addr6},
    image::ONE_TO_ONE,
    tuple::Tuple,
};
use netfw_ebpf::datapath::{
    judge::{self, Subject, target_port},
    work::NONE,
};
use proptest::{collection::vec, prelude::*};

use naive::{
    Packet, RulesFile,
    generate::{packet, rules_file},
};

/// A text as a policy.
fn load(text: &str) -> ValidPolicy {
    let loaded = load_text(
        Path::new("netfw.toml"),
        text,
        &|_| unreachable!("no file is included"),
        &HostFacts::default(),
    );
    loaded.unwrap_or_else(|error| panic!("{error}\n{text}")).policy
}

fn host() -> Host {
    Host { interfaces: [("eth0".to_owned(), 1), ("eth1".to_owned(), 2)].into() }
}

fn image(text: &str) -> Image {
    compile(&load(text), &host(), &mut Ids::default()).unwrap()
}

/// An address in memory order; IPv4 uses the first word.
fn wide(address: IpAddr) -> Addr6 {
    match address {
        IpAddr::V4(address) => [addr4(address), 0, 0, 0],
        IpAddr::V6(address) => addr6(address),
    }
}

fn tuple<F: Family>(packet: &Packet) -> Tuple<F::Addr> {
    Tuple {
        source: F::Addr::narrow(wide(packet.source)),
        destination: F::Addr::narrow(wide(packet.destination)),
        source_port: packet.source_port,
        destination_port: if packet.has_ports() { packet.detail } else { 0 },
        protocol: packet.protocol.into(),
    }
}

/// Every target to which a port-forward entry may send a packet for `port`.
fn destinations<F: Family>(image: &Image, entry: u32, port: u16) -> BTreeSet<SocketAddr> {
    let forward = &image.forwards[entry as usize];
    let offset = u32::from(port - forward.first_port);
    let nth = if forward.spread == ONE_TO_ONE { offset..offset + 1 } else { 0..forward.targets };
    assert!(nth.end <= forward.targets, "a port without a target");
    nth.map(|nth| {
        let target = &image.targets[(forward.first_target + nth) as usize];
        let address = F::Addr::narrow(target.address).to_ip();
        SocketAddr::new(address, target_port(forward, target.port, offset))
    })
    .collect()
}

/// Compares what becomes of one packet; `choice` picks among the targets.
fn check<F: Family>(
    rules: &RulesFile,
    image: &Image,
    packet: &Packet,
    choice: usize,
) -> Result<(), TestCaseError> {
    let arriving = tuple::<F>(packet);
    let entry = judge::forward::<F, _>(image, &arriving);
    let expected = naive::forward(rules, packet);
    let mut leaving = *packet;
    if entry == NONE {
        prop_assert_eq!(expected, None);
    } else {
        let (number, targets) = expected.unwrap();
        prop_assert_eq!(usize::from(image.forwards[entry as usize].id), number);
        prop_assert_eq!(&destinations::<F>(image, entry, packet.detail), &targets);
        let target = targets.iter().nth(choice % targets.len()).unwrap();
        leaving = Packet { destination: target.ip(), detail: target.port(), ..*packet };
    }
    let masquerade = naive::masquerade(rules, packet);
    prop_assert_eq!(
        usize::from(image.class(packet.source).masquerade),
        masquerade.map_or(0, |number| number + 1)
    );

    let subject = Subject::<F::Addr> {
        chain: packet.chain as u32,
        interface: packet.interface as u32,
        arriving,
        leaving: tuple::<F>(&leaving),
        detail: leaving.detail.into(),
        forward: entry,
        masqueraded: false,
    };
    let mut rule = NONE;
    let action = judge::decide::<F, _>(image, &subject, &mut rule);
    let forward = naive::forward(rules, packet).map(|(number, _)| number);
    let (expected_rule, expected_action) = naive::decide(rules, &leaving, forward, false);
    prop_assert_eq!(rule, expected_rule.map_or(NONE, |number| number as u32));
    prop_assert_eq!(action, expected_action);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 1000, ..ProptestConfig::default() })]

    #[test]
    fn compiled_rules_decide_like_a_naive_interpreter(
        rules in rules_file(),
        packets in vec((packet(), any::<usize>()), 200),
    ) {
        let image = image(&rules.to_string());
        for (packet, choice) in &packets {
            if packet.source.is_ipv4() {
                check::<Ipv4>(&rules, &image, packet, *choice)?;
            } else {
                check::<Ipv6>(&rules, &image, packet, *choice)?;
            }
        }
    }

    #[test]
    fn the_same_rules_and_ids_give_the_same_image(rules in rules_file()) {
        let policy = load(&rules.to_string());
        let mut ids = Ids::default();
        let first = compile(&policy, &host(), &mut ids).unwrap();
        prop_assert_eq!(first, compile(&policy, &host(), &mut ids).unwrap());
    }
}
