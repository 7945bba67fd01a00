//! Where netfw means to differ from nftables, and why.

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, ensure};
use netfw_tests::packet::{ACK, Body, FIN, Packet, RST, SYN, Side};

use super::{
    Exchange,
    normal::{is_error, was_drawn},
    script::{Script, came_out},
};

/// A step after which the two gateways are not alike.
pub(crate) struct Case<'a> {
    pub(crate) exchange: &'a Exchange,
    /// What came out, normalised: of netfw, of nftables.
    pub(crate) seen: &'a [Vec<(Side, Packet)>; 2],
    pub(crate) script: &'a Script,
}

/// An intended difference.
type Difference = (&'static str, fn(&Case<'_>) -> bool);

const DIFFERENCES: [Difference; 6] = [
    (
        "a TCP packet without flow is judged as new, whatever its flags: after a reboot nobody knows how far a \
         connection has come; netfilter takes only SYN and ACK for a beginning",
        |case| {
            let odd = flags(&case.exchange.sent[0]).is_some_and(|flags| !matches!(flags, SYN | ACK));
            odd && case.seen[1].is_empty() && !case.history().any(came_out)
        },
    ),
    (
        "a segment of a live flow is carried, whatever it says: the ends check it; netfilter's tracking refuses what does \
         not fit its own idea of the connection",
        |case| {
            let tcp = flags(&case.exchange.sent[0]).is_some();
            tcp && case.seen[1].is_empty() && (is_translated_as_before(case) || ran_out_of_hops(case))
        },
    ),
    (
        "a connection that was reset is known for four minutes more (RFC 7857 2.2); netfilter forgets one at once that \
         was not answered before",
        |case| {
            let known = is_translated_as_before(case) || is_error(&case.exchange.sent[0]);
            case.was_reset() && !case.seen[0].is_empty() && known
        },
    ),
    (
        "after the end of a connection a SYN begins a new one, from whichever side, and is judged so; netfilter refuses the \
         side that did not open the old one",
        |case| {
            let syn = |said: &Exchange| flags(&said.sent[0]) == Some(SYN);
            case.was_reset() && (syn(case.exchange) || case.history().any(syn))
        },
    ),
    (
        "what the rules refuse is dropped without a word, also on its last hop; the kernel's router answers before the \
         firewall is asked, and translates what it quotes by whatever flow has such an answer",
        |case| {
            let [(_, answer)] = &case.seen[1][..] else { return false };
            let as_well = matches!(&case.seen[0][..], [(_, ours)] if ours.body == answer.body);
            is_exceeded(answer) && case.exchange.sent[0].ttl == 1 && (case.seen[0].is_empty() || as_well)
        },
    ),
    (
        "two targets would answer one client from one port, and the older conversation has ended: whether its port is \
         still taken depends on how long each remembers it",
        |case| {
            let [ours, theirs] = &case.exchange.left;
            let drawn = |left: &[(Side, Packet)]| match left {
                [(_, packet)] => was_drawn(&case.exchange.sent[0], packet),
                _ => false,
            };
            drawn(ours) != drawn(theirs) && ours.len() == theirs.len()
        },
    ),
];

impl Case<'_> {
    /// What was said before.
    fn history(&self) -> impl Iterator<Item = &Exchange> {
        self.script.history(self.exchange.root)
    }

    /// Whether somebody has reset the connection.
    fn was_reset(&self) -> bool {
        self.history().any(|said| flags(&said.sent[0]).is_some_and(|flags| flags & RST != 0))
    }
}

/// Whether netfw did to this packet what it did to an earlier one of its conversation.
fn is_translated_as_before(case: &Case<'_>) -> bool {
    let ends = |packet: &Packet| (packet.source, packet.destination);
    let [(_, left)] = &case.exchange.left[0][..] else { return false };
    let sent = &case.exchange.sent[0];
    case.history().any(|before| {
        let [(_, left_before)] = &before.left[0][..] else { return false };
        let same = (ends(&before.sent[0]), ends(left_before));
        let back = (ends(&left_before.answer()), ends(&before.sent[0].answer()));
        [same, back].contains(&(ends(sent), ends(left)))
    })
}

/// Whether netfw told the sender of a packet of a live flow that it had made its last hop.
fn ran_out_of_hops(case: &Case<'_>) -> bool {
    let told = matches!(&case.seen[0][..], [(_, answer)] if is_exceeded(answer));
    told && case.exchange.sent[0].ttl == 1 && case.history().any(came_out)
}

fn is_exceeded(packet: &Packet) -> bool {
    let exceeded = if packet.is_v6() { 3 } else { 11 };
    matches!(packet.body, Body::Icmp { kind, code: 0, .. } if kind == exceeded)
}

fn flags(packet: &Packet) -> Option<u8> {
    match packet.body {
        Body::Tcp { flags, .. } => Some(flags & (SYN | ACK | FIN | RST)),
        _ => None,
    }
}

/// Why the gateways differ here.
pub(crate) fn explanation(case: &Case<'_>) -> Option<&'static str> {
    DIFFERENCES.iter().find(|(_, applies)| applies(case)).map(|(why, _)| *why)
}

/// How often they agreed and differed.
#[derive(Default)]
pub(crate) struct Tally {
    same: u32,
    through: u32,
    different: BTreeMap<&'static str, u32>,
}

impl Tally {
    pub(crate) fn add(&mut self, why: &'static str) {
        *self.different.entry(why).or_default() += 1;
    }

    pub(crate) fn same(&mut self, exchange: &Exchange) {
        self.same += 1;
        self.through += u32::from(!exchange.left[0].is_empty());
    }

    /// Enough must have been compared, and enough of it must have come out.
    pub(crate) fn check(&self) -> Result<()> {
        let different: u32 = self.different.values().sum();
        ensure!(self.through > self.same / 3 && self.same > 5 * different, "too little was compared: {self}");
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} alike, of which {} came out", self.same, self.through)?;
        self.different.iter().try_for_each(|(why, times)| write!(to, "\n{times} times: {why}"))
    }
}
