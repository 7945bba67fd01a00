//! Masquerades, as the datapath looks them up: by number, their addresses among the targets.

use std::net::IpAddr;

use netfw_common::{
    family::{addr4, addr6},
    health::UNCHECKED,
    image::{
        FILTERS_ENDPOINT_INDEPENDENTLY, MAPS_ENDPOINT_INDEPENDENTLY, MAX_MASQUERADES, MAX_TARGETS,
        Masquerade, Target,
    },
};

use super::error::{self, CompileError};
use crate::policy::{self, Dependence, ValidPolicy};

/// Whether the datapath has room for the masquerades.
pub(super) fn check_size(policy: &ValidPolicy) -> Result<(), CompileError> {
    error::at_most(MAX_MASQUERADES, policy.masquerades().len(), "masquerades", error::FEWER_MASQUERADES)
}

/// The table of masquerades; their addresses are put behind the targets.
pub(super) fn lay_out(
    policy: &ValidPolicy,
    targets: &mut Vec<Target>,
) -> Result<[Masquerade; MAX_MASQUERADES], CompileError> {
    let mut table = [Masquerade::default(); MAX_MASQUERADES];
    for (entry, masquerade) in table.iter_mut().zip(policy.masquerades()) {
        *entry = describe(masquerade);
        for (family, v6) in [false, true].into_iter().enumerate() {
            let addresses = masquerade.to.iter().filter(|address| address.is_ipv6() == v6);
            entry.first_address[family] = targets.len() as u32;
            targets.extend(addresses.map(|&address| target(address, 0)));
            entry.addresses[family] = targets.len() as u32 - entry.first_address[family];
        }
    }
    let what = "targets of port-forwards and addresses of masquerades";
    error::at_most(MAX_TARGETS as usize, targets.len(), what, error::FEWER_TARGETS)?;
    Ok(table)
}

/// What a masquerade says by itself.
fn describe(masquerade: &policy::Masquerade) -> Masquerade {
    let (first, last) = masquerade.ports.map_or((0, 0), |ports| (ports.first, ports.last));
    let flag = |dependence, flag| if dependence == Dependence::Independent { flag } else { 0 };
    let flags = flag(masquerade.mapping, MAPS_ENDPOINT_INDEPENDENTLY)
        | flag(masquerade.filtering, FILTERS_ENDPOINT_INDEPENDENTLY);
    Masquerade { first, last, flags, ..Masquerade::default() }
}

/// An entry of the table of targets.
pub(super) fn target(address: IpAddr, port: u16) -> Target {
    let address = match address {
        IpAddr::V4(address) => [addr4(address), 0, 0, 0],
        IpAddr::V6(address) => addr6(address),
    };
    Target { address, port, health: UNCHECKED }
}
