//! The frame of most tests: a lab, netfw up in it, a story, and the checks that every story ends with.

use anyhow::{Context, Result};

use crate::{
    lab::{Engine, Lab},
    netfw::Netfw,
};

/// Tells `story` in a two-armed lab with `rules` in force, once for each chosen engine.
pub fn two_armed(rules: &str, story: impl Fn(&Lab, &Netfw<'_>) -> Result<()>) -> Result<()> {
    each_engine(Lab::two_armed, rules, story)
}

/// Tells `story` in a one-armed lab with `rules` in force, once for each chosen engine.
pub fn one_armed(rules: &str, story: impl Fn(&Lab, &Netfw<'_>) -> Result<()>) -> Result<()> {
    each_engine(Lab::one_armed, rules, story)
}

fn each_engine(
    build: impl Fn(Engine) -> Result<Lab>,
    rules: &str,
    story: impl Fn(&Lab, &Netfw<'_>) -> Result<()>,
) -> Result<()> {
    for &engine in Engine::chosen()? {
        let lab = build(engine)?;
        let netfw = Netfw::up(&lab, rules)?;
        story(&lab, &netfw).with_context(|| evidence(engine, &netfw))?;
        netfw.finish().with_context(|| format!("at the end, engine {engine}"))?;
    }
    Ok(())
}

/// What helps to understand a failure.
fn evidence(engine: Engine, netfw: &Netfw<'_>) -> String {
    let counters = netfw.counters().map_or_else(|error| error.to_string(), |counters| counters.to_string());
    format!("engine {engine}; counters:{counters}\ndaemon:\n{}", netfw.log())
}
