//! The stages as global BPF functions, one a stage, hook and family.
//!
//! A global function takes pointers that the verifier knows by their BTF types, and a number back; it is verified for
//! whatever arguments, so the callers' paths don't multiply.

use core::{arch::asm, ops::DerefMut, ptr};

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use netfw_common::{
    family::{Family, Ipv4, Ipv6},
    flow::Flow,
};

use super::{
    live::{self, Live},
    maps::Maps,
    tc::Tc,
    xdp::Xdp,
};
use crate::datapath::{
    Step, Verdict, block, carry, commit, event, find, judge,
    kernel::Table,
    limit, mapping, pick_up, port, promote,
    stages::{Direct, Stages},
    target,
    work::Work,
};

const GO_ON: u32 = u32::MAX;

#[inline(always)]
fn encode(step: Step) -> u32 {
    match step {
        Ok(()) => GO_ON,
        Err(verdict) => verdict as u32,
    }
}

#[inline(always)]
fn decode(code: u32) -> Step {
    if code == GO_ON { Ok(()) } else { Err(verdict(code)) }
}

#[inline(always)]
fn verdict(code: u32) -> Verdict {
    const ALL: [Verdict; 7] = [
        Verdict::Pass,
        Verdict::Punt,
        Verdict::Accept,
        Verdict::Forward,
        Verdict::Drop,
        Verdict::Hold,
        Verdict::Answer,
    ];
    let mut found = Verdict::Drop;
    for candidate in ALL {
        if candidate as u32 == code {
            found = candidate;
        }
    }
    found
}

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

/// Where an entry lies.
#[inline(always)]
fn place<T>(mut entry: impl DerefMut<Target = T>) -> *mut T {
    &raw mut *entry
}

/// Tells the compiler of the caller that the pointer it gives is used.
#[inline(always)]
fn used<T>(pointer: *mut T) {
    // SAFETY: a register moved to itself.
    unsafe { asm!("{pointer} = {pointer}", pointer = inout(reg) pointer => _, options(nostack)) };
}

/// The work space, which is always this core's own, as a value of its map: Linux 6.1 lets no helper have a key or value
/// that lies in what a global function was given.
#[inline(always)]
fn again<F: Maps>(work: *mut Work<F>) -> Option<&'static mut Work<F>> {
    used(work);
    // SAFETY: the caller's reference to it rests as long as the global function runs.
    F::scratch().get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

macro_rules! stage {
    ($name:ident, $raw:ty, $context:ident, $family:ty, |$stages:ident, $work:ident| $body:expr) => {
        /// A stage.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name(ctx: *mut $raw, work: *mut Work<$family>) -> u32 {
            used(ctx);
            let Some($work) = again::<$family>(work) else { return Verdict::Pass as u32 };
            let live = Live::resume(ctx.cast(), $work.slot);
            let mut packet = $context::new(ctx);
            let mut $stages = Direct { ctx: &mut packet, kernel: &live };
            $body
        }
    };
}

macro_rules! part {
    ($name:ident, $family:ty, |$live:ident, $work:ident $(, $argument:ident: $of:ty)?| $body:expr) => {
        /// A part of a stage that needs no packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name(work: *mut Work<$family> $(, $argument: $of)?) -> u32 {
            let Some($work) = again::<$family>(work) else { return 0 };
            let $live = Live::resume(ptr::null_mut(), $work.slot);
            $body
        }
    };
}

// Parts that are the same in both families. Loops, and what is asked in them, stand by themselves: else each way out of one
// loop would be followed through the next.

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

