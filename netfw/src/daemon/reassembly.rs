//! Fragments that come out of order go through a network namespace of their own, where the kernel sorts them. Where it
//! cannot, they are dropped for a reason of their own.

use anyhow::Result;
use nix::net::if_::if_indextoname;

use super::{
    controller::Controller,
    host::{Host, reassembly},
    instance::Instance,
    state::State,
};
use crate::kernel::{self, Port};

impl Controller {
    /// Sets the reassembly up, or puts the programs that were just loaded in front of one that is there.
    pub(super) async fn set_up_reassembly(&mut self) {
        if let Err(error) = self.reassemble().await {
            tracing::info!("fragments that come out of order are dropped: {error:#}");
        }
    }

    /// Sets it up again if somebody has removed its interface.
    pub(super) async fn repair_reassembly(&mut self, host: &Host) {
        let index = self.state.reassembler;
        if index != 0 && host.links.iter().all(|link| link.index != index) {
            self.set_up_reassembly().await;
        }
    }

    async fn reassemble(&mut self) -> Result<()> {
        if !reassembly::is_there(self.state.reassembler) {
            self.state.reassembler = 0;
            self.maps.set_reassembler(0)?;
            let pins = self.instance.pins();
            pins.remove_reassembly()?;
            self.state.reassembler = reassembly::build(move || kernel::reassemble_here(&pins)).await?;
        }
        let index = self.state.reassembler;
        let name = if_indextoname(index)?;
        self.programs.attach_classifiers(Port { name: &name.to_string_lossy(), index })?;
        self.maps.set_reassembler(index)
    }
}

/// Removes what leads to the reassembly of an instance.
pub(super) async fn dismantle(instance: &Instance, state: &State) {
    if reassembly::is_there(state.reassembler)
        && let Err(error) = reassembly::remove(state.reassembler).await
    {
        tracing::warn!("cannot remove the interface of the reassembly of instance {instance}: {error:#}");
    }
}
