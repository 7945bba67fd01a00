//! A flow proves itself: from now on no flood can push it out.

use netfw_common::family::Family;

use super::{
    kernel::{Inserted, Kernel, Table},
    reclaim,
    work::Work,
};

/// Moves both directions of the flow in [`Work::original`], found by [`Work::tuple`], to the proven flows: inserts there
/// first, removes here after, so that a look-up always finds them. Without room the flow stays where it is and tries
/// again with its next packet.
#[inline(always)]
pub fn flow<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) {
    work.reply_key = work.original.peer_key();
    let Some(peer) = kernel.flow(work.table, &work.reply_key) else {
        return;
    };
    work.reply = *peer;
    if work.reply.id != work.original.id || !reclaim::place(kernel, work) {
        return;
    }
    if kernel.insert(Table::Proven, &work.reply_key, &work.reply) != Inserted::Done {
        return;
    }
    if kernel.insert(Table::Proven, &work.tuple, &work.original) != Inserted::Done {
        kernel.remove(Table::Proven, &work.reply_key);
        return;
    }
    kernel.withdraw(work);
}
