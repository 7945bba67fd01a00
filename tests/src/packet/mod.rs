//! Packets as a person thinks of them, the gateway they meet, and the stories they tell.
//!
//! A story sends packets to a [`Gateway`] and says what becomes of each. Beneath the gateway is a pair of [`Hooks`]:
//! the pipeline in memory, or the programs loaded into the kernel. The same stories are told over both, over both
//! IP families, and with XDP before TC as well as with TC alone. What must hold for every packet, whatever the story,
//! is checked by the gateway itself: it is counted exactly once, a drop leaves no trace, XDP hands on untouched what it
//! doesn't finish, and whatever leaves has right lengths and checksums.

mod body;
mod counters;
mod gateway;
mod outcome;
mod read;
pub mod stories;
mod wire;
pub mod world;

pub use self::{
    body::{ACK, Body, FIN, Packet, RST, SYN},
    counters::{Counters, Translated},
    gateway::{Action, Engine, Gateway, Hook, Hooks, Ran, Side},
    outcome::{Fate, Outcome},
    read::{plausible, quoted, read, reassemble},
    wire::{checksum, extended, fragments},
};
