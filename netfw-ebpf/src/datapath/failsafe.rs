//! The fail-safe door: the way to the master's SSH server, and back, that nothing shadows.
//!
//! It is stateless: no flow, limit, block or policy is asked, so that none can shut it, neither by a mistake in the rules
//! nor by a full table.

use netfw_common::{
    explain::Note,
    family::Family,
    image::FAILSAFE,
    tuple::Tuple,
    wire::{TCP_ACK, TCP_RST, TCP_SYN},
};

use super::{
    Step, Verdict,
    context::{Context, Hook},
    fragment,
    kernel::Kernel,
    route,
    work::{self, Work},
};

const SYN_ACK: u8 = TCP_SYN | TCP_ACK;

/// Whether the packet may belong to the door, by its ports.
#[inline(always)]
pub fn concerns<F: Family>(work: &Work<F>) -> bool {
    let ports = [work.tuple.source_port, work.tuple.destination_port];
    work.door != 0 && work.kind == work::TCP && ports.iter().any(|&port| u32::from(port) == work.door)
}

/// Lets the packet through if it belongs to the door.
#[inline(always)]
pub fn door<F: Family, C: Context, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    let going_in = C::HOOK != Hook::Egress;
    let to_server = if going_in { work.tuple } else { work.tuple.reversed() };
    if !concerns(work) || !leads_through(kernel, work.door, &to_server) {
        return Ok(());
    }
    if C::HOOK == Hook::Xdp {
        return Err(Verdict::Punt);
    }
    if going_in {
        route::not_spoofed(kernel, work)?;
    }
    kernel.note(Note::Door, 1);
    if work.fallback != 0 {
        bear_witness(kernel, work, going_in);
    }
    fragment::remember(kernel, work);
    Err(Verdict::Accept)
}

/// A new connection through the door is a proof of life for rules that wait for one, but no flow tells of it: so its handshake
/// is noted. A port and an acknowledgement are enough, as only those may knock here who are to be believed.
#[inline(always)]
fn bear_witness<F: Family, K: Kernel<F>>(kernel: &K, work: &Work<F>, going_in: bool) {
    match (going_in, work.tcp_flags as u8 & (TCP_SYN | TCP_RST | TCP_ACK)) {
        (false, SYN_ACK) => {
            kernel.begin_handshake(u32::from(work.tuple.destination_port), work.sequence.wrapping_add(1));
        }
        (true, TCP_ACK) => {
            let port = u32::from(work.tuple.source_port);
            kernel.complete_handshake(port, work.acknowledged, work.generation);
        }
        _ => (),
    }
}

/// Whether a TCP packet with this tuple goes to the server through the door.
#[inline(always)]
pub fn leads_through<F: Family, K: Kernel<F>>(kernel: &K, door: u32, to_server: &Tuple<F::Addr>) -> bool {
    door != 0
        && u32::from(to_server.destination_port) == door
        && kernel.local(to_server.destination) != 0
        && kernel.address(to_server.source).flags & FAILSAFE != 0
}
