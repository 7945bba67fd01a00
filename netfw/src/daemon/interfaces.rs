//! Managed interfaces: which, how, and netfw put on and taken off.

use std::collections::BTreeMap;

use anyhow::{Error, Result, bail};
use netfw_common::interface::MAX_IFINDEX;
use nix::net::if_::if_indextoname;

use super::{
    controller::Controller,
    engine::{self, Choice, Engine},
    host::{Host, Link, netns, qdisc, sysctl},
    instance::Instance,
    state::{Managed, State},
};
use crate::{
    kernel::{self, Acceleration, Port},
    policy::{EngineMode, Role, ValidPolicy},
};

impl Controller {
    /// Which interfaces will be managed, and how.
    pub(super) fn plan(&mut self, policy: &ValidPolicy, host: &Host) -> Result<BTreeMap<String, Managed>> {
        let mut planned = BTreeMap::new();
        self.left_out.clear();
        for interface in policy.interfaces() {
            let mut link = host.link(&interface.name);
            if let Err(error) = link.map_or(Ok(()), |link| check_link(link, &self.instance)) {
                self.leave_out(error)?;
                link = None;
            }
            let known = self.state.interfaces.get(&interface.name);
            let same = known.filter(|known| link.is_some_and(|link| is_on(known, link)));
            let waits = || Choice { engine: Engine::Tc, reason: "netfw waits for it".into() };
            let choice = link.map_or_else(waits, |link| choose(policy, link, host));
            let managed = Managed {
                index: link.map_or(0, |link| link.index),
                external: interface.role == Role::External,
                engine: choice.engine,
                wanted: choice.engine,
                reason: choice.reason,
                turned: same.map(|known| known.turned.clone()).unwrap_or_default(),
                clsact: same.is_some_and(|known| known.clsact),
            };
            planned.insert(interface.name.clone(), managed);
        }
        Ok(planned)
    }

    /// For an interface that cannot be managed: no reason to leave the others alone, where that is not wanted.
    fn leave_out(&mut self, error: Error) -> Result<()> {
        if !self.forgiving {
            return Err(error);
        }
        self.left_out.push(format!("{error:#}"));
        Ok(())
    }

    /// Attaches what is not attached yet, or everything anew where programs are to be replaced. When it
    /// fails, the interfaces that were not managed before are as they were.
    pub(super) async fn attach(
        &mut self,
        mut planned: BTreeMap<String, Managed>,
        policy: &ValidPolicy,
        host: &Host,
        replace: bool,
    ) -> Result<BTreeMap<String, Managed>> {
        let mut begun = Vec::new();
        // Where the driver refuses XDP, TC is better than nothing, unless somebody asked for XDP and waits for an answer.
        let or_tc = self.forgiving || policy.engine() == EngineMode::Auto;
        for (name, managed) in &mut planned {
            let Some(link) = host.link(name).filter(|link| link.index == managed.index) else { continue };
            let known = self.state.interfaces.get(name).filter(|known| is_on(known, link)).cloned();
            if known.is_none() {
                // What is left of one that was deleted and had this index.
                kernel::detach(&self.instance.pins(), Port { name, index: link.index })?;
            }
            if let Some(known) = known.as_ref().filter(|known| !replace && stays(known, managed, or_tc)) {
                if known.engine != known.wanted {
                    (managed.engine, managed.reason) = (known.engine, known.reason.clone());
                }
                continue;
            }
            let attached = self.attach_one(link, managed, or_tc);
            let Err(error) = attached else {
                begun.push((name.clone(), known));
                continue;
            };
            self.undo(name, managed, known.as_ref()).await;
            if !self.forgiving {
                for (name, known) in &begun {
                    if let Some(managed) = planned.get(name) {
                        self.undo(name, managed, known.as_ref()).await;
                    }
                }
                let before = self.state.interfaces.clone();
                // What led here is the failure to tell.
                let _ = self.publish_interfaces(&before, host);
                return Err(error);
            }
            *managed = known.unwrap_or_else(|| left_alone(managed, &error));
            self.leave_out(error)?;
        }
        Ok(planned)
    }

    /// Leaves an interface as it was before [`Self::attach_one`].
    async fn undo(&mut self, name: &str, managed: &Managed, known: Option<&Managed>) {
        let Some(known) = known else { return release(&self.instance, name, managed).await };
        // The old form was there a moment ago; where it does not come back, TC does its work.
        let _ = self.accelerate(Port { name, index: known.index }, known.engine);
    }

    /// `or_tc`: where the wanted engine is refused, TC alone will do.
    fn attach_one(&mut self, link: &Link, managed: &mut Managed, or_tc: bool) -> Result<()> {
        let port = Port { name: &link.name, index: link.index };
        if managed.turned.is_empty() {
            managed.turned = sysctl::enable_forwarding(&link.name)?;
        }
        managed.clsact |= self.programs.attach_classifiers(port)?;
        if let Err(error) = self.accelerate(port, managed.wanted) {
            let why = why_no_xdp(&error);
            if !or_tc {
                bail!(
                    "{} cannot run {}: {why}\nhelp: write mode = \"auto\" under [engine]",
                    link.name,
                    managed.wanted
                );
            }
            managed.engine = Engine::Tc;
            managed.reason = why;
        }
        Ok(())
    }

