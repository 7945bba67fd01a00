//! Stage 6: whether a flow is admitted. Also judges live flows again, in user space too (`plan`, reload).

use core::{hint::black_box, ops::ControlFlow};

use netfw_common::{
    family::{Address, Family},
    flow::{Flow, MASQUERADED, UNASKED},
    icmp,
    image::{
        ACCEPT, FILTERS_ENDPOINT_INDEPENDENTLY, Forward, KEEP_REFUSED, MAX_BALANCED, Masquerade, ONE_TO_ONE,
        service_index,
    },
    tuple::Tuple,
};

use super::{
    kernel::{Kernel, Tables},
    work::{NONE, Work},
};

/// What is judged: the fields that rules can ask for. In the kernel it lies in [`Work`], being too much for the stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<A> {
    /// Chain, as in [`netfw_common::image`].
    pub chain: u32,
    /// Slot of the interface it arrives on (input, forward) or leaves by (output).
    pub interface: u32,
    /// As the first packet arrived: its source is matched before translation.
    pub arriving: Tuple<A>,
    /// As it leaves: its destination is matched after translation.
    pub leaving: Tuple<A>,
    /// Destination port after translation, or ICMP type.
    pub detail: u32,
    /// Port-forward entry that translates it, or [`NONE`].
    pub forward: u32,
    /// Whether a `[masquerade]` translates its source, or a mapping of one its destination.
    pub masqueraded: bool,
}

/// Judges the new flow that is planned in `work`; the rule that decides is left in [`Work::rule`].
#[inline(always)]
pub fn new_flow<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    work.subject = Subject {
        chain: work.chain,
        interface: work.interface,
        arriving: work.tuple,
        leaving: work.leaving,
        detail: work.detail,
        forward: work.forward,
        masqueraded: work.masquerade != NONE || work.flags & UNASKED != 0,
    };
    kernel.decide(work)
}

/// Judges the live flow in [`Work::original`], found by [`Work::tuple`], again.
#[inline(always)]
pub fn live_flow<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    // User space ends a flow by giving it generation 0, which no policy has.
    let keep = work.original.generation != 0
        && kernel.policy().is_some_and(|policy| policy.flags & KEEP_REFUSED != 0);
    if keep || work.original.was_admitted_by(work.generation) {
        return true;
    }
    // One after the other: one in the other they would need more stack than there is.
    if !kernel.still_translated(work) {
        return false;
    }
    let action = kernel.decide(work);
    // The packet is not the first of the flow, for which the rule is counted.
    work.rule = NONE;
    action == ACCEPT
}

/// [`decide`] about [`Work::subject`], with the rule in [`Work::rule`].
#[inline(always)]
pub fn subject<F: Family, T: Tables<F>>(tables: &T, work: &mut Work<F>) -> u32 {
    decide(tables, &work.subject, &mut work.rule)
}

/// [`still_translated`] of the flow in [`Work::original`], with the subject in [`Work::subject`].
#[inline(always)]
pub fn translation<F: Family, T: Tables<F>>(tables: &T, work: &mut Work<F>) -> bool {
    still_translated(tables, &work.tuple, &work.original, &mut work.subject)
}

/// A decision: the action, and in `rule` the number of the rule that made it or [`NONE`].
#[inline(always)]
pub fn decide<F: Family, T: Tables<F>>(tables: &T, subject: &Subject<F::Addr>, rule: &mut u32) -> u32 {
    *rule = first_rule(tables, subject);
    if *rule != NONE {
        return tables.rule(*rule).map_or(0, |rule| rule.action);
    }
    if subject.forward != NONE || subject.masqueraded {
        return ACCEPT;
    }
    let chain = black_box(subject.chain) as usize;
    tables.policy().and_then(|policy| policy.default_actions.get(chain).copied()).unwrap_or(0)
}

/// Number of the first rule that matches, or [`NONE`].
#[inline(always)]
fn first_rule<F: Family, T: Tables<F>>(tables: &T, subject: &Subject<F::Addr>) -> u32 {
    let protocol = subject.leaving.protocol;
    let [source, destination] = tables.addresses([subject.arriving.source, subject.leaving.destination]);
    let service = tables.service(service_index(protocol, subject.detail as u16)).rules;
    let from_port = tables.service(service_index(protocol, subject.arriving.source_port)).source_rules;
    let Some(policy) = tables.policy() else { return NONE };
    let chain = policy.interface_rules.get(black_box(subject.chain) as usize);
    let interface = chain.and_then(|slots| slots.get(subject.interface as usize)).copied().unwrap_or(0);
    let translation = match tables.forward(subject.forward) {
        Some(forward) if subject.forward != NONE => forward.rules,
        _ => policy.untranslated_rules as u16,
    };
    let fields =
        [source.source_rules, destination.destination_rules, service, from_port, interface, translation];
    tables.lowest(fields, 0)
}

/// Number of the port-forward entry that serves a packet to a local address, or [`NONE`].
#[inline(always)]
pub fn forward<F: Family, T: Tables<F>>(tables: &T, arriving: &Tuple<F::Addr>) -> u32 {
    let service = tables.service(service_index(arriving.protocol, arriving.destination_port)).forwards;
    if service == 0 {
        return NONE;
    }
    let [source, destination] = tables.addresses([arriving.source, arriving.destination]);
    tables.lowest([service, source.source_forwards, destination.destination_forwards], 0)
}

