//! Random rules files about the hosts of the lab, and what they mean to somebody who walks through them: the one definition with
//! which the compiler, the loaded programs and a change of the rules are compared.

pub(crate) mod generate;
mod interpreter;
mod rules_file;

pub(crate) use self::{
    interpreter::{Packet, decide, forward, masquerade},
    rules_file::RulesFile,
};