/// The parts of a family.
pub trait Parts: Maps {
    /// [`block::packet`].
    fn blocked(work: &mut Work<Self>) -> u32;
    /// [`block::live_flow`].
    fn blocked_flow(work: &mut Work<Self>) -> u32;
    /// [`block::asked`].
    fn asked(work: &mut Work<Self>) -> u32;
    /// [`target::choose`].
    fn choose(work: &mut Work<Self>) -> u32;
    /// [`judge::new_flow`].
    fn judge(work: &mut Work<Self>) -> u32;
    /// [`judge::live_flow`].
    fn readmit(work: &mut Work<Self>) -> u32;
    /// [`commit::entries`].
    fn entries(work: &mut Work<Self>);
    /// [`commit::search`], as a number.
    fn search(work: &mut Work<Self>) -> u32;
    /// [`commit::attempt`], as a number.
    fn attempt(work: &mut Work<Self>) -> u32;
    /// [`find::anywhere`].
    fn find(work: &mut Work<Self>) -> u32;
    /// [`find::lives`].
    fn lives(work: &mut Work<Self>, table: Table) -> u32;
    /// [`port::draw`].
    fn draw(work: &mut Work<Self>);
    /// [`mapping::find`].
    fn find_mapping(work: &mut Work<Self>);
    /// [`mapping::enter`].
    fn enter_mapping(work: &mut Work<Self>) -> u32;
    /// [`mapping::refresh`].
    fn refresh_mapping(work: &mut Work<Self>);
    /// [`mapping::reach`].
    fn reach(work: &mut Work<Self>) -> u32;
    /// [`limit::has_token`].
    fn has_token(work: &mut Work<Self>) -> u32;
    /// [`limit::spend`].
    fn spend(work: &mut Work<Self>) -> u32;
    /// [`pick_up::leading`].
    fn leading(work: &mut Work<Self>) -> u32;
    /// [`pick_up::outside_port`].
    fn outside_port(work: &mut Work<Self>) -> u32;
    /// [`pick_up::called`].
    fn called(work: &mut Work<Self>, port: u32) -> u32;
    /// [`pick_up::client`].
    fn client(work: &mut Work<Self>) -> u32;
    /// [`pick_up::turn`].
    fn turn_round(work: &mut Work<Self>);
    /// [`promote::flow`].
    fn promote(work: &mut Work<Self>);
    /// [`event::tell`].
    fn tell(work: &mut Work<Self>);
}

macro_rules! parts {
    ($family:ident, $choose:ident, $blocked:ident, $blocked_flow:ident, $asked:ident, $judge:ident, $readmit:ident,
     $entries:ident, $search:ident, $attempt:ident, $find:ident, $lives:ident, $draw:ident, $mapped:ident, $enter:ident, $refresh:ident,
     $reach:ident, $has_token:ident, $spend:ident, $leading:ident, $outside_port:ident, $called:ident, $client:ident, $turn_round:ident,
     $promote:ident, $tell:ident) => {
        part!($blocked, $family, |live, work| block::packet(&live, work));
        part!($blocked_flow, $family, |live, work| block::live_flow(&live, work));
        part!($asked, $family, |live, work| u32::from(block::asked(&live, work)));
        part!($choose, $family, |live, work| target::choose(&live, work));
        part!($judge, $family, |live, work| judge::new_flow(&live, work));
        part!($readmit, $family, |live, work| u32::from(judge::live_flow(&live, work)));
        part!($entries, $family, |live, work| {
            commit::entries(&live, work);
            0
        });
        part!($search, $family, |live, work| commit::search(&live, work) as u32);
        part!($attempt, $family, |live, work| commit::attempt(&live, work) as u32);
        part!($find, $family, |live, work| u32::from(find::anywhere(&live, work)));
        part!($lives, $family, |live, work, number: u32| u32::from(find::lives(&live, work, table(number))));
        part!($draw, $family, |live, work| {
            port::draw(&live, work);
            0
        });
        part!($mapped, $family, |live, work| {
            mapping::find(&live, work);
            0
        });
        part!($enter, $family, |live, work| u32::from(mapping::enter(&live, work)));
        part!($refresh, $family, |live, work| {
            mapping::refresh(&live, work);
            0
        });
        part!($reach, $family, |live, work| u32::from(mapping::reach(&live, work)));
        part!($has_token, $family, |live, work| u32::from(limit::has_token(&live, work)));
        part!($spend, $family, |live, work| u32::from(limit::spend(&live, work)));
        part!($leading, $family, |live, work| pick_up::leading(&live, work));
        part!($outside_port, $family, |live, work| pick_up::outside_port(&live, work));
        part!($called, $family, |live, work, port: u32| pick_up::called(&live, work, port));
        part!($client, $family, |live, work| pick_up::client(&live, work));
        part!($turn_round, $family, |_live, work| {
            pick_up::turn(work);
            0
        });
        part!($promote, $family, |live, work| {
            promote::flow(&live, work);
            0
        });
        part!($tell, $family, |live, work| {
            event::tell(&live, work);
            0
        });

        impl Parts for $family {
            #[inline(always)]
            fn blocked(work: &mut Work<Self>) -> u32 {
                $blocked(work)
            }

            #[inline(always)]
            fn blocked_flow(work: &mut Work<Self>) -> u32 {
                $blocked_flow(work)
            }

            #[inline(always)]
            fn asked(work: &mut Work<Self>) -> u32 {
                $asked(work)
            }

            #[inline(always)]
            fn choose(work: &mut Work<Self>) -> u32 {
                $choose(work)
            }

            #[inline(always)]
            fn judge(work: &mut Work<Self>) -> u32 {
                $judge(work)
            }

            #[inline(always)]
            fn readmit(work: &mut Work<Self>) -> u32 {
                $readmit(work)
            }

            #[inline(always)]
            fn entries(work: &mut Work<Self>) {
                $entries(work);
            }

            #[inline(always)]
            fn search(work: &mut Work<Self>) -> u32 {
                $search(work)
            }

            #[inline(always)]
            fn attempt(work: &mut Work<Self>) -> u32 {
                $attempt(work)
            }

            #[inline(always)]
            fn find(work: &mut Work<Self>) -> u32 {
                $find(work)
            }

            #[inline(always)]
            fn lives(work: &mut Work<Self>, table: Table) -> u32 {
                $lives(work, table as u32)
            }

            #[inline(always)]
            fn draw(work: &mut Work<Self>) {
                $draw(work);
            }

            #[inline(always)]
            fn find_mapping(work: &mut Work<Self>) {
                $mapped(work);
            }

            #[inline(always)]
            fn enter_mapping(work: &mut Work<Self>) -> u32 {
                $enter(work)
            }

            #[inline(always)]
            fn refresh_mapping(work: &mut Work<Self>) {
                $refresh(work);
            }

            #[inline(always)]
            fn reach(work: &mut Work<Self>) -> u32 {
                $reach(work)
            }

            #[inline(always)]
            fn has_token(work: &mut Work<Self>) -> u32 {
                $has_token(work)
            }

            #[inline(always)]
            fn spend(work: &mut Work<Self>) -> u32 {
                $spend(work)
            }

            #[inline(always)]
            fn leading(work: &mut Work<Self>) -> u32 {
                $leading(work)
            }

            #[inline(always)]
            fn outside_port(work: &mut Work<Self>) -> u32 {
                $outside_port(work)
            }

            #[inline(always)]
            fn called(work: &mut Work<Self>, port: u32) -> u32 {
                $called(work, port)
            }

            #[inline(always)]
            fn client(work: &mut Work<Self>) -> u32 {
                $client(work)
            }

            #[inline(always)]
            fn turn_round(work: &mut Work<Self>) {
                $turn_round(work);
            }

            #[inline(always)]
            fn promote(work: &mut Work<Self>) {
                $promote(work);
            }

            #[inline(always)]
            fn tell(work: &mut Work<Self>) {
                $tell(work);
            }
        }
    };
}

