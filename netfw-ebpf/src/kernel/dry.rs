//! [`Traces`] that keep nothing: what a dry run has in the place of [`super::traces`]. Where the pipeline changes an entry it gets a
//! copy; what it inserts is believed, because it looks for whoever holds a key before.

use core::ops::{Deref, DerefMut};

use aya_ebpf::{macros::map, maps::Array};
use netfw_common::{
    counters::{Count, InterfaceCount, TranslationCount},
    event::Event,
    explain::{Account, Note},
    family::Addr6,
    flow::Flow,
    fragment::{Held, Ports},
    mapping::Mapping,
    reason::Reason,
    tick::Tick,
    tuple::Tuple,
};

use super::{
    live::{Live, flow_entry},
    maps::Maps,
};
use crate::datapath::{
    Verdict, explain,
    kernel::{BucketKey, Inserted, Ring, Table},
    traces::Traces,
    work::Work,
};

/// What the run tells.
#[map]
static ACCOUNT: Array<Account> = Array::with_max_entries(1, 0);

type Room = [u64; 24];
const _: () = assert!(
    size_of::<Room>() >= size_of::<Flow<Addr6>>() && size_of::<Room>() >= size_of::<Mapping<Addr6>>()
);
/// Copies of what the pipeline changes: of a flow, a mapping, held fragments.
#[map]
static COPIES: Array<Room> = Array::with_max_entries(3, 0);
const FLOW: u32 = 0;
const MAPPING: u32 = 1;
const HELD: u32 = 2;

/// An entry of a map that stays as it is: the first change makes a copy of it.
pub struct Kept<T: 'static> {
    entry: *mut T,
    copy: *mut T,
    changed: bool,
}

impl<T> Kept<T> {
    #[inline(always)]
    fn new(entry: *mut T, copy: u32) -> Option<Self> {
        Some(Self { entry, copy: COPIES.get_ptr_mut(copy)?.cast(), changed: false })
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: see the module's documentation.
        unsafe { &*self.entry }
    }
}

impl<T: Copy> DerefMut for Kept<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: there is room for either kind; this run alone has the copies.
        unsafe {
            if !self.changed {
                *self.copy = *self.entry;
                self.entry = self.copy;
                self.changed = true;
            }
            &mut *self.entry
        }
    }
}

impl<F: Maps> Traces<F> for Live {
    type Entry = Kept<Flow<F::Addr>>;
    type Half = Kept<Mapping<F::Addr>>;

    #[inline(always)]
    fn flow(&self, table: Table, key: &Tuple<F::Addr>) -> Option<Self::Entry> {
        Kept::new(flow_entry::<F>(table, key)?, FLOW)
    }

    #[inline(always)]
    fn insert(&self, _: Table, _: &Tuple<F::Addr>, _: &Flow<F::Addr>) -> Inserted {
        Inserted::Done
    }

    #[inline(always)]
    fn remove(&self, _: Table, _: &Tuple<F::Addr>) {}

    /// A dry run comes in no train. (And its programs have no stack left for the look.)
    #[inline(always)]
    fn follows_stranger(&self, _: &Work<F>) -> bool {
        false
    }

    #[inline(always)]
    fn mapping(&self, key: &Tuple<F::Addr>) -> Option<Self::Half> {
        Kept::new(F::mappings().get_ptr_mut(key)?, MAPPING)
    }

    #[inline(always)]
    fn insert_mapping(&self, _: &Tuple<F::Addr>, _: &Mapping<F::Addr>) -> Inserted {
        Inserted::Done
    }

    #[inline(always)]
    fn remove_mapping(&self, _: &Tuple<F::Addr>) {}

    #[inline(always)]
    fn next_place(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn take_place(&self, _: u32, _: &Tuple<F::Addr>) {}

    #[inline(always)]
    fn remember_ports(&self, _: &Tuple<F::Addr>, _: u32, _: Ports) {}

    /// Into a copy: what the compiler makes of an entry that nobody wants, it takes apart in a way that the verifier refuses.
    #[inline(always)]
    fn hold(&self, _: u32, held: &Held) {
        if let Some(copy) = COPIES.get_ptr_mut(HELD) {
            // SAFETY: there is room for it; this run alone has the copies.
            unsafe { *copy.cast() = *held };
        }
    }

    #[inline(always)]
    fn take_turn(&self, _: u32) {}

    #[inline(always)]
    fn count_opening(&self, _: Tick) {}

    #[inline(always)]
    fn vouch(&self, _: F::Addr, _: Tick) {}

    #[inline(always)]
    fn exchange_bucket(&self, _: &BucketKey<F::Addr>, _: u64, _: u64) -> bool {
        true
    }

    #[inline(always)]
    fn may_tell(&self, _: Tick) -> bool {
        // That too many were sent this moment, on this core, says nothing of the packet.
        true
    }

    #[inline(always)]
    fn begin_handshake(&self, _: u32, _: u32) {}

    #[inline(always)]
    fn complete_handshake(&self, _: u32, _: u32, _: u32) {}

    #[inline(always)]
    fn end_watch(&self) {}

    #[inline(always)]
    fn exchange_channel(&self, _: u32, _: u64, _: u64) -> bool {
        true
    }

    #[inline(always)]
    fn emit(&self, _: Ring, _: &Event) -> bool {
        true
    }

    #[inline(always)]
    fn count_left_out(&self, _: u32) {}

    #[inline(always)]
    fn count_interface(&self, _: u32, _: impl FnOnce(&mut InterfaceCount) -> &mut Count, _: Count) {}

    #[inline(always)]
    fn count_drop(&self, _: Reason, _: Count) {}

    #[inline(always)]
    fn count_rule(&self, _: u32, _: Count) {}

    #[inline(always)]
    fn count_translation(&self, _: u32, _: impl FnOnce(&mut TranslationCount)) {}

    #[inline(always)]
    fn note(&self, note: Note, value: u32) {
        if let Some(account) = ACCOUNT.get_ptr_mut(0) {
            // SAFETY: this run alone has the account.
            unsafe { (*account).notes[note as usize] = value + 1 };
        }
    }

    #[inline(always)]
    fn conclude(&self, work: &Work<F>, verdict: Verdict) {
        if let Some(account) = ACCOUNT.get_ptr_mut(0) {
            // SAFETY: as above.
            explain::conclude(work, verdict, unsafe { &mut *account });
        }
    }
}
