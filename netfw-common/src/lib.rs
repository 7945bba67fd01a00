//! What the netfw datapath and its user space share: the layout of every map value, and the arithmetic that
//! both must do alike.
//!
//! Nothing here allocates, panics or touches the kernel; it compiles for the BPF target and for the host.

#![no_std]

pub mod block;
pub mod bloom;
pub mod bucket;
pub mod changes;
pub mod checksum;
pub mod counters;
pub mod door;
pub mod event;
pub mod explain;
pub mod family;
pub mod flow;
pub mod fragment;
pub mod health;
pub mod icmp;
pub mod image;
pub mod interface;
pub mod limit;
pub mod mapping;
pub mod neighbour;
pub mod pressure;
pub mod reason;
pub mod shared;
pub mod slots;
pub mod tcp;
pub mod tick;
pub mod timeout;
pub mod tuple;
pub mod wire;

/// Grows with every change to the layout or meaning of a map. `up` refuses to reuse pinned maps of another
/// version: aya 0.14 would silently take them.
pub const ABI_VERSION: u32 = 11;