parts!(
    Ipv4,
    choose4,
    blocked4,
    blocked_flow4,
    asked4,
    judge4,
    readmit4,
    entries4,
    search4,
    attempt4,
    find4,
    lives4,
    draw4,
    mapped4,
    enter4,
    refresh4,
    reach4,
    has_token4,
    spend4,
    leading4,
    outside_port4,
    called4,
    client4,
    turn_round4,
    promote4,
    tell4
);
parts!(
    Ipv6,
    choose6,
    blocked6,
    blocked_flow6,
    asked6,
    judge6,
    readmit6,
    entries6,
    search6,
    attempt6,
    find6,
    lives6,
    draw6,
    mapped6,
    enter6,
    refresh6,
    reach6,
    has_token6,
    spend6,
    leading6,
    outside_port6,
    called6,
    client6,
    turn_round6,
    promote6,
    tell6
);

macro_rules! stages {
    ($pipeline:ident, $raw:ty, $context:ident, $family:ty,
     $parse:ident, $prepare:ident, $carry:ident, $pick_up:ident, $open:ident, $clamp:ident $(, $group:ident, $related:ident, $translate:ident, $answer:ident)?) => {
        stage!($parse, $raw, $context, $family, |stages, work| encode(stages.parse(work)));
        stage!($prepare, $raw, $context, $family, |stages, work| encode(stages.prepare(work)));
        stage!($pick_up, $raw, $context, $family, |stages, work| encode(stages.pick_up(work)));
        /// [`carry::packet`]: by itself, because the flow may lie in one of several maps.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $carry(
            ctx: *mut $raw,
            work: *mut Work<$family>,
            entry: *mut Flow<<$family as Family>::Addr>,
        ) -> u32 {
            // SAFETY: the caller's reference to it rests as long as this runs.
            let (Some(work), Some(entry)) = (again::<$family>(work), (unsafe { entry.as_mut() })) else {
                return Verdict::Pass as u32;
            };
            let live = Live::resume(ctx.cast(), work.slot);
            encode(carry::packet(&mut $context::new(ctx), &live, work, entry))
        }
        stage!($open, $raw, $context, $family, |stages, work| encode(stages.open(work)));
        stage!($clamp, $raw, $context, $family, |stages, work| {
            stages.clamp(work);
            0
        });
        $(
            stage!($group, $raw, $context, $family, |stages, work| encode(stages.group_frame(work)));
            stage!($related, $raw, $context, $family, |stages, work| encode(stages.related(work)));
            stage!($translate, $raw, $context, $family, |stages, work| encode(stages.translate(work)));
            stage!($answer, $raw, $context, $family, |stages, work| stages.answer(work) as u32);
        )?

        impl Stages<$family> for $pipeline {
            #[inline(always)]
            fn parse(&mut self, work: &mut Work<$family>) -> Step {
                decode($parse(self.0, work))
            }

            #[inline(always)]
            fn prepare(&mut self, work: &mut Work<$family>) -> Step {
                decode($prepare(self.0, work))
            }

            #[inline(always)]
            fn carry(&mut self, work: &mut Work<$family>) -> Step {
                match find::flow(&Live::resume(self.0.cast(), work.slot), work) {
                    Some(entry) => decode($carry(self.0, work, place(entry))),
                    None => Ok(()),
                }
            }

            #[inline(always)]
            fn pick_up(&mut self, work: &mut Work<$family>) -> Step {
                decode($pick_up(self.0, work))
            }

            #[inline(always)]
            fn open(&mut self, work: &mut Work<$family>) -> Step {
                decode($open(self.0, work))
            }

            $(
                #[inline(always)]
                fn group_frame(&mut self, work: &mut Work<$family>) -> Step {
                    decode($group(self.0, work))
                }

                #[inline(always)]
                fn related(&mut self, work: &mut Work<$family>) -> Step {
                    decode($related(self.0, work))
                }

                #[inline(always)]
                fn translate(&mut self, work: &mut Work<$family>) -> Step {
                    decode($translate(self.0, work))
                }

                #[inline(always)]
                fn answer(&mut self, work: &mut Work<$family>) -> Verdict {
                    verdict($answer(self.0, work))
                }
            )?

            #[inline(always)]
            fn clamp(&mut self, work: &mut Work<$family>) {
                $clamp(self.0, work);
            }

            #[inline(always)]
            fn block(&mut self, work: &mut Work<$family>) -> Step {
                block::new_flow(&Live::resume(self.0.cast(), work.slot), work)
            }

            #[inline(always)]
            fn count(&mut self, work: &mut Work<$family>, verdict: Verdict) {
                let live = Live::resume(self.0.cast(), work.slot);
                Direct { ctx: &mut $context::new(self.0), kernel: &live }.count(work, verdict);
            }
        }
    };
}

