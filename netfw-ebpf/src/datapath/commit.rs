//! Stage 7: enters an admitted flow, both directions, with a source port that is free.
//!
//! The answering direction goes in first and must not exist: that insertion *is* the port allocation. Then the
//! packet's own direction; if another core has entered the same flow meanwhile, its translation holds and ours is
//! undone.

use netfw_common::{
    family::Family,
    flow::{Flow, Hop, INSIDE, LOCAL, MASQUERADED, REPLY, judged_by},
    image,
    reason::Reason,
    tcp::{Seen, Side},
};

use super::{
    Step, Verdict, find,
    kernel::{Inserted, Kernel, Table},
    mapping, port,
    work::{self, Work},
};

/// How many ports of the master's own sockets may come in the way of one flow.
const SOCKETS: u32 = 4;

/// Enters the flow with the planned translation; false where another core was quicker with the same flow, whose translation
/// holds.
#[inline(always)]
pub fn flow<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Result<bool, Verdict> {
    work.table = if work.flags & INSIDE != 0 { Table::Inside } else { Table::Outside };
    if work.leaving != work.tuple && !translatable(work) {
        work.drop(Reason::Untranslatable)?;
    }
    kernel.entries(work);
    reserve(kernel, work)?;
    work.original.leaving = work.leaving;
    let entered = kernel.insert(work.table, &work.tuple, &work.original);
    if entered != Inserted::Done || !kernel.spend(work) {
        return give_up(kernel, work, entered);
    }
    if work.forward_id != 0 {
        kernel.take_turn(work.forward_id - 1);
    }
    Ok(true)
}

/// Takes back what was entered of the flow, whose own direction was not, or has no token.
#[inline(always)]
fn give_up<F: Family, K: Kernel<F>>(
    kernel: &K,
    work: &mut Work<F>,
    entered: Inserted,
) -> Result<bool, Verdict> {
    kernel.withdraw(work);
    let reason = match entered {
        // The flow has paid for itself already.
        Inserted::Exists => return Ok(false),
        // Another core took the last token since the packet was judged.
        Inserted::Done => Reason::RateLimited,
        Inserted::Full => Reason::TableFull,
    };
    if entered == Inserted::Full && work.mapping == mapping::ENTERED {
        mapping::forget(kernel, work);
    }
    work.drop(reason).map(|()| false)
}

/// Whether new addresses leave the packet valid: where a checksum covers them it must be one we know, and no signature may.
#[inline(always)]
fn translatable<F: Family>(work: &Work<F>) -> bool {
    const DCCP: u32 = 33;
    const AH: u32 = 51;
    const UDP_LITE: u32 = 136;
    let protocol = work.tuple.protocol;
    let covered = matches!(protocol, DCCP | AH | UDP_LITE) || (F::V6 && protocol == u32::from(F::ICMP));
    work.kind != work::OTHER || !covered
}

/// Both entries, but for the source port.
#[inline(always)]
pub fn entries<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let side = if work.kind == work::TCP {
        Side::default().record(work.segment(), Side::default())
    } else {
        Side { seen: Seen(Seen::PACKET), ..Side::default() }
    };
    let shared = work.flags & !(LOCAL | REPLY) | judged_by(work.chain);
    work.original = Flow {
        packets: u64::from(work.segments),
        bytes: u64::from(work.bytes),
        leaving: work.leaving,
        generation: work.generation,
        blocks: work.blocks,
        last_seen: work.now.0,
        created: work.now.0,
        idle_timeout: work.idle_timeout,
        id: kernel.random(),
        hop: work.way.hop,
        forward: work.forward_id as u16,
        origin: work.origin,
        flags: shared | work.flags & LOCAL,
        interface: work.interface as u8,
        seen: side.seen.0,
        end: side.end,
        acknowledged: side.acknowledged,
    };
    if work.flags & LOCAL != 0 || work.chain == image::OUTPUT {
        work.original.hop = Hop::default();
    }
    work.reply = work.original;
    work.reply.packets = 0;
    work.reply.bytes = 0;
    work.reply.set_side(Side::default());
    work.reply.hop = Hop::default();
    work.reply.leaving = work.tuple.reversed();
    work.reply.origin = work.answers;
    // Answers to what the master sent end on the master.
    let ends_here = if work.chain == image::OUTPUT { LOCAL } else { 0 };
    work.reply.flags = shared | REPLY | ends_here;
}

