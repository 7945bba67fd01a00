//! The rules file: from text to a [`ValidPolicy`](crate::policy::ValidPolicy), or to everything that is wrong.
//!
//! `text ─parse→ Model ─resolve, validate→ ValidPolicy`. The model keeps for every word where it stands, so
//! that each finding can show it. Nothing stops at the first error.

mod diagnostic;
mod load;
pub(crate) mod model;
mod parse;
pub(crate) mod problems;
mod reader;
mod schema;
mod shut;
pub(crate) mod source;
pub(crate) mod suggest;
mod value;

pub use diagnostic::{Diagnostic, Severity};
pub use load::{CheckReport, LoadError, Loaded, included_files, load, load_text};
pub use shut::shut;
pub use source::Source;
pub(crate) use value::PROTOCOLS;

pub use crate::policy::HostFacts;

/// How long something lasts, written as in the rules file.
pub fn lifetime(text: &str) -> Option<std::time::Duration> {
    value::duration(text).ok()
}

/// A time in which a person can confirm a change, written as in the rules file.
pub fn time_to_confirm(text: &str) -> Option<std::time::Duration> {
    value::time_to_confirm(text).ok()
}