/// The pipeline at XDP.
pub struct XdpStages(pub *mut xdp_md);
/// The pipeline at TC ingress.
pub struct IngressStages(pub *mut __sk_buff);
/// The pipeline at TC egress.
pub struct EgressStages(pub *mut __sk_buff);

type Ingress = Tc<false>;
type Egress = Tc<true>;

stages!(
    XdpStages,
    xdp_md,
    Xdp,
    Ipv4,
    xdp_parse4,
    xdp_prepare4,
    xdp_carry4,
    xdp_pick_up4,
    xdp_open4,
    xdp_clamp4
);
stages!(
    XdpStages,
    xdp_md,
    Xdp,
    Ipv6,
    xdp_parse6,
    xdp_prepare6,
    xdp_carry6,
    xdp_pick_up6,
    xdp_open6,
    xdp_clamp6
);
stages!(
    IngressStages,
    __sk_buff,
    Ingress,
    Ipv4,
    in_parse4,
    in_prepare4,
    in_carry4,
    in_pick_up4,
    in_open4,
    in_clamp4,
    in_group4,
    in_related4,
    in_translate4,
    in_answer4
);
stages!(
    IngressStages,
    __sk_buff,
    Ingress,
    Ipv6,
    in_parse6,
    in_prepare6,
    in_carry6,
    in_pick_up6,
    in_open6,
    in_clamp6,
    in_group6,
    in_related6,
    in_translate6,
    in_answer6
);
stages!(
    EgressStages,
    __sk_buff,
    Egress,
    Ipv4,
    out_parse4,
    out_prepare4,
    out_carry4,
    out_pick_up4,
    out_open4,
    out_clamp4,
    out_group4,
    out_related4,
    out_translate4,
    out_answer4
);
stages!(
    EgressStages,
    __sk_buff,
    Egress,
    Ipv6,
    out_parse6,
    out_prepare6,
    out_carry6,
    out_pick_up6,
    out_open6,
    out_clamp6,
    out_group6,
    out_related6,
    out_translate6,
    out_answer6
);
