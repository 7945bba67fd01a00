//! Datagrams: a server that remembers who spoke, and a socket that asks.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

use super::{
    ANSWER,
    service::{GLANCE, Service},
};
use crate::lab::Host;

/// Larger than any datagram.
const BUFFER: usize = 65536;

/// Answers every datagram.
#[derive(Debug)]
pub struct UdpServer {
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    _service: Service,
}

impl UdpServer {
    /// Sends back what comes, on `address` of `host`.
    pub fn echo(host: &Host, address: &str) -> Result<Self> {
        Self::answering(host, address, <[u8]>::to_vec)
    }

    /// Sends back what `answer` makes of what comes, on `address` of `host`.
    pub fn answering(
        host: &Host,
        address: &str,
        answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Result<Self> {
        let socket = udp_socket(host, address)?;
        socket.set_read_timeout(Some(GLANCE))?;
        let peers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&peers);
        let mut buffer = vec![0; BUFFER];
        let service = Service::start(move || {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { return };
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
            // The asker notices a lost answer.
            let _ = socket.send_to(&answer(&buffer[..length]), peer);
        })?;
        Ok(Self { peers, _service: service })
    }

    /// Who spoke, a line a datagram.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A socket in the network of `host` that waits for answers no longer than [`ANSWER`].
pub fn udp_socket(host: &Host, local: &str) -> Result<UdpSocket> {
    let socket =
        host.enter(|| UdpSocket::bind(local).with_context(|| format!("udp {local} on {}", host.name())))?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

/// Sends `payload` to `to`, and expects the same bytes back from there.
pub fn ask(socket: &UdpSocket, to: &str, payload: &[u8]) -> Result<()> {
    let to: SocketAddr = to.parse().with_context(|| format!("not an address and port: {to}"))?;
    socket.send_to(payload, to).with_context(|| format!("sending to {to}"))?;
    let mut buffer = vec![0; BUFFER];
    let (length, from) = socket.recv_from(&mut buffer).with_context(|| format!("an answer from {to}"))?;
    ensure!(from == to, "asked {to}, answered by {from}");
    ensure!(buffer[..length] == *payload, "asked {} bytes, got {length} or others back", payload.len());
    Ok(())
}
