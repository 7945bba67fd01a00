//! What the datapath knows of interfaces and local addresses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
};

use anyhow::Result;
use netfw_common::{
    family::{Address, addr4, addr6},
    interface::{Interface, MAX_INTERFACES, XDP_TRANSMIT},
    shared::Shared,
};

use super::{
    install::wait_for_readers,
    maps::Maps,
    table::{ANY, Table},
};

impl Maps {
    /// Tells the datapath about the managed interfaces, by slot; all others are not managed any more. XDP sends out of those
    /// that transmit; of others it has ceased to when this returns.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_interfaces(&self, wanted: &BTreeMap<u32, Interface>) -> Result<()> {
        let transmitting = wanted.values().filter(|interface| interface.transmits());
        let devices: BTreeSet<u32> = transmitting.map(|interface| interface.ifindex).collect();
        devices.iter().try_for_each(|&device| self.add_device(device))?;
        let mut silenced = Vec::new();
        for slot in 1..MAX_INTERFACES as u32 {
            let old = self.interfaces.get(&slot)?.unwrap_or_default();
            let new = wanted.get(&slot).copied().unwrap_or_default();
            if new == old {
                continue;
            }
            if old.transmits() && !devices.contains(&old.ifindex) {
                silenced.push(old.ifindex);
            }
            if old.ifindex != 0 && old.ifindex != new.ifindex {
                self.ifindexes.set(&old.ifindex, 0, ANY)?;
            }
            self.interfaces.set(&slot, new, ANY)?;
        }
        for (slot, interface) in wanted.iter().filter(|(_, interface)| interface.ifindex != 0) {
            self.ifindexes.set(&interface.ifindex, *slot, ANY)?;
        }
        self.remove_devices(&silenced)
    }

    /// Interfaces out of which XDP sends frames, by kernel index.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn transmitters(&self) -> Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for slot in 1..MAX_INTERFACES as u32 {
            let interface = self.interfaces.get(&slot)?.unwrap_or_default();
            found.extend(interface.transmits().then_some(interface.ifindex));
        }
        Ok(found)
    }

    /// Has XDP leave to TC what would go out of an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn leave_to_tc(&self, ifindex: u32) -> Result<()> {
        let slot = self.ifindexes.get(&ifindex)?.unwrap_or_default();
        let mut interface = self.interfaces.get(&slot)?.unwrap_or_default();
        if slot == 0 || !interface.transmits() {
            return Ok(());
        }
        interface.flags &= !XDP_TRANSMIT;
        self.interfaces.set(&slot, interface, ANY)?;
        self.remove_devices(&[ifindex])
    }

    /// Lets XDP send frames out of a device.
    fn add_device(&self, ifindex: u32) -> Result<()> {
        // No program for frames that leave.
        let device = [ifindex, 0];
        if self.devices.get(&ifindex)? != Some(device) {
            // Only where it is not there: the kernel takes an entry out before it puts the same one in again
            // (`__dev_map_hash_update_elem`), and a frame that looks for it in between is lost.
            self.devices.set(&ifindex, device, ANY)?;
        }
        Ok(())
    }

    /// No longer; returns once the packets that are on their way there are gone.
    fn remove_devices(&self, devices: &[u32]) -> Result<()> {
        for device in devices {
            self.devices.remove(device)?;
        }
        if !devices.is_empty() {
            wait_for_readers();
        }
        Ok(())
    }

    /// Whether the datapath takes an address for the host's.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        let absent = match address {
            IpAddr::V4(address) => matches!(self.locals4.get(&addr4(address)), Ok(None)),
            IpAddr::V6(address) => matches!(self.locals6.get(&addr6(address)), Ok(None)),
        };
        !absent
    }

    /// Tells the datapath of addresses that are the host's own, and where they belong
    /// ([`netfw_common::interface::LOCAL_EXTERNAL`] or [`netfw_common::interface::LOCAL_OTHER`]).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_locals(&self, addresses: &HashMap<IpAddr, u32>) -> Result<()> {
        for (&address, &owner) in addresses {
            match address {
                IpAddr::V4(address) => self.locals4.set(&addr4(address), owner, ANY)?,
                IpAddr::V6(address) => self.locals6.set(&addr6(address), owner, ANY)?,
            }
        }
        Ok(())
    }

    /// All other addresses are not the host's own. Says which ones were.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_other_locals(&self, addresses: &HashMap<IpAddr, u32>) -> Result<Vec<IpAddr>> {
        let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
        for &address in addresses.keys() {
            match address {
                IpAddr::V4(address) => v4.insert(addr4(address)),
                IpAddr::V6(address) => v6.insert(addr6(address)),
            };
        }
        let gone4 = remove_others(&self.locals4, &v4)?;
        let gone6 = remove_others(&self.locals6, &v6)?;
        Ok(gone4
            .iter()
            .map(|address| address.to_ip())
            .chain(gone6.iter().map(|address| address.to_ip()))
            .collect())
    }
}

/// Removes all keys but those to keep. Returns what was removed.
fn remove_others<K: Shared + Eq + Hash>(table: &Table<K, u32>, keep: &HashSet<K>) -> Result<Vec<K>> {
    let present = table.entries()?.into_iter().map(|(key, _)| key);
    let gone: Vec<K> = present.filter(|key| !keep.contains(key)).collect();
    for key in &gone {
        table.remove(key)?;
    }
    Ok(gone)
}
