//! `bench block`: datagrams of new flows beside a block list, dropped by the policy or by the list.

use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    Common,
    compare::{Case, compare},
    ends::{Sources, Traffic},
    gateway::{Gateway, netfw_rules, nftables_rules},
    list,
    target::Target,
    testbed::INTERFACES,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Lengths of the block lists.
    #[arg(long, value_delimiter = ',', default_value = "0,1,100000,1000000")]
    prefixes: Vec<u32>,
    /// The longest that nftables is asked to load: with a million, to read its counter takes longer than to measure.
    #[arg(long, default_value_t = 100_000)]
    nftables: u32,
}

/// Where datagrams come from.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    /// Right beside the prefixes of the list: the worst that there are.
    Beside,
    /// Far from all of them.
    Elsewhere,
    /// From within.
    Listed,
}

/// A block list and where datagrams come from.
#[derive(Clone, Copy)]
struct Blocked {
    prefixes: u32,
    origin: Origin,
}

impl Blocked {
    fn column(self) -> String {
        let word = match self.origin {
            Origin::Beside => "",
            Origin::Elsewhere => " elsewhere",
            Origin::Listed => " blocked",
        };
        format!("{}{word}", self.prefixes)
    }

    fn sources(self, most: u32) -> Sources {
        match self.origin {
            Origin::Beside => list::beside(most.max(1)),
            Origin::Elsewhere => list::elsewhere(),
            Origin::Listed => list::listed(self.prefixes),
        }
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = TempDir::new()?;
    let most = args.prefixes.iter().copied().max().unwrap_or_default();
    let mut cases = Vec::new();
    for origin in [Origin::Beside, Origin::Elsewhere, Origin::Listed] {
        for &prefixes in args.prefixes.iter().filter(|&&prefixes| prefixes > 0 || origin != Origin::Listed) {
            let blocked = Blocked { prefixes, origin };
            let traffic = Traffic::Dropped(blocked.sources(most));
            let gateways = gateways(dir.path(), blocked, args.nftables)?;
            cases.extend(gateways.into_iter().map(|(row, gateway)| Case {
                row,
                column: blocked.column(),
                traffic,
                gateway,
                optional: false,
            }));
        }
    }
    compare(
        ("block", "64-byte UDP of new flows, dropped by policy or block list, by prefixes"),
        &args.common,
        &cases,
        &targets(most),
    )
}

/// The longest list costs little, and nothing where it already tells.
fn targets(most: u32) -> Vec<Target> {
    let of = |prefixes, origin| Blocked { prefixes, origin }.column();
    let columns = [
        (of(most, Origin::Beside), of(0, Origin::Beside)),
        (of(most, Origin::Elsewhere), of(0, Origin::Elsewhere)),
        (of(most, Origin::Listed), of(0, Origin::Beside)),
    ];
    let rows = ["netfw, XDP", "netfw, TC"];
    let target = |row| columns.iter().map(move |(with, without)| Target::keeps(row, with, without, 0.8));
    rows.into_iter().flat_map(target).collect()
}

fn gateways(dir: &Path, blocked: Blocked, most: u32) -> Result<Vec<(&'static str, Gateway)>> {
    let Blocked { prefixes, origin } = blocked;
    let listed = origin == Origin::Listed;
    let block = match prefixes {
        0 => String::new(),
        count => list::blocking(&list::write(dir, &count.to_string(), list::prefixes(count))?),
    };
    let reason = if listed { "blocked" } else { "policy-forward" };
    let nftables = (prefixes <= most).then(|| {
        let family = if listed { "netdev" } else { "ip" };
        ("nftables, ingress", Gateway::Nftables(nftables(prefixes), family))
    });
    let others = [
        ("bare XDP drop", Gateway::Bare("discard")),
        ("netfw, XDP", Gateway::Netfw(netfw_rules("xdp", &block), reason)),
        ("netfw, TC", Gateway::Netfw(netfw_rules("tc", &block), reason)),
    ];
    Ok(nftables.into_iter().chain(others).collect())
}

/// The policy, and at the earliest hook a set of the IPv4 part: a set holds one family.
fn nftables(prefixes: u32) -> String {
    let policy = nftables_rules("counter name dropped drop", "");
    if prefixes == 0 {
        return policy;
    }
    let elements: Vec<_> = list::fours(prefixes).collect();
    format!(
        "{policy}
table netdev nfwbench {{
    counter dropped {{ }}
    set blocked {{ type ipv4_addr; flags interval; elements = {{ {} }} }}
    chain ingress {{
        type filter hook ingress device {} priority 0;
        ip saddr @blocked counter name dropped drop
    }}
}}",
        elements.join(", "),
        INTERFACES.0
    )
}
