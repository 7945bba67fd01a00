//! A packet socket: frames as they are on the wire, for what no kernel would send or show.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
            sockopt,
        },
        time::TimeVal,
    },
};

use super::{ANSWER, SILENCE, service::GLANCE};
use crate::lab::Host;

/// An interface, beneath the kernel's stack.
#[derive(Debug)]
pub struct RawPort {
    socket: OwnedFd,
    mac: [u8; 6],
}

impl RawPort {
    /// Opens `interface` on `host`.
    pub fn open(host: &Host, interface: &str) -> Result<Self> {
        // An address as the system lists it: index and link address, the protocol left to the socket.
        let link = host.link(interface)?;
        let socket = host.enter(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            bind(socket.as_raw_fd(), &link).context("binding a packet socket")?;
            Ok(socket)
        })?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, i64::from(GLANCE.subsec_micros())))?;
        Ok(Self { socket, mac: host.mac(interface)? })
    }

    /// The interface's link address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Puts a frame on the wire.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).context("sending a frame")?;
        Ok(())
    }

    /// The first frame, sent or received, that `wanted` knows; others are passed over.
    pub fn expect<T>(&self, what: &str, wanted: impl FnMut(&[u8]) -> Option<T>) -> Result<T> {
        self.find(Instant::now() + ANSWER, wanted)?.with_context(|| format!("no frame came: {what}"))
    }

    /// Fails if a frame that `unwanted` knows comes within [`SILENCE`].
    pub fn expect_none<T>(&self, what: &str, unwanted: impl FnMut(&[u8]) -> Option<T>) -> Result<()> {
        match self.find(Instant::now() + SILENCE, unwanted)? {
            None => Ok(()),
            Some(_) => bail!("a frame came that must not: {what}"),
        }
    }

    fn find<T>(&self, deadline: Instant, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> Result<Option<T>> {
        let mut buffer = vec![0; 65536];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    if let Some(found) = wanted(&buffer[..length]) {
                        return Ok(Some(found));
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error).context("receiving frames"),
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
        }
    }
}
