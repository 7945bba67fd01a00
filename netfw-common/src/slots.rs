//! The table of proven IPv4 flows: an array in which a key lies in one of the slots from its home on, and the home says in which of them
//! keys of its own lie (hopscotch hashing, Herlihy, Shavit and Tzafrir 2008, without moving anybody).
//!
//! A hash of the kernel's waits for memory twice, for the bucket and for the entry that it names; here the home mostly is the entry.
//! Nobody waits for anybody: programs on all cores and user space change slots at the same time, each by one exchange of the slot's
//! state. What was removed stays as it was until the tick after the next ([`is_free`]), so whoever has found a slot may go on with it
//! as long as a packet takes.
//!
//! All of it is there from the start, so only the family of nearly all flows has one.

use crate::{
    family::{Addr4, Address as _},
    flow::Flow,
    shared::shared,
    tick::Tick,
    tuple::Tuple,
};

/// Slots in which a key may lie. When seven tenths are in use, which is all that [`homes`] asks for, one key of ten thousand finds no room in them
/// and takes one of as many elsewhere ([`second`]).
pub const WINDOW: u32 = u64::BITS;

/// A slot: two lines of the cache.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Slot {
    /// Bit n: the slot n behind this one has a key whose home is here.
    pub homed: u64,
    /// [`LIVE`], [`BUSY`], or since when it is free.
    pub state: u32,
    /// Not 0: some key, whose home this is, had to take a slot from the [`second`] home on. Stays so.
    pub overflowed: u32,
    /// By what it is found.
    pub key: Tuple<Addr4>,
    /// What is found.
    pub flow: Flow<Addr4>,
}

shared! {
    Slot { homed, state, overflowed, key, flow }
}

/// In use.
pub const LIVE: u32 = 1;
/// Being entered or removed: for its owner alone.
pub const BUSY: u32 = 2;
/// Free since the tick in the other bits; a slot that was never used is 0.
const LEFT: u32 = 3;
/// Bits of the state that say which of these it is.
const KIND_BITS: u32 = 2;

/// No slot.
pub const NONE: u32 = u32::MAX;

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[must_use]
pub enum Inserted {
    /// It is in.
    Done,
    /// The key was there already, or somebody else is entering it; nothing changed.
    Exists,
    /// No room; nothing changed.
    Full,
}

/// A slot where it lies, for whoever looks.
pub trait Look: Copy {
    /// In which slots keys lie whose home this is: a bit each, the lowest for the home itself.
    fn homed(self) -> u64;
    /// Whether [`Slot::overflowed`].
    fn overflowed(self) -> bool;
    /// Its state.
    fn state(self) -> u32;
    /// Whether this is the key in it.
    fn has_key(self, key: &Tuple<Addr4>) -> bool;

    /// Whether it is the key's.
    #[inline(always)]
    fn is(self, key: &Tuple<Addr4>) -> bool {
        self.state() == LIVE && self.has_key(key)
    }
}

/// The same for whoever changes it.
pub trait Change: Look {
    /// Sets bits of [`Look::homed`], atomically.
    fn mark(self, bits: u64);
    /// Clears bits of that, atomically.
    fn unmark(self, bits: u64);
    /// Sets [`Slot::overflowed`].
    fn overflow(self);
    /// Changes the state if it is `from`; all that was written before is seen by whoever sees the change.
    fn change(self, from: u32, to: u32) -> bool;
    /// Writes key and flow.
    fn fill(self, key: &Tuple<Addr4>, flow: &Flow<Addr4>);
}

/// The slots of a table, as programs or user space reach them.
pub trait Slots {
    /// One of them.
    type Slot: Look;

    /// How many homes there are.
    fn homes(&self) -> u32;
    /// The one with this number; behind the end there is none.
    fn at(&self, number: u32) -> Option<Self::Slot>;
    /// [`away`], which the verifier is to check once.
    fn away(&self, home: u32, except: u32, key: &Tuple<Addr4>) -> Option<u32>;
}

/// The same for whoever enters and removes keys.
pub trait SlotsMut: Slots<Slot: Change> {
    /// [`claim`], which the verifier is to check once.
    fn claim(&self, home: u32, now: Tick) -> Option<u32>;
    /// Sets the bit of a slot, atomically: where few are in use, whoever looks at all of them finds them by their bits, and reads no others. The slot must
    /// be [`BUSY`], so that nobody else changes its bit.
    fn occupy(&self, number: u32);
    /// Clears that bit, in the same way.
    fn vacate(&self, number: u32);
}

/// Homes for so many keys: two fifths more.
pub const fn homes(keys: u32) -> u32 {
    keys.saturating_add(keys / 5 * 2).saturating_add(1)
}

/// Words of 64 bits that hold the bits of so many slots.
pub const fn words(slots: u32) -> u32 {
    slots.div_ceil(u64::BITS)
}

/// Where the bit of a slot is: the word, and the bit in it.
#[inline(always)]
pub const fn place(number: u32) -> (u32, u64) {
    (number / u64::BITS, 1 << (number % u64::BITS))
}

/// Slots of a table with so many homes: the window of the last one must end somewhere.
pub const fn slots(homes: u32) -> u32 {
    homes.saturating_add(WINDOW - 1)
}

/// The reverse of [`slots`].
pub const fn homes_of(slots: u32) -> u32 {
    slots.saturating_sub(WINDOW - 1)
}

