//! `bench connections`: TCP connections that are opened through the gateway, say one byte each way, and end.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use netfw_tests::lab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Common,
    hosts::{self, Door, ENDS_CORE, Hosts, Offload, Placement},
    score::{Bound, Quantity, Score, Target},
    testbed::{self, TARGET},
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

/// What one core could do that were a gateway all the time.
const OF_GATEWAY: Quantity = ("connections per second of the gateway's time", "");
const COST: Quantity = ("gateway's time per connection", "µs");
/// Bounded by client and server, which share the other core.
const WHOLE: Quantity = ("connections per second of the clock", "");
const FAILED: Quantity = ("connections that failed", "");

const WARM_UP: Duration = Duration::from_millis(500);
/// The longest that a connection may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { common, clients } = args;
    hosts::pin_here(ENDS_CORE)?;
    let hosts = Hosts::new(Offload::Off)?;
    hosts.bed.source.sysctl("net/ipv4/ip_local_port_range", "1024 65000")?;
    let gateways = hosts::gateways(common);
    let target = |row: &str| Target {
        row: row.to_owned(),
        quantity: OF_GATEWAY,
        times: Some("nftables".to_owned()),
        bound: Bound::AtLeast(1.5),
    };
    let targets = vec![target("netfw, TC"), target("netfw, XDP")];
    let mut score = Score::new("New TCP connections through a port-forward", targets);
    let time = Duration::from_secs(common.seconds);
    for _ in 0..common.rounds {
        for (name, gateway) in &gateways {
            let _guard = hosts.stand_up(gateway, common, Placement::Apart)?;
            let Rate { count, failed, took, busy } =
                measure(&hosts, hosts::forwarded()?, *clients, time).context(*name)?;
            score.add(name, OF_GATEWAY, count / busy.as_secs_f64());
            score.add(name, COST, busy.as_secs_f64() / count * 1e6);
            score.add(name, WHOLE, count / took.as_secs_f64());
            score.add(name, FAILED, failed);
        }
    }
    score.print(common.json)
}

/// How connections ended.
#[derive(Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
}

/// Connections, those that failed, the time they took, and the part of it in which the gateway's core was not idle.
struct Rate {
    count: f64,
    failed: f64,
    took: Duration,
    busy: Duration,
}

fn measure(hosts: &Hosts, door: Door, clients: u32, time: Duration) -> Result<Rate> {
    let (stop, counts) = (AtomicBool::new(false), Counts::default());
    let listener = hosts.bed.sink.enter(|| listen(TARGET.1))?;
    thread::scope(|scope| {
        let servers: Vec<_> = (0..clients).map(|_| scope.spawn(|| serve(&listener, &stop))).collect();
        let askers: Vec<_> =
            (0..clients).map(|_| scope.spawn(|| ask(&hosts.bed.source, door, &stop, &counts))).collect();
        thread::sleep(WARM_UP);
        let (start, idle, before) =
            (Instant::now(), testbed::gateway_idle()?, counts.done.load(Ordering::Relaxed));
        thread::sleep(time);
        let (took, idle) = (start.elapsed(), testbed::gateway_idle()? - idle);
        let count = (counts.done.load(Ordering::Relaxed) - before) as f64;
        stop.store(true, Ordering::Relaxed);
        for thread in askers {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("a client")?;
        }
        for _ in &servers {
            // A server waits for one more connection.
            let _ = hosts.bed.sink.enter(|| Ok(TcpStream::connect(("127.0.0.1", TARGET.1))?));
        }
        ensure!(count > 0.0, "no connection came about");
        Ok(Rate {
            count,
            failed: counts.failed.load(Ordering::Relaxed) as f64,
            took,
            busy: took.saturating_sub(idle),
        })
    })
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

fn ask(host: &Namespace, door: Door, stop: &AtomicBool, counts: &Counts) -> Result<()> {
    host.join_thread()?;
    while !stop.load(Ordering::Relaxed) {
        let counter = if connection(door, LIMIT).is_ok() { &counts.done } else { &counts.failed };
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
    if byte != [7] {
        bail!("another byte came back");
    }
    Ok(())
}
