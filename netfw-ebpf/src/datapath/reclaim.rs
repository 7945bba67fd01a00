//! Places for proven flows.
//!
//! Each proven flow holds one place of a ring as large as the table. A new one takes the next place under a moving
//! hand (the CLOCK algorithm, Corbató 1968) if the flow that holds it is gone, closed or silent for too long. So
//! the table is bounded, dead flows are reclaimed by the packets of new ones, and no timer and no daemon is needed.
//! Two cores that draw the same place after a whole turn of the hand lose a place until the daemon sweeps.

use netfw_common::family::Family;

use super::{
    find,
    kernel::{Kernel, Table},
    work::Work,
};

/// Places looked at for one new flow. A table that is nine tenths alive refuses a flow for the moment in 43 % of
/// the attempts; it stays among the unproven ones and tries again with its next packet.
const LOOKS: u32 = 8;

/// Finds a place for the flow of the packet; false when all that were looked at are taken.
#[inline(always)]
pub fn place<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> bool {
    for _ in 0..LOOKS {
        let place = kernel.next_place();
        if vacate(kernel, work, place) {
            kernel.take_place(place, &work.tuple);
            return true;
        }
    }
    false
}

#[inline(always)]
fn vacate<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>, place: u32) -> bool {
    let Some(holder) = kernel.place(place) else { return true };
    work.rival = holder;
    !find::lives(kernel, work, Table::Proven)
}
