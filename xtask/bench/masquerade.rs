//! `bench masquerade`: datagrams of the LAN that leave as the gateway's. The source is the LAN, the sink is outside.

use anyhow::Result;

use crate::{
    Common,
    compare::{Case, compare},
    conntrack::Room,
    ends::Traffic,
    forward::{capacity, cases_of, targets},
    gateway::Gateway,
    testbed::{INTERFACES, LAN},
};

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
    let targets: Vec<_> =
        args.flows.iter().flat_map(|flows| targets("nftables", &flows.to_string())).collect();
    compare(("masquerade", "64-byte UDP through a masquerade, by live flows"), &args.common, &cases, &targets)
}

fn cases(flows: u32) -> impl Iterator<Item = Case> {
    let gateways = [
        ("nftables", Gateway::Nftables(nftables(), "ip")),
        ("iptables-nft", Gateway::Iptables("nft", iptables())),
        ("iptables-legacy", Gateway::Iptables("legacy", iptables())),
        ("netfw, XDP", Gateway::Netfw(netfw("xdp", flows), "policy-forward")),
        ("netfw, TC", Gateway::Netfw(netfw("tc", flows), "policy-forward")),
    ];
    cases_of(Traffic::Masqueraded { flows }, flows, gateways.into_iter())
}

fn netfw(mode: &str, flows: u32) -> String {
    let (lan, outside) = INTERFACES;
    format!(
        "[interfaces]
external = [\"{outside}\"]
internal = [\"{lan}\"]
[engine]
mode = \"{mode}\"
[masquerade]
from = [\"{LAN}\"]
{}",
        capacity(flows)
    )
}

fn nftables() -> String {
    let (lan, outside) = INTERFACES;
    format!(
        "table ip nfwbench {{
    counter dropped {{ }}
    chain nat {{
        type nat hook postrouting priority srcnat;
        oifname {outside} ip saddr {LAN} masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname {lan} oifname {outside} accept
    }}
}}"
    )
}

fn iptables() -> String {
    let (lan, outside) = INTERFACES;
    format!(
        "*nat
-A POSTROUTING -o {outside} -s {LAN} -j MASQUERADE
COMMIT
*filter
:FORWARD DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i {lan} -o {outside} -j ACCEPT
COMMIT
"
    )
}
