//! What is compared: five ways to get a datagram from the forwarded port to its target.

use std::{
    any::Any,
    ffi::{OsStr, OsString},
    fmt, fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use netfw_tests::lab::{Background, command};
use tempfile::TempDir;

use crate::{
    Args, ends,
    testbed::{FORWARDED, INTERFACES, TARGET, Testbed},
};

const INSTANCE: &str = "nfwbench";

/// A way to forward. The thing to beat comes first, then the ceiling.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Gateway {
    /// Destination translation by the kernel's own connection tracking.
    Nftables,
    /// A redirect without a look at the packet: the ceiling.
    Bare,
    /// A redirect that writes the MAC addresses, as any gateway must.
    Touch,
    /// netfw with its XDP program attached.
    NetfwXdp,
    /// netfw without.
    NetfwTc,
}

impl Gateway {
    /// Whether frames must arrive translated.
    pub(crate) fn translates(self) -> bool {
        !matches!(self, Self::Bare | Self::Touch)
    }

    /// Puts it into place; it goes with the guard.
    pub(crate) fn stand_up<'a>(self, testbed: &'a Testbed, args: &Args) -> Result<Guard<'a>> {
        let guard = match self {
            Self::Nftables => nftables(testbed)?,
            Self::Bare => redirect(testbed, &args.object, "redirect")?,
            Self::Touch => redirect(testbed, &args.object, "touch")?,
            Self::NetfwXdp => netfw(testbed, &args.netfw, "xdp")?,
            Self::NetfwTc => netfw(testbed, &args.netfw, "tc")?,
        };
        testbed.pin_gateway()?;
        Ok(guard)
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(match self {
            Self::Nftables => "nftables",
            Self::Bare => "bare XDP redirect",
            Self::Touch => "redirect, new MACs",
            Self::NetfwXdp => "netfw, XDP",
            Self::NetfwTc => "netfw, TC",
        })
    }
}

/// A gateway in place.
pub(crate) struct Guard<'a> {
    testbed: &'a Testbed,
    /// Command that takes it away; empty: it goes with what is held.
    undo: Vec<OsString>,
    _held: Option<Box<dyn Any>>,
}

fn redirect<'a>(testbed: &'a Testbed, object: &Path, program: &str) -> Result<Guard<'a>> {
    let ebpf = ends::redirect(testbed, object, program)?;
    Ok(Guard { testbed, undo: Vec::new(), _held: Some(Box::new(ebpf)) })
}

fn nftables(testbed: &Testbed) -> Result<Guard<'_>> {
    let (address, port) = FORWARDED;
    let (target, target_port) = TARGET;
    let rules = format!(
        "table ip nfwbench {{
            chain nat {{
                type nat hook prerouting priority dstnat;
                ip daddr {address} udp dport {port} dnat to {target}:{target_port}
            }}
            chain forward {{
                type filter hook forward priority filter; policy drop;
                ct state established,related accept
                ct status dnat accept
            }}
        }}"
    );
    testbed.gateway.enter(|| command::feed(["nft", "-f", "-"], &rules)?.success())?;
    let undo = ["nft", "delete", "table", "ip", "nfwbench"].map(OsString::from).to_vec();
    Ok(Guard { testbed, undo, _held: None })
}

fn netfw<'a>(testbed: &'a Testbed, program: &Path, mode: &str) -> Result<Guard<'a>> {
    let dir = TempDir::new()?;
    let rules = dir.path().join("netfw.toml");
    fs::write(&rules, rules_text(mode))?;
    let words = |rest: &[&OsStr]| {
        let words = [program.as_os_str(), "--instance".as_ref(), INSTANCE.as_ref()];
        words.iter().chain(rest).map(OsString::from).collect::<Vec<_>>()
    };
    let up = words(&["up".as_ref(), "-c".as_ref(), rules.as_ref()]);
    let daemon = testbed.gateway.enter(|| Background::start(up, &dir.path().join("log")))?;
    let ready = daemon.wait_for("ready").context("netfw does not come up");
    let guard = Guard { testbed, undo: words(&["down".as_ref()]), _held: Some(Box::new((daemon, dir))) };
    ready.map(|_| guard)
}

fn rules_text(mode: &str) -> String {
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
"
    )
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
