//! The lists of blocked prefixes that slots lead to.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use aya_obj::generated::bpf_map_type;
use ipnet::IpNet;
use netfw_common::{
    block::{Layout, Page},
    image::{Policy, SLOTS},
};

use super::{
    install::INNER_MAP,
    maps::{Array, Maps},
    pages::{Pages, lay_out, patch},
    table::{ANY, Table},
};
use crate::image::Image;

/// `BPF_F_MMAPABLE`: see the datapath's definition.
const MMAPABLE: u32 = 0x400;

/// Pages of a list without prefixes: an array of none cannot be made.
const EMPTY: u32 = 1;

/// Digest of a list that no packet will ask any more.
const FORGOTTEN: [u32; 8] = [0; 8];

/// A list that a slot has, and its digest, by which it is found there.
struct Known {
    digest: [u32; 8],
    prefixes: Arc<Vec<IpNet>>,
}

/// The list that this process has written last: one that differs little can be made of it.
static LAST: Mutex<Option<Known>> = Mutex::new(None);

impl Maps {
    /// The kernel's number of the map that holds a slot's blocked prefixes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn block_list(&self, slot: u32) -> Result<Option<u32>> {
        Ok(self.blocks.get(&slot)?)
    }

    /// The list of an image, for a slot that no packet uses, and how it is laid out. Slots share one that is the same, and the pages
    /// of one that is nearly the same: a million prefixes take megabytes, and tens of milliseconds.
    pub(super) fn blocks_of(&self, image: &Image, slot: u32) -> Result<(Array<Page>, Layout)> {
        let digest = image.policy.block_digest;
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let list = if let Some((number, layout)) = self.with_list(&digest)? {
            (Array::numbered(number)?, layout)
        } else if let Some(known) = &*last
            && let Some((number, layout)) = self.with_list(&known.digest)?
            && let Some(list) = self.patched(slot, number, layout, [&known.prefixes, &image.blocks])?
        {
            list
        } else {
            let laid_out = lay_out(&image.blocks)?;
            (list(&laid_out)?, laid_out.layout)
        };
        *last = Some(Known { digest, prefixes: Arc::clone(&image.blocks) });
        Ok(list)
    }

    /// The number of a list with this digest, and how it is laid out.
    fn with_list(&self, digest: &[u32; 8]) -> Result<Option<(u32, Layout)>> {
        for slot in 0..SLOTS {
            let policy = self.head(slot)?;
            if policy.block_digest == *digest
                && let Some(list) = self.block_list(slot)?
            {
                return Ok(Some((list, policy.block_layout)));
            }
        }
        Ok(None)
    }

    fn head(&self, slot: u32) -> Result<Policy> {
        Ok(self.policies.get(&slot)?.unwrap_or_default())
    }

    /// A list made in the pages of the one with this number.
    fn patched(
        &self,
        slot: u32,
        number: u32,
        layout: Layout,
        lists: [&[IpNet]; 2],
    ) -> Result<Option<(Array<Page>, Layout)>> {
        let mut kept = Vec::new();
        for other in (0..SLOTS).filter(|other| *other != slot) {
            let policy = self.head(other)?;
            if policy.block_digest != FORGOTTEN && self.block_list(other)? == Some(number) {
                kept.push(policy.block_layout);
            }
        }
        let pages = Array::numbered(number)?;
        let layout = patch(pages.memory()?.words(), layout, &kept, lists);
        Ok(layout.map(|layout| (pages, layout)))
    }

    /// A slot that no packet uses gives its list up, unless it is the one that is wanted. First its digest: whoever is killed in
    /// between leaves no slot whose list is taken for another, or a list whose root is written over. What lies in pages that
    /// stay anyway, being those of a slot that is used, takes no memory.
    pub(super) fn forget_unequal_blocks(&self, slot: u32, wanted: &[u32; 8], used: &[u32]) -> Result<()> {
        let mut policy = self.head(slot)?;
        if policy.block_digest == *wanted {
            return Ok(());
        }
        policy.block_digest = FORGOTTEN;
        self.policies.set(&slot, policy, ANY)?;
        let Some(number) = self.block_list(slot)? else { return Ok(()) };
        for used in used {
            if self.block_list(*used)? == Some(number) {
                return Ok(());
            }
        }
        if Array::<Page>::numbered(number)?.capacity() > EMPTY {
            // To put another list there takes the kernel a grace period.
            self.blocks.set(&slot, array(EMPTY)?.descriptor(), ANY)?;
        }
        Ok(())
    }
}

fn list(list: &Pages) -> Result<Array<Page>> {
    let array = array(list.pages.len() as u32 + list.room)?;
    array.write_through(0, &list.pages)?;
    Ok(array)
}

fn array(pages: u32) -> Result<Array<Page>> {
    Table::create(bpf_map_type::BPF_MAP_TYPE_ARRAY, "blocks", pages, INNER_MAP | MMAPABLE)
}
