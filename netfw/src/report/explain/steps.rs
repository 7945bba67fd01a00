//! The way of a packet through the datapath, step by step.

use netfw_common::{
    explain::{NOWHERE, Note},
    family::Addr6,
    flow::{LOCAL, MASQUERADED, SOURCE_NAT, UNASKED},
    image::{ACCEPT, FORWARD, INPUT, REJECT},
    reason::Reason,
};
use netfw_ebpf::datapath::{block, challenge, kernel::Route, work::NONE};
use serde::Serialize;

use super::Facts;
use crate::{kernel::Hook, policy::Spread, report::flows::state_word};

/// A step and how it ended.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) step: &'static str,
    pub(super) outcome: String,
}

/// Those that the packet has come to, in their order.
pub(super) fn steps(facts: &Facts<'_>) -> Vec<Step> {
    type Teller = fn(&Facts<'_>) -> Option<String>;
    let all: [(&str, Teller); 15] = [
        ("hook", hook),
        ("checks", checks),
        ("fail-safe door", door),
        ("flow", flow),
        ("block", blocked),
        ("link", link),
        ("way back", way_back),
        ("port-forward", port_forward),
        ("route", route),
        ("masquerade", source),
        ("rules", rules),
        ("limit", limit),
        ("syn-proxy", proof),
        ("otherwise", otherwise),
        ("verdict", verdict),
    ];
    all.into_iter().filter_map(|(step, tell)| Some(Step { step, outcome: tell(facts)? })).collect()
}

impl Facts<'_> {
    fn note(&self, note: Note) -> Option<u32> {
        self.account.note(note)
    }

    /// The word for why it is dropped, if that is one of `reasons`.
    fn fell(&self, reasons: &[Reason]) -> Option<String> {
        self.dropped().filter(|reason| reasons.contains(reason)).map(|reason| reason.word().to_owned())
    }

    /// Whether the translation was planned.
    fn planned(&self) -> bool {
        self.judged() || self.fell(&[Reason::NoTarget, Reason::NoAddress]).is_some()
    }

    fn target(&self) -> String {
        let leaving = &self.account.leaving;
        self.end(leaving.destination, leaving.destination_port)
    }
}

fn hook(facts: &Facts<'_>) -> Option<String> {
    let name = &facts.place.name;
    Some(match facts.hook {
        Hook::Xdp => format!("XDP on {name}"),
        Hook::Ingress if facts.place.accelerated => format!("TC on {name}: XDP leaves such a packet to it"),
        Hook::Ingress => format!("TC on {name}"),
        Hook::Egress => format!("TC on {name}, as the packet leaves"),
    })
}

fn checks(facts: &Facts<'_>) -> Option<String> {
    const BROKEN: [Reason; 4] =
        [Reason::Malformed, Reason::BadChecksum, Reason::Martian, Reason::BadTcpFlags];
    Some(facts.fell(&BROKEN).unwrap_or_else(|| "a sound packet".to_owned()))
}

fn door(facts: &Facts<'_>) -> Option<String> {
    let door = facts.policy.failsafe()?;
    facts.note(Note::Door)?;
    Some(format!("leads through it (port {}): no rule, block list or full table matters", door.port))
}

fn flow(facts: &Facts<'_>) -> Option<String> {
    if facts.note(Note::Challenge) == Some(challenge::UNPROVED) {
        return Some("not looked for: its source has to prove to be there first".to_owned());
    }
    if facts.note(Note::Flow).is_none() {
        return facts.note(Note::Block).map(|_| match facts.flow {
            Some(_) => "none: the one with these ends is over".to_owned(),
            None => "none: the packet would open one".to_owned(),
        });
    }
    let Some(pair) = facts.flow else { return Some("belongs to one that was opened just now".to_owned()) };
    let [client, destination] = pair.ends(&pair.key);
    let mut text = format!("{}, opened by {client} to {destination}", state_word(pair.state()));
    if facts.note(Note::Readmitted).is_some() {
        let since = pair.original.generation;
        text += &format!(", admitted by generation {since}; the rules that are asked admit it too");
    }
    if let Some(fell) = facts.fell(&[Reason::FlowCut, Reason::Suspended, Reason::Blocked, Reason::Banned]) {
        text += &format!(": {fell}");
    }
    Some(text)
}

