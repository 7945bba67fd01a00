//! `bench stages`: where the time of a packet goes. Each kind of packet ends a stage later than the one before.

use std::{
    iter,
    net::IpAddr,
    time::{Duration, Instant},
};

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
    pub(crate) common: Common,
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
    let common = &args.common;
    let mut score = Score::new("stages", "A packet by test run, by where it ends", Vec::new());
    each(common, common.rounds(), "", |hook, kind, next| {
        let begin = Instant::now();
        let times = iter::repeat_with(next).take_while(|_| begin.elapsed() < common.time());
        score.add(hook, (kind, "ns"), median(times)?.as_nanos() as f64);
        Ok(())
    })?;
    score.print(common)
}

/// Has every kind of packet measured at every hook, so many times: `measure` is given the names of hook and kind, and what sends the
/// next packet.
pub(crate) fn each(
    common: &Common,
    rounds: u32,
    more_rules: &str,
    mut measure: impl FnMut(&str, &'static str, &mut dyn FnMut() -> Result<Duration>) -> Result<()> + Send,
) -> Result<()> {
    let hosts = Hosts::new(Offload::Off)?;
    let gateway = hosts::netfw("xdp", &format!("syn-proxy = \"auto\"\n{BLOCK}{more_rules}"));
    let _guard = hosts.stand_up(&gateway, common, Placement::Inline)?;
    hosts.bed.gateway.enter(|| {
        hosts::pin_here(ENDS_CORE)?;
        let programs = Programs::open()?;
        for _ in 0..rounds {
            for ((name, hook), (kind, make)) in
                HOOKS.into_iter().flat_map(|hook| KINDS.map(|kind| (hook, kind)))
            {
                let mut numbers = 0..;
                let mut next = || programs.once(hook, &make(numbers.next().context("no more packets")?)?);
                let mut warmed_up =
                    || iter::repeat_with(&mut next).take(WARM_UP).try_for_each(|time| time.map(drop));
                warmed_up()
                    .and_then(|()| measure(name, kind, &mut next))
                    .with_context(|| format!("{name}, {kind}"))?;
            }
        }
        Ok(())
    })
}

/// The median of what many packets have taken.
pub(crate) fn median<T: Copy + Ord>(measured: impl Iterator<Item = Result<T>>) -> Result<T> {
    let mut measured = measured.collect::<Result<Vec<_>>>()?;
    measured.sort();
    measured.get(measured.len() / 2).copied().context("no packet was measured")
}

fn datagram(link: Macs, from: &str, (to, port): (&str, u16), from_port: u16) -> Result<Vec<u8>> {
    let addresses: (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
    frame::udp(link, addresses, (from_port, port), &[0; 22])
}