/// Whether a live flow would be admitted if it were new, with the translation it has; `key` is the key of `flow`.
pub fn still_admitted<F: Family, T: Tables<F>>(
    tables: &T,
    key: &Tuple<F::Addr>,
    flow: &Flow<F::Addr>,
) -> bool {
    let (mut subject, mut rule) = (Subject::default(), NONE);
    still_translated(tables, key, flow, &mut subject) && decide(tables, &subject, &mut rule) == ACCEPT
}

/// Whether a live flow would be translated as it is if it were new; `key` is the key of `flow`, and `subject` becomes what is to be judged.
#[inline(always)]
pub fn still_translated<F: Family, T: Tables<F>>(
    tables: &T,
    key: &Tuple<F::Addr>,
    flow: &Flow<F::Addr>,
    subject: &mut Subject<F::Addr>,
) -> bool {
    let masqueraded = flow.flags & MASQUERADED != 0;
    let unasked = flow.flags & UNASKED != 0;
    *subject = Subject {
        chain: flow.chain(),
        interface: u32::from(flow.interface),
        arriving: if flow.is_reply() { flow.leaving.reversed() } else { *key },
        leaving: if flow.is_reply() { key.reversed() } else { flow.leaving },
        detail: 0,
        forward: NONE,
        masqueraded: masqueraded || unasked,
    };
    subject.detail = detail::<F>(&subject.leaving);
    if flow.forward != 0 && !still_leads(tables, flow, subject) {
        return false;
    }
    if masqueraded && !hides(tables, &subject.arriving, &subject.leaving) {
        return false;
    }
    !unasked || lets_in(tables, subject.leaving.destination)
}

/// Whether the flow's port-forward is still there and leads where the flow goes; notes its entry.
#[inline(always)]
fn still_leads<F: Family, T: Tables<F>>(
    tables: &T,
    flow: &Flow<F::Addr>,
    subject: &mut Subject<F::Addr>,
) -> bool {
    subject.forward = forward(tables, &subject.arriving);
    subject.forward != NONE
        && tables.forward(subject.forward).is_some_and(|found| {
            found.id + 1 == flow.forward && listed(tables, found, &subject.arriving, &subject.leaving)
        })
}

/// The `[[masquerade]]` with this number.
#[inline(always)]
pub fn masquerade<F: Family, T: Tables<F>>(tables: &T, number: u32) -> Option<&Masquerade> {
    if number == NONE { None } else { tables.policy()?.masquerades.get(black_box(number) as usize) }
}

/// Whether an inside address may be reached through its mappings by whoever wants to.
#[inline(always)]
pub fn lets_in<F: Family, T: Tables<F>>(tables: &T, inside: F::Addr) -> bool {
    let number = u32::from(tables.address(inside).masquerade).wrapping_sub(1);
    masquerade(tables, number)
        .is_some_and(|masquerade| masquerade.flags & FILTERS_ENDPOINT_INDEPENDENTLY != 0)
}

/// Whether a masquerade still applies to the source, and still lists the address that it was given.
#[inline(always)]
fn hides<F: Family, T: Tables<F>>(tables: &T, arriving: &Tuple<F::Addr>, leaving: &Tuple<F::Addr>) -> bool {
    let number = u32::from(tables.address(arriving.source).masquerade).wrapping_sub(1);
    let Some(masquerade) = masquerade(tables, number) else {
        return false;
    };
    let lists = tables.address(leaving.source).outside;
    masquerade.addresses[usize::from(F::V6)] == 0 || lists >> (number & 15) & 1 == 1
}

/// Destination port, or ICMP type of the packets that the flow was opened for.
#[inline(always)]
fn detail<F: Family>(leaving: &Tuple<F::Addr>) -> u32 {
    if leaving.protocol == u32::from(F::ICMP) {
        return u32::from(icmp::asked(F::V6, [leaving.source_port, leaving.destination_port]));
    }
    u32::from(leaving.destination_port)
}

/// Whether the forward still leads where the flow goes.
#[inline(always)]
fn listed<F: Family, T: Tables<F>>(
    tables: &T,
    forward: &Forward,
    arriving: &Tuple<F::Addr>,
    leaving: &Tuple<F::Addr>,
) -> bool {
    let offset = u32::from(arriving.destination_port.wrapping_sub(forward.first_port));
    if forward.spread == ONE_TO_ONE {
        return is_target(tables, forward, forward.first_target.wrapping_add(offset), offset, leaving);
    }
    let mut found = false;
    tables.repeat(forward.targets.min(MAX_BALANCED), |nth| {
        found = is_target(tables, forward, forward.first_target.wrapping_add(nth), offset, leaving);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

#[inline(always)]
fn is_target<F: Family, T: Tables<F>>(
    tables: &T,
    forward: &Forward,
    number: u32,
    offset: u32,
    leaving: &Tuple<F::Addr>,
) -> bool {
    tables.target(number).is_some_and(|target| {
        let port = target_port(forward, target.port, offset);
        F::Addr::narrow(target.address) == leaving.destination && port == leaving.destination_port
    })
}

/// Port at the target for the outside port `first_port + offset`.
#[inline(always)]
pub fn target_port(forward: &Forward, port: u16, offset: u32) -> u16 {
    if forward.shift == 0 { port } else { port.wrapping_add(offset as u16) }
}
