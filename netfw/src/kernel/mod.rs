//! Everything that touches the kernel's BPF side: loading, maps, attaching, the flow table, counters. The
//! only module with `unsafe` code; its callers see safe functions and plain data.

#![expect(unsafe_code, reason = "system calls that no library wraps")]

mod adopt;
mod attach;
mod capacity;
mod counters;
mod flows;
mod install;
mod interfaces;
mod maps;
mod nudge;
mod object;
mod pins;
mod reassembly;
mod sys;
mod table;

pub use adopt::Conversation;
pub use attach::{
    Acceleration, DebugLog, Port, Programs, debug_log, detach, detach_xdp, foreign_classifiers,
};
pub use counters::Counters;
pub use flows::{Pair, now};
pub use maps::{Maps, check_abi};
pub use nudge::Nudger;
pub use pins::Pins;
pub use reassembly::reassemble_here;
