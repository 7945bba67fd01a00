//! Stage 7: enters an admitted flow, both directions, with a source port that is free.
//!
//! The answering direction goes in first and must not exist: that insertion *is* the port allocation. Then the
//! packet's own direction; if another core has entered the same flow meanwhile, its translation holds and ours is
//! undone.

use netfw_common::{
    family::Family,
    flow::{CHAIN_SHIFT, Flow, Hop, INSIDE, LOCAL, REPLY},
    image::{self, service_index},
    interface::LOCAL_EXTERNAL,
    reason::Reason,
    tcp::{Seen, Side},
    tuple::Tuple,
    wire::{TCP, UDP},
};

use super::{
    Step, find, judge,
    kernel::{Inserted, Kernel, Table},
    work::{self, Work},
};

/// Source ports tried for one flow.
const TRIES: u32 = 12;

/// Enters the flow; [`Work::leaving`] then holds the translation that counts.
#[inline(always)]
pub fn flow<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    work.table = if work.flags & INSIDE != 0 { Table::Inside } else { Table::Outside };
    if work.leaving != work.tuple && !translatable(work) {
        return work.drop(Reason::Untranslatable);
    }
    entries(kernel, work);
    reserve(kernel, work)?;
    work.original.leaving = work.leaving;
    match kernel.insert(work.table, &work.tuple, &work.original) {
        Inserted::Done => {}
        Inserted::Exists => adopt(kernel, work)?,
        Inserted::Full => {
            kernel.remove(work.table, &work.reply_key);
            return work.drop(Reason::TableFull);
        }
    }
    if work.forward_id != 0 {
        kernel.take_turn(work.forward_id - 1);
    }
    Ok(())
}

/// Whether new addresses leave the packet valid: where the transport checksum covers them it must be one we know.
#[inline(always)]
fn translatable<F: Family>(work: &Work<F>) -> bool {
    const DCCP: u32 = 33;
    const UDP_LITE: u32 = 136;
    let protocol = work.tuple.protocol;
    let covered = matches!(protocol, DCCP | UDP_LITE) || (F::V6 && protocol == u32::from(F::ICMP));
    work.kind != work::OTHER || !covered
}

/// Both entries, but for the source port.
#[inline(always)]
fn entries<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let side = if work.kind == work::TCP {
        Side::default().record(work.segment(), Side::default())
    } else {
        Side { seen: Seen(Seen::PACKET), ..Side::default() }
    };
    let shared = work.flags & !(LOCAL | REPLY) | work.chain << CHAIN_SHIFT;
    work.original = Flow {
        id: u64::from(kernel.random()) << 32 | u64::from(kernel.random()),
        packets: u64::from(work.segments),
        bytes: u64::from(work.bytes),
        leaving: work.leaving,
        generation: work.generation,
        last_seen: work.now.0,
        created: work.now.0,
        idle_timeout: work.idle_timeout,
        hop: work.way.hop,
        forward: work.forward_id as u16,
        interface: work.interface as u8,
        seen: side.seen.0,
        flags: shared | work.flags & LOCAL,
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
    // Answers to what the master sent end on the master.
    let ends_here = if work.chain == image::OUTPUT { LOCAL } else { 0 };
    work.reply.flags = shared | REPLY | ends_here;
}

/// Finds a source port for which the answering direction can be entered, and enters it.
#[inline(always)]
fn reserve<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    let translated = work.leaving.source != work.tuple.source;
    if translated && !in_range(kernel, work) {
        draw(kernel, work);
    }
    for _ in 0..TRIES {
        work.reply_key = work.leaving.reversed();
        if !(translated && taken(kernel, &work.leaving)) {
            match kernel.claim(work) {
                Inserted::Done => return Ok(()),
                Inserted::Full => return work.drop(Reason::TableFull),
                Inserted::Exists => {}
            }
        }
        if !draws(work) {
            break;
        }
        draw(kernel, work);
    }
    work.drop(Reason::NoPort)
}

