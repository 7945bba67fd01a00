//! The loaded programs do what a naive interpreter of the rules file says, at both hooks and in both families. (Scenarios 18 and 20.)

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use netfw_tests::packet::{Engine, Gateway, Outcome, world::V4};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    loaded::{Datapath, Loaded},
    model::{
        self,
        arrival::{Arrival, arrival},
        life::{Life, files, step},
        verdict::{End, Verdict, check},
    },
    naive::{RulesFile, generate::rules_file},
};

/// Rules files, and packets under each.
const FILES: u32 = 50;
const PACKETS: usize = 100;

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 30, ..Config::default() })
}

fn failure(error: impl std::fmt::Debug) -> TestCaseError {
    TestCaseError::fail(format!("{error:?}"))
}

/// Each packet meets the gateway as the first of its flow, with XDP before TC and with TC alone.
pub(crate) fn new_flows(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    let seen = RefCell::new(BTreeSet::new());
    let told = runner(FILES).run(&(rules_file(), vec(arrival(), PACKETS)), |(rules, packets)| {
        let told = judge(loaded, &rules, &packets, &mut seen.borrow_mut());
        told.map_err(|what| TestCaseError::fail(format!("{what}\n{rules}")))
    });
    told.map_err(model::reason)?;
    let wanted: Vec<_> =
        ["v4", "v6"].iter().flat_map(|family| KINDS.map(|kind| format!("{family} {kind}"))).collect();
    model::all_seen(&seen.into_inner(), wanted.iter().map(String::as_str))
}

fn judge(
    loaded: &Rc<RefCell<Loaded>>,
    rules: &RulesFile,
    packets: &[Arrival],
    seen: &mut BTreeSet<String>,
) -> Result<(), String> {
    let text = |error: anyhow::Error| format!("{error:?}");
    loaded.borrow_mut().empty().map_err(text)?;
    let gateway = |engine| Gateway::new(Box::new(Datapath::brisk(loaded)), engine, V4);
    let mut gateways = [gateway(Engine::Tc), gateway(Engine::Xdp)];
    gateways[0].apply_file(&rules.to_string());
    for arrival in packets {
        for gateway in &mut gateways {
            loaded.borrow().forget_flows().and_then(|()| loaded.borrow().forget_errors()).map_err(text)?;
            let (verdict, outcome) = check(gateway, rules, arrival)?;
            note(arrival, &verdict, &outcome, seen);
        }
    }
    Ok(())
}

/// What the packets of a family meet at least once.
const KINDS: [&str; 15] = [
    "accepted",
    "forwarded",
    "rule",
    "rejected",
    "policy-input",
    "policy-forward",
    "policy-output",
    "martian",
    "spoofed",
    "icmp-unrelated",
    "sent",
    "translated",
    "hidden",
    "decided by a rule",
    "finished by XDP",
];

/// Notes what a packet has met.
fn note(arrival: &Arrival, verdict: &Verdict, outcome: &Outcome, seen: &mut BTreeSet<String>) {
    let family = if arrival.packet.source.is_ipv6() { "v6" } else { "v4" };
    let end = match verdict.end {
        End::Accepted => "accepted",
        End::Forwarded => "forwarded",
        End::Refused(reason) => reason,
    };
    let at_xdp = outcome.moved.translations.values().any(|count| count.forth.xdp.packets != 0);
    let met = [
        (end, true),
        ("sent", arrival.side.is_none()),
        ("translated", verdict.forward.is_some()),
        ("hidden", verdict.masqueraded),
        ("decided by a rule", verdict.rule.is_some()),
        ("finished by XDP", at_xdp),
    ];
    seen.extend(met.iter().filter(|(_, met)| *met).map(|(kind, _)| format!("{family} {kind}")));
}

/// Sequences of packets and changes.
const LIVES: u32 = 20;

/// Rules change while flows live.
pub(crate) fn changes(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    let seen = RefCell::new(BTreeSet::new());
    let life = (files(), vec(step(), 60..100), any::<bool>());
    let told = runner(LIVES).run(&life, |(files, steps, xdp)| {
        loaded.borrow_mut().empty().map_err(failure)?;
        let engine = if xdp { Engine::Xdp } else { Engine::Tc };
        let mut gateway = Gateway::new(Box::new(Datapath::brisk(loaded)), engine, V4);
        let mut life = Life::new(&mut gateway, &files[0], None);
        for step in &steps {
            loaded.borrow().forget_errors().map_err(failure)?;
            life.live(&files, step).map_err(TestCaseError::fail)?;
        }
        seen.borrow_mut().append(&mut life.seen);
        Ok(())
    });
    told.map_err(model::reason)?;
    model::all_seen(&seen.into_inner(), ["plain goes on", "plain is cut"])
}
