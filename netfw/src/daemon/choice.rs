//! Which rules an instance starts with: those of its file, else those that were valid last, else, when the machine starts,
//! none but the fail-safe door.

use std::{fmt, fs};

use anyhow::Result;

use super::{
    control::Up,
    failure::Failure,
    host::Host,
    library, rules,
    state::{self, Rules, State},
};
use crate::{
    config::{self, Loaded},
    kernel::boot_now,
};

/// The rules to start with.
pub(super) struct Choice {
    pub(super) loaded: Loaded,
    /// Why they are not those of the file.
    pub(super) instead: Option<Instead>,
}

/// Rules that stand in for those of the file.
#[derive(Debug)]
pub struct Instead {
    /// What is wrong with the file.
    pub failure: Failure,
    /// What holds in its place.
    pub holds: Holds,
}

/// What holds in the place of the rules file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The rules that were valid last.
    LastValid,
    /// Nothing is let in, but to SSH through the fail-safe door.
    Door,
    /// Nothing is let in.
    Nothing,
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LastValid => "the rules that were valid last hold",
            Self::Door => "no older rules can be used: everything is shut but the fail-safe door",
            Self::Nothing => "no older rules can be used and no fail-safe door is known: everything is shut",
        })
    }
}

/// The rules file's, else the next best. What is on trial stays.
///
/// # Errors
/// There are none.
pub(super) fn choose(wanted: &Up, host: &Host) -> Result<Choice> {
    let state = State::load(&wanted.instance).ok();
    if state.as_ref().is_some_and(|state| state.standing.pending(boot_now()).is_some())
        && let Some(loaded) = rules::load_applied(&wanted.instance, host)?
    {
        return Ok(Choice { loaded, instead: None });
    }
    let loaded = match wanted.boot {
        true => rules::load_file_at_boot(&wanted.file, host),
        false => rules::load_file(&wanted.file, host, state.as_ref()),
    };
    let failure = match loaded {
        Ok(loaded) if wanted.forgive(library::is_refused(&wanted.instance, &Rules::of(&loaded)))? => {
            Failure::Refused(wanted.file.clone())
        }
        Ok(loaded) => return Ok(Choice { loaded, instead: None }),
        Err(failure) => failure,
    };
    next_best(wanted, host, failure)
}

/// For a rules file that cannot be used.
///
/// # Errors
/// `failure`, where there are no others.
pub(super) fn next_best(wanted: &Up, host: &Host, failure: Failure) -> Result<Choice> {
    let is_shut = state::stand_in(&wanted.instance).is_ok_and(|found| found.is_some_and(|rules| rules.shut));
    let starts = State::load(&wanted.instance).is_err();
    let valid = rules::load_valid(&wanted.instance, host).ok().flatten();
    let valid = valid.filter(|loaded| wanted.boot || has_interfaces(loaded, host));
    let (loaded, holds) = match valid {
        Some(loaded) if !is_shut => (Some(loaded), Holds::LastValid),
        valid => {
            // What runs is better than what may be made of a broken file.
            let shut = (wanted.boot && (starts || is_shut)).then(|| shut(wanted, host, is_shut)).flatten();
            let loaded = shut.or(valid);
            let door = loaded.as_ref().is_some_and(|loaded| loaded.policy.failsafe().is_some());
            (loaded, if door { Holds::Door } else { Holds::Nothing })
        }
    };
    let Some(loaded) = loaded else { return Err(failure.into()) };
    Ok(Choice { loaded, instead: Some(Instead { failure, holds }) })
}

/// What the rules that were valid once tell of the fail-safe door, as those of another version; else what the broken file does.
fn shut(wanted: &Up, host: &Host, again: bool) -> Option<Loaded> {
    let kept = state::last_valid(&wanted.instance).ok().flatten().filter(|_| !again);
    let of_kept = kept.and_then(|rules| {
        let (path, text) = rules.main()?;
        config::shut(path, text, &|included| rules.read(included), &host.facts())
    });
    of_kept.or_else(|| {
        let text = fs::read(&wanted.file).ok()?;
        let text = String::from_utf8_lossy(&text);
        config::shut(&wanted.file, &text, &|included| Ok(fs::read_to_string(included)?.into()), &host.facts())
    })
}

fn has_interfaces(loaded: &Loaded, host: &Host) -> bool {
    loaded.policy.interfaces().iter().any(|interface| host.link(&interface.name).is_some())
}
