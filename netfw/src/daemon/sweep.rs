//! The flow table, tidied from user space: only quicker than the datapath, which does without.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use netfw_common::{
    flow::{Flow, MASQUERADED, SOURCE_NAT},
    image::{KEEP_REFUSED, Policy},
    tcp::State,
    tick::Tick,
};
use serde::{Deserialize, Serialize};

use crate::{
    image::{Image, is_listed},
    kernel::{Maps, Nudger, Pair, Shown, now},
};

/// How long a direction of a proven flow may be without the other one, seconds: they are entered one after the other.
const LINGER: u64 = 30;

/// What becomes of a flow that rules no longer admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ends.
    Cut,
    /// It may end by itself.
    Left,
}

/// How many live flows rules no longer admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refused {
    /// Those that end; while the rules wait for confirmation, those that are suspended.
    pub cut: usize,
    /// Those that may end by themselves.
    pub left: usize,
}

impl Refused {
    fn add(&mut self, pair: &Pair, fate: Fate) {
        let count = match fate {
            Fate::Cut => &mut self.cut,
            Fate::Left => &mut self.left,
        };
        *count += usize::from(pair.is_live());
    }
}

/// What becomes of a flow under the rules of `image`; `None`: it goes on.
pub fn fate(maps: &Maps, image: &Image, pair: &Pair) -> Option<Fate> {
    let keeps = image.policy.flags & KEEP_REFUSED != 0;
    match maps.is_blocked_by(image, pair) {
        true => Some(Fate::Cut),
        false if pair.is_admitted_by(image) => None,
        false if keeps => Some(Fate::Left),
        false => Some(Fate::Cut),
    }
}

/// Ends the flows that the rules in force no longer admit; says how many live ones there were.
///
/// The datapath refuses their next packet by itself. A TCP connection may have no next packet for hours: both
/// its ends are made to send one. What has no connection to reset is removed at once.
///
/// # Errors
/// What the kernel says.
pub fn cut_refused(maps: &Maps, image: &Image, generation: u32) -> Result<Refused> {
    let nudger = Nudger::default();
    each_refused(maps, image, generation, |pair, fate| match fate {
        Fate::Cut => end(maps, &nudger, pair),
        Fate::Left => Ok(()),
    })
}

/// How many live flows the rules of `image` no longer admit.
///
/// # Errors
/// What the kernel says.
pub fn count_refused(maps: &Maps, image: &Image, generation: u32) -> Result<Refused> {
    each_refused(maps, image, generation, |_, _| Ok(()))
}

fn each_refused(
    maps: &Maps,
    image: &Image,
    generation: u32,
    visit: impl Fn(&Pair, Fate) -> Result<()>,
) -> Result<Refused> {
    let (mut refused, mut shown) = (Refused::default(), Shown::default());
    let fate = |pair: &Pair| match pair.original.was_admitted_by(generation) {
        true => None,
        false => fate(maps, image, pair),
    };
    maps.each_flow(
        |pair| fate(pair).is_some(),
        |pair| {
            let Some(fate) = fate(pair) else { return Ok(()) };
            if shown.is_new(pair) {
                refused.add(pair, fate);
            }
            visit(pair, fate)
        },
    )?;
    Ok(refused)
}

/// Ends the flows with an end in one of `prefixes`, which were banned; says how many live ones there were.
///
/// As [`cut_refused`] does, for the same reasons.
///
/// # Errors
/// What the kernel says.
pub fn cut_banned(maps: &Maps, prefixes: &[IpNet]) -> Result<usize> {
    let mut banned = IpNet::aggregate(&prefixes.to_vec());
    banned.sort_unstable();
    let (nudger, mut shown, mut live) = (Nudger::default(), Shown::default(), 0);
    let families = [false, true].map(|v6| banned.iter().any(|prefix| prefix.addr().is_ipv6() == v6));
    maps.each_flow_of(
        families,
        |pair| maps.has_end(pair, |address| is_listed(&banned, address)),
        |pair| {
            live += usize::from(shown.is_new(pair) && pair.is_live());
            end(maps, &nudger, pair)
        },
    )?;
    Ok(live)
}

