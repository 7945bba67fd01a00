//! The stages as the verifier sees them: in the kernel each is a global BPF function, checked once and by itself. In one
//! piece the pipeline has so many paths that the verifier gives up after a million instructions, and its stack
//! exceeds the 512 bytes that a chain of calls may use.

use netfw_common::family::Family;

use super::{
    Step, Verdict, answer, block, carry, clamp,
    context::{Context, Hook},
    count, failsafe, find, fragment,
    kernel::Kernel,
    link, open, parse, pick_up, related,
    work::Work,
};

/// The stages of the pipeline, in the order of [`super::run`].
pub trait Stages<F: Family> {
    /// Reads the packet.
    fn parse(&mut self, work: &mut Work<F>) -> Step;
    /// Looks at a broadcast or multicast frame. XDP leaves that to TC.
    #[inline(always)]
    fn group_frame(&mut self, _work: &mut Work<F>) -> Step {
        Err(Verdict::Pass)
    }
    /// Gives a fragment its ports, and opens the fail-safe door.
    fn prepare(&mut self, work: &mut Work<F>) -> Step;
    /// Looks at a SYN or reset from outside while too many SYNs come; says whether it is a SYN to be challenged.
    fn challenges(&mut self, work: &mut Work<F>) -> Result<bool, Verdict>;
    /// Whether the packet is known to have no flow, without a look at the flow table.
    fn is_stranger(&mut self, work: &mut Work<F>) -> bool;
    /// Drops a packet without a flow from whoever is blocked.
    fn block(&mut self, work: &mut Work<F>) -> Step;
    /// Finds the flow that an ICMP error quotes. XDP leaves that to TC.
    #[inline(always)]
    fn related(&mut self, _work: &mut Work<F>) -> Step {
        Err(Verdict::Punt)
    }
    /// Carries an ICMP error with that flow.
    #[inline(always)]
    fn translate(&mut self, _work: &mut Work<F>) -> Step {
        Err(Verdict::Punt)
    }
    /// Carries a packet with its flow; goes on where there is none.
    fn carry(&mut self, work: &mut Work<F>) -> Step;
    /// Enters the flow that was lost where a target speaks, and carries its word; goes on where it is no target's.
    fn pick_up(&mut self, work: &mut Work<F>) -> Step;
    /// Opens a flow, or refuses it; goes on where another core has opened it.
    fn open(&mut self, work: &mut Work<F>) -> Step;
    /// Tells the sender. XDP leaves that to TC, but for a challenge.
    fn answer(&mut self, work: &mut Work<F>) -> Verdict;
    /// Clamps the segment size that a packet announces.
    fn clamp(&mut self, work: &mut Work<F>);
    /// Counts.
    fn count(&mut self, work: &mut Work<F>, verdict: Verdict);
}

/// The stages called directly, over any context and surroundings.
pub struct Direct<'a, C, K> {
    /// The packet.
    pub ctx: &'a mut C,
    /// What surrounds it.
    pub kernel: &'a K,
}

impl<F: Family, C: Context, K: Kernel<F>> Stages<F> for Direct<'_, C, K> {
    #[inline(always)]
    fn parse(&mut self, work: &mut Work<F>) -> Step {
        parse::packet(self.ctx, work)
    }

    #[inline(always)]
    fn group_frame(&mut self, work: &mut Work<F>) -> Step {
        link::group_frame(self.ctx, self.kernel, work)
    }

    #[inline(always)]
    fn prepare(&mut self, work: &mut Work<F>) -> Step {
        fragment::ports::<F, C, K>(self.kernel, work)?;
        failsafe::door::<F, C, K>(self.kernel, work)
    }

    #[inline(always)]
    fn challenges(&mut self, work: &mut Work<F>) -> Result<bool, Verdict> {
        if C::HOOK == Hook::Egress {
            return Ok(false);
        }
        self.kernel.challenge(work)?;
        Ok(work.unproved != 0)
    }

    #[inline(always)]
    fn is_stranger(&mut self, work: &mut Work<F>) -> bool {
        find::is_stranger(self.kernel, work)
    }

    #[inline(always)]
    fn block(&mut self, work: &mut Work<F>) -> Step {
        block::new_flow(self.kernel, work)
    }

    #[inline(always)]
    fn related(&mut self, work: &mut Work<F>) -> Step {
        related::find(self.ctx, self.kernel, work)
    }

    #[inline(always)]
    fn translate(&mut self, work: &mut Work<F>) -> Step {
        related::translate(self.ctx, work)
    }

    #[inline(always)]
    fn carry(&mut self, work: &mut Work<F>) -> Step {
        match find::flow(self.kernel, work) {
            Some(mut entry) => carry::packet(self.ctx, self.kernel, work, &mut entry),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn pick_up(&mut self, work: &mut Work<F>) -> Step {
        pick_up::flow(self.ctx, self.kernel, work)
    }

    #[inline(always)]
    fn open(&mut self, work: &mut Work<F>) -> Step {
        open::flow(self.ctx, self.kernel, work)
    }

    #[inline(always)]
    fn answer(&mut self, work: &mut Work<F>) -> Verdict {
        answer::tell(self.ctx, self.kernel, work)
    }

    #[inline(always)]
    fn clamp(&mut self, work: &mut Work<F>) {
        clamp::packet(self.ctx, self.kernel, work);
    }

    #[inline(always)]
    fn count(&mut self, work: &mut Work<F>, verdict: Verdict) {
        count::packet::<F, C, K>(self.kernel, work, verdict);
    }
}
