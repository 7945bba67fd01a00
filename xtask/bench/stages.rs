//! `bench stages`: where the time of a packet goes. Each kind of packet ends a stage later than the one before.

use std::{net::IpAddr, time::Instant};

use anyhow::{Context as _, Result};
use netfw::kernel::Hook;
use netfw_tests::net::frame::{self, Macs};

use crate::{
    Common,
    hosts::{self, ENDS_CORE, Hosts, Offload, Placement},
    score::Score,
    test_run::Programs,
    testbed::{DROPPED, FORWARDED, SOURCE, SOURCE_LINK},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

const HOOKS: [(&str, Hook); 2] = [("XDP", Hook::Xdp), ("TC", Hook::Ingress)];
/// Packets of a kind that are not counted: so many SYNs that they are too many.
const WARM_UP: usize = 10_000;
/// An address of the LAN that nobody has.
const INNER: &str = "192.168.80.9";
/// A blocked address.
const BLOCKED: &str = "203.0.113.7";
const BLOCK: &str = "[block]\nfrom = [\"203.0.113.0/24\"]\n";
/// The port of the flow that goes on.
const KNOWN: u16 = 4000;

/// What becomes of a packet, and how the `n`th of them is made.
type Kind = (&'static str, fn(usize) -> Result<Vec<u8>>);

/// In the order in which the datapath is done with them.
const KINDS: [Kind; 9] = [
    ("for somebody else: passed", |_| datagram((SOURCE_LINK.0, [2, 0, 0, 0, 0, 9]), SOURCE, DROPPED, KNOWN)),
    ("malformed: dropped", |_| {
        let mut frame = datagram(SOURCE_LINK, SOURCE, DROPPED, KNOWN)?;
        // The header says that it is shorter than a header.
        *frame.get_mut(14).context("a frame without an IP header")? = 0x44;
        Ok(frame)
    }),
    ("of a flow: translated, forwarded", |_| datagram(SOURCE_LINK, SOURCE, FORWARDED, KNOWN)),
    ("from a blocked address: dropped", |_| datagram(SOURCE_LINK, BLOCKED, DROPPED, KNOWN)),
    ("from an inner address: dropped", |_| datagram(SOURCE_LINK, INNER, DROPPED, KNOWN)),
    ("to the gateway: dropped by policy", |_| datagram(SOURCE_LINK, SOURCE, (FORWARDED.0, 9), KNOWN)),
    ("past the gateway: dropped by policy", |_| datagram(SOURCE_LINK, SOURCE, DROPPED, KNOWN)),
    ("the first of a flow: translated, forwarded", |n| {
        datagram(SOURCE_LINK, SOURCE, FORWARDED, 1024 + (n % 60_000) as u16)
    }),
    ("a SYN of many: challenged", |n| {
        let [_, high, middle, low] = (n as u32).wrapping_mul(0x9e37_79b9).to_be_bytes();
        let source = IpAddr::from([16, high, middle, low]);
        let mut frame = Vec::new();
        frame::packet(SOURCE_LINK, source, FORWARDED.0.parse()?, 64)?
            .tcp(KNOWN, FORWARDED.1, 0x1234_5678, 64_240)
            .syn()
            .write(&mut frame, &[0; 6])?;
        Ok(frame)
    }),
];

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common } = args;
    let hosts = Hosts::new(Offload::Off)?;
    let gateway = hosts::netfw("xdp", &format!("syn-proxy = \"auto\"\n{BLOCK}"));
    let _guard = hosts.stand_up(&gateway, common, Placement::Inline)?;
    let programs = hosts.bed.gateway.enter(Programs::open)?;
    let mut score = Score::new("A packet by test run, by where it ends", Vec::new());
    for _ in 0..common.rounds() {
        for (name, hook) in HOOKS {
            for kind in KINDS {
                let measure = || time(&programs, hook, kind, common);
                let time = hosts.bed.gateway.enter(measure).with_context(|| format!("{name}, {}", kind.0))?;
                score.add(name, (kind.0, "ns"), time);
            }
        }
    }
    score.print(common.json)
}

/// Nanoseconds that a packet takes, the median of many.
fn time(programs: &Programs, hook: Hook, (_, make): Kind, common: &Common) -> Result<f64> {
    hosts::pin_here(ENDS_CORE)?;
    let (mut times, mut begin) = (Vec::new(), Instant::now());
    for n in 0.. {
        let time = programs.once(hook, &make(n)?)?;
        if n < WARM_UP {
            begin = Instant::now();
        } else if begin.elapsed() < common.time() {
            times.push(time);
        } else {
            break;
        }
    }
    times.sort();
    Ok(times.get(times.len() / 2).context("no packet was measured")?.as_nanos() as f64)
}

fn datagram(link: Macs, from: &str, (to, port): (&str, u16), from_port: u16) -> Result<Vec<u8>> {
    let addresses: (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
    frame::udp(link, addresses, (from_port, port), &[0; 22])
}