/// Ends the flows that are picked, though the rules admit them.
pub struct Cutter<'a> {
    maps: &'a Maps,
    nudger: Nudger,
}

impl<'a> Cutter<'a> {
    /// For the flows in `maps`.
    pub fn new(maps: &'a Maps) -> Self {
        Self { maps, nudger: Nudger::default() }
    }

    /// Ends one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn cut(&self, pair: &Pair) -> Result<()> {
        self.maps.condemn(pair)?;
        end(self.maps, &self.nudger, pair)
    }
}

/// Ends the flows whose source is hidden behind an address that is no longer the host's: their answers go elsewhere, and
/// their next packet must get the new address.
///
/// # Errors
/// What the kernel says.
pub fn cut_homeless(maps: &Maps, gone: &[IpAddr]) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let cutter = Cutter::new(maps);
    let homeless = |pair: &Pair| {
        let [source, _] = pair.ends(&pair.original.leaving);
        pair.original.flags & (MASQUERADED | SOURCE_NAT) != 0 && gone.contains(&source.ip())
    };
    maps.each_flow(homeless, |pair| cutter.cut(pair))
}

/// Ends a flow that the datapath refuses from now on. A TCP flow of which only the opener's direction is left stays: the other end has
/// just been reset, and the opener will be at its next packet, for which it needs its entry.
fn end(maps: &Maps, nudger: &Nudger, pair: &Pair) -> Result<()> {
    let has_ends = pair.state() == State::Established || pair.reply.is_none();
    if has_ends && nudger.applies_to(pair) {
        return nudger.nudge(pair, |key| maps.holds(pair, key).unwrap_or(false));
    }
    maps.forget(pair)
}

/// Forgets flows that are over; says how many.
///
/// # Errors
/// What the kernel says.
pub fn forget_expired(maps: &Maps) -> Result<usize> {
    let Some(policy) = maps.policy()? else { return Ok(0) };
    let now = now();
    let mut forgotten = 0;
    maps.each_flow(
        // Of most flows a look at one direction is enough.
        |pair| now.since(Tick(pair.original.last_seen)) > least(&policy, &pair.original),
        |pair| {
            if is_over(pair, &policy, now) {
                forgotten += 1;
                maps.forget(pair)?;
            }
            Ok(())
        },
    )?;
    maps.forget_orphans(now, Tick::ticks(LINGER))?;
    Ok(forgotten)
}

/// Idle ticks up to which a flow is not over, in whatever state.
fn least<A>(policy: &Policy, flow: &Flow<A>) -> u32 {
    let own = if flow.idle_timeout == 0 { u32::MAX } else { flow.idle_timeout };
    policy.timeouts.into_iter().min().unwrap_or(0).min(own).min(Tick::ticks(LINGER))
}

fn is_over(pair: &Pair, policy: &Policy, now: Tick) -> bool {
    pair.idle(now) > pair.limit(policy)
}

#[cfg(test)]
mod tests {
    use netfw_common::{tcp::Seen, tuple::Tuple, wire::UDP};

    use super::*;

    fn pair(protocol: u8, seen: u8) -> Pair {
        let tuple = Tuple { protocol: protocol.into(), ..Tuple::default() };
        Pair::for_test(false, tuple, Flow { leaving: tuple, seen, ..Flow::default() })
    }

    #[test]
    fn a_silent_flow_goes_when_its_time_is_over() {
        let policy = Policy { timeouts: [0, 0, 0, 1000, 100, 0, 0], ..Policy::default() };
        let unanswered = pair(UDP, Seen::PACKET);
        assert!(!is_over(&unanswered, &policy, Tick(100)));
        assert!(is_over(&unanswered, &policy, Tick(101)));
    }
}