    /// Puts XDP in front of TC or takes it away, as `engine` says. The driver has room for one form only:
    /// when the wanted one is refused, the one that was there comes back.
    fn accelerate(&mut self, port: Port<'_>, engine: Engine) -> Result<()> {
        let pins = self.instance.pins();
        let others = [Engine::Xdp, Engine::XdpGeneric].into_iter().filter(|other| *other != engine);
        let mut removed = None;
        let carries = |other: &Acceleration| kernel::carries_xdp(&pins, port.index, *other);
        for other in others.filter_map(Engine::acceleration).filter(carries) {
            // Many drivers send the frames of others only while they run a program themselves.
            self.maps.leave_to_tc(port.index)?;
            kernel::detach_xdp(&pins, port.index, other)?;
            removed = Some(other);
        }
        let Some(wanted) = engine.acceleration() else { return Ok(()) };
        let attached = self.programs.attach_xdp(port, wanted);
        if attached.is_err()
            && let Some(before) = removed
        {
            self.programs.attach_xdp(port, before)?;
        }
        attached
    }

    /// Takes netfw off interfaces that are no longer managed, or that were deleted and made anew.
    pub(super) async fn detach_others(&self, managed: &BTreeMap<String, Managed>) {
        for (name, old) in &self.state.interfaces {
            let new = managed.get(name);
            if new.is_some_and(|new| new.index == old.index) || old.index == 0 {
                continue;
            }
            release(&self.instance, name, old).await;
        }
    }
}

/// An interface that cannot be managed now, and may be later.
fn left_alone(managed: &Managed, error: &Error) -> Managed {
    let reason = format!("netfw cannot manage it: {error:#}");
    Managed { index: 0, engine: Engine::Tc, reason, turned: Vec::new(), clsact: false, ..managed.clone() }
}

/// Whether `link` is the interface that was attached, and not one that was made anew.
fn is_on(known: &Managed, link: &Link) -> bool {
    known.index == link.index && kernel::is_attached(Port { name: &link.name, index: link.index })
}

/// Whether netfw has come off an interface that is there.
pub(super) fn any_lost(state: &State, host: &Host) -> bool {
    let links = state.interfaces.iter().filter_map(|(name, managed)| Some((managed, host.link(name)?)));
    links.into_iter().any(|(managed, link)| !is_on(managed, link))
}

/// Whether an interface has the wanted hook, or the one that its driver left us: what it refused it refuses still, until somebody
/// asks for nothing else.
fn stays(known: &Managed, wanted: &Managed, or_tc: bool) -> bool {
    known.wanted == wanted.wanted && (known.engine == known.wanted || or_tc)
}

/// Chooses the hook of an interface, for the packets that it forwards to the others.
fn choose(policy: &ValidPolicy, link: &Link, host: &Host) -> Choice {
    let others = policy.interfaces().iter().filter(|other| other.name != link.name);
    let others: Vec<_> = others.map(|other| host.link(&other.name)).collect();
    engine::choose(policy.engine(), link, &others, &host.drivers)
}

/// Whether an interface can be managed at all, and by us.
fn check_link(link: &Link, instance: &Instance) -> Result<()> {
    let name = &link.name;
    if link.mac.is_none() {
        bail!("{name} has no Ethernet header: netfw cannot manage it yet\nhelp: take it out of [interfaces]");
    }
    if link.index >= MAX_IFINDEX {
        bail!("{name} has index {}, and netfw manages indexes below {}", link.index, MAX_IFINDEX);
    }
    for other in Instance::all().iter().filter(|other| *other != instance && other.pins().exist()) {
        let Ok(state) = State::load(other) else { continue };
        let holds = state.interfaces.values().any(|managed| managed.index == link.index);
        if holds && netns::inode()? == state.namespace {
            bail!("{name} is held by instance {other}\nhelp: `netfw --instance {other} down` releases it");
        }
    }
    Ok(())
}

/// Leaves an interface as it was before netfw, as far as it is still there, perhaps under another name.
pub(super) async fn release(instance: &Instance, name: &str, managed: &Managed) {
    let now = if_indextoname(managed.index).ok().and_then(|now| now.into_string().ok());
    let port = Port { name: now.as_deref().unwrap_or(name), index: managed.index };
    let outcome = async {
        kernel::detach(&instance.pins(), port)?;
        if managed.clsact {
            qdisc::remove_unused_clsact(managed.index).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = outcome.await
        && now.is_some()
    {
        tracing::warn!("cannot detach from {}: {error:#}", port.name);
    }
    // The switches went with the interface; those under its name may be another's.
    if now.is_some() {
        sysctl::restore(&sysctl::renamed(&managed.turned, name, port.name));
    }
}

fn why_no_xdp(error: &Error) -> String {
    let os = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error);
    match os {
        Some(libc::EBUSY | libc::EEXIST) => "another XDP program is on the interface".into(),
        Some(libc::EOPNOTSUPP) => "the driver has no XDP".into(),
        Some(libc::ERANGE) => "the driver runs XDP only with a smaller MTU".into(),
        _ => format!("the driver refuses XDP ({error:#})"),
    }
}
