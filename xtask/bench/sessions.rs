//! People beside a flood: live sessions, and newcomers who open one.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Scope},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netfw_tests::lab::Namespace;

use crate::{
    connections,
    hosts::{self, Door},
    testbed::TARGET,
};

/// Bytes of a line, as SSH sends a key that is pressed.
const LINE: usize = 48;
/// From an answer to the next line.
const PAUSE: Duration = Duration::from_millis(500);
/// An answer that a person waits for.
const LATE: Duration = Duration::from_secs(1);
/// A session without an answer for so long is lost.
const LOST: Duration = Duration::from_secs(20);
/// How long a newcomer tries: two lost SYNs are made good within it.
const TRIES: Duration = Duration::from_secs(4);
/// From one newcomer to the next.
const NEWCOMERS_PAUSE: Duration = Duration::from_millis(20);
/// Newcomers at a time.
const NEWCOMERS: u32 = 8;
/// There are thousands of threads.
const STACK: usize = 64 * 1024;

/// What befell them.
#[derive(Default)]
pub(crate) struct Fate {
    answers: AtomicU64,
    late: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    /// How long each of those that succeeded took.
    welcome: Mutex<Vec<Duration>>,
    /// Only while this is set, anything counts.
    watched: AtomicBool,
    over: AtomicBool,
}

impl Fate {
    /// From now on it counts.
    pub(crate) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// All go home.
    pub(crate) fn end(&self) {
        self.watched.store(false, Ordering::Relaxed);
        self.over.store(true, Ordering::Relaxed);
    }

    /// Sessions that ended before their time.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Share of the answers that were late.
    pub(crate) fn late(&self) -> f64 {
        self.late.load(Ordering::Relaxed) as f64 / (self.answers.load(Ordering::Relaxed) as f64).max(1.0)
    }

    /// Share of newcomers that succeeded, and how long half of those took.
    pub(crate) fn newcomers(&self) -> (f64, Duration) {
        let mut times = self.welcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort_unstable();
        let all = times.len() as f64 + self.refused.load(Ordering::Relaxed) as f64;
        (times.len() as f64 / all.max(1.0), times.get(times.len() / 2).copied().unwrap_or_default())
    }

    fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn answered(&self, after: Duration) {
        if self.is_watched() {
            self.answers.fetch_add(1, Ordering::Relaxed);
            self.late.fetch_add(u64::from(after > LATE), Ordering::Relaxed);
        }
    }
}

/// Opens the sessions, and has newcomers wait for the flood.
pub(crate) fn begin<'scope>(
    scope: &'scope Scope<'scope, '_>,
    ends: [&'scope Namespace; 2],
    door: Door,
    count: u32,
    fate: &'scope Fate,
) -> Result<()> {
    let [client, server] = ends;
    let listener = server.enter(|| connections::listen(TARGET.1))?;
    spawn(scope, move || serve(&listener, fate))?;
    for number in 0..count {
        let stream = client.enter(|| Ok(TcpStream::connect(door)?)).context("opening a session")?;
        let mut session = Session::new(stream, number)?;
        // The first answer proves the flow to the gateway.
        session.exchange().context("the first line of a session")?;
        spawn(scope, move || session.live(fate))?;
    }
    for _ in 0..NEWCOMERS {
        spawn(scope, move || newcomers(client, door, fate))?;
    }
    Ok(())
}

fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) -> Result<()> {
    thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?;
    Ok(())
}

/// Sends everything back, to everyone who comes.
fn serve(listener: &TcpListener, fate: &Fate) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !fate.is_over() {
        match listener.accept() {
            Ok((stream, _)) => {
                // It ends with its connection. What fails here, the client notices.
                let _ = thread::Builder::new().stack_size(STACK).spawn(move || echo(stream));
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut line = [0; LINE];
    if stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true)).is_err() {
        return;
    }
    while let Ok(length @ 1..) = stream.read(&mut line) {
        if stream.write_all(&line[..length]).is_err() {
            return;
        }
    }
}

struct Session {
    stream: TcpStream,
    number: u32,
    lines: u32,
}

impl Session {
    fn new(stream: TcpStream, number: u32) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOST))?;
        stream.set_write_timeout(Some(LOST))?;
        Ok(Self { stream, number, lines: 0 })
    }

    /// A line there and back.
    fn exchange(&mut self) -> Result<Duration> {
        self.lines += 1;
        let begin = Instant::now();
        let (mut line, mut back) = ([0; LINE], [0; LINE]);
        line[..4].copy_from_slice(&self.number.to_le_bytes());
        line[4..8].copy_from_slice(&self.lines.to_le_bytes());
        self.stream.write_all(&line)?;
        self.stream.read_exact(&mut back)?;
        ensure!(back == line, "another line came back");
        Ok(begin.elapsed())
    }

    fn live(&mut self, fate: &Fate) {
        // Not all at once.
        thread::sleep(PAUSE * (self.number % 100) / 100);
        while !fate.is_over() {
            match self.exchange() {
                Ok(after) => fate.answered(after),
                Err(_) => {
                    fate.lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            thread::sleep(PAUSE);
        }
    }
}

fn newcomers(client: &Namespace, door: Door, fate: &Fate) {
    if client.join_thread().and_then(|()| hosts::pin_here(hosts::ENDS_CORE)).is_err() {
        return;
    }
    while !fate.is_over() {
        thread::sleep(NEWCOMERS_PAUSE);
        if !fate.is_watched() {
            continue;
        }
        let begin = Instant::now();
        match connections::connection(door, TRIES) {
            Ok(()) => {
                fate.welcome.lock().unwrap_or_else(PoisonError::into_inner).push(begin.elapsed());
            }
            Err(_) => {
                fate.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
