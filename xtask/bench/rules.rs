//! `bench rules`: datagrams that fall through all rules, and are dropped by the policy.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::Result;

use crate::{
    Common,
    compare::{Case, compare},
    ends::{Sources, Traffic},
    gateway::{Gateway, netfw_rules, nftables_rules},
    target::Target,
    testbed::DROPPED,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Numbers of rules.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000,4096")]
    rules: Vec<u32>,
    /// The hardest rules: every second one fits the datagrams' source, the others their port. Otherwise, none fits either.
    #[arg(long)]
    crossing: bool,
}

/// Where the datagrams come from: any address of 10.0.0.0/8.
pub(crate) const SOURCES: Sources = Sources { first: Ipv4Addr::new(10, 0, 0, 0), count: 1 << 24, step: 1 };
/// Ports that no datagram goes to.
const OTHER_PORTS: u32 = 20_000;

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let cases: Vec<_> = args.rules.iter().flat_map(|&count| cases(count, args.crossing)).collect();
    compare(
        ("rules", "64-byte UDP of new flows, dropped after all rules, by rules"),
        &args.common,
        &cases,
        &targets(&args.rules),
    )
}

/// Many rules cost what one does, and with a thousand nftables is far behind.
fn targets(counts: &[u32]) -> Vec<Target> {
    let name = |count: Option<&u32>| count.map(u32::to_string).unwrap_or_default();
    let (first, last) = (name(counts.first()), name(counts.last()));
    vec![
        Target::over("netfw, XDP", "nftables, linear", "1000", 100.0),
        Target::keeps("netfw, XDP", &last, &first, 0.8),
        Target::keeps("netfw, TC", &last, &first, 0.8),
    ]
}

fn cases(count: u32, crossing: bool) -> impl Iterator<Item = Case> {
    let matches: Vec<_> = matches(count, crossing).collect();
    let rules = netfw(&matches);
    let gateways = [
        ("nftables, linear", Gateway::Nftables(nftables_linear(&matches), "ip")),
        ("nftables, verdict map", Gateway::Nftables(nftables_map(&matches), "ip")),
        ("bare XDP drop", Gateway::Bare("discard")),
        ("netfw, XDP", Gateway::Netfw(netfw_rules("xdp", &rules), "policy-forward")),
        ("netfw, TC", Gateway::Netfw(netfw_rules("tc", &rules), "policy-forward")),
    ];
    gateways.into_iter().map(move |(row, gateway)| Case {
        row,
        column: count.to_string(),
        traffic: Traffic::Dropped(SOURCES),
        gateway,
        optional: false,
    })
}

/// Source and port of each rule; no datagram has both.
fn matches(count: u32, crossing: bool) -> impl Iterator<Item = (String, u32)> {
    (0..count).map(move |number| match (crossing, number % 2) {
        (true, 0) => ("10.0.0.0/8".to_owned(), OTHER_PORTS + number),
        (true, _) => (other_source(number), u32::from(DROPPED.1)),
        (false, _) => (other_source(number), OTHER_PORTS + number),
    })
}

/// One of 172.16.0.0/12, where no datagram comes from.
fn other_source(number: u32) -> String {
    Ipv4Addr::from_bits(0xac10_0000 + number).to_string()
}

fn netfw(matches: &[(String, u32)]) -> String {
    matches.iter().enumerate().fold(String::new(), |mut text, (number, (source, port))| {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[[rule]]\nname = \"r{number}\"\nchain = \"forward\"\naction = \"accept\"\nprotocol = \"udp\"\n\
             from = [\"{source}\"]\nport = {port}\n"
        );
        text
    })
}

fn nftables_linear(matches: &[(String, u32)]) -> String {
    let rules = matches.iter().map(|(source, port)| format!("ip saddr {source} udp dport {port} accept\n"));
    nftables_rules(&format!("{}counter name dropped drop", rules.collect::<String>()), "")
}

fn nftables_map(matches: &[(String, u32)]) -> String {
    let elements: Vec<_> =
        matches.iter().map(|(source, port)| format!("{source} . {port} : accept")).collect();
    let map = format!(
        "map rules {{ type ipv4_addr . inet_service : verdict; flags interval; elements = {{ {} }} }}",
        elements.join(", ")
    );
    nftables_rules("ip saddr . udp dport vmap @rules\ncounter name dropped drop", &map)
}
