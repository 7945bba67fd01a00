//! The parts of stages that the verifier is to check once and by themselves, as global BPF functions: what is asked in several
//! places, loops (else each way out of one would be followed through the next), and what would be too deep for the stack.

use core::{arch::asm, ptr};

use netfw_common::family::{Ipv4, Ipv6};

use super::{
    cookie,
    live::{self, Live},
    maps::Maps,
    stages::encode,
};
use crate::datapath::{
    block, challenge, commit, event, find, judge, kernel::Table, limit, mapping, pick_up, port, promote,
    target, work::Work,
};

#[inline(always)]
fn table(number: u32) -> Table {
    const PROVEN: u32 = Table::Proven as u32;
    const OUTSIDE: u32 = Table::Outside as u32;
    match number {
        PROVEN => Table::Proven,
        OUTSIDE => Table::Outside,
        _ => Table::Inside,
    }
}

/// Tells the compiler of the caller that the pointer it gives is used.
#[inline(always)]
pub(super) fn used<T>(pointer: *mut T) {
    // SAFETY: a register moved to itself.
    unsafe { asm!("{pointer} = {pointer}", pointer = inout(reg) pointer => _, options(nostack)) };
}

/// The work space, which is always this core's own, as a value of its map: Linux 6.1 lets no helper have a key or value
/// that lies in what a global function was given.
#[inline(always)]
pub(super) fn again<F: Maps>(work: *mut Work<F>) -> Option<&'static mut Work<F>> {
    used(work);
    // SAFETY: the caller's reference to it rests as long as the global function runs.
    F::scratch().get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

