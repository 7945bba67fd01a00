//! `bench forward`: five ways to get a datagram from the forwarded port to its target.

use anyhow::Result;

use crate::{
    Common,
    compare::{Case, compare},
    ends::Traffic,
    gateway::{Gateway, netfw_rules, nftables_rules},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Numbers of flows the datagrams belong to.
    #[arg(long, value_delimiter = ',', default_value = "1,4096,20000")]
    flows: Vec<u32>,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let cases: Vec<_> = args.flows.iter().flat_map(|&flows| cases(flows)).collect();
    compare("64-byte UDP through a port-forward, by flows", &args.common, &cases)
}

fn cases(flows: u32) -> impl Iterator<Item = Case> {
    // The thing to beat comes first, then the ceiling: without a look at the packet, and with the MAC addresses written, as any
    // gateway must.
    let gateways = [
        ("nftables", Gateway::Nftables(nftables_rules("", ""), "ip")),
        ("bare XDP redirect", Gateway::Bare("redirect")),
        ("redirect, new MACs", Gateway::Bare("touch")),
        ("netfw, XDP", Gateway::Netfw(netfw_rules("xdp", ""), "policy-forward")),
        ("netfw, TC", Gateway::Netfw(netfw_rules("tc", ""), "policy-forward")),
    ];
    gateways.into_iter().map(move |(row, gateway)| Case {
        row,
        column: flows.to_string(),
        traffic: Traffic::Forwarded { flows },
        gateway,
    })
}
