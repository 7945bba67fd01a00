//! Targets of port-forwards that may not take new flows: those that are checked or drain.

use anyhow::Result;
use netfw_common::health::{DOWN, UP};
use serde::Serialize;

use super::timestamp;
use crate::{
    daemon::{health::Book, state::State},
    kernel::Maps,
    policy::{Endpoint, PortForward, ValidPolicy},
};

/// How a target is.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    pub(super) port_forward: String,
    pub(super) target: String,
    pub(super) state: &'static str,
    pub(super) since: Option<String>,
    pub(super) last_error: Option<String>,
}

/// All of `policy`, in its order. The state is what the datapath holds, the rest what the daemon has noted.
///
/// # Errors
/// What the kernel says.
pub fn targets(state: &State, policy: &ValidPolicy, maps: &Maps, book: &Book) -> Result<Vec<Target>> {
    let endpoints = policy.port_forwards().iter().flat_map(PortForward::endpoints);
    let told = endpoints.filter(|endpoint| endpoint.is_checked() || endpoint.target.drains);
    told.map(|endpoint| target(state, &endpoint, maps, book)).collect()
}

fn target(state: &State, endpoint: &Endpoint<'_>, maps: &Maps, book: &Book) -> Result<Target> {
    let (forward, label) = (&endpoint.forward.name, endpoint.label());
    let word = state.ids.target(endpoint).filter(|_| endpoint.is_checked());
    let known = match word.map(|word| maps.health(word)).transpose()? {
        _ if endpoint.target.drains => "draining",
        Some(UP) => "up",
        Some(DOWN) => "down",
        _ => "unknown",
    };
    let entry = book.entry(forward, &label).filter(|_| matches!(known, "up" | "down"));
    Ok(Target {
        port_forward: forward.clone(),
        target: label,
        state: known,
        since: entry.map(|entry| timestamp(entry.since)),
        last_error: entry.and_then(|entry| entry.error.clone()),
    })
}

impl Target {
    /// For a table with these [`HEADINGS`].
    pub(super) fn cells(&self) -> Vec<String> {
        let since = self.since.clone().unwrap_or_else(|| "-".into());
        let error = self.last_error.clone().unwrap_or_else(|| "-".into());
        vec![self.port_forward.clone(), self.target.clone(), self.state.into(), since, error]
    }
}

/// Of a table of targets.
pub(super) const HEADINGS: [&str; 5] = ["port-forward", "target", "state", "since", "last error"];