macro_rules! parts {
    (@of $family:ident $($name:ident $global:ident |$live:ident, $work:ident $(, $argument:ident)?| $body:expr;)*) => {
        $(
            /// A part of a stage that needs no packet.
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $global(work: *mut Work<$family> $(, $argument: u32)?) -> u32 {
                let Some($work) = again::<$family>(work) else { return 0 };
                let $live = &Live::resume(ptr::null_mut(), $work.slot);
                $body
            }
        )*

        impl Parts for $family {
            $(
                #[inline(always)]
                fn $name(work: &mut Work<Self> $(, $argument: u32)?) -> u32 {
                    $global(work $(, $argument)?)
                }
            )*
        }
    };
    ($(
        $(#[$documentation:meta])*
        $name:ident as $four:ident, $six:ident: |$live:ident, $work:ident $(, $argument:ident)?| $body:expr;
    )*) => {
        /// The parts of a family.
        pub trait Parts: Maps {
            $($(#[$documentation])* fn $name(work: &mut Work<Self> $(, $argument: u32)?) -> u32;)*
        }

        parts!(@of Ipv4 $($name $four |$live, $work $(, $argument)?| $body;)*);
        parts!(@of Ipv6 $($name $six |$live, $work $(, $argument)?| $body;)*);
    };
}

parts! {
    /// [`block::packet`].
    blocked as blocked4, blocked6: |live, work| block::packet(live, work);
    /// [`block::live_flow`].
    blocked_flow as blocked_flow4, blocked_flow6: |live, work| block::live_flow(live, work);
    /// [`block::asked`].
    asked as asked4, asked6: |live, work| u32::from(block::asked(live, work));
    /// [`challenge::packet`].
    challenge as challenge4, challenge6: |live, work| encode(challenge::packet(live, work));
    /// [`challenge::note_opening`].
    note_opening as opening4, opening6: |live, work| done(challenge::note_opening(live, work));
    /// [`cookie::make`].
    cookie as cookie4, cookie6: |_live, work| cookie::make(work);
    /// [`target::choose`].
    choose as choose4, choose6: |live, work| target::choose(live, work);
    /// [`judge::subject`].
    decide as decide4, decide6: |live, work| judge::subject(live, work);
    /// [`judge::translation`].
    still_translated as translated4, translated6: |live, work| u32::from(judge::translation(live, work));
    /// [`commit::entries`].
    entries as entries4, entries6: |live, work| done(commit::entries(live, work));
    /// [`commit::withdraw`].
    withdraw as withdraw4, withdraw6: |live, work| done(commit::withdraw(live, work));
    /// [`commit::search`].
    search as search4, search6: |live, work| commit::search(live, work) as u32;
    /// [`commit::attempt`].
    attempt as attempt4, attempt6: |live, work| commit::attempt(live, work) as u32;
    /// [`live::is_noted`].
    may_have_flow as known4, known6: |_live, work| u32::from(live::is_noted(&work.tuple));
    /// [`live::is_noted`].
    may_have_rival as rivalled4, rivalled6: |_live, work| u32::from(live::is_noted(&work.rival));
    /// [`find::anywhere`].
    find as find4, find6: |live, work| u32::from(find::anywhere(live, work));
    /// [`find::rival`].
    rival as rival4, rival6: |live, work, number| find::rival(live, work, table(number)) as u32;
    /// [`find::forget_rival`].
    forget_rival as forget4, forget6: |live, work, number| done(find::forget_rival(live, work, table(number)));
    /// [`port::draw`].
    draw as draw4, draw6: |live, work| done(port::draw(live, work));
    /// [`mapping::find`].
    find_mapping as mapped4, mapped6: |live, work| done(mapping::find(live, work));
    /// [`mapping::enter`].
    enter_mapping as enter4, enter6: |live, work| u32::from(mapping::enter(live, work));
    /// [`mapping::refresh`].
    refresh_mapping as refresh4, refresh6: |live, work| done(mapping::refresh(live, work));
    /// [`mapping::reach`].
    reach as reach4, reach6: |live, work| u32::from(mapping::reach(live, work));
    /// [`limit::has_token`].
    has_token as has_token4, has_token6: |live, work| u32::from(limit::has_token(live, work));
    /// [`limit::spend`].
    spend as spend4, spend6: |live, work| u32::from(limit::spend(live, work));
    /// [`pick_up::leading`].
    leading as leading4, leading6: |live, work| pick_up::leading(live, work);
    /// [`pick_up::outside_port`].
    outside_port as outside_port4, outside_port6: |live, work| pick_up::outside_port(live, work);
    /// [`pick_up::called`].
    called as called4, called6: |live, work, port| pick_up::called(live, work, port);
    /// [`pick_up::client`].
    client as client4, client6: |live, work| pick_up::client(live, work);
    /// [`pick_up::turn`].
    turn_round as turn_round4, turn_round6: |_live, work| done(pick_up::turn(work));
    /// [`promote::flow`].
    promote as promote4, promote6: |live, work| done(promote::flow(live, work));
    /// [`event::tell`].
    tell as tell4, tell6: |live, work| done(event::tell(live, work));
}

/// Of a part that tells nothing.
#[inline(always)]
fn done((): ()) -> u32 {
    0
}

// Parts that are the same in both families.

/// [`target::share`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn share(slot: u32, number: u32) -> u32 {
    target::share::<Ipv4, _>(&Live::resume(ptr::null_mut(), slot), number)
}

/// [`target::takers`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn takers(slot: u32, first: u32, end: u32) -> u32 {
    target::takers::<Ipv4, _>(&Live::resume(ptr::null_mut(), slot), first, end)
}

/// [`target::taker`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn taker(slot: u32, first: u32, end: u32, nth: u32) -> u32 {
    target::taker::<Ipv4, _>(&Live::resume(ptr::null_mut(), slot), first, end, nth)
}

/// [`live::lowest`] of three vectors.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lowest3(slot: u32, numbers: u64, from: u32) -> u32 {
    live::lowest::<3>(slot, [numbers, 0], from)
}

/// [`live::lowest`] of six vectors.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lowest6(slot: u32, first: u64, others: u64, from: u32) -> u32 {
    live::lowest::<6>(slot, [first, others], from)
}

/// [`live::listed6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn listed6(slot: u32, start: u64, end: u64) -> u32 {
    u32::from(live::listed6(slot, start, end))
}

/// [`live::has6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn has6(slot: u32, start: u64, end: u64, length: u32) -> u32 {
    u32::from(live::has6(slot, start, end, length))
}
