//! The table of proven IPv4 flows ([`netfw_common::slots`]) in its map.

use core::ptr;

use netfw_common::{
    family::Addr4,
    flow::Flow,
    slots::{self, Look, NONE, Slot, Slots},
    tuple::Tuple,
};

use super::maps::{HOMES, PROVEN4, SEED};

/// The home of a key.
#[inline(always)]
pub(super) fn home(key: &Tuple<Addr4>) -> u32 {
    slots::home(key, SEED.load(), HOMES.load())
}

/// Where the entry of a flow lies.
#[inline(always)]
pub(super) fn entry(key: &Tuple<Addr4>) -> Option<*mut Flow<Addr4>> {
    // SAFETY: inside the slot.
    slots::find(&Proven4, home(key), key).map(|Place(slot)| unsafe { &raw mut (*slot).flow })
}

/// The slots of the map.
pub(super) struct Proven4;

impl Slots for Proven4 {
    type Slot = Place;

    #[inline(always)]
    fn homes(&self) -> u32 {
        HOMES.load()
    }

    #[inline(always)]
    fn at(&self, number: u32) -> Option<Place> {
        PROVEN4.get_ptr_mut(number).map(Place)
    }

    #[inline(always)]
    fn away(&self, home: u32, except: u32, key: &Tuple<Addr4>) -> Option<u32> {
        some(away(key, home, except))
    }
}

/// What a global function has found.
#[inline(always)]
pub(super) fn some(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}

/// [`slots::away`] as a global BPF function: the slot, or [`NONE`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn away(key: *const Tuple<Addr4>, home: u32, except: u32) -> u32 {
    // SAFETY: the caller's reference.
    let Some(key) = (unsafe { key.as_ref() }) else { return NONE };
    slots::away(&Proven4, home, except, key).unwrap_or(NONE)
}

/// Where a slot lies.
#[derive(Clone, Copy)]
pub(super) struct Place(pub(super) *mut Slot);

impl Look for Place {
    #[inline(always)]
    fn homed(self) -> u64 {
        // SAFETY: an aligned word of a map. Volatile, as others change it.
        unsafe { ptr::read_volatile(&raw const (*self.0).homed) }
    }

    #[inline(always)]
    fn overflowed(self) -> bool {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(&raw const (*self.0).overflowed) != 0 }
    }

    #[inline(always)]
    fn state(self) -> u32 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(&raw const (*self.0).state) }
    }

    #[inline(always)]
    fn has_key(self, key: &Tuple<Addr4>) -> bool {
        // SAFETY: a value of a map; what is written meanwhile is some other key.
        unsafe { (*self.0).key == *key }
    }
}