/// The home of a key in a table of so many; `seed` is known to nobody outside. Whoever still finds keys that share a home fills one window.
#[inline(always)]
pub fn home(key: &Tuple<Addr4>, seed: u64, homes: u32) -> u32 {
    let addresses = u64::from(key.source.fold()) << 32 | u64::from(key.destination.fold());
    let ports = u64::from(key.source_port) << 16 | u64::from(key.destination_port);
    let mixed =
        (mix(addresses ^ seed) ^ ports ^ u64::from(key.protocol) << 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (((mix(mixed) >> 32) * u64::from(homes)) >> 32) as u32
}

/// Half of a round of SplitMix64 (Steele, Lea and Flood 2014).
#[inline(always)]
fn mix(word: u64) -> u64 {
    (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where a key lies that has found no room from its home on: as if this were its home.
#[inline(always)]
fn second(home: u32, homes: u32) -> u32 {
    let far = home + homes / 2;
    if far < homes { far } else { far - homes }
}

/// The slot of a key: mostly its home.
#[inline(always)]
pub fn find<S: Slots>(slots: &S, home: u32, key: &Tuple<Addr4>) -> Option<S::Slot> {
    let at_home = slots.at(home)?;
    if at_home.is(key) {
        return Some(at_home);
    }
    if at_home.homed() & !1 == 0 && !at_home.overflowed() {
        return None;
    }
    slots.at(slots.away(home, NONE, key)?)
}

/// The number of the slot of a key, wherever it lies, but not `except`.
#[inline(always)]
pub fn away<S: Slots>(slots: &S, home: u32, except: u32, key: &Tuple<Addr4>) -> Option<u32> {
    let found = among(slots, home, except, key);
    if found.is_some() || !slots.at(home)?.overflowed() {
        return found;
    }
    among(slots, second(home, slots.homes()), except, key)
}

/// The same in one window.
#[inline(always)]
fn among<S: Slots>(slots: &S, home: u32, except: u32, key: &Tuple<Addr4>) -> Option<u32> {
    let mut left = slots.at(home)?.homed();
    for number in home..home + WINDOW {
        if left & 1 != 0 && number != except && slots.at(number)?.is(key) {
            return Some(number);
        }
        left >>= 1;
        if left == 0 {
            break;
        }
    }
    None
}

/// Enters a key that must not be there. Of two who enter the same one at the same time at most one succeeds: each looks for the other when his
/// own can be seen.
#[inline(always)]
pub fn enter<S>(slots: &S, home: u32, key: &Tuple<Addr4>, flow: &Flow<Addr4>, now: Tick) -> Inserted
where
    S: SlotsMut,
{
    if slots.away(home, NONE, key).is_some() {
        return Inserted::Exists;
    }
    let Some((owner, number)) = room(slots, home, now) else { return Inserted::Full };
    let (Some(at_home), Some(slot)) = (slots.at(owner), slots.at(number)) else { return Inserted::Full };
    slots.occupy(number);
    slot.fill(key, flow);
    at_home.mark(bit(owner, number));
    slot.change(BUSY, LIVE);
    if slots.away(home, number, key).is_none() {
        return Inserted::Done;
    }
    leave(slots, owner, number, key, now);
    Inserted::Exists
}

/// Takes a free slot for a key of this home: whose home it is then, and its number.
#[inline(always)]
fn room<S: SlotsMut>(slots: &S, home: u32, now: Tick) -> Option<(u32, u32)> {
    if let Some(number) = slots.claim(home, now) {
        return Some((home, number));
    }
    // First of all: whoever enters the same key must know where to look for this one.
    slots.at(home)?.overflow();
    let second = second(home, slots.homes());
    slots.claim(second, now).map(|number| (second, number))
}

/// That of a slot in [`Slot::homed`] of its home.
#[inline(always)]
fn bit(home: u32, number: u32) -> u64 {
    1 << (number.wrapping_sub(home) % WINDOW)
}

/// Takes the first free slot of a window; gives its number.
#[inline(always)]
pub fn claim<S>(slots: &S, home: u32, now: Tick) -> Option<u32>
where
    S: Slots<Slot: Change>,
{
    for number in home..home + WINDOW {
        let slot = slots.at(number)?;
        let state = slot.state();
        if is_free(state, now) && slot.change(state, BUSY) {
            return Some(number);
        }
    }
    None
}

/// Whether a slot in this state may be taken: whoever found it when it was live is done with it.
#[inline(always)]
fn is_free(state: u32, now: Tick) -> bool {
    state == 0 || (state & LEFT == LEFT && state != left(now) && state != left(Tick(now.0.wrapping_sub(1))))
}

/// The state of a slot that is left now.
#[inline(always)]
const fn left(now: Tick) -> u32 {
    now.0 << KIND_BITS | LEFT
}

/// Removes a key, if it is there.
#[inline(always)]
pub fn remove<S: SlotsMut>(slots: &S, home: u32, key: &Tuple<Addr4>, now: Tick) -> bool {
    let Some(number) = slots.away(home, NONE, key) else { return false };
    let is_home = number.wrapping_sub(home) < WINDOW
        && slots.at(home).is_some_and(|slot| slot.homed() & bit(home, number) != 0);
    let owner = if is_home { home } else { second(home, slots.homes()) };
    leave(slots, owner, number, key, now)
}

/// Frees the slot of a key. Whoever comes late, in user space, may meet another key there, which stays.
#[inline(always)]
fn leave<S: SlotsMut>(slots: &S, owner: u32, number: u32, key: &Tuple<Addr4>, now: Tick) -> bool {
    let (Some(at_home), Some(slot)) = (slots.at(owner), slots.at(number)) else { return false };
    if !slot.change(LIVE, BUSY) {
        return false;
    }
    let is_ours = slot.has_key(key);
    if is_ours {
        at_home.unmark(bit(owner, number));
        slots.vacate(number);
    }
    slot.change(BUSY, if is_ours { left(now) } else { LIVE });
    is_ours
}
