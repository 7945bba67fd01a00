//! What the fail-safe door tells while rules wait for a proof of life.

use crate::shared::shared;

/// The last handshake with the SSH server through the door, which knows no flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Handshake {
    /// TCP port of the client whom the server has answered.
    pub client_port: u32,
    /// The acknowledgement that completes the handshake.
    pub expected: u32,
    /// Generation of the rules that were in force when one was completed; 0: none yet.
    pub completed: u32,
}

shared! {
    Handshake { client_port, expected, completed }
}
