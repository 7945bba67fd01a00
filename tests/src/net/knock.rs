//! How a host is received where it may not be welcome.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
};

use anyhow::{Context, Result, bail};

use super::{SILENCE, tcp};
use crate::lab::Host;

/// The answer to a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// Somebody answers.
    Welcome,
    /// A reset, or port unreachable.
    Refused,
    /// Host or network unreachable, or prohibited.
    Unreachable,
    /// Nothing comes back.
    Silence,
}

/// Tries to open a connection.
pub fn knock_tcp(host: &Host, to: &str) -> Result<Reception> {
    let to: SocketAddr = to.parse().with_context(|| format!("not an address and port: {to}"))?;
    match tcp::open(host, None, to, SILENCE * 2) {
        Ok(_) => Ok(Reception::Welcome),
        Err(error) => reception(error.downcast_ref().map(io::Error::kind)).context(error),
    }
}

/// Sends a datagram and listens for an answer.
pub fn knock_udp(host: &Host, to: &str) -> Result<Reception> {
    let to: SocketAddr = to.parse().with_context(|| format!("not an address and port: {to}"))?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    host.enter(|| {
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.connect(to)?;
        socket.send(b"knock")?;
        match socket.recv(&mut [0; 16]) {
            Ok(_) => Ok(Reception::Welcome),
            Err(error) => reception(Some(error.kind())).context(error),
        }
    })
}

fn reception(kind: Option<ErrorKind>) -> Result<Reception> {
    Ok(match kind {
        Some(ErrorKind::ConnectionRefused) => Reception::Refused,
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied) => {
            Reception::Unreachable
        }
        Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => Reception::Silence,
        other => bail!("an unexpected answer: {other:?}"),
    })
}
