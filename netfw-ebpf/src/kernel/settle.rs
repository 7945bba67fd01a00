//! Changes to the table of proven IPv4 flows, as global BPF functions: those in [`super::parts`] say why.

use core::{
    intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_or},
    ptr,
};

use netfw_common::{
    family::{Addr4, Addr6, Family, Ipv4, Ipv6},
    flow::Flow,
    slots::{self, Change, Inserted, NONE, SlotsMut},
    tick::Tick,
    tuple::Tuple,
};

use super::{
    live::{inserted, now},
    maps::{PROVEN6, USED4},
    slots::{Place, Proven4, home, some},
    traces::{BPF_NOEXIST, entered},
};

const SEQUENTIAL: AtomicOrdering = AtomicOrdering::SeqCst;

impl Change for Place {
    #[inline(always)]
    fn mark(self, bits: u64) {
        // SAFETY: an aligned word of a map.
        unsafe { atomic_or::<u64, u64, SEQUENTIAL>(&raw mut (*self.0).homed, bits) };
    }

    #[inline(always)]
    fn unmark(self, bits: u64) {
        // SAFETY: as above.
        unsafe { atomic_and::<u64, u64, SEQUENTIAL>(&raw mut (*self.0).homed, !bits) };
    }

    #[inline(always)]
    fn overflow(self) {
        // SAFETY: as above; all write the same.
        unsafe { ptr::write_volatile(&raw mut (*self.0).overflowed, 1) };
    }

    #[inline(always)]
    fn change(self, from: u32, to: u32) -> bool {
        // SAFETY: as above.
        unsafe { atomic_cxchg::<u32, SEQUENTIAL, SEQUENTIAL>(&raw mut (*self.0).state, from, to).1 }
    }

    #[inline(always)]
    fn fill(self, key: &Tuple<Addr4>, flow: &Flow<Addr4>) {
        // SAFETY: a slot that is busy is for this core alone.
        unsafe {
            (*self.0).key = *key;
            (*self.0).flow = *flow;
        }
    }
}

impl SlotsMut for Proven4 {
    #[inline(always)]
    fn claim(&self, home: u32, now: Tick) -> Option<u32> {
        some(claim(home, now.0))
    }

    #[inline(always)]
    fn occupy(&self, number: u32) {
        let (word, bit) = slots::place(number);
        if let Some(word) = USED4.get_ptr_mut(word) {
            // SAFETY: as above.
            unsafe { atomic_or::<u64, u64, SEQUENTIAL>(word, bit) };
        }
    }

    #[inline(always)]
    fn vacate(&self, number: u32) {
        let (word, bit) = slots::place(number);
        if let Some(word) = USED4.get_ptr_mut(word) {
            // SAFETY: as above.
            unsafe { atomic_and::<u64, u64, SEQUENTIAL>(word, !bit) };
        }
    }
}

/// How flows become proven, and cease to be.
pub trait Settle: Family {
    /// Enters a direction, whose key must not exist.
    fn enter(key: &Tuple<Self::Addr>, flow: &Flow<Self::Addr>) -> Inserted;
    /// Removes it. That somebody else has done so is as good.
    fn leave(key: &Tuple<Self::Addr>);
}

impl Settle for Ipv4 {
    #[inline(always)]
    fn enter(key: &Tuple<Addr4>, flow: &Flow<Addr4>) -> Inserted {
        inserted(enter_proven(key, flow))
    }

    #[inline(always)]
    fn leave(key: &Tuple<Addr4>) {
        leave_proven(key);
    }
}

impl Settle for Ipv6 {
    #[inline(always)]
    fn enter(key: &Tuple<Addr6>, flow: &Flow<Addr6>) -> Inserted {
        entered(PROVEN6.insert(key, flow, BPF_NOEXIST))
    }

    #[inline(always)]
    fn leave(key: &Tuple<Addr6>) {
        let _ = PROVEN6.remove(key);
    }
}

/// [`slots::claim`]: the slot, or [`NONE`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim(home: u32, now: u32) -> u32 {
    slots::claim(&Proven4, home, Tick(now)).unwrap_or(NONE)
}

/// [`slots::enter`]: an [`Inserted`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enter_proven(key: *const Tuple<Addr4>, flow: *const Flow<Addr4>) -> u32 {
    // SAFETY: the caller's references.
    let (Some(key), Some(flow)) = (unsafe { (key.as_ref(), flow.as_ref()) }) else {
        return Inserted::Full as u32;
    };
    slots::enter(&Proven4, home(key), key, flow, now()) as u32
}

/// [`slots::remove`]: whether it was there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn leave_proven(key: *const Tuple<Addr4>) -> u32 {
    // SAFETY: the caller's reference.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    u32::from(slots::remove(&Proven4, home(key), key, now()))
}