fn blocked(facts: &Facts<'_>) -> Option<String> {
    Some(match facts.note(Note::Block)? {
        block::FREE => "neither end is blocked or banned".to_owned(),
        _ => facts.fell(&[Reason::Blocked, Reason::Banned])?,
    })
}

fn link(facts: &Facts<'_>) -> Option<String> {
    facts.note(Note::Link)?;
    Some("needed by the link itself, so no policy drops it".to_owned())
}

fn way_back(facts: &Facts<'_>) -> Option<String> {
    let source = facts.packet.source;
    let way = match facts.note(Note::Back)? {
        NOWHERE => format!("there is no route back to {source}"),
        index => format!("{source} is reached by {}", (facts.interface)(index)),
    };
    Some(match facts.fell(&[Reason::Spoofed]) {
        Some(fell) => format!("{way}: {fell}"),
        None => way,
    })
}

fn port_forward(facts: &Facts<'_>) -> Option<String> {
    if facts.carried().is_some() {
        let name = facts.port_forward().filter(|_| facts.passes())?;
        return Some(format!("\"{name}\", as the flow has it"));
    }
    if facts.note(Note::PickedUp).is_some() {
        return Some(facts.fell(&[Reason::AnswersUnknown]).unwrap_or_else(|| picked_up(facts)));
    }
    let arrives = facts.planned() && facts.hook != Hook::Egress;
    if !arrives {
        return None;
    }
    if let Some(fell) = facts.fell(&[Reason::NoTarget]) {
        return Some(fell);
    }
    if facts.account.has(UNASKED) {
        return Some(format!("none, but an endpoint-independent mapping leads to {}", facts.target()));
    }
    let Some(name) = facts.port_forward() else { return Some("none applies".to_owned()) };
    let forward = facts.policy.port_forwards().iter().find(|forward| forward.name == name);
    let place = forward.map_or_else(String::new, |forward| format!(" ({})", forward.place));
    let how = match forward.map(|forward| forward.spread) {
        _ if facts.account.refused != 0 => ", but no target takes new connections",
        Some(Spread::Random) => ", chosen by chance",
        _ => "",
    };
    Some(format!("\"{name}\"{place} leads to {}{how}", facts.target()))
}

/// Of the word of a target whose client calls by the port-forward.
fn picked_up(facts: &Facts<'_>) -> String {
    let name = facts.port_forward().unwrap_or_default();
    let client = facts.target();
    format!("\"{name}\": its target answers {client}, in a connection that is picked up")
}

fn route(facts: &Facts<'_>) -> Option<String> {
    if facts.hook == Hook::Egress {
        return facts.judged().then(|| format!("out by {}", facts.place.name));
    }
    if facts.carried().is_none() && facts.planned() && facts.account.has(LOCAL) {
        return Some("to this host".to_owned());
    }
    let Some(answer) = facts.note(Note::Route) else {
        return (facts.carried().is_some() && facts.verdict() == "forward")
            .then(|| format!("out by {}, as the flow remembers", (facts.interface)(facts.account.out)));
    };
    const NO_NEIGHBOUR: u32 = Route::NoNeighbour as u32;
    const ENCAPSULATED: u32 = Route::Encapsulated as u32;
    const NONE: u32 = Route::None as u32;
    let text = match answer {
        ENCAPSULATED => {
            "wrapped into another packet (a tunnel, segment routing, MPLS) by the kernel".to_owned()
        }
        NONE => "there is no route".to_owned(),
        NO_NEIGHBOUR => format!("{}, whose link address is not known yet", way_out(facts)),
        _ => way_out(facts),
    };
    Some(if facts.account.too_big == 0 {
        text
    } else {
        format!("{text}; the packet is larger than its MTU of {}", facts.account.mtu)
    })
}

