//! Fragments. The later ones of a packet find their ports through the first; what comes before its first is left to
//! the kernel's reassembly (see `ARCHITECTURE.md`), from which the packet comes back in order.

use netfw_common::{
    family::{Address, Family},
    fragment::{HELD_PACKETS, Held, Ports},
    reason::Reason,
    tick::Tick,
};

use super::{
    Step, Verdict,
    context::{Context, Hook},
    kernel::Kernel,
    work::{self, Work},
};

/// Whether the packet is, or was, in pieces.
#[inline(always)]
pub fn concerns<F: Family>(work: &Work<F>) -> bool {
    work.fragment != work::WHOLE || work.reassembled != 0
}

/// Gives a later fragment the ports of its packet, or holds it.
#[inline(always)]
pub fn ports<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    if work.reassembled != 0 {
        came_back(kernel, work);
    }
    let clear = match work.fragment {
        work::FIRST => !is_awaited(kernel, work),
        work::LATER => recall(kernel, work),
        _ => true,
    };
    if clear { Ok(()) } else { hold::<F, C, K>(kernel, work) }
}

#[inline(always)]
fn recall<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    let known = kernel.recall_ports(&work.tuple, work.identification);
    let Some(ports) = known.filter(|ports| ports.hold(work.now)) else { return false };
    work.tuple.source_port = ports.source;
    work.tuple.destination_port = ports.destination;
    work.detail = u32::from(ports.destination);
    true
}

/// Remembers the ports of a first fragment that was let through.
#[inline(always)]
pub fn remember<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    if work.fragment != work::FIRST {
        return;
    }
    // The ports are no part of the key: later fragments don't have them.
    work.reply_key = work.tuple;
    work.reply_key.source_port = 0;
    work.reply_key.destination_port = 0;
    let ports =
        Ports { source: work.tuple.source_port, destination: work.tuple.destination_port, since: work.now.0 };
    kernel.remember_ports(&work.reply_key, work.identification, ports);
}

/// What later fragments and the first one of a packet have in common, as a number that is not 0 (the finaliser of
/// SplitMix64). Who finds two packets with the same number makes one of them a little more probable to be dropped.
#[inline(always)]
fn name<F: Family>(work: &Work<F>) -> u64 {
    let ends = u64::from(work.tuple.source.fold()) << 32 | u64::from(work.tuple.destination.fold());
    let word = ends ^ (u64::from(work.identification) << 8 | u64::from(work.tuple.protocol & 0xff));
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word | 1
}

/// Places at which a packet may be held.
const CHOICES: u32 = 4;

/// The place at which the packet is held already, else one that is free.
#[inline(always)]
fn place<F: Family, K: Kernel<F>>(kernel: &K, name: u64, now: Tick) -> Option<(u32, Held)> {
    let first = (name >> 32) as u32 & (HELD_PACKETS - CHOICES);
    let mut free = None;
    for choice in 0..CHOICES {
        let place = first | choice;
        let Some(held) = kernel.held(place) else { continue };
        let alive = held.fragments.packets != 0 && !held.is_lost(now);
        if alive && held.packet == name {
            return Some((place, held));
        }
        if !alive {
            free = Some((place, held));
        }
    }
    free
}

/// Whether later fragments wait for this first one.
#[inline(always)]
fn is_awaited<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>) -> bool {
    let name = name(work);
    work.reassembled == 0
        && place(kernel, name, work.now)
            .is_some_and(|(_, held)| held.packet == name && !held.is_lost(work.now))
}

/// Leaves a fragment to the kernel's reassembly, or drops it where there is none.
#[inline(always)]
fn hold<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    if C::HOOK == Hook::Ingress && can_come_back(work) && kernel.reassembler() != 0 && join(kernel, work) {
        return Err(Verdict::Hold);
    }
    work.drop(Reason::FragmentBeforeFirst)
}

/// The kernel routes the packet back to us, so it must be one that routers forward; and only once.
#[inline(always)]
fn can_come_back<F: Family>(work: &Work<F>) -> bool {
    let (source, destination) = (work.tuple.source, work.tuple.destination);
    let local = source.is_link_local() || destination.is_link_local() || destination.is_group();
    work.reassembled == 0 && work.ttl > 1 && work.options == 0 && !local
}

/// Adds the fragment to those of its packet that are held; false when other packets have all its places.
#[inline(always)]
fn join<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    let name = name(work);
    let Some((place, mut held)) = place(kernel, name, work.now) else { return false };
    if held.packet != name || held.is_lost(work.now) {
        count_lost(kernel, &held);
        held = Held { packet: name, since: work.now.0, interface: work.interface, ..Held::default() };
    }
    held.fragments.add(u64::from(work.segments), u64::from(work.bytes));
    kernel.hold(place, &held);
    work.place = place + 1;
    true
}

/// What never came back from the reassembly was dropped there.
#[inline(always)]
fn count_lost<F: Family, K: Kernel<F>>(kernel: &K, held: &Held) {
    if held.fragments.packets != 0 {
        kernel.count_drop(Reason::FragmentBeforeFirst, held.fragments);
        kernel.count_interface(held.interface, |count| &mut count.dropped, held.fragments);
    }
}

/// The reassembly has sorted the packet: from here on it counts as any other, and the next fragment of this name is of
/// another packet.
#[inline(always)]
fn came_back<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    let place = work.reassembled.wrapping_sub(1);
    let Some(mut held) = kernel.held(place) else { return };
    held.release(u64::from(work.segments), u64::from(work.bytes), work.now);
    kernel.hold(place, &held);
    // The way there and back has cost it one hop, which is the one that it loses here.
    work.ttl += 1;
}
