//! `bench forward`: every way to get a datagram from the forwarded port to its target.

use anyhow::Result;

use crate::{
    Common,
    compare::{Case, compare},
    conntrack::Room,
    ends::Traffic,
    gateway::{Gateway, netfw_rules, nftables_rules},
    target::Target,
    testbed::{FORWARDED, INTERFACES, TARGET},
};

/// `[flows] capacity` where it isn't written.
const DEFAULT_CAPACITY: u64 = 262_144;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Numbers of flows the datagrams belong to; up to a million.
    #[arg(long, value_delimiter = ',', default_value = "1,4096,20000,100000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flows: Vec<u32>,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let _room = Room::make(args.flows.iter().copied().max().unwrap_or_default())?;
    let cases: Vec<_> = args.flows.iter().flat_map(|&flows| cases(flows)).collect();
    let mut targets: Vec<_> =
        args.flows.iter().flat_map(|flows| targets("nftables", &flows.to_string())).collect();
    if args.flows.ends_with(&[1_000_000]) {
        let rows = ["netfw, XDP", "netfw, TC"];
        targets.extend(rows.map(|row| Target::keeps(row, "1000000", "100000", 0.7)));
    }
    compare(("forward", "64-byte UDP through a port-forward, by live flows"), &args.common, &cases, &targets)
}

/// What is asked of a gateway that forwards, beside the ceilings and netfilter in the row `peer`.
pub(crate) fn targets(peer: &'static str, flows: &str) -> [Target; 4] {
    let faster = if flows == "1" { 5.0 } else { 4.0 };
    [
        Target::over("netfw, XDP", peer, flows, faster),
        Target::over("netfw, XDP", "bare XDP redirect", flows, 0.75),
        Target::over("netfw, TC", peer, flows, 1.2),
        Target::over("netfw, TC", "bare TC redirect", flows, 0.85),
    ]
}

fn cases(flows: u32) -> impl Iterator<Item = Case> {
    let more = capacity(flows);
    let netfilter = [
        ("nftables", Gateway::Nftables(nftables_rules("", ""), "ip")),
        ("nftables, flowtable", Gateway::Nftables(flowtable(), "ip")),
        ("iptables-nft", Gateway::Iptables("nft", iptables())),
        ("iptables-legacy", Gateway::Iptables("legacy", iptables())),
    ];
    let netfw = [
        ("netfw, XDP", Gateway::Netfw(netfw_rules("xdp", &more), "policy-forward")),
        ("netfw, TC", Gateway::Netfw(netfw_rules("tc", &more), "policy-forward")),
    ];
    cases_of(Traffic::Forwarded { flows }, flows, netfilter.into_iter().chain(netfw))
}

/// The thing to beat comes first; what netfilter the kernel has beside nftables is its own affair; the ceilings come last.
pub(crate) fn cases_of(
    traffic: Traffic,
    flows: u32,
    gateways: impl Iterator<Item = (&'static str, Gateway)>,
) -> impl Iterator<Item = Case> {
    let ceilings = [
        ("bare XDP redirect", Gateway::Bare("redirect")),
        ("XDP redirect, new MACs", Gateway::Bare("touch")),
        ("least NAT, XDP", Gateway::LeastNat("translate")),
        ("bare TC redirect", Gateway::Bare("touch_tc")),
        ("least NAT, TC", Gateway::LeastNat("translate_tc")),
    ];
    gateways.chain(ceilings).map(move |(row, gateway)| {
        let optional = row.starts_with("iptables") || row.ends_with("flowtable");
        Case { row, column: flows.to_string(), traffic, gateway, optional }
    })
}

/// The part of a rules file that makes room for so many flows, where the default is too little.
pub(crate) fn capacity(flows: u32) -> String {
    // Three quarters of it are for proven flows; a twentieth of those stays free.
    let needed = u64::from(flows) * 7 / 5;
    if needed <= DEFAULT_CAPACITY { String::new() } else { format!("[flows]\ncapacity = {needed}\n") }
}

/// The same forward, but flows that have been answered pass by the rules.
fn flowtable() -> String {
    let (outside, inside) = INTERFACES;
    let table = format!(
        "flowtable fast {{ hook ingress priority filter; devices = {{ {outside}, {inside} }}; }}
    chain shortcut {{
        type filter hook forward priority filter - 1;
        ct state established flow add @fast
    }}"
    );
    nftables_rules("", &table)
}

fn iptables() -> String {
    let ((address, port), (target, target_port)) = (FORWARDED, TARGET);
    format!(
        "*nat
-A PREROUTING -d {address} -p udp --dport {port} -j DNAT --to-destination {target}:{target_port}
COMMIT
*filter
:FORWARD DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
"
    )
}
