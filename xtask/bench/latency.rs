//! `bench latency`: how much longer a round trip takes through the gateway than by a direct link.

use std::{
    io::{self, ErrorKind},
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Common,
    hosts::{self, Door, ENDS_CORE, Hosts, OTHER_CORE, Offload, Way},
    score::{Bound, Quantity, Score, Target},
    testbed::TARGET,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

const ADDED: Quantity = ("round trip added, median", "µs");
const TAIL: Quantity = ("round trip added, 99 of 100 within", "µs");
const WHOLE: Quantity = ("round trip, median", "µs");

/// Far beyond any round trip: the datagram is lost.
const LOST: Duration = Duration::from_secs(1);
/// Round trips of each turn that do not count.
const WARM_UP: u64 = 1000;
/// A turn, and how many of them each path has in a second of measuring.
const TURN: Duration = Duration::from_millis(100);
const TURNS: u64 = 10;
/// Bytes of a datagram.
const LENGTH: usize = 32;

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common } = args;
    let hosts = Hosts::new(Offload::Off)?;
    let ways = Way::all(common);
    let mut score = Score::new("latency", "UDP ping-pong through a port-forward", targets());
    for _ in 0..common.rounds() {
        for (name, way) in &ways {
            let _guard = way.stand_up(&hosts, common)?;
            let doors = [hosts::direct()?, way.door()?];
            let [direct, through] = round_trips(&hosts, doors, common.seconds)
                .with_context(|| format!("through {name}"))?
                .map(median_and_tail);
            score.add(name, ADDED, through[0] - direct[0]);
            score.add(name, TAIL, through[1] - direct[1]);
            score.add(name, WHOLE, through[0]);
            score.add("direct link", WHOLE, direct[0]);
        }
    }
    score.print(common)
}

fn targets() -> Vec<Target> {
    let target = |row: &str, most| Target {
        row: row.to_owned(),
        quantity: ADDED,
        times: Some("nftables".to_owned()),
        bound: Bound::AtMost(most),
    };
    vec![target("netfw, TC", 0.8), target("netfw, XDP", 0.6)]
}

/// Microseconds in which half, and 99 of 100, of the round trips are done.
fn median_and_tail(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|part| times[times.len() * part / 100].as_nanos() as f64 / 1e3)
}

/// Through each door for so many seconds, by turns: a slow moment of the machine meets both.
fn round_trips(hosts: &Hosts, doors: [Door; 2], seconds: u64) -> Result<[Vec<Duration>; 2]> {
    let stop = AtomicBool::new(false);
    let socket = hosts.bed.sink.enter(|| Ok(UdpSocket::bind(("0.0.0.0", TARGET.1))?))?;
    thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&socket, &stop));
        let times = hosts.bed.source.enter(|| ask(doors, seconds));
        stop.store(true, Ordering::Relaxed);
        serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        times
    })
}

/// Neither end sleeps: to wake it would take longer than what is measured.
fn serve(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    hosts::pin_here(OTHER_CORE)?;
    socket.set_nonblocking(true)?;
    let mut buffer = [0; LENGTH];
    while !stop.load(Ordering::Relaxed) {
        if let Some((length, from)) = ready(socket.recv_from(&mut buffer))? {
            socket.send_to(&buffer[..length], from)?;
        }
    }
    Ok(())
}

fn ask(doors: [Door; 2], seconds: u64) -> Result<[Vec<Duration>; 2]> {
    hosts::pin_here(ENDS_CORE)?;
    let (mut times, mut number) = ([Vec::new(), Vec::new()], 0);
    let sockets = [open(doors[0])?, open(doors[1])?];
    for _ in 0..seconds * TURNS {
        for (socket, times) in sockets.iter().zip(&mut times) {
            let (begin, warm) = (Instant::now(), number + WARM_UP);
            while begin.elapsed() < TURN || number <= warm {
                number += 1;
                let took = round_trip(socket, number)?;
                if number > warm {
                    times.push(took);
                }
            }
        }
    }
    Ok(times)
}

fn open(door: Door) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(door)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn round_trip(socket: &UdpSocket, number: u64) -> Result<Duration> {
    let mut buffer = [0; LENGTH];
    buffer[..8].copy_from_slice(&number.to_le_bytes());
    let begin = Instant::now();
    socket.send(&buffer)?;
    loop {
        // A late answer to an earlier question has another number.
        if ready(socket.recv(&mut buffer))?.is_some() && buffer[..8] == number.to_le_bytes() {
            return Ok(begin.elapsed());
        }
        ensure!(begin.elapsed() < LOST, "no answer within {LOST:?}");
    }
}

fn ready<T>(result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}
