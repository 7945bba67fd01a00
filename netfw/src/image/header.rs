//! What an image says apart from its lists.

use std::time::Duration;

use netfw_common::{
    image::{
        ACCEPT, DROP, KEEP_REFUSED, MAPPINGS, MAX_RULES, MSS_CLAMP, Policy, REJECT, SPOOF_LOOSE, SPOOF_OFF,
        SPOOF_STRICT, Vector,
    },
    interface::MAX_INTERFACES,
    tick::Tick,
    timeout::{TIMEOUTS, Timeout},
};

use super::{
    Host,
    error::{self, CompileError},
    vectors::{SetOperations, Vectors},
};
use crate::policy::{Action, AntiSpoof, Chain, Dependence, OnChange, Rule, Timeouts, ValidPolicy};

const CHAINS: [Chain; 3] = [Chain::Input, Chain::Forward, Chain::Output];

/// Whether the lists fit whose length is known before anything is compiled.
pub(super) fn check_size(policy: &ValidPolicy) -> Result<(), CompileError> {
    error::at_most(MAX_RULES as usize, policy.rules().len(), "rules", error::FEWER_RULES)
}

/// The header of the image of `policy`.
pub(super) fn header(
    policy: &ValidPolicy,
    host: &Host,
    vectors: &mut Vectors,
) -> Result<Policy, CompileError> {
    let mut header = Policy {
        generation: 0,
        default_actions: CHAINS.map(|chain| action(policy.default_action(chain))),
        anti_spoof: anti_spoof(policy.anti_spoof()),
        flags: flags(policy),
        failsafe_port: policy.failsafe().map_or(0, |failsafe| failsafe.port.into()),
        timeouts: timeouts(policy.timeouts()),
        ..Policy::default()
    };
    host.interfaces.values().for_each(|&slot| header.manage(slot));
    let untranslated = numbers(policy, |rule| rule.port_forwards.is_none());
    header.untranslated_rules = vectors.index(&untranslated)?.into();
    let slots = interface_slots(policy, host)?;
    for chain in CHAINS {
        for (slot, index) in header.interface_rules[chain as usize].iter_mut().enumerate() {
            let accepting = policy.rules().iter().zip(&slots).enumerate().filter(|(_, (rule, wanted))| {
                rule.chain == chain && (wanted.is_empty() || wanted.contains(&slot))
            });
            *index = vectors.index(&Vector::of(accepting.map(|(number, _)| number)))?;
        }
    }
    Ok(header)
}

/// Numbers of the rules that pass a test.
pub(super) fn numbers(policy: &ValidPolicy, test: impl Fn(&Rule) -> bool) -> Vector {
    Vector::of(policy.rules().iter().enumerate().filter(|(_, rule)| test(rule)).map(|(number, _)| number))
}

/// The slots that each rule wants; none: any.
fn interface_slots(policy: &ValidPolicy, host: &Host) -> Result<Vec<Vec<usize>>, CompileError> {
    let slots = |rule: &Rule| rule.interfaces.iter().map(|name| interface_slot(rule, name, host)).collect();
    policy.rules().iter().map(slots).collect()
}

fn interface_slot(rule: &Rule, interface: &str, host: &Host) -> Result<usize, CompileError> {
    let slot = host.interfaces.get(interface).map(|&slot| slot as usize);
    slot.filter(|slot| (1..MAX_INTERFACES).contains(slot)).ok_or_else(|| CompileError::UnmanagedInterface {
        rule: rule.name.clone(),
        interface: interface.to_owned(),
    })
}

fn flags(policy: &ValidPolicy) -> u32 {
    let keep = if policy.on_change() == OnChange::Keep { KEEP_REFUSED } else { 0 };
    let clamp = if policy.mss_clamp() { MSS_CLAMP } else { 0 };
    let maps = policy.masquerades().iter().any(|each| each.mapping == Dependence::Independent);
    keep | clamp | if maps { MAPPINGS } else { 0 }
}

/// The number of an action.
pub(super) fn action(action: Action) -> u32 {
    match action {
        Action::Accept => ACCEPT,
        Action::Drop => DROP,
        Action::Reject => REJECT,
    }
}

fn anti_spoof(setting: AntiSpoof) -> u32 {
    match setting {
        AntiSpoof::Strict => SPOOF_STRICT,
        AntiSpoof::Loose => SPOOF_LOOSE,
        AntiSpoof::Off => SPOOF_OFF,
    }
}

/// A timeout in ticks; parts of a second count as a whole one.
pub(super) fn ticks(timeout: Duration) -> u32 {
    Tick::ticks(timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0))
}

fn timeouts(wanted: &Timeouts) -> [u32; TIMEOUTS] {
    let mut all = [0; TIMEOUTS];
    all[Timeout::TcpEstablished as usize] = ticks(wanted.tcp_established);
    all[Timeout::TcpOpening as usize] = ticks(wanted.tcp_opening);
    all[Timeout::TcpClosed as usize] = ticks(wanted.tcp_closed);
    all[Timeout::Udp as usize] = ticks(wanted.udp);
    all[Timeout::UdpUnanswered as usize] = ticks(wanted.udp_unanswered);
    all[Timeout::Icmp as usize] = ticks(wanted.icmp);
    all[Timeout::Other as usize] = ticks(wanted.other);
    all
}
