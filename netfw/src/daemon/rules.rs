//! Where rules come from: the file, or what was applied last.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use super::{
    failure::{Failure, Findings},
    host::Host,
    instance::Instance,
    plan::end_of_session,
    sessions::Judge,
    state::{self, Rules, State},
};
use crate::{
    config::{self, Diagnostic, Loaded},
    image::{self, CompileError, Ids},
};

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
    if missing.is_empty() { Ok(loaded) } else { Err(invalid(missing, loaded)) }
}

/// As [`load_file`], when the machine starts: interfaces may come later.
///
/// # Errors
/// [`Failure::InvalidRules`].
pub(super) fn load_file_at_boot(path: &Path, host: &Host) -> Result<Loaded, Failure> {
    Ok(config::load(path, &host.facts())?)
}

fn invalid(errors: Vec<Diagnostic>, loaded: Loaded) -> Failure {
    Failure::InvalidRules(Findings { errors, warnings: loaded.warnings })
}

/// As [`load_file`], and the datapath must have room for the policy; nothing is changed.
///
/// # Errors
/// [`Failure::InvalidRules`].
pub fn check_file(path: &Path, host: &Host) -> Result<Loaded, Failure> {
    let mut loaded = load_file(path, host, None)?;
    let names = loaded.policy.interfaces().iter().map(|interface| interface.name.clone());
    let slots = image::Host { interfaces: names.zip(1..).collect() };
    let image = match image::compile(&loaded.policy, &slots, &mut Ids::default()) {
        Ok(image) => image,
        Err(error) => return Err(too_large(path, &error, loaded)),
    };
    let slot = |name: &str| slots.interfaces.get(name).copied();
    let judge = Judge { policy: &loaded.policy, image: &image, slot: &slot };
    loaded.warnings.extend(end_of_session(path, judge, host));
    Ok(loaded)
}

/// For rules that the datapath has no room for.
pub(super) fn too_large(path: &Path, error: &CompileError, loaded: Loaded) -> Failure {
    let text = error.to_string();
    let (message, help) = text.split_once("\nhelp: ").unwrap_or((&text, ""));
    invalid(vec![Diagnostic::whole_file(path, message, help)], loaded)
}

/// The rules that hold, judged on the host as it is now.
///
/// # Errors
/// They cannot be read.
pub fn load_applied(instance: &Instance, host: &Host) -> Result<Option<Loaded>> {
    state::in_force(instance)?.map(|rules| judge(&rules, host)).transpose()
}

/// The rules that were applied last for good, judged on the host as it is now.
///
/// # Errors
/// They cannot be read.
pub fn load_valid(instance: &Instance, host: &Host) -> Result<Option<Loaded>> {
    state::last_valid(instance)?.map(|rules| judge(&rules, host)).transpose()
}

/// Rules that were valid once, on the host as it is now.
///
/// # Errors
/// They are not valid any more.
pub fn judge(rules: &Rules, host: &Host) -> Result<Loaded> {
    let (path, text) = rules.main().context("no text of the rules was kept")?;
    config::load_text(path, text, &|included| rules.read(included), &host.facts())
        .map_err(|_| anyhow!("the rules that were applied last are not valid any more"))
}
