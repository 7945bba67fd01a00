//! What stands between source and sink: netfw, nftables, or as little as possible.

use std::{
    any::Any,
    ffi::{OsStr, OsString},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use netfw_tests::{
    lab::{Background, command},
    netfw::Counters,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Common,
    ends::{self, Traffic},
    testbed::{FORWARDED, INTERFACES, TARGET, Testbed},
};

pub(crate) const INSTANCE: &str = "nfwbench";

/// How to make one.
pub(crate) enum Gateway {
    /// What `nft -f` reads, and the family of the table `nfwbench` whose counter `dropped` is to move.
    Nftables(String, &'static str),
    /// `nft` or `legacy`, and what `iptables-…-restore` reads.
    Iptables(&'static str, String),
    /// A program at XDP or TC that is not part of netfw, by name.
    Bare(&'static str),
    /// Such a program that translates.
    LeastNat(&'static str),
    /// A rules file, and the reason for which it drops.
    Netfw(String, &'static str),
}

impl Gateway {
    /// Whether frames must arrive translated.
    pub(crate) fn translates(&self) -> bool {
        !matches!(self, Self::Bare(_))
    }

    /// Puts it into place. netfw goes with the guard, everything else with the test bed.
    pub(crate) fn stand_up<'a>(
        &'a self,
        testbed: &'a Testbed,
        common: &'a Common,
        traffic: Traffic,
    ) -> Result<Guard<'a>> {
        let mut guard = Guard { testbed, gateway: self, netfw: &common.netfw, undo: Vec::new(), held: None };
        match self {
            Self::Nftables(rules, _) => guard.feed(&["nft", "-f", "-"], rules)?,
            Self::Iptables(flavour, rules) => guard.feed(&[&format!("iptables-{flavour}-restore")], rules)?,
            Self::Bare(program) | Self::LeastNat(program) => {
                guard.held = Some(Box::new(ends::bare(testbed, &common.object, program, traffic)?));
            }
            Self::Netfw(rules, _) => guard.netfw(rules)?,
        }
        testbed.pin_gateway()?;
        Ok(guard)
    }
}

/// A gateway in place.
pub(crate) struct Guard<'a> {
    testbed: &'a Testbed,
    gateway: &'a Gateway,
    netfw: &'a Path,
    /// Command that takes it away; empty: it goes with what is held.
    undo: Vec<OsString>,
    held: Option<Box<dyn Any>>,
}

impl Guard<'_> {
    /// Packets dropped so far for the reason that is measured, where that is counted.
    pub(crate) fn dropped(&self) -> Result<Option<u64>> {
        match self.gateway {
            Gateway::Bare(_) | Gateway::LeastNat(_) | Gateway::Iptables(..) => Ok(None),
            Gateway::Nftables(_, family) => {
                let words = ["nft", "-j", "list", "counter", family, "nfwbench", "dropped"];
                let listed = self.document(&words.map(OsString::from))?;
                let found = listed.pointer("/nftables/1/counter/packets").and_then(Value::as_u64);
                Ok(Some(found.context("nft lists no counter `dropped`")?))
            }
            Gateway::Netfw(_, reason) => {
                let stats = self.document(&words(self.netfw, &["--json".as_ref(), "stats".as_ref()]))?;
                Ok(Some(Counters::read(&stats).drops(reason)))
            }
        }
    }

    /// Flows it knows at the moment, if it keeps any.
    pub(crate) fn flows(&self) -> Result<Option<u64>> {
        match self.gateway {
            Gateway::Bare(_) | Gateway::LeastNat(_) => Ok(None),
            Gateway::Nftables(..) | Gateway::Iptables(..) => {
                Ok(Some(self.testbed.gateway.read_sysctl("net/netfilter/nf_conntrack_count")?.parse()?))
            }
            Gateway::Netfw(..) => {
                let status = self.document(&words(self.netfw, &["--json".as_ref(), "status".as_ref()]))?;
                Ok(status.pointer("/flows/used").and_then(Value::as_u64))
            }
        }
    }

    fn document(&self, words: &[OsString]) -> Result<Value> {
        let text = self.testbed.gateway.enter(|| command::run(words)?.success())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Gives a program rules to read.
    fn feed(&self, words: &[&str], rules: &str) -> Result<()> {
        self.testbed.gateway.enter(|| command::feed(words, rules)?.success())?;
        Ok(())
    }

    fn netfw(&mut self, rules: &str) -> Result<()> {
        let dir = TempDir::new()?;
        let file = dir.path().join("netfw.toml");
        fs::write(&file, rules)?;
        let down = words(self.netfw, &["down".as_ref()]);
        // What a measurement that was killed has left behind.
        command::run(&down)?.success()?;
        let up = words(self.netfw, &["up".as_ref(), "-c".as_ref(), file.as_ref()]);
        let daemon = self.testbed.gateway.enter(|| Background::start(up, &dir.path().join("log")))?;
        self.undo = down;
        let ready = daemon.wait_for("ready").context("netfw does not come up");
        self.held = Some(Box::new((daemon, dir)));
        ready
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.undo.is_empty() {
            return;
        }
        let done = self.testbed.gateway.enter(|| command::run(&self.undo)?.success());
        if let Err(error) = done {
            eprintln!("bench: a gateway could not be removed: {error:#}");
        }
    }
}

/// A command line of netfw for the instance here.
pub(crate) fn words(netfw: &Path, rest: &[&OsStr]) -> Vec<OsString> {
    let words = [netfw.as_os_str(), "--instance".as_ref(), INSTANCE.as_ref()];
    words.iter().chain(rest).map(OsString::from).collect()
}

/// A rules file with the port-forward that all measurements share, and more.
pub(crate) fn netfw_rules(mode: &str, more: &str) -> String {
    let (outside, inside) = INTERFACES;
    let port = FORWARDED.1;
    let (target, target_port) = TARGET;
    format!(
        "[interfaces]
external = [\"{outside}\"]
internal = [\"{inside}\"]
[engine]
mode = \"{mode}\"
[[port-forward]]
name = \"bench\"
protocol = \"udp\"
port = {port}
to = \"{target}:{target_port}\"
{more}"
    )
}

/// The same for nftables; `filter`: what follows in chain forward, `more`: what else the table holds.
pub(crate) fn nftables_rules(filter: &str, more: &str) -> String {
    let (address, port) = FORWARDED;
    let (target, target_port) = TARGET;
    format!(
        "table ip nfwbench {{
    counter dropped {{ }}
    {more}
    chain nat {{
        type nat hook prerouting priority dstnat;
        ip daddr {address} udp dport {port} dnat to {target}:{target_port}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ct status dnat accept
        {filter}
    }}
}}"
    )
}
