//! A target speaks first after all flows were lost (a restart of the master): its connection is picked up.
//!
//! It looks like a LAN host that calls out. But a masquerade would hide it behind a port that its client does not know, who
//! resets the connection. So the port-forwards are asked backwards first: which of them leads here, and by which outside port
//! has the client called? Then the flow is the client's, as if his own segment had come in: judged by the same rules and
//! entered the same way round, and the target's word is the first answer. Nobody gains by that what he had not before: the
//! client may open this very flow himself.
//!
//! Where some port-forward leads here and the outside port cannot be told (a range onto one port, two port-forwards to one
//! target, several outside addresses), the segment is dropped: the target repeats it, and the flow is there as soon as the
//! client has spoken. Carried under a wrong name it would end the connection for good.
//!
//! The price is paid by a host that has called out itself, *from* a port that something is forwarded to, and whose flow was
//! lost: its segments are taken for answers. Programs call from ports that nobody serves, or else call servers, whose ports
//! are known: those are no clients ([`concerns`]).
//!
//! Only TCP tells by a single packet that a connection exists. A datagram of a LAN host may well be its first: to take that
//! for an answer would break what works.

use core::{mem, ops::ControlFlow};

use netfw_common::{
    counters::{Count, Finisher},
    explain::Note,
    family::{Address, Family},
    flow::Hop,
    image::{
        ACCEPT, FORWARD, Forward, MAX_BALANCED, ONE_TO_ONE, SOURCE_NAT_ALWAYS, SOURCE_NAT_AUTO, service_index,
    },
    interface::{EXTERNAL, LOCAL_EXTERNAL, ONE_ADDRESS},
    reason::Reason,
    tcp::Side,
    tuple::Tuple,
    wire::TCP_SYN,
};

use super::{
    Step, Verdict, commit,
    context::{Context, Hook},
    count, event, fragment, judge,
    kernel::{Inserted, Kernel, Route, Table},
    open, plan, rewrite, route,
    work::{self, NONE, Work},
};

/// What [`client`] finds: nobody that a port-forward leads here.
const NOBODY: u32 = 0;
/// Him, by the tuple that is left in [`Work::reply_key`], through [`Work::forward`].
const FOUND: u32 = 1;
/// There is one, but by which tuple he calls cannot be told.
const UNKNOWN: u32 = 2;

/// In the place of an outside port: more than one leads here.
const SEVERAL: u32 = NONE - 1;

/// Port-forward entries looked at for one segment. Few lead to one address, and of these hardly two to one port.
const ENTRIES: u32 = 16;

/// Below are the ports of servers, from which no client calls.
const CLIENTS: u16 = 1024;

/// Whether the packet, which has no flow, may be the word of a target: a segment of a connection that is open, to somebody who may
/// have opened it. A FIN is a word too, and a reset is the client's to hear. Of one that is being opened (SYN, ACK) the client
/// repeats his own word.
#[inline(always)]
pub fn concerns<F: Family>(work: &Work<F>) -> bool {
    work.kind == work::TCP
        && work.astray == 0
        && !work.headless()
        && work.tcp_flags as u8 & TCP_SYN == 0
        && work.tuple.destination_port >= CLIENTS
}

