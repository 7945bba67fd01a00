//! Everything on the master that netfw may touch, so that "as before" can be checked.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};

use crate::{lab::Host, wait};

/// What is shown: links with their programs, addresses, routes, queueing, filters, forwarding.
const VIEWS: &[&str] = &[
    "ip link show",
    "ip address show",
    "ip route show table all; ip -6 route show table all",
    "tc qdisc show",
    "for i in eth0 eth1; do tc filter show dev $i ingress; tc filter show dev $i egress; done 2>/dev/null; true",
    "bpftool net show",
    "nft list ruleset",
    "cd /proc/sys/net && grep -r . ipv4/ip_forward ipv4/conf/*/forwarding ipv4/conf/*/rp_filter \
     ipv6/conf/*/forwarding ipv6/conf/*/accept_ra ipv4/conf/*/send_redirects",
];

/// What the machine looked like at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    views: Vec<String>,
}

impl Machine {
    /// Looks at `host` and at what the instance has on the file system.
    pub fn observe(host: &Host, instance: &str) -> Result<Self> {
        // A link-local address that is still being tested for duplicates has no routes yet. Without a carrier the test does
        // not end; then that is how the machine is.
        let _ = wait::within(Duration::from_secs(10), "addresses to settle", || {
            host.shell("ip -6 address show tentative").ok()?.trim().is_empty().then_some(())
        });
        let mut views = VIEWS.iter().map(|view| host.shell(view)).collect::<Result<Vec<_>>>()?;
        for place in ["/sys/fs/bpf/netfw", "/run/netfw"] {
            let path = Path::new(place).join(instance);
            views.push(format!("{}: {}", path.display(), fs::exists(&path)?));
        }
        Ok(Self { views })
    }

    /// Fails with what differs.
    pub fn expect_same(&self, later: &Self) -> Result<()> {
        for (before, after) in self.views.iter().zip(&later.views) {
            ensure!(
                before == after,
                "the machine is not as before\n--- before\n{before}\n--- after\n{after}"
            );
        }
        Ok(())
    }
}
