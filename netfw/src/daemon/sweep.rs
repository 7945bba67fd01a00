//! The flow table, tidied from user space: only quicker than the datapath, which does without.

use anyhow::Result;
use netfw_common::{
    image::{KEEP_REFUSED, Policy},
    tcp::State,
    tick::Tick,
};

use crate::{
    image::Image,
    kernel::{Maps, Nudger, Pair, now},
};

/// How long a direction of a proven flow may be without the other one, seconds: they are entered one after the other.
const LINGER: u64 = 30;

/// Ends the flows that the rules in force no longer admit; says how many live ones there were.
///
/// The datapath refuses their next packet by itself. A TCP connection may have no next packet for hours: both
/// its ends are made to send one. What has no connection to reset is removed at once.
///
/// # Errors
/// What the kernel says.
pub fn cut_refused(maps: &Maps, image: &Image, generation: u32) -> Result<usize> {
    let refused = refused(maps, image, generation)?;
    end(maps, &refused)?;
    Ok(refused.iter().filter(|pair| pair.is_live()).count())
}

/// The flows that the rules of `image` no longer admit, unless they may end by themselves.
///
/// # Errors
/// What the kernel says.
pub fn refused(maps: &Maps, image: &Image, generation: u32) -> Result<Vec<Pair>> {
    if image.policy.flags & KEEP_REFUSED != 0 {
        return Ok(Vec::new());
    }
    let refused = |pair: &Pair| !pair.original.was_admitted_by(generation) && !pair.is_admitted_by(image);
    Ok(maps.flows()?.into_iter().filter(refused).collect())
}

/// Ends flows that the rules admit.
///
/// # Errors
/// What the kernel says.
pub fn cut(maps: &Maps, pairs: &[Pair]) -> Result<()> {
    for pair in pairs {
        maps.condemn(pair)?;
    }
    end(maps, pairs)
}

/// Ends flows that the datapath refuses from now on.
fn end(maps: &Maps, refused: &[Pair]) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let nudger = Nudger::open()?;
    for pair in refused {
        if pair.state() == State::Established && nudger.applies_to(pair) {
            nudger.nudge(pair, |key| maps.holds(pair, key).unwrap_or(false));
        } else {
            maps.forget(pair)?;
        }
    }
    Ok(())
}

/// Forgets flows that are over; says how many.
///
/// # Errors
/// What the kernel says.
pub fn forget_expired(maps: &Maps) -> Result<usize> {
    let Some(policy) = maps.policy()? else { return Ok(0) };
    let now = now();
    let expired = |pair: &Pair| is_over(pair, &policy, now);
    let expired: Vec<Pair> = maps.flows()?.into_iter().filter(expired).collect();
    for pair in &expired {
        maps.forget(pair)?;
    }
    maps.forget_orphans(now, Tick::ticks(LINGER))?;
    Ok(expired.len())
}

fn is_over(pair: &Pair, policy: &Policy, now: Tick) -> bool {
    pair.idle(now) > pair.limit(policy)
}

#[cfg(test)]
mod tests {
    use netfw_common::{flow::Flow, tcp::Seen, tuple::Tuple, wire::UDP};

    use super::*;

    fn pair(protocol: u8, seen: u8) -> Pair {
        let tuple = Tuple { protocol: protocol.into(), ..Tuple::default() };
        Pair::for_test(false, tuple, Flow { leaving: tuple, seen, ..Flow::default() })
    }

    #[test]
    fn a_silent_flow_goes_when_its_time_is_over() {
        let policy = Policy { timeouts: [0, 0, 1000, 100, 0, 0], ..Policy::default() };
        let unanswered = pair(UDP, Seen::PACKET);
        assert!(!is_over(&unanswered, &policy, Tick(100)));
        assert!(is_over(&unanswered, &policy, Tick(101)));
    }
}
