//! How a command ends.

use std::{
    io,
    process::{ExitCode, Termination},
};

use crate::{daemon::Failure, image::CompileError};

/// Exit codes, a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// The rules file is not valid.
    InvalidRules = 3,
    /// No such instance is up.
    NotUp = 4,
    /// Not permitted, or this kernel cannot do it.
    NotPossible = 5,
}

impl Exit {
    /// Of a failure.
    pub fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Failure>() {
            Some(Failure::NotUp(_)) => return Self::NotUp,
            Some(Failure::InvalidRules(_)) => return Self::InvalidRules,
            Some(Failure::Usage(_)) => return Self::Usage,
            Some(Failure::NotRoot(_) | Failure::OldKernel(_)) => return Self::NotPossible,
            Some(Failure::Refused(_) | Failure::LockOut(_)) => return Self::Failed,
            None => {}
        }
        if error.is::<CompileError>() {
            return Self::InvalidRules;
        }
        if says(error, io::ErrorKind::BrokenPipe) {
            // Whoever read the output has seen enough.
            return Self::Done;
        }
        if says(error, io::ErrorKind::PermissionDenied) || says(error, io::ErrorKind::Unsupported) {
            return Self::NotPossible;
        }
        Self::Failed
    }

    /// From the code of another netfw process.
    pub fn from_code(code: u8) -> Self {
        let all = [Self::Done, Self::Failed, Self::Usage, Self::InvalidRules, Self::NotUp, Self::NotPossible];
        all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Failed)
    }
}

/// Whether the operating system gave this reason.
fn says(error: &anyhow::Error, kind: io::ErrorKind) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| cause.kind() == kind)
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_failure_is_recognised_under_its_context() {
        let denied: anyhow::Result<()> = Err(io::Error::from(io::ErrorKind::PermissionDenied))
            .context("cannot load")
            .context("cannot start");
        assert_eq!(Exit::of(&denied.expect_err("denied")), Exit::NotPossible);
        let failure = anyhow::Error::new(Failure::NotRoot("up"));
        assert_eq!(Exit::of(&failure), Exit::NotPossible);
        assert_eq!(Exit::of(&anyhow::anyhow!("something else")), Exit::Failed);
    }

    #[test]
    fn codes_survive_a_process_boundary() {
        for exit in
            [Exit::Done, Exit::Failed, Exit::Usage, Exit::InvalidRules, Exit::NotUp, Exit::NotPossible]
        {
            assert_eq!(Exit::from_code(exit as u8), exit);
        }
        assert_eq!(Exit::from_code(101), Exit::Failed);
    }
}
