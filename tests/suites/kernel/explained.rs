//! What the datapath says that it would do with a packet is what it does.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use anyhow::{Result, anyhow};
use netfw::kernel::Told;
use netfw_common::{
    explain::{Account, Note},
    reason::Reason,
};
use netfw_ebpf::datapath::{Verdict, work::NONE};
use netfw_tests::packet::{
    Action, Counters, Gateway, Hook, Hooks as _, Ran, Side,
    world::{next_mac, side_of},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};

use crate::{
    loaded::{Datapath, Loaded, action},
    random_rules::rules,
    sketch::{Sketch, sketch},
};

/// Rule sets, and packets under each.
const CASES: u32 = 100;
const PACKETS: usize = 100;

/// Fails where a hook did something else than it had told. What chance has chosen it may choose otherwise the next time. At TC the
/// cached way out of a flow may have lapsed meanwhile: then the kernel writes the MAC addresses.
pub(crate) fn compare(told: &Told, ran: &Ran, hook: Hook, by_chance: bool) -> Result<(), String> {
    let expected = action(hook, told.action);
    if expected != ran.action {
        return Err(format!("{:?} instead of {expected:?}: {told:?}", ran.action));
    }
    let from = if hook != Hook::Xdp && follows_a_flow(told) { MACS } else { 0 };
    if told.frame.get(from..) != ran.frame.get(from..) && !by_chance {
        return Err(format!("it left as {:?}: {told:?}", ran.frame));
    }
    Ok(())
}

/// Both addresses at the begin of a frame, bytes.
const MACS: usize = 12;

/// Whether the packet would be forwarded by a flow that is there, hence perhaps by its cached way out.
pub(crate) fn follows_a_flow(told: &Told) -> bool {
    told.account.is_some_and(|account| {
        account.verdict == Verdict::Forward as u32 + 1 && account.note(Note::Flow).is_some()
    })
}

/// Asks about ten thousand random packets under random rules, and sends them.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let way = select(vec![Way::Leaves, Way::Astray, Way::Tc, Way::Tc, Way::Xdp, Way::Xdp]);
    let packets = vec((sketch(), way), PACKETS);
    let seen = RefCell::new(BTreeSet::new());
    let told = runner.run(&(rules(), packets), |(rules, packets)| {
        let told = tell(loaded, &rules, &packets, &mut seen.borrow_mut());
        told.map_err(|error| TestCaseError::fail(format!("{error:?}\n{rules}")))
    });
    told.map_err(|error| error.to_string())?;
    let seen = seen.into_inner();
    let missing: Vec<_> = KINDS.iter().filter(|kind| !seen.contains(**kind)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("never seen: {missing:?}")) }
}

/// What ten thousand packets meet at least once: verdicts, reasons, and how they are let through.
const KINDS: [&str; 18] = [
    "Accept",
    "Forward",
    "Drop",
    "Answer",
    "Punt",
    "flow",
    "door",
    "rule",
    "port-forward",
    "masquerade",
    "rejected",
    "policy-input",
    "policy-forward",
    "policy-output",
    "blocked",
    "spoofed",
    "rate-limited",
    "icmp-unrelated",
];

/// Notes what a packet has met.
fn note(account: &Account, seen: &mut BTreeSet<String>) {
    let verdicts = [Verdict::Accept, Verdict::Forward, Verdict::Drop, Verdict::Answer, Verdict::Punt];
    let verdict = verdicts.iter().find(|verdict| account.verdict == **verdict as u32 + 1);
    seen.extend(verdict.map(|verdict| format!("{verdict:?}")));
    let refused = matches!(verdict, Some(Verdict::Drop | Verdict::Answer));
    let reason = Reason::ALL.iter().find(|reason| refused && account.reason == **reason as u32);
    seen.extend(reason.map(|reason| reason.word().to_owned()));
    let met = [
        ("flow", account.note(Note::Flow).is_some()),
        ("door", account.note(Note::Door).is_some()),
        ("rule", account.rule != NONE),
        ("port-forward", account.forward_id != 0),
        ("masquerade", account.masquerade != NONE),
    ];
    seen.extend(met.iter().filter(|(_, met)| *met).map(|(kind, _)| (*kind).to_owned()));
}

