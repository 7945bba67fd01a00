//! The compiler: from a [`ValidPolicy`] to the tables that the datapath reads.
//!
//! [`Image`] is plain data, so that two policies can be compared, and what the kernel holds can be compared
//! with what it should hold. Its layout is explained in [`netfw_common::image`]. An image is never stored: the
//! text of the rules and the [`Ids`] are, and compiling them again gives the same image.

mod addresses;
mod block;
mod error;
mod forwards;
mod header;
mod ids;
mod judge;
mod masquerades;
mod rules;
mod services;
mod vectors;

use std::{collections::BTreeMap, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netfw_common::image::{AddressClass, Forward, Policy, Rule, Service, Target, Vector};

use crate::policy::ValidPolicy;
pub use block::block_keys;
pub(crate) use block::{blocked_prefix, is_listed};
pub use error::CompileError;
pub use ids::Ids;

use addresses::Addresses;
use vectors::Vectors;

/// What the compiler must know about the host.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Host {
    /// Slot of each managed interface, by name: from 1 to 63.
    pub interfaces: BTreeMap<String, u32>,
}

/// A compiled policy: the content of one slot of the datapath's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What is no list. Its generation is 0: whoever installs the image counts.
    pub policy: Policy,
    /// Longest-prefix table of IPv4 addresses, sorted; holds `0.0.0.0/0`.
    pub addresses4: Vec<(Ipv4Net, AddressClass)>,
    /// Longest-prefix table of IPv6 addresses, sorted; holds `::/0`.
    pub addresses6: Vec<(Ipv6Net, AddressClass)>,
    /// All distinct vectors; the first is empty.
    pub vectors: Vec<Vector>,
    /// By [`netfw_common::image::service_index`]; always of length [`netfw_common::image::SERVICES`].
    pub services: Vec<Service>,
    /// The rules, in the order of [`ValidPolicy::rules`].
    pub rules: Vec<Rule>,
    /// Port-forward entries.
    pub forwards: Vec<Forward>,
    /// Their targets.
    pub targets: Vec<Target>,
    /// Prefixes of `[block]`, sorted; none lies in another one.
    pub blocks: Arc<Vec<IpNet>>,
}

/// Compiles a policy.
///
/// New names get ids; when this fails, `ids` is as it was.
///
/// # Errors
/// The policy is larger than the tables, or names an interface without a slot.
pub fn compile(policy: &ValidPolicy, host: &Host, ids: &mut Ids) -> Result<Image, CompileError> {
    header::check_size(policy)?;
    masquerades::check_size(policy)?;
    let entries = forwards::expand(policy.port_forwards());
    forwards::check_size(&entries)?;

    let mut vectors = Vectors::default();
    let mut addresses = Addresses::default();
    addresses.add_policy(policy, &entries);
    let addresses = addresses.classes(&mut vectors)?;
    let services = services::table(policy, &entries, &mut vectors)?;
    let mut header = header::header(policy, host, &mut vectors)?;
    header.block_digest = block::digest(policy.block());
    let mut fresh = ids.clone();
    let counters = fresh.assign(policy);
    let (forwards, mut targets) =
        forwards::lay_out(policy, &entries, &counters.port_forwards, &fresh, &mut vectors)?;
    header.masquerades = masquerades::lay_out(policy, &mut targets)?;
    let rules = policy.rules().iter().zip(counters.rules);
    let rules = rules.map(|(rule, id)| rules::decision(rule, id)).collect();
    *ids = fresh;
    Ok(Image {
        policy: header,
        addresses4: addresses.v4,
        addresses6: addresses.v6,
        vectors: vectors.into_list(),
        services,
        rules,
        forwards,
        targets,
        blocks: Arc::clone(policy.block()),
    })
}
