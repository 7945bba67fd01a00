//! Port-forwards that challenge whoever opens a connection, at the moment.

use anyhow::Result;

use crate::{
    kernel::Maps,
    policy::{SynProxy, ValidPolicy},
};

/// Their names: those with `syn-proxy` that serve a family in which too many connections are being opened.
///
/// # Errors
/// What the kernel says.
pub fn challenging(policy: &ValidPolicy, maps: &Maps) -> Result<Vec<String>> {
    let [v4, v6] = maps.pressed()?;
    let guarded = policy.port_forwards().iter().filter(|forward| forward.syn_proxy == SynProxy::Auto);
    let challenging = guarded.filter(|forward| {
        let serves = forward.families();
        v4 && serves.0 || v6 && serves.1
    });
    Ok(challenging.map(|forward| forward.name.clone()).collect())
}