/// Enters the answering direction if no living flow has its key. The proven flows are asked after the insertion: a flow
/// that moves there is inserted before it leaves the LRU, so it is seen in one or the other.
#[inline(always)]
pub fn claim<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Inserted {
    let other = if work.table == Table::Inside { Table::Outside } else { Table::Inside };
    if held(kernel, work, other) {
        return Inserted::Exists;
    }
    let mut inserted = kernel.insert(work.table, &work.reply_key, &work.reply);
    if inserted == Inserted::Exists && !held(kernel, work, work.table) {
        inserted = kernel.insert(work.table, &work.reply_key, &work.reply);
    }
    if inserted == Inserted::Done && held(kernel, work, Table::Proven) {
        kernel.remove(work.table, &work.reply_key);
        return Inserted::Exists;
    }
    inserted
}

/// Whether a living flow in this table has the key; a dead one is forgotten.
#[inline(always)]
fn held<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, table: Table) -> bool {
    let Some(holder) = kernel.flow(table, &work.reply_key) else {
        return false;
    };
    if find::expendable(kernel, table, &holder, work.now) {
        find::forget(kernel, table, &work.reply_key, &holder);
        return false;
    }
    true
}

/// Another core was quicker with the same flow: its translation holds.
#[inline(always)]
fn adopt<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    if let Some(ours) = kernel.flow(work.table, &work.reply_key)
        && ours.id == work.original.id
    {
        kernel.remove(work.table, &work.reply_key);
    }
    match kernel.flow(work.table, &work.tuple) {
        Some(theirs) => {
            work.leaving = theirs.leaving;
            Ok(())
        }
        None => work.drop(Reason::TableFull),
    }
}

/// Whether another source port may be tried: the kind has ports that can be changed.
#[inline(always)]
fn draws<F: Family>(work: &Work<F>) -> bool {
    !work.headless() && matches!(work.kind, work::TCP | work::UDP | work::ECHO)
}

/// Ports from which a replacement is drawn: the masquerade's, else those above the well-known ones.
#[inline(always)]
fn range<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> (u32, u32, bool) {
    match judge::masquerade(kernel, work.masquerade).filter(|masquerade| masquerade.first != 0) {
        Some(masquerade) => (u32::from(masquerade.first), u32::from(masquerade.last), true),
        None => (1024, 65_535, false),
    }
}

/// Whether the packet's own source port may be kept.
#[inline(always)]
fn in_range<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    let (first, last, strict) = range(kernel, work);
    let port = u32::from(work.leaving.source_port);
    !strict || !draws(work) || (port >= first && port <= last)
}

/// Draws another source port (or echo identifier; the request holds it as source port).
#[inline(always)]
fn draw<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let (first, last, _) = range(kernel, work);
    let size = last.wrapping_sub(first).wrapping_add(1);
    let offset = kernel.random().checked_rem(size).unwrap_or(0);
    work.leaving.source_port = first.wrapping_add(offset) as u16;
}

/// Whether answers to this source would meet a port-forward or a socket of the master (port shadowing): such a port
/// is never given to a LAN host.
#[inline(always)]
fn taken<F: Family, K: Kernel<F>>(kernel: &K, leaving: &Tuple<F::Addr>) -> bool {
    if leaving.protocol == u32::from(TCP) && is_door(kernel, leaving.source_port) {
        return true;
    }
    let forwards = kernel.service(service_index(leaving.protocol, leaving.source_port)).forwards;
    (forwards != 0 && kernel.local(leaving.source) == LOCAL_EXTERNAL && has_ports(leaving.protocol))
        || (has_ports(leaving.protocol) && kernel.socket(&leaving.reversed()))
}

/// Answers to the port of the fail-safe door would not come back to a LAN host.
#[inline(always)]
fn is_door<F: Family, K: Kernel<F>>(kernel: &K, port: u16) -> bool {
    kernel.policy().is_some_and(|policy| policy.failsafe_port == u32::from(port))
}

#[inline(always)]
fn has_ports(protocol: u32) -> bool {
    protocol == u32::from(TCP) || protocol == u32::from(UDP)
}
