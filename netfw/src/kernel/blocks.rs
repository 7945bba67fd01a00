//! The lists of blocked prefixes that slots lead to.

use anyhow::Result;
use aya_obj::generated::bpf_map_type;
use netfw_common::{
    block::{Layout, Page},
    image::SLOTS,
};

use super::{
    install::INNER_MAP,
    maps::{Array, Maps},
    pages::lay_out,
    table::{ANY, Table},
};
use crate::image::Image;

/// `BPF_F_MMAPABLE`: see the datapath's definition.
const MMAPABLE: u32 = 0x400;

/// Pages of a list without prefixes: an array of none cannot be made.
const EMPTY: u32 = 1;

impl Maps {
    /// The kernel's number of the map that holds a slot's blocked prefixes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn block_list(&self, slot: u32) -> Result<Option<u32>> {
        Ok(self.blocks.get(&slot)?)
    }

    /// The list of an image and how it is laid out. Slots share one that is the same: a million prefixes take megabytes, and
    /// tens of milliseconds.
    pub(super) fn blocks_of(&self, image: &Image) -> Result<(Array<Page>, Layout)> {
        for other in 0..SLOTS {
            let policy = self.policies.get(&other)?.unwrap_or_default();
            if policy.block_digest == image.policy.block_digest
                && let Some(list) = self.block_list(other)?
            {
                return Ok((Array::numbered(list)?, policy.block_layout));
            }
        }
        let (layout, pages) = lay_out(&image.blocks)?;
        Ok((list(&pages)?, layout))
    }

    /// An idle slot gives its list up, unless it is the one that is wanted. First its digest: whoever is killed in between
    /// leaves no slot whose list is taken for another.
    pub(super) fn forget_unequal_blocks(&self, slot: u32, wanted: &[u32; 8]) -> Result<()> {
        let mut policy = self.policies.get(&slot)?.unwrap_or_default();
        if policy.block_digest == *wanted {
            return Ok(());
        }
        policy.block_digest = [0; 8];
        self.policies.set(&slot, policy, ANY)?;
        // To put another list there takes the kernel a grace period.
        match self.block_list(slot)? {
            Some(number) if Array::<Page>::numbered(number)?.capacity() > EMPTY => {
                Ok(self.blocks.set(&slot, list(&[])?.descriptor(), ANY)?)
            }
            _ => Ok(()),
        }
    }
}

fn list(pages: &[Page]) -> Result<Array<Page>> {
    let entries = (pages.len() as u32).max(EMPTY);
    let list = Table::create(bpf_map_type::BPF_MAP_TYPE_ARRAY, "blocks", entries, INNER_MAP | MMAPABLE)?;
    list.write_through(0, pages)?;
    Ok(list)
}
