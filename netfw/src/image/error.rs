//! Why a valid policy cannot be compiled.

use thiserror::Error;

/// Why a valid policy cannot be compiled, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// A table is too small for it.
    #[error("{count} {what} are too many: the datapath has room for {limit}\nhelp: {remedy}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are (or at least are).
        count: usize,
        /// How many there may be.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A rule names an interface that has no slot.
    #[error(
        "rule {rule:?} names interface {interface}, which netfw does not manage\n\
         help: list it under [interfaces], or take it out of the rule"
    )]
    UnmanagedInterface {
        /// Name of the rule.
        rule: String,
        /// Name of the interface.
        interface: String,
    },
}

pub(super) const FEWER_RULES: &str = "join rules with the same action: lists and sets cost nothing";
pub(super) const FEWER_RANGES: &str = "write neighbouring ports as one range \"a-b\"";
pub(super) const FEWER_BALANCED: &str =
    "write a port-forward for each part of them, or spread = \"one-to-one\"";
pub(super) const FEWER_TARGETS: &str =
    "write a shifted range (to = \"host:a-b\") where one host serves neighbouring ports";
pub(super) const FEWER_CHECKS: &str =
    "take \"check\" out of port-forwards whose clients notice by themselves";
pub(super) const FEWER_MASQUERADES: &str = "join the `from` lists of those with the same ports";
pub(super) const FEWER_VECTORS: &str =
    "put addresses or ports that the same rules name into one prefix, range or set";

/// Whether `count` things fit into a table of `limit`.
pub(super) fn at_most(
    limit: usize,
    count: usize,
    what: &'static str,
    remedy: &'static str,
) -> Result<(), CompileError> {
    if count <= limit { Ok(()) } else { Err(CompileError::TooMany { what, count, limit, remedy }) }
}
