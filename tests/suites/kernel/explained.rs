//! What the datapath says that it would do with a packet is what it does.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Result, anyhow};
use netfw::kernel::Told;
use netfw_common::{explain::Account, reason::Reason};
use netfw_ebpf::datapath::{Verdict, work::NONE};
use netfw_tests::packet::{
    Action, Counters, Gateway, Hook, Hooks as _, Ran, Side,
    world::{next_mac, side_of},
};
use proptest::{
    collection::vec,
    prelude::*,
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

/// Fails where a hook did something else than it had told. What chance has chosen it may choose otherwise the next time.
pub(crate) fn compare(told: &Told, ran: &Ran, hook: Hook, by_chance: bool) -> Result<(), String> {
    let expected = action(hook, told.action);
    if expected != ran.action {
        return Err(format!("{:?} instead of {expected:?}: {told:?}", ran.action));
    }
    if told.frame != ran.frame && !by_chance {
        return Err(format!("it left as {:?}: {told:?}", ran.frame));
    }
    Ok(())
}

/// Asks about ten thousand random packets under random rules, and sends them.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let packets = vec((sketch(), any::<bool>(), 0..5_u8), PACKETS);
    let told = runner.run(&(rules(), packets), |(rules, packets)| {
        tell(loaded, &rules, &packets).map_err(|error| TestCaseError::fail(format!("{error:?}\n{rules}")))
    });
    told.map_err(|error| error.to_string())
}

fn tell(loaded: &Rc<RefCell<Loaded>>, rules: &str, packets: &[(Sketch, bool, u8)]) -> Result<()> {
    loaded.borrow_mut().empty()?;
    Datapath(Rc::clone(loaded)).apply(rules);
    let mut loaded = loaded.borrow_mut();
    let mut before = loaded.count()?;
    for (sketch, accelerated, leaving) in packets {
        loaded.forget_errors()?;
        let (side, frame) = if *leaving == 0 { sent(sketch) } else { received(sketch) };
        let hooks: &[Hook] = match (*leaving == 0, *accelerated) {
            (true, _) => &[Hook::Egress],
            (false, true) => &[Hook::Xdp, Hook::Ingress],
            (false, false) => &[Hook::Ingress],
        };
        for &hook in hooks {
            let told = loaded.ask(hook, side, &frame)?;
            let (ran, _) = loaded.run_often(hook, side, &frame, 1)?;
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

/// The sketch as a frame from outside or from the LAN.
fn received(sketch: &Sketch) -> (Side, Vec<u8>) {
    (sketch.side, Gateway::framed(sketch.side, &sketch.packet()))
}

/// The sketch the other way round: what its receiver sends.
fn sent(sketch: &Sketch) -> (Side, Vec<u8>) {
    let ends = (sketch.ends.1, sketch.ends.0);
    let packet = Sketch { ends, side: Side::Outside, ..*sketch }.packet();
    let side = side_of(packet.destination.ip());
    (side, packet.frame(side.mac(), next_mac(packet.destination.ip())))
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
