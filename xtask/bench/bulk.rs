//! `bench bulk`: one TCP stream through the gateway, in segments as large as the interfaces carry.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    Common,
    hosts::{self, Door, ENDS_CORE, Hosts, OTHER_CORE, Offload, Placement},
    score::{Bound, Quantity, Score, Target},
    testbed::TARGET,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

const RATE: Quantity = ("bulk TCP", "Gbit/s");

/// Until the windows are open.
const WARM_UP: Duration = Duration::from_millis(500);
/// Bytes that are written, and read, at a time.
const CHUNK: usize = 256 * 1024;

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common } = args;
    let hosts = Hosts::new(Offload::On)?;
    let gateways = [("nftables", hosts::nftables()), ("netfw, auto", hosts::netfw("auto", ""))];
    let target = Target {
        row: "netfw, auto".to_owned(),
        quantity: RATE,
        times: Some("nftables".to_owned()),
        bound: Bound::AtLeast(1.0),
    };
    let mut score = Score::new("bulk", "One TCP stream through a port-forward", vec![target]);
    let time = common.time();
    for _ in 0..common.rounds() {
        for (name, gateway) in &gateways {
            let _guard = hosts.stand_up(gateway, common, Placement::Inline)?;
            score.add(name, RATE, gigabits(&hosts, hosts::forwarded()?, time).context(*name)?);
        }
        score.add("direct link", RATE, gigabits(&hosts, hosts::direct()?, time)?);
    }
    score.print(common)
}

/// What arrives in a second.
fn gigabits(hosts: &Hosts, door: Door, time: Duration) -> Result<f64> {
    let (stop, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    let listener = hosts.bed.sink.enter(|| Ok(TcpListener::bind(("0.0.0.0", TARGET.1))?))?;
    let stream = hosts.bed.source.enter(|| Ok(TcpStream::connect(door)?))?;
    let (accepted, _) = listener.accept()?;
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(accepted, &arrived));
        let sending = scope.spawn(|| send(stream, &stop));
        thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
        thread::sleep(time);
        let (took, bytes) = (start.elapsed(), arrived.load(Ordering::Relaxed) - before);
        stop.store(true, Ordering::Relaxed);
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("the sender")?;
        receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("the receiver")?;
        Ok(bytes as f64 * 8.0 / 1e9 / took.as_secs_f64())
    })
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> Result<()> {
    hosts::pin_here(ENDS_CORE)?;
    let chunk = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn receive(mut stream: TcpStream, arrived: &AtomicU64) -> Result<()> {
    hosts::pin_here(OTHER_CORE)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => arrived.fetch_add(length as u64, Ordering::Relaxed),
        };
    }
}