fn way_out(facts: &Facts<'_>) -> String {
    let out = (facts.interface)(facts.account.out);
    match facts.account.gateway {
        gateway if gateway == Addr6::default() || gateway == facts.account.leaving.destination => {
            format!("out by {out}")
        }
        gateway => format!("out by {out}, to the next hop {}", facts.end(gateway, 0)),
    }
}

fn source(facts: &Facts<'_>) -> Option<String> {
    let (account, leaving) =
        (facts.account, facts.end(facts.account.leaving.source, facts.account.leaving.source_port));
    if !facts.planned() || account.chain != FORWARD {
        return None;
    }
    if let Some(fell) = facts.fell(&[Reason::NoAddress, Reason::NoPort, Reason::Untranslatable]) {
        return Some(fell);
    }
    let drawn = if account.drawn != 0 && facts.passes() { "; that port was drawn by chance" } else { "" };
    Some(if account.has(MASQUERADED) {
        let place = facts.policy.masquerades().get(account.masquerade as usize);
        let place = place.map_or_else(String::new, |masquerade| format!(" ({})", masquerade.place));
        format!("the source becomes {leaving}{place}{drawn}")
    } else if account.has(SOURCE_NAT) {
        format!("none, but the port-forward hides the client behind {leaving}{drawn}")
    } else {
        "none applies".to_owned()
    })
}

fn chain(facts: &Facts<'_>) -> &'static str {
    match facts.account.chain {
        INPUT => "input",
        FORWARD => "forward",
        _ => "output",
    }
}

fn action(action: u32) -> &'static str {
    match action {
        ACCEPT => "accept",
        REJECT => "reject",
        _ => "drop",
    }
}

fn rules(facts: &Facts<'_>) -> Option<String> {
    let decided = action(facts.note(Note::Judged)?);
    Some(match facts.rule() {
        Some(rule) => format!("chain {}: \"{}\" ({}) says {decided}", chain(facts), rule.name, rule.place),
        None => format!("chain {}: none matches", chain(facts)),
    })
}

fn limit(facts: &Facts<'_>) -> Option<String> {
    facts.rule()?.limit?;
    Some(facts.fell(&[Reason::RateLimited]).unwrap_or_else(|| "not reached".to_owned()))
}

fn proof(facts: &Facts<'_>) -> Option<String> {
    let source = facts.packet.source;
    Some(match facts.note(Note::Challenge)? {
        challenge::PROVED => format!("{source} has proved to be there, and may open connections"),
        challenge::UNPROVED => format!(
            "too many connections are being opened: {}",
            facts
                .fell(&[Reason::SynChallenged])
                .unwrap_or_else(|| format!("{source} would have to prove to be there"))
        ),
        _ => facts.fell(&[Reason::ChallengeMet])?,
    })
}

fn otherwise(facts: &Facts<'_>) -> Option<String> {
    let decided = action(facts.note(Note::Judged).filter(|_| facts.rule().is_none())?);
    Some(if facts.account.forward != NONE {
        "a port-forward allows what it translates".to_owned()
    } else if facts.account.has(MASQUERADED | UNASKED) {
        "a masquerade allows what it translates".to_owned()
    } else {
        format!("the policy of chain {} says {decided}", chain(facts))
    })
}

fn verdict(facts: &Facts<'_>) -> Option<String> {
    let mut text = facts.verdict().to_owned();
    if let Some(reason) = facts.dropped() {
        return Some(format!("{text}, {}: {}", reason.word(), reason.sentence()));
    }
    if facts.is_translated() {
        let ends = facts.ends(&facts.account.leaving);
        text += &format!(" as {} → {}", ends.source, ends.destination);
    }
    if facts.verdict() == "forward" && facts.hook != Hook::Egress {
        text += &match facts.account.out {
            0 => ", by the kernel's own routing".to_owned(),
            out => format!(", out by {}", (facts.interface)(out)),
        };
    }
    Some(text)
}
