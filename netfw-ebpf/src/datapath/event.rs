//! What watchers and the log are told. Nobody watching costs one load for each packet that is dropped and each flow that is
//! opened, and nothing for the others.

use netfw_common::{
    event::{DROPPED, Event, LEAVING, LOGGED, LOGS, OPENED, TRANSLATED, V6, WATCHED, Watch, channel},
    family::{Address, Family},
    image::LOG,
    limit::Limit,
    tuple::Tuple,
};

use super::{
    context::{Context, Hook},
    kernel::{Kernel, Ring},
    work::{NONE, Work},
};

/// How often a place in a channel is tried for that other cores take.
const TRIES: u32 = 4;

/// The packet is dropped for [`Work::reason`].
#[inline(always)]
pub fn dropped<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    happened::<F, C, K>(kernel, work, DROPPED);
}

/// A flow was opened for the packet.
#[inline(always)]
pub fn opened<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    happened::<F, C, K>(kernel, work, OPENED);
}

#[inline(always)]
fn happened<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, kind: u32) {
    if watch(kernel, work).is_some() || logs(kernel, work).is_some() {
        work.event.kind = kind;
        work.event.flags = if C::HOOK == Hook::Egress { LEAVING } else { 0 };
        kernel.tell(work);
    }
}

/// What the watcher wants, if there is one.
#[inline(always)]
fn watch<'k, F: Family, K: Kernel<F>>(kernel: &'k K, work: &Work<F>) -> Option<&'k Watch> {
    let watch = kernel.watch().filter(|watch| watch.until != 0)?;
    if !watch.holds(work.now) {
        // It was killed. Ticks wrap: in a year its time would seem to come again.
        kernel.end_watch();
        return None;
    }
    Some(watch)
}

/// The channel of the rule that decided, if it logs.
#[inline(always)]
fn logs<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> Option<u32> {
    if work.rule == NONE {
        return None;
    }
    kernel.rule(work.rule).filter(|rule| rule.flags & LOG != 0).map(|rule| LOGS + rule.counter)
}

/// Tells everyone whom the event in [`Work::event`] concerns.
#[inline(always)]
pub fn tell<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    describe(kernel, work);
    if let Some(watch) = watch(kernel, work)
        && watch.wants(&work.event)
    {
        offer(kernel, Ring::Watched, WATCHED, channel(work.event.kind, work.reason), &work.event);
    }
    if let Some(channel) = logs(kernel, work) {
        offer(kernel, Ring::Logged, LOGGED, channel, &work.event);
    }
}

#[inline(always)]
fn offer<F: Family, K: Kernel<F>>(kernel: &K, ring: Ring, limit: Limit, channel: u32, event: &Event) {
    if !(has_room(kernel, limit, channel) && kernel.emit(ring, event)) {
        kernel.count_left_out(channel);
    }
}

/// Takes a place in the channel, if it has one.
#[inline(always)]
fn has_room<F: Family, K: Kernel<F>>(kernel: &K, limit: Limit, channel: u32) -> bool {
    for _ in 0..TRIES {
        let full_at = kernel.channel(channel);
        let Some(next) = limit.take(full_at, kernel.nanos()) else { return false };
        if kernel.exchange_channel(channel, full_at, next) {
            return true;
        }
    }
    false
}

/// Completes [`Work::event`], field by field where it lies: it does not fit the stack.
#[inline(always)]
fn describe<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let opened = work.event.kind == OPENED;
    // A dropped packet's way was planned no further than to a target, if it came so far.
    let translated = work.forward_id != 0 || (opened && work.leaving != work.tuple);
    let rule = if work.rule == NONE { None } else { kernel.rule(work.rule) };
    let event = &mut work.event;
    event.at = kernel.nanos();
    event.reason = if opened { 0 } else { work.reason as u32 };
    event.generation = work.generation;
    event.interface = work.interface;
    event.flags |= if F::V6 { V6 } else { 0 } | if translated { TRANSLATED } else { 0 };
    event.rule = rule.map_or(0, |rule| rule.counter + 1);
    event.forward = work.forward_id;
    event.packets = work.segments;
    event.bytes = work.bytes;
    event.reserved = 0;
    widen(&work.tuple, &mut event.arriving);
    if translated {
        widen(&work.leaving, &mut event.leaving);
    }
}

/// Puts a tuple down in the form of both families.
#[inline(always)]
pub(super) fn widen<A: Address>(tuple: &Tuple<A>, wide: &mut Tuple<[u32; 4]>) {
    wide.source = tuple.source.widen();
    wide.destination = tuple.destination.widen();
    wide.source_port = tuple.source_port;
    wide.destination_port = tuple.destination_port;
    wide.protocol = tuple.protocol;
}
