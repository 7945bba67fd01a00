//! Everything that touches the kernel's BPF side: loading, maps, attaching, the flow table, counters. The
//! only module with `unsafe` code; its callers see safe functions and plain data.

#![expect(unsafe_code, reason = "system calls that no library wraps")]

#[cfg(test)]
mod abi;
mod adopt;
mod attach;
mod bans;
mod blocks;
mod bloom;
mod capacity;
mod changes;
mod cookies;
mod counters;
mod door;
mod dry;
mod events;
mod flows;
mod health;
mod install;
mod interfaces;
mod maps;
mod nudge;
mod object;
mod pages;
mod pins;
mod reassembly;
mod slots;
mod sys;
mod table;
mod walk;

pub use adopt::Conversation;
pub use attach::{
    Acceleration, DebugLog, Port, Programs, carries_xdp, debug_log, detach, detach_xdp, foreign_classifiers,
    foreign_xdp, is_attached,
};
pub use bans::boot_seconds;
pub use cookies::makes_syn_cookies;
pub use counters::Counters;
pub use dry::{DryRun, Hook, Told};
pub use events::{Event, LeftOut, Listener, Ring};
pub use flows::{Pair, now, tick_began, wall_time};
pub use install::{boot_now, wait_for_readers};
pub use maps::{Maps, check_abi};
pub use nudge::Nudger;
pub use pins::{Pins, remove_if_there};
pub use reassembly::reassemble_here;
pub use walk::Shown;
