//! Where rules come from: the file, or what was applied last.

use std::path::Path;

use anyhow::{Result, anyhow};

use super::{
    failure::{Failure, Findings},
    host::Host,
    instance::Instance,
    state::{self, Rules, State},
};
use crate::config::{self, Loaded};

/// Reads and judges a rules file. An interface that is missing is an error unless netfw managed it until it
/// went away.
///
/// # Errors
/// [`Failure::InvalidRules`].
pub fn load_file(path: &Path, host: &Host, state: Option<&State>) -> Result<Loaded, Failure> {
    let facts = host.facts();
    let loaded = config::load(path, &facts)?;
    let known = |name: &str| state.is_some_and(|state| state.interfaces.contains_key(name));
    let mut missing = loaded.missing_interfaces(&facts);
    if loaded
        .policy
        .interfaces()
        .iter()
        .all(|interface| host.link(&interface.name).is_some() || known(&interface.name))
    {
        missing.clear();
    }
    if missing.is_empty() { Ok(loaded) } else { Err(Failure::InvalidRules(Findings(missing))) }
}

/// The rules that were applied last, judged on the host as it is now.
///
/// # Errors
/// They cannot be read.
pub fn load_applied(instance: &Instance, host: &Host) -> Result<Option<Loaded>> {
    let Some(rules) = state::last_valid(instance)? else { return Ok(None) };
    let loaded =
        judge(&rules, host).ok_or_else(|| anyhow!("the rules that were applied last are not valid any more"));
    loaded.map(Some)
}

fn judge(rules: &Rules, host: &Host) -> Option<Loaded> {
    let (path, text) = rules.main()?;
    config::load_text(path, text, &|included| rules.read(included), &host.facts()).ok()
}
