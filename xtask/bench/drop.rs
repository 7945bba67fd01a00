//! `bench drop`: datagrams of new flows that one rule or a short block list drops.

use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    Common,
    compare::{Case, compare},
    ends::Traffic,
    gateway::{Gateway, netfw_rules, nftables_rules},
    list,
    rules::SOURCES,
    target::Target,
    testbed::{DROPPED, INTERFACES},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

/// Prefixes of the short list.
const PREFIXES: u32 = 100;
const RULE: &str = "one rule";
const LIST: &str = "a list of 100";

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = TempDir::new()?;
    let cases: Vec<_> = by_rule().into_iter().chain(by_list(dir.path())?).collect();
    let targets: Vec<_> = [RULE, LIST].into_iter().flat_map(targets).collect();
    compare(("drop", "64-byte UDP of new flows, dropped, by what drops them"), &args.common, &cases, &targets)
}

fn targets(column: &str) -> [Target; 2] {
    [
        Target::over("netfw, XDP", "nftables, ingress", column, 2.5),
        Target::over("netfw, XDP", "bare XDP drop", column, 0.85),
    ]
}

fn by_rule() -> [Case; 5] {
    let port = DROPPED.1;
    let rule = format!(
        "[[rule]]\nname = \"unwanted\"\nchain = \"forward\"\naction = \"drop\"\nprotocol = \"udp\"\nport = {port}\n"
    );
    let ingress = ingress("", &format!("udp dport {port}"));
    cases(RULE, Traffic::Dropped(SOURCES), (ingress, &rule, "rule"))
}

fn by_list(dir: &Path) -> Result<[Case; 5]> {
    let block = list::blocking(&list::write(dir, "list", list::prefixes(PREFIXES))?);
    let elements: Vec<_> = list::fours(PREFIXES).collect();
    let set =
        format!("set blocked {{ type ipv4_addr; flags interval; elements = {{ {} }} }}", elements.join(", "));
    let ingress = ingress(&set, "ip saddr @blocked");
    Ok(cases(LIST, Traffic::Dropped(list::listed(PREFIXES)), (ingress, &block, "blocked")))
}

/// `rules`: for nftables, for netfw, and netfw's reason.
fn cases(column: &str, traffic: Traffic, rules: (String, &str, &'static str)) -> [Case; 5] {
    let (nftables, more, reason) = rules;
    let gateways = [
        ("nftables, ingress", Gateway::Nftables(nftables, "netdev")),
        ("netfw, XDP", Gateway::Netfw(netfw_rules("xdp", more), reason)),
        ("netfw, TC", Gateway::Netfw(netfw_rules("tc", more), reason)),
        ("bare XDP drop", Gateway::Bare("discard")),
        ("bare TC drop", Gateway::Bare("discard_tc")),
    ];
    gateways.map(|(row, gateway)| Case { row, column: column.to_owned(), traffic, gateway, optional: false })
}

/// At the earliest hook: what `matches` is dropped.
fn ingress(set: &str, matches: &str) -> String {
    format!(
        "{}
table netdev nfwbench {{
    counter dropped {{ }}
    {set}
    chain ingress {{
        type filter hook ingress device {} priority 0;
        {matches} counter name dropped drop
    }}
}}",
        nftables_rules("", ""),
        INTERFACES.0
    )
}
