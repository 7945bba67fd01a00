//! What the link itself needs, whatever the policy says. Broadcast and multicast frames never get this far.

use netfw_common::{family::Family, wire};

use super::work::{self, Work};

/// Whether the packet is neighbour or router discovery (RFC 4861: hop limit 255 only, so that no router forwards
/// it), multicast listener discovery, IGMP, or a DHCP answer to (or question of) the master's own client.
#[inline(always)]
pub fn needs<F: Family>(work: &Work<F>) -> bool {
    let protocol = work.tuple.protocol;
    if work.kind == work::UDP {
        return dhcp::<F>(work.tuple.source_port, work.tuple.destination_port);
    }
    if F::V6 {
        return protocol == u32::from(wire::ICMPV6) && discovery(work.detail, work.ttl);
    }
    protocol == u32::from(wire::IGMP)
}

#[inline(always)]
fn discovery(kind: u32, hop_limit: u32) -> bool {
    let neighbour = (133..=137).contains(&kind) && hop_limit == 255;
    let listener = matches!(kind, 130..=132 | 143) && hop_limit == 1;
    neighbour || listener
}

/// Server to client or client to server (RFC 2131 §4.1, RFC 8415 §7.2).
#[inline(always)]
fn dhcp<F: Family>(source: u16, destination: u16) -> bool {
    let (client, server) = if F::V6 { (546, 547) } else { (68, 67) };
    (source == server && destination == client) || (source == client && destination == server)
}
