//! The stages as global BPF functions, one a stage, hook and family.
//!
//! A global function takes pointers that the verifier knows by their BTF types, and a number back; it is verified for
//! whatever arguments, so the callers' paths don't multiply.

use core::ops::DerefMut;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use netfw_common::{
    family::{Family, Ipv4, Ipv6},
    flow::Flow,
};

use super::{
    live::Live,
    parts::{again, used},
    tc::Tc,
    xdp::Xdp,
};
use crate::datapath::{
    Step, Verdict, block, carry, find,
    stages::{Direct, Stages},
    work::Work,
};

const GO_ON: u32 = u32::MAX;

#[inline(always)]
pub(super) fn encode(step: Step) -> u32 {
    match step {
        Ok(()) => GO_ON,
        Err(verdict) => verdict as u32,
    }
}

#[inline(always)]
pub(super) fn decode(code: u32) -> Step {
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

/// Where an entry lies.
#[inline(always)]
fn place<T>(mut entry: impl DerefMut<Target = T>) -> *mut T {
    &raw mut *entry
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

macro_rules! stages {
    ($pipeline:ident, $raw:ty, $context:ident, $family:ty,
     $parse:ident, $prepare:ident, $carry:ident, $pick_up:ident, $open:ident, $answer:ident, $clamp:ident $(, $group:ident, $related:ident, $translate:ident)?) => {
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
        stage!($answer, $raw, $context, $family, |stages, work| stages.answer(work) as u32);
        stage!($clamp, $raw, $context, $family, |stages, work| {
            stages.clamp(work);
            0
        });
        $(
            stage!($group, $raw, $context, $family, |stages, work| encode(stages.group_frame(work)));
            stage!($related, $raw, $context, $family, |stages, work| encode(stages.related(work)));
            stage!($translate, $raw, $context, $family, |stages, work| encode(stages.translate(work)));
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
            )?

            #[inline(always)]
            fn answer(&mut self, work: &mut Work<$family>) -> Verdict {
                verdict($answer(self.0, work))
            }

            #[inline(always)]
            fn clamp(&mut self, work: &mut Work<$family>) {
                $clamp(self.0, work);
            }

            #[inline(always)]
            fn challenges(&mut self, work: &mut Work<$family>) -> Result<bool, Verdict> {
                let live = Live::resume(self.0.cast(), work.slot);
                Direct { ctx: &mut $context::new(self.0), kernel: &live }.challenges(work)
            }

            #[inline(always)]
            fn is_stranger(&mut self, work: &mut Work<$family>) -> bool {
                find::is_stranger(&Live::resume(self.0.cast(), work.slot), work)
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
    xdp_answer4,
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
    xdp_answer6,
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
    in_answer4,
    in_clamp4,
    in_group4,
    in_related4,
    in_translate4
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
    in_answer6,
    in_clamp6,
    in_group6,
    in_related6,
    in_translate6
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
    out_answer4,
    out_clamp4,
    out_group4,
    out_related4,
    out_translate4
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
    out_answer6,
    out_clamp6,
    out_group6,
    out_related6,
    out_translate6
);
