//! Failures that a caller tells apart. All others are plain errors.

use std::{fmt, path::PathBuf};

use thiserror::Error;

use super::instance::Instance;
use crate::config::{Diagnostic, LoadError};

/// Why something was not done.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nothing is attached.
    #[error("no instance {0} is up\nhelp: start it with `netfw up`, or name another one with --instance")]
    NotUp(Instance),
    /// The rules cannot be used.
    #[error("{0}")]
    InvalidRules(Findings),
    /// The rules were taken back, or never confirmed.
    #[error(
        "{0} holds rules that were taken back, not confirmed, or would have ended a session: they are not applied by \
         themselves\nhelp: `netfw reload --confirm 60s` applies them anyway"
    )]
    Refused(PathBuf),
    /// A change that nobody asked for would end a session.
    #[error(
        "the change waits, because it would end {0}\nhelp: `netfw reload --confirm 60s` applies it, `netfw plan` shows what it \
         does"
    )]
    LockOut(String),
    /// What was typed makes no sense here.
    #[error("{0}")]
    Usage(String),
    /// Somebody without the rights.
    #[error("netfw {0} needs root\nhelp: run it with sudo")]
    NotRoot(&'static str),
    /// This kernel is too old.
    #[error("Linux {0} is too old\nhelp: netfw needs Linux 6.1 or newer")]
    OldKernel(String),
}

/// What was found in rules that cannot be used.
#[derive(Debug)]
pub struct Findings {
    /// Everything that is wrong.
    pub errors: Vec<Diagnostic>,
    /// What is probably not meant either.
    pub warnings: Vec<Diagnostic>,
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let (errors, warnings) = (error.errors().to_vec(), error.warnings().to_vec());
        Self::InvalidRules(Findings { errors, warnings })
    }
}

/// One line an error, as for a log.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}
