//! `bench connections`: TCP connections that are opened through the gateway, say one byte each way, and end.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netfw_tests::lab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Common,
    hosts::{self, Door, ENDS_CORE, Hosts, Offload, Way},
    score::{Bound, Quantity, Score, Target},
    testbed::TARGET,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Connections at a time.
    #[arg(long, default_value_t = 64)]
    clients: u32,
}

/// What the gateway could do had it a core of its own.
const OF_GATEWAY: Quantity = ("connections per second of the gateway's time", "");
const COST: Quantity = ("gateway's time per connection", "µs");
const WHOLE: Quantity = ("connections per second, ends and gateway on one core", "");
const FAILED: Quantity = ("connections that failed", "");

/// Until all clients are at work.
const WARM_UP: Duration = Duration::from_millis(50);
/// A turn, and how many of them each path has in a second of measuring.
const TURN: Duration = Duration::from_millis(100);
const TURNS: u64 = 10;
/// The longest that a connection may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common, clients } = args;
    hosts::pin_here(ENDS_CORE)?;
    let hosts = Hosts::new(Offload::Off)?;
    hosts.bed.source.sysctl("net/ipv4/ip_local_port_range", "1024 65000")?;
    let ways = Way::all(common);
    let target = |row: &str| Target {
        row: row.to_owned(),
        quantity: OF_GATEWAY,
        times: Some("nftables".to_owned()),
        bound: Bound::AtLeast(1.5),
    };
    let targets = vec![target("netfw, TC"), target("netfw, XDP")];
    let mut score = Score::new("connections", "New TCP connections through a port-forward", targets);
    for _ in 0..common.rounds() {
        for (name, way) in &ways {
            let _guard = way.stand_up(&hosts, common)?;
            let doors = [hosts::direct()?, way.door()?];
            let [direct, through] = measure(&hosts, doors, *clients, common.seconds).context(*name)?;
            let added = through.each() - direct.each();
            score.add(name, OF_GATEWAY, 1.0 / added);
            score.add(name, COST, added * 1e6);
            score.add(name, WHOLE, 1.0 / through.each());
            score.add("direct link", WHOLE, 1.0 / direct.each());
            score.add(name, FAILED, through.failed as f64);
        }
    }
    score.print(common)
}

/// Connections of one path.
#[derive(Clone, Copy, Default)]
struct Tally {
    done: u64,
    failed: u64,
    time: Duration,
}

impl Tally {
    /// Seconds that one takes.
    fn each(&self) -> f64 {
        self.time.as_secs_f64() / self.done as f64
    }
}

/// How connections end, and which path they take.
#[derive(Default)]
struct Clients {
    door: AtomicUsize,
    done: AtomicU64,
    failed: AtomicU64,
    over: AtomicBool,
}

/// Through each door for so many seconds, by turns: a slow moment of the machine meets both. All is done on one core, in the
/// time of whoever sends, so what a connection takes longer through the gateway is the gateway's.
fn measure(hosts: &Hosts, doors: [Door; 2], count: u32, seconds: u64) -> Result<[Tally; 2]> {
    let clients = &Clients::default();
    let listener = &hosts.bed.sink.enter(|| listen(TARGET.1))?;
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| serve(listener, &clients.over));
        }
        let askers: Vec<_> =
            (0..count).map(|_| scope.spawn(move || ask(&hosts.bed.source, doors, clients))).collect();
        let mut tallies = [Tally::default(); 2];
        for _ in 0..seconds * TURNS {
            for (door, tally) in tallies.iter_mut().enumerate() {
                clients.turn(door, tally);
            }
        }
        clients.over.store(true, Ordering::Relaxed);
        for thread in askers {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("a client")?;
        }
        for _ in 0..count {
            // A server waits for one more connection.
            let _ = hosts.bed.sink.enter(|| Ok(TcpStream::connect(("127.0.0.1", TARGET.1))?));
        }
        ensure!(tallies.iter().all(|tally| tally.done > 0), "no connection came about");
        Ok(tallies)
    })
}

impl Clients {
    fn turn(&self, door: usize, tally: &mut Tally) {
        self.door.store(door, Ordering::Relaxed);
        thread::sleep(WARM_UP);
        let counts = || [&self.done, &self.failed].map(|count| count.load(Ordering::Relaxed));
        let (start, before) = (Instant::now(), counts());
        thread::sleep(TURN);
        let (took, after) = (start.elapsed(), counts());
        tally.time += took;
        tally.done += after[0] - before[0];
        tally.failed += after[1] - before[1];
    }
}

/// For many at once.
pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let mut byte = [0];
        // What goes wrong here, the client notices. Its reset ends the connection, so no port stays in TIME_WAIT.
        if stream.set_read_timeout(Some(LIMIT)).and_then(|()| stream.read_exact(&mut byte)).is_ok() {
            let _ = stream.write_all(&byte);
        }
    }
}

fn ask(host: &Namespace, doors: [Door; 2], clients: &Clients) -> Result<()> {
    host.join_thread()?;
    while !clients.over.load(Ordering::Relaxed) {
        let door = doors[clients.door.load(Ordering::Relaxed)];
        let counter = if connection(door, LIMIT).is_ok() { &clients.done } else { &clients.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A byte there and back, each step within `limit`. It ends with a reset, which leaves no port in TIME_WAIT.
pub(crate) fn connection(door: Door, limit: Duration) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_read_timeout(Some(limit))?;
    socket.set_write_timeout(Some(limit))?;
    socket.connect_timeout(&std::net::SocketAddr::from(door).into(), limit)?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(&[7])?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    ensure!(byte == [7], "another byte came back");
    Ok(())
}