/// Enters the client's flow and carries the target's segment with it. Goes on where no port-forward leads to its sender, and where
/// the flow is there already ([`Work::overtaken`]). XDP leaves such segments to TC.
#[inline(always)]
pub fn flow<F: Family, C: Context, K: Kernel<F>>(ctx: &mut C, kernel: &K, work: &mut Work<F>) -> Step {
    work.forward = NONE;
    if kernel.leading(work) == NONE {
        return Ok(());
    }
    if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    let slot = towards_client::<F, C, K>(kernel, work)?;
    if slot == 0 {
        return Ok(());
    }
    let found = kernel.client(work);
    if found == NOBODY {
        work.forward = NONE;
        return Ok(());
    }
    kernel.note(Note::PickedUp, found);
    if found == UNKNOWN {
        work.forward = NONE;
        return work.drop(Reason::AnswersUnknown);
    }
    work.leaving = work.reply_key.reversed();
    let forwarded = C::HOOK != Hook::Egress;
    if forwarded {
        open::forwardable(work)?;
        work.resolve = 1;
    }
    if !as_client::<F, C, K>(kernel, work, slot)? {
        // What was planned and judged for this packet is void.
        work.resolve = 0;
        work.rule = NONE;
        work.forward = NONE;
        work.forward_id = 0;
        work.overtaken = 1;
        return Ok(());
    }
    fragment::remember(kernel, work);
    rewrite::packet(ctx, work, forwarded && work.way.hop.ifindex != 0)?;
    Err(if forwarded { Verdict::Forward } else { Verdict::Accept })
}

/// Slot of the interface by which the segment leaves, and by which the client's come in, as is to be expected of a client outside:
/// his port-forward is found by an address there. 0: he is not outside. In another LAN of ours he has rather called the
/// target itself.
#[inline(always)]
fn towards_client<F: Family, C: Context, K: Kernel<F>>(
    kernel: &K,
    work: &mut Work<F>,
) -> Result<u32, Verdict> {
    work.leaving = work.tuple;
    if C::HOOK == Hook::Egress {
        // Of the stack's segments those count that it has routed.
        work.way.hop = Hop { ifindex: work.ifindex, ..Hop::default() };
        let routed = work.routed != 0 && kernel.local(work.tuple.source) == 0;
        return Ok(if routed && work.external() { work.interface } else { 0 });
    }
    route::not_spoofed(kernel, work)?;
    if kernel.local(work.tuple.destination) != 0 || route::ask(kernel, work) == Route::None {
        return Ok(0);
    }
    let slot = kernel.slot_of(work.way.hop.ifindex);
    let outside = kernel.interface(slot).is_some_and(|interface| interface.flags & EXTERNAL != 0);
    Ok(if outside { slot } else { 0 })
}

/// Number of the next port-forward entry after [`Work::forward`] that leads to the packet's source and serves its destination, or
/// [`NONE`]. (It leads to this address and to this port, though perhaps not to both together.)
#[inline(always)]
pub fn leading<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    let service = kernel.service(service_index(work.tuple.protocol, work.tuple.source_port)).targets;
    if service == 0 {
        return NONE;
    }
    let [target, client] = kernel.addresses([work.tuple.source, work.tuple.destination]);
    kernel.lowest([service, target.targets, client.source_forwards], work.forward.wrapping_add(1))
}

/// Whose segments the packet answers, and through which port-forward: [`NOBODY`], [`FOUND`] or [`UNKNOWN`].
#[inline(always)]
pub fn client<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    let mut found = NONE;
    for _ in 0..ENTRIES {
        let next = kernel.leading(work);
        if next == NONE {
            work.forward = found;
            return if found == NONE { NOBODY } else { FOUND };
        }
        work.forward = next;
        let port = kernel.outside_port(work);
        let called = if port == NONE { NOBODY } else { kernel.called(work, port) };
        if called == UNKNOWN || (called == FOUND && found != NONE) {
            return UNKNOWN;
        }
        if called == FOUND {
            found = next;
        }
    }
    UNKNOWN
}

/// Whether the packet is an answer to a client of the port-forward entry [`Work::forward`] who has called this port: as [`client`]
/// says.
#[inline(always)]
pub fn called<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, port: u32) -> u32 {
    let Some(forward) = kernel.forward(work.forward) else { return NOBODY };
    let Some(address) = outside_address(kernel, forward, work).filter(|_| port != SEVERAL) else {
        return UNKNOWN;
    };
    let tuple = &work.tuple;
    work.subject.arriving = Tuple {
        source: tuple.destination,
        destination: address,
        source_port: tuple.destination_port,
        destination_port: port as u16,
        protocol: tuple.protocol,
    };
    // He would not come here: the address is not ours, or another port-forward takes the port first.
    if kernel.local(address) != LOCAL_EXTERNAL
        || judge::forward(kernel, &work.subject.arriving) != work.forward
    {
        return NOBODY;
    }
    work.reply_key = work.subject.arriving;
    FOUND
}

