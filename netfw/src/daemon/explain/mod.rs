//! `netfw explain`: what becomes of a packet, and why, told by the datapath itself ([`crate::kernel::DryRun`]).

mod packet;
mod place;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use netfw_common::explain::Account;
use netfw_ebpf::datapath::Verdict;

pub use self::{packet::Packet, place::Place};
use super::{controller::Controller, failure::Failure, host::Host, instance::Instance, plan, rules};
use crate::{
    config::Loaded,
    image::Ids,
    kernel::{DryRun, Hook, Pair, now},
    report::explain::{Explanation, Facts},
};

/// What a person wants to know.
#[derive(Clone, Debug)]
pub struct Question {
    /// The packet.
    pub packet: Packet,
    /// The interface on which it arrives; none: the one that leads back to its source, or it is the host's own.
    pub interface: Option<String>,
    /// A rules file that is not applied; none: the rules in force.
    pub with: Option<PathBuf>,
}

/// Whose rules are asked.
struct Asked {
    loaded: Loaded,
    ids: Ids,
    /// Where they lie; none: they are in force.
    slot: Option<u32>,
}

/// Asks, holding the lock: so nobody changes the rules meanwhile.
///
/// # Errors
/// The instance is not up; the question has no answer here; the rules file cannot be used.
pub async fn explain(instance: &Instance, question: &Question) -> Result<Explanation> {
    if !instance.pins().exist() {
        return Err(Failure::NotUp(instance.clone()).into());
    }
    let host = Host::gather().await?;
    let controller = Controller::open(instance)?;
    let place = place::find(question, &controller.state, &host).await?;
    let asked = match &question.with {
        Some(file) => what_if(&controller, file, &host)?,
        None => in_force(&controller, &host)?,
    };
    let explanation = ask(&controller, &asked, question, &place, &host);
    if let Some(slot) = asked.slot {
        controller.maps.give_up(slot)?;
    }
    explanation
}

fn in_force(controller: &Controller, host: &Host) -> Result<Asked> {
    let loaded = rules::load_applied(&controller.instance, host)?;
    let loaded = loaded.context("the rules in force are not known")?;
    Ok(Asked { loaded, ids: controller.state.ids.clone(), slot: None })
}

/// Puts a rules file where only the dry run finds it. It gets the number that it would get, so that live flows are judged by it.
fn what_if(controller: &Controller, file: &Path, host: &Host) -> Result<Asked> {
    let mut state = controller.state.clone();
    let loaded = rules::load_file(file, host, Some(&state))?;
    let image = plan::compile(&mut state, &loaded.policy)?;
    let generation = state.generation.wrapping_add(1).max(1);
    let slot = controller.maps.write(&image, generation, &[state.standing.confirmed.slot])?;
    Ok(Asked { loaded, ids: state.ids, slot: Some(slot) })
}

fn ask(
    controller: &Controller,
    asked: &Asked,
    question: &Question,
    place: &Place,
    host: &Host,
) -> Result<Explanation> {
    let (packet, maps) = (&question.packet, &controller.maps);
    let flow = maps.flow_of(packet.source.is_ipv6(), &packet.tuple())?;
    let frame = packet.frame(place.mac, flow.as_ref().is_some_and(Pair::is_live));
    let mut dry = DryRun::load(&controller.instance.pins(), asked.slot)?;
    let (hook, account) = run(&mut dry, place, &frame)?;
    let account = account.with_context(|| unmanaged(&place.name, question.with.as_deref()))?;
    Ok(Explanation::new(&Facts {
        packet,
        place,
        hook,
        account: &account,
        flow: flow.as_ref(),
        policy: &asked.loaded.policy,
        head: &maps.policy()?.context("no policy holds")?,
        ids: &asked.ids,
        with: question.with.as_deref(),
        now: now(),
        interface: &|index| {
            let link = host.links.iter().find(|link| link.index == index);
            link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
        },
    }))
}

/// In XDP where that serves the interface; what it leaves alone is TC's.
fn run(dry: &mut DryRun, place: &Place, frame: &[u8]) -> Result<(Hook, Option<Account>)> {
    if place.accelerated {
        let account = dry.ask(Hook::Xdp, place.index, 0, frame)?.account;
        let punted = |account: &Account| {
            [Verdict::Pass, Verdict::Punt].iter().any(|verdict| account.verdict == *verdict as u32 + 1)
        };
        if account.is_some_and(|account| !punted(&account)) {
            return Ok((Hook::Xdp, account));
        }
    }
    Ok((place.hook, dry.ask(place.hook, place.index, place.arrived, frame)?.account))
}

fn unmanaged(interface: &str, file: Option<&Path>) -> String {
    match file {
        Some(file) => format!(
            "the rules in {} do not manage {interface}, or it is not attached yet\nhelp: name it under [interfaces] and apply \
             them first",
            file.display()
        ),
        None => {
            format!("the rules do not manage {interface}\nhelp: name it under [interfaces]")
        }
    }
}
