//! Streams: an echo server that remembers who came, and clients.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    ANSWER,
    service::{GLANCE, Service},
};
use crate::lab::Host;

/// Serves any number of connections.
#[derive(Debug)]
pub struct TcpServer {
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    _service: Service,
}

impl TcpServer {
    /// Sends everything back, on `address` of `host`.
    pub fn echo(host: &Host, address: &str) -> Result<Self> {
        Self::start(host, address, echo)
    }

    /// Handles every connection to `address` of `host` with `serve`, each on a thread of its own.
    pub fn start(host: &Host, address: &str, serve: fn(TcpStream)) -> Result<Self> {
        let listener = host.enter(|| {
            TcpListener::bind(address).with_context(|| format!("tcp {address} on {}", host.name()))
        })?;
        listener.set_nonblocking(true)?;
        let peers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&peers);
        let service = Service::start(move || match listener.accept() {
            Ok((stream, peer)) => {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
                // It ends with its connection, so it needs no guard.
                thread::spawn(move || {
                    // A socket that cannot be set up is a connection that fails: its client is the judge.
                    let _ = stream.set_nonblocking(false);
                    serve(stream);
                });
            }
            Err(_) => thread::sleep(GLANCE / 10),
        })?;
        Ok(Self { peers, _service: service })
    }

    /// Who came, in order.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 65536];
    // A reset connection ends like a closed one.
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Connects from `host` to `to`. The error keeps its kind: refused, timed out, unreachable.
pub fn connect(host: &Host, to: &str) -> Result<TcpStream> {
    let to: SocketAddr = to.parse().with_context(|| format!("not an address and port: {to}"))?;
    open(host, None, to, ANSWER)
}

/// Connects from the address and port `from`, even one that lingers in TIME_WAIT.
pub fn connect_from(host: &Host, from: &str, to: &str) -> Result<TcpStream> {
    let from: SocketAddr = from.parse().with_context(|| format!("not an address and port: {from}"))?;
    let to: SocketAddr = to.parse().with_context(|| format!("not an address and port: {to}"))?;
    open(host, Some(from), to, ANSWER)
}

/// Connects within `limit`.
pub(super) fn open(
    host: &Host,
    from: Option<SocketAddr>,
    to: SocketAddr,
    limit: Duration,
) -> Result<TcpStream> {
    let socket =
        host.enter(|| Ok(Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?))?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        socket.bind(&from.into()).with_context(|| format!("binding {from} on {}", host.name()))?;
    }
    socket.connect_timeout(&to.into(), limit).with_context(|| format!("{} to tcp {to}", host.name()))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends `line` to an echo server and expects it back.
pub fn exchange_line(stream: &mut TcpStream, line: &[u8]) -> Result<()> {
    stream.write_all(line).context("sending to an echo server")?;
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back).context("reading from an echo server")?;
    ensure!(back == line, "the echo server sent other bytes back");
    Ok(())
}
