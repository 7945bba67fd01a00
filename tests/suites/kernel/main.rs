//! Ring 2: the stories again, told to the programs as the kernel runs them (`BPF_PROG_TEST_RUN`), in XDP and in TC.
//!
//! All stories share one loaded datapath in a network namespace of its own; before each, its tables are emptied.

mod adopted;
mod agreement;
mod exhaustion;
mod explained;
mod listed;
mod loaded;
#[expect(dead_code, reason = "stories in memory also turn its clock and look into its tables")]
#[path = "../memory/mod.rs"]
mod memory;
#[path = "../model/mod.rs"]
mod model;
mod modelled;
#[path = "../naive/mod.rs"]
mod naive;
mod network;
mod pressed;
mod probed;
mod proven;
mod random_rules;
mod renewed;
#[path = "../datapath/sketch.rs"]
mod sketch;
mod sources;

use std::{cell::RefCell, process::ExitCode, rc::Rc};

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use loaded::{Datapath, Loaded};
use netfw_tests::packet::{
    Engine, Gateway,
    stories::*,
    world::{V4, V6, World},
};

type Story = fn(&mut Gateway);

macro_rules! told_in_the_kernel {
    ($($module:ident :: $story:ident),* $(,)?) => {
        [$((stringify!($story), $module::$story as Story)),*]
    };
}

thread_local! {
    /// The stories are told on one thread, which is inside the namespace.
    static LOADED: RefCell<Option<Rc<RefCell<Loaded>>>> = const { RefCell::new(None) };
}

fn main() -> ExitCode {
    let (words, filters) = split(std::env::args());
    let mut arguments = Arguments::from_iter(words);
    arguments.test_threads = Some(1);
    match run(&arguments, &filters) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// The standard harness takes any number of filters, this one only a single one: those are looked at here.
fn split(words: impl Iterator<Item = String>) -> (Vec<String>, Vec<String>) {
    let (mut rest, mut filters): (Vec<String>, Vec<String>) = Default::default();
    for word in words {
        let is_value = rest.last().is_some_and(|last| VALUED.contains(&last.as_str()));
        if rest.is_empty() || is_value || word.starts_with('-') {
            rest.push(word);
        } else {
            filters.push(word);
        }
    }
    (rest, filters)
}

/// Options of test harnesses that are followed by a value.
const VALUED: [&str; 5] = ["--skip", "--test-threads", "--format", "--color", "--logfile"];

fn run(arguments: &Arguments, filters: &[String]) -> Result<ExitCode> {
    let mut trials = Vec::new();
    for (name, story) in netfw_tests::for_each_story!(told_in_the_kernel) {
        for (family, world) in [("v4", V4), ("v6", V6)] {
            for (word, engine) in [("tc", Engine::Tc), ("xdp", Engine::Xdp)] {
                let name = format!("{name}::{family}::{word}");
                if filters.is_empty() || filters.iter().any(|filter| name.contains(filter)) {
                    trials.push(Trial::test(name, move || tell(story, engine, world)));
                }
            }
        }
    }
    type Check = fn(&Rc<RefCell<Loaded>>) -> Result<(), String>;
    let checks: [(&str, Check); 13] = [
        ("a_conversation_from_before_goes_on", adopted::check),
        ("agreement_with_memory", agreement::check),
        ("a_connection_is_proven", proven::check),
        ("a_connection_is_proven_while_somebody_looks", proven::while_somebody_looks),
        ("a_neighbour_is_probed_for_all_flows", probed::check),
        ("the_filter_is_made_anew", renewed::check),
        ("explained_and_sent", explained::check),
        ("new_flows_as_a_naive_gateway_judges_them", modelled::new_flows),
        ("changes_as_a_naive_gateway_makes_them", modelled::changes),
        ("cost_of_exhaustion", exhaustion::measure),
        ("too_many_syns_are_challenged", pressed::check),
        ("limit_of_many_sources", sources::check),
        ("a_million_blocked_prefixes", listed::check),
    ];
    for (name, check) in checks {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter)) {
            trials.push(Trial::test(name, move || Ok(check(&loaded()?)?)));
        }
    }
    if arguments.list {
        return Ok(libtest_mimic::run(arguments, trials).exit_code());
    }
    ensure!(nix::unistd::geteuid().is_root(), "loading programs needs root");
    let network = network::Network::build()?;
    let loaded = Rc::new(RefCell::new(Loaded::load(&network)?));
    LOADED.set(Some(Rc::clone(&loaded)));
    let conclusion = libtest_mimic::run(arguments, trials);
    LOADED.set(None);
    drop(loaded);
    Ok(conclusion.exit_code())
}

fn loaded() -> Result<Rc<RefCell<Loaded>>, Failed> {
    Ok(LOADED.with_borrow(Clone::clone).ok_or("stories are told where the programs were loaded")?)
}

fn tell(story: Story, engine: Engine, world: World) -> Result<(), Failed> {
    let loaded = loaded()?;
    loaded.borrow_mut().empty().map_err(|error| format!("{error:?}"))?;
    story(&mut Gateway::new(Box::new(Datapath::thorough(&loaded)), engine, world));
    Ok(())
}
