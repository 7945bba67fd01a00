//! Later fragments find their ports through the first one.

use netfw_common::{family::Family, reason::Reason};

use super::{
    Step,
    kernel::Kernel,
    work::{self, Work},
};

/// Gives a later fragment the ports of its packet.
#[inline(always)]
pub fn ports<F: Family, K: Kernel<F>>(kernel: &K, work: &mut Work<F>) -> Step {
    if work.fragment != work::LATER {
        return Ok(());
    }
    let Some([source, destination]) = kernel.recall_ports(&work.tuple, work.identification) else {
        return work.drop(Reason::FragmentBeforeFirst);
    };
    work.tuple.source_port = source;
    work.tuple.destination_port = destination;
    work.detail = u32::from(destination);
    Ok(())
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
    let ports = [work.tuple.source_port, work.tuple.destination_port];
    kernel.remember_ports(&work.reply_key, work.identification, ports);
}