/// Finds a source port for which the answering direction can be entered, and enters it. Somebody hidden gets that of a closed
/// connection only if there is no other: the last words of its server would reach the wrong host.
#[inline(always)]
fn reserve<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    work.spares_closed = u32::from(work.flags & MASQUERADED != 0);
    let step = any_port(kernel, work);
    work.spares_closed = 0;
    step
}

/// The same. A port that a socket of the master answers to (port shadowing) is given back at once: nobody believes it without
/// the other direction.
#[inline(always)]
fn any_port<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    work.drawn = 0;
    if work.mapping == mapping::WANTED {
        kernel.find_mapping(work);
    }
    if work.mapping != mapping::FOUND && port::is_translated(work) && !port::in_range(kernel, work) {
        kernel.draw(work);
    }
    for _ in 0..SOCKETS {
        match kernel.search(work) {
            Inserted::Done if !shadows(kernel, work) => return Ok(()),
            Inserted::Done => {
                kernel.remove(work.table, &work.reply_key);
                mapping::forget(kernel, work);
            }
            Inserted::Exists if work.spares_closed != 0 => {
                work.spares_closed = 0;
                work.drawn = 0;
            }
            Inserted::Exists => break,
            Inserted::Full => return work.drop(Reason::TableFull),
        }
        kernel.draw(work);
    }
    work.drop(Reason::NoPort)
}

/// Whether a socket of the master would take the answers to a source that was given to somebody else.
#[inline(always)]
fn shadows<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    port::is_translated(work) && port::has_ports(work.tuple.protocol) && kernel.socket(&work.reply_key)
}

/// Looks for a source port for which the answering direction can be entered, with a mapping where one is wanted.
#[inline(always)]
pub fn search<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Inserted {
    for _ in 0..port::TRIES {
        let found = kernel.attempt(work);
        if found != Inserted::Exists || work.drawn == port::SPENT {
            return found;
        }
    }
    Inserted::Exists
}

/// Tries the planned source port; where it is taken, plans another, or takes that of a mapping which another core has entered.
#[inline(always)]
pub fn attempt<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Inserted {
    if may_claim(kernel, work) {
        match claim(kernel, work) {
            Inserted::Exists => {}
            Inserted::Done if work.mapping == mapping::WANTED && !kernel.enter_mapping(work) => {
                kernel.remove(work.table, &work.reply_key);
                if work.mapping == mapping::FOUND {
                    return Inserted::Exists;
                }
            }
            claimed => return claimed,
        }
    }
    kernel.draw(work);
    Inserted::Exists
}

/// Whether the planned source belongs to nobody else yet, apart from the flow table; sets [`Work::reply_key`]. An end that
/// reaches itself by its own outside port needs another: question and answer would look alike.
#[inline(always)]
fn may_claim<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    work.reply_key = work.leaving.reversed();
    !port::is_translated(work)
        || !(work.reply_key == work.tuple
            || port::is_forwarded(kernel, &work.leaving)
            || mapping::is_anothers(kernel, work))
}

/// Whether a living flow has [`Work::reply_key`].
#[inline(always)]
pub fn taken<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    work.rival = work.reply_key;
    kernel.may_have_rival(work)
        && [Table::Inside, Table::Outside, Table::Proven]
            .into_iter()
            .any(|table| find::lives(kernel, work, table))
}

/// Enters the answering direction if no living flow has its key. The tables are asked before the insertion, because an LRU
/// makes room even for one that fails; and the proven flows after it: a flow that moves there is inserted before it
/// leaves the LRU, so it is seen in one or the other.
#[inline(always)]
pub fn claim<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Inserted {
    if taken(kernel, work) {
        return Inserted::Exists;
    }
    let inserted = kernel.insert(work.table, &work.reply_key, &work.reply);
    if inserted == Inserted::Done && find::lives(kernel, work, Table::Proven) {
        kernel.remove(work.table, &work.reply_key);
        return Inserted::Exists;
    }
    inserted
}

/// Takes the flow in [`Work::original`] out of [`Work::table`]: as much as is its own.
#[inline(always)]
pub fn withdraw<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    (work.rival, work.peer_key, work.rival_id) = (work.tuple, work.reply_key, work.original.id);
    kernel.forget_rival(work, work.table);
}
