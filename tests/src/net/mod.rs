//! What hosts say to each other: datagrams, streams, and frames no kernel would send.

pub mod frame;
mod knock;
mod raw;
mod service;
mod tcp;
mod udp;

use std::time::Duration;

pub use self::{
    knock::{Reception, knock_tcp, knock_udp},
    raw::RawPort,
    tcp::{TcpServer, connect, connect_from, exchange_line},
    udp::{UdpServer, ask, udp_socket},
};

/// How long an answer may take that must come.
pub const ANSWER: Duration = Duration::from_secs(10);

/// How long silence must last to count as silence.
pub const SILENCE: Duration = Duration::from_millis(500);