/// Whether the entry hides clients from the target, which then answers to the master. The client is answered past the master where
/// both are reached by one interface ([`route::bypassed`], as his own segment would find it).
#[inline(always)]
fn hides<F: Family>(forward: &Forward, work: &Work<F>) -> bool {
    let arrived = if work.routed != 0 { work.routed } else { work.ifindex };
    forward.source_nat == SOURCE_NAT_ALWAYS
        || (forward.source_nat == SOURCE_NAT_AUTO && work.way.hop.ifindex == arrived)
}

/// The address that the client has called: the one that is written, or that of the interface by which he comes in. `None` where
/// there are several.
#[inline(always)]
fn outside_address<F: Family, K: Kernel<F>>(
    kernel: &K,
    forward: &Forward,
    work: &Work<F>,
) -> Option<F::Addr> {
    if forward.addresses != 0 {
        let target = kernel.target(forward.first_address).filter(|_| forward.addresses == 1)?;
        return Some(F::Addr::narrow(target.address));
    }
    let slot = kernel.slot_of(work.way.hop.ifindex);
    let one = kernel.interface(slot)?.flags & ONE_ADDRESS[usize::from(F::V6)] != 0;
    plan::address_of::<F, K>(kernel, slot).filter(|_| one)
}

/// The outside port that the port-forward entry [`Work::forward`] leads from to the packet's source, if it hides no client;
/// [`NONE`] or [`SEVERAL`].
#[inline(always)]
pub fn outside_port<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> u32 {
    let Some(forward) = kernel.forward(work.forward).filter(|forward| !hides(forward, work)) else {
        return NONE;
    };
    // Between turns it lies where no verifier remembers the first value ([`super::repeat`]).
    let found = &mut work.subject.detail;
    *found = NONE;
    kernel.repeat(forward.targets.min(MAX_BALANCED), |nth| {
        let port = leading_port(kernel, forward, nth, &work.tuple);
        if port != NONE {
            *found = if *found == NONE || *found == port { port } else { SEVERAL };
        }
        if *found == SEVERAL { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    *found
}

/// The outside port that leads to the `nth` target where that is the source of `word`; [`NONE`] or [`SEVERAL`].
#[inline(always)]
fn leading_port<F: Family, K: Kernel<F>>(
    kernel: &K,
    forward: &Forward,
    nth: u32,
    word: &Tuple<F::Addr>,
) -> u32 {
    let Some(target) = kernel.target(forward.first_target.wrapping_add(nth)) else { return NONE };
    let past = word.source_port.wrapping_sub(target.port);
    let leads = past == 0 || (forward.shift != 0 && past < forward.ports);
    if !leads || F::Addr::narrow(target.address) != word.source {
        return NONE;
    }
    let one_to_one = forward.spread == ONE_TO_ONE;
    if !one_to_one && forward.shift == 0 && forward.ports != 1 {
        return SEVERAL;
    }
    let offset = if one_to_one { nth as u16 } else { past };
    u32::from(forward.first_port.wrapping_add(offset))
}

/// Puts the client's segment in the place of the target's, or back: it arrives as the answer to what leaves, and leaves as the answer
/// to what arrives. (End by end: two tuples are too much for the stack.)
#[inline(always)]
pub fn turn<F: Family>(work: &mut Work<F>) {
    let (arriving, leaving) = (&mut work.tuple, &mut work.leaving);
    mem::swap(&mut arriving.source, &mut leaving.destination);
    mem::swap(&mut arriving.destination, &mut leaving.source);
    mem::swap(&mut arriving.source_port, &mut leaving.destination_port);
    mem::swap(&mut arriving.destination_port, &mut leaving.source_port);
}

/// Judges and enters the flow in the client's place; false where another one is in its way.
#[inline(always)]
fn as_client<F: Family, C: Context, K: Kernel<F>>(
    kernel: &K,
    work: &mut Work<F>,
    slot: u32,
) -> Result<bool, Verdict> {
    let (interface, origin) = (work.interface, work.origin);
    kernel.turn_round(work);
    work.answers = if C::HOOK == Hook::Egress { 0 } else { origin };
    work.interface = slot;
    work.origin = route::origin(kernel, slot);
    let entered = judged::<F, C, K>(kernel, work).and_then(|()| enter(kernel, work));
    if entered == Ok(true) {
        account(kernel, work, count::finisher::<F, C>(work, C::HOOK != Hook::Egress));
        event::opened::<F, C, K>(kernel, work);
    }
    kernel.turn_round(work);
    work.interface = interface;
    work.origin = origin;
    entered
}

/// Whether the rules admit the client. Those that are down or drain are no matter: the target speaks.
#[inline(always)]
fn judged<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    let number = work.forward;
    work.chain = FORWARD;
    work.detail = u32::from(work.leaving.destination_port);
    // A target that no masquerade hides can be called by its own address, where the rules allow that.
    if kernel.address(work.leaving.destination).masquerade == 0 {
        work.forward = NONE;
        let direct = judge::new_flow(kernel, work) == ACCEPT;
        work.rule = NONE;
        if direct {
            return work.drop(Reason::AnswersUnknown);
        }
        work.forward = number;
    }
    let Some(forward) = kernel.forward(number) else { return work.drop(Reason::NoTarget) };
    work.forward_id = u32::from(forward.id) + 1;
    work.idle_timeout = forward.idle_timeout;
    open::admitted::<F, C, K>(kernel, work)
}

/// Enters both directions; of the client's nothing has been seen yet.
#[inline(always)]
fn enter<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Result<bool, Verdict> {
    work.table = Table::Outside;
    kernel.entries(work);
    let (original, reply) = (&mut work.original, &mut work.reply);
    reply.packets = original.packets;
    reply.bytes = original.bytes;
    reply.set_side(original.side());
    reply.hop = original.hop;
    original.packets = 0;
    original.bytes = 0;
    original.set_side(Side::default());
    original.hop = Hop::default();
    // He may talk with another target of a balanced port-forward by now, or have spoken this moment.
    work.reply_key = work.tuple;
    if commit::taken(kernel, work) {
        return Ok(false);
    }
    match kernel.insert(work.table, &work.tuple, &work.original) {
        Inserted::Done => answered(kernel, work),
        Inserted::Exists => Ok(false),
        Inserted::Full => work.drop(Reason::TableFull).map(|()| false),
    }
}

/// Enters the target's direction, after that of the client: should another core have a word of his meanwhile, it takes the half of a
/// flow for none, and opens the whole one itself. The other way round it would find the answers taken and draw another port.
#[inline(always)]
fn answered<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Result<bool, Verdict> {
    work.reply_key = work.leaving.reversed();
    let claimed = commit::claim(kernel, work);
    if claimed == Inserted::Done && kernel.spend(work) {
        return Ok(true);
    }
    if claimed == Inserted::Done {
        commit::withdraw(kernel, work);
    }
    work.reply_key = work.tuple;
    commit::withdraw(kernel, work);
    match claimed {
        // Another core took the last token since the client was judged.
        Inserted::Done => work.drop(Reason::RateLimited).map(|()| false),
        Inserted::Exists => Ok(false),
        Inserted::Full => work.drop(Reason::TableFull).map(|()| false),
    }
}

#[inline(always)]
fn account<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, finisher: Finisher) {
    let size = Count { packets: u64::from(work.segments), bytes: u64::from(work.bytes) };
    kernel.count_translation(work.forward_id, |count| {
        count.flows_opened += 1;
        count.back.of(finisher).add(size.packets, size.bytes);
    });
}
