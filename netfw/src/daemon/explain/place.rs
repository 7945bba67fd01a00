//! Where a packet meets the datapath.

use std::net::IpAddr;

use anyhow::{Result, bail};

use super::Question;
use crate::{
    daemon::{
        failure::Failure,
        host::{Host, Link, route::way_to},
        state::{Managed, State},
    },
    kernel::Hook,
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which direction.
    pub hook: Hook,
    /// Name of the managed interface.
    pub name: String,
    /// Its kernel index.
    pub index: u32,
    /// Its link address.
    pub mac: [u8; 6],
    /// Whether XDP comes before TC there.
    pub accelerated: bool,
    /// Kernel index of the interface that is not managed by which the packet came, where it leaves; 0: by none.
    pub arrived: u32,
}

/// Finds it for a packet.
///
/// # Errors
/// No managed interface sees the packet.
pub(super) async fn find(question: &Question, state: &State, host: &Host) -> Result<Place> {
    let (source, destination) = (question.packet.source, question.packet.destination);
    if let Some(name) = &question.interface {
        let Some(link) = host.link(name) else { return Err(unknown(name, state)) };
        return arriving(link, question, state, host).await;
    }
    if owns(host, source) {
        return leaving(source, destination, state, host).await;
    }
    let index = way_to(source, None, None).await?;
    let Some(link) = index.and_then(|index| host.links.iter().find(|link| link.index == index)) else {
        bail!(
            "there is no route back to {source}, so nothing tells where it comes in\nhelp: name the interface with --in"
        );
    };
    arriving(link, question, state, host).await
}

fn owns(host: &Host, address: IpAddr) -> bool {
    host.addresses().any(|own| own == address)
}

fn managed<'a>(state: &'a State, link: &Link) -> Option<&'a Managed> {
    state.interfaces.get(&link.name).filter(|managed| managed.index == link.index)
}

fn at(link: &Link, hook: Hook, arrived: u32, accelerated: bool) -> Place {
    let mac = link.mac.unwrap_or_default();
    Place { hook, name: link.name.clone(), index: link.index, mac, accelerated, arrived }
}

/// On an interface that netfw manages; or on another, and out by one that it does.
async fn arriving(link: &Link, question: &Question, state: &State, host: &Host) -> Result<Place> {
    if let Some(managed) = managed(state, link) {
        return Ok(at(link, Hook::Ingress, 0, managed.engine.acceleration().is_some()));
    }
    let (source, destination) = (question.packet.source, question.packet.destination);
    let out = way_to(destination, Some(source), Some(link.index)).await?;
    let out = out.and_then(|index| host.links.iter().find(|out| out.index == index));
    if let Some(out) = out.filter(|out| managed(state, out).is_some()) {
        return Ok(at(out, Hook::Egress, link.index, false));
    }
    let text = format!(
        "netfw does not manage {}, by which the packet comes in, nor where it would go: it never sees it\nhelp: name one of \
         {} with --in",
        link.name,
        names(state)
    );
    Err(if question.interface.is_some() { Failure::Usage(text).into() } else { anyhow::anyhow!(text) })
}

/// From the host itself.
async fn leaving(source: IpAddr, destination: IpAddr, state: &State, host: &Host) -> Result<Place> {
    if owns(host, destination) {
        bail!(
            "both {source} and {destination} are addresses of this host: such packets never leave it, and netfw never sees \
             them\nhelp: ask about a packet that comes in from elsewhere, or name an interface with --in"
        );
    }
    let index = way_to(destination, Some(source), None).await?;
    let Some(link) = index.and_then(|index| host.links.iter().find(|link| link.index == index)) else {
        bail!(
            "this host has no route from {source} to {destination}\nhelp: `ip route get {destination}` shows what it has"
        );
    };
    if managed(state, link).is_none() {
        bail!(
            "the packet would leave by {}, which netfw does not manage: it never sees it\nhelp: name that interface under \
             [interfaces] if it should",
            link.name
        );
    }
    Ok(at(link, Hook::Egress, 0, false))
}

fn unknown(name: &str, state: &State) -> anyhow::Error {
    Failure::Usage(format!("no interface is called {name}\nhelp: netfw manages {}", names(state))).into()
}

fn names(state: &State) -> String {
    let names: Vec<&str> = state.interfaces.keys().map(String::as_str).collect();
    names.join(", ")
}