fn tell(
    loaded: &Rc<RefCell<Loaded>>,
    rules: &str,
    packets: &[(Sketch, Way)],
    seen: &mut BTreeSet<String>,
) -> Result<()> {
    loaded.borrow_mut().empty()?;
    Datapath::thorough(loaded).apply(rules);
    let mut loaded = loaded.borrow_mut();
    let mut before = loaded.count()?;
    for (sketch, way) in packets {
        loaded.forget_errors()?;
        let (side, frame, hooks) = way.of(sketch);
        for &hook in hooks {
            let (told, ran) = loaded.ask_and_run(hook, side, &frame)?;
            told.account.iter().for_each(|account| note(account, seen));
            let by_chance = loaded.is_left_to_chance(&told);
            let after = loaded.count()?;
            let moved = after.since(&before);
            let sound = compare(&told, &ran, hook, by_chance)
                .and_then(|()| counted(&loaded, told.account.as_ref(), &moved));
            sound.map_err(|what| anyhow!("{hook:?} {sketch:?}: {what}; moved: {moved:?}"))?;
            before = after;
            if ran.action != Action::Next {
                break;
            }
        }
    }
    Ok(())
}

/// How a packet meets the datapath.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It comes in where it should, at TC.
    Tc,
    /// The same, at XDP first.
    Xdp,
    /// It comes in at the other side.
    Astray,
    /// What its receiver sends leaves.
    Leaves,
}

impl Way {
    /// The side at which a sketch's frame is seen, and by which hooks.
    fn of(self, sketch: &Sketch) -> (Side, Vec<u8>, &'static [Hook]) {
        let framed = |side| Gateway::framed(side, &sketch.packet());
        match self {
            Self::Tc => (sketch.side, framed(sketch.side), &[Hook::Ingress]),
            Self::Xdp => (sketch.side, framed(sketch.side), &[Hook::Xdp, Hook::Ingress]),
            Self::Astray => {
                let other = if sketch.side == Side::Inside { Side::Outside } else { Side::Inside };
                (other, framed(other), &[Hook::Ingress])
            }
            Self::Leaves => {
                let ends = (sketch.ends.1, sketch.ends.0);
                let packet = Sketch { ends, side: Side::Outside, ..*sketch }.packet();
                let side = side_of(packet.destination.ip());
                (side, packet.frame(side.mac(), next_mac(packet.destination.ip())), &[Hook::Egress])
            }
        }
    }
}

/// Fails where the counters that moved say something else than was told: for which reason, by which rule, how often.
fn counted(loaded: &Loaded, account: Option<&Account>, moved: &Counters) -> Result<(), String> {
    let verdict = account.map_or(0, |account| account.verdict);
    let refused = [Verdict::Drop, Verdict::Answer].iter().any(|known| *known as u32 + 1 == verdict);
    let judged =
        ![Verdict::Pass, Verdict::Punt].iter().any(|known| *known as u32 + 1 == verdict) && verdict != 0;
    let reason = account.filter(|_| refused).map(|account| account.reason);
    let reason = Reason::ALL.iter().find(|known| Some(**known as u32) == reason).map(|reason| reason.word());
    let rule = account.filter(|account| judged && account.rule != NONE);
    let rule = rule.and_then(|account| loaded.rule_name(account.rule));
    let drops: Vec<_> = moved.drops.iter().map(|(word, count)| (*word, count.packets)).collect();
    if drops != Vec::from_iter(reason.map(|reason| (reason, 1))) {
        return Err(format!("dropped for {drops:?} instead of {reason:?}"));
    }
    let rules: Vec<_> = moved.rules.iter().map(|(name, count)| (name.as_str(), count.packets)).collect();
    if rules != Vec::from_iter(rule.map(|rule| (rule, 1))) {
        return Err(format!("decided by {rules:?} instead of {rule:?}"));
    }
    Ok(())
}
