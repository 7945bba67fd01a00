//! What a change would do, found out without doing it.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{
    failure::Failure,
    host::Host,
    instance::Instance,
    rules,
    sessions::{Judge, Session},
    state::{self, Rules, State},
    sweep::{Fate, fate},
};
use crate::{
    config::{Diagnostic, Severity},
    image::{self, Image},
    kernel::Maps,
    policy::ValidPolicy,
    report::{
        difference::differences,
        plan::{Plan, Refused},
    },
};

/// Says what a reload with a rules file (the instance's own if none is named) would change.
///
/// # Errors
/// The instance is not up, or the rules cannot be used.
pub async fn plan(instance: &Instance, file: Option<&Path>) -> Result<Plan> {
    let pins = instance.pins();
    if !pins.exist() {
        return Err(Failure::NotUp(instance.clone()).into());
    }
    let (mut state, maps, host) = (State::load(instance)?, Maps::open(&pins)?, Host::gather().await?);
    let file = file.map_or_else(|| state.rules_file.clone(), Path::to_owned);
    let loaded = rules::load_file(&file, &host, Some(&state))?;
    let old = state::in_force(instance)?.context("the rules in force are not known")?;
    let changes = differences(&old, &Rules::of(&loaded));
    let image = compile(&mut state, &loaded.policy)?;
    let refused = refused(&maps, &image)?;
    let slot = |name: &str| state.slots.get(name).copied();
    let judge = Judge { policy: &loaded.policy, image: &image, slot: &slot };
    let warnings = loaded.warnings.into_iter().chain(end_of_session(&file, judge, &host)).collect();
    let policy = maps.policy()?.context("no policy holds")?;
    Ok(Plan::new(changes, &refused, &state.ids, &policy, warnings))
}

/// The live flows that `image` does not admit.
fn refused(maps: &Maps, image: &Image) -> Result<Refused> {
    let mut refused = Refused::default();
    maps.each_flow_once(
        |pair| fate(maps, image, pair).is_some(),
        |pair| {
            match fate(maps, image, pair).filter(|_| pair.is_live()) {
                Some(Fate::Cut) => {
                    let redirected = pair.is_forwarded_by(image) && !maps.is_blocked_by(image, pair);
                    refused.cut.push((*pair, redirected));
                }
                Some(Fate::Left) => refused.left += 1,
                None => {}
            }
            Ok(())
        },
    )?;
    Ok(refused)
}

/// As the instance would, but nothing is remembered of it.
pub(super) fn compile(state: &mut State, policy: &ValidPolicy) -> Result<Image> {
    let names = policy.interfaces().iter().map(|interface| interface.name.clone());
    let slots = names.map(|name| state.slot(&name).map(|slot| (name, slot)));
    let host = image::Host { interfaces: slots.collect::<Result<_>>()? };
    Ok(image::compile(policy, &host, &mut state.ids)?)
}

/// A warning where rules refuse the session in which the command was typed.
pub fn end_of_session(file: &Path, judge: Judge<'_>, host: &Host) -> Option<Diagnostic> {
    let session = Session::of_the_terminal(host)?;
    if session.is_admitted_by(judge, host) {
        return None;
    }
    let message = format!("these rules refuse {session}, in which you type");
    let help = format!(
        "add [failsafe] with ssh-port = {} and from = [\"{}\"], or a [[rule]] that accepts it",
        session.server.port(),
        session.client.ip()
    );
    let mut warning = Diagnostic::whole_file(file, message, help);
    warning.severity = Severity::Warning;
    Some(warning)
}
