//! The datapath in memory: buffers, plain tables, a clock that is set by hand, chance that repeats.

mod buffer;
mod hooks;
pub(crate) mod machine;
pub(crate) mod policy;
mod table;

pub(crate) use self::{hooks::Memory, machine::Machine};
