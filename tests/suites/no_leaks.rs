//! Scenario 32: whatever happened, nothing is left in the kernel.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab, command},
    netfw::Netfw,
    rules, wait,
};

const ECHO: &str = "[[port-forward]]\nname = \"echo\"\nprotocol = \"udp\"\nport = 7000\nto = \"worker1:7\"\n";

/// One test at a time: each compares what the whole kernel holds.
static KERNEL: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's programs, maps and links, by kind and number; numbers are never used again.
fn objects() -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for kind in ["prog", "map", "link"] {
        let text = command::run(["bpftool", "--json", kind, "show"])?.success()?;
        let list: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let list = list.as_array().with_context(|| format!("a list of {kind}: {text}"))?;
        all.extend(list.iter().map(|object| format!("{kind} {}", object["id"])));
    }
    Ok(all)
}

/// What `work` brought into the kernel is there meanwhile, and gone after `down`.
fn expect_gone(engine: Engine, work: impl Fn(&Netfw<'_>) -> Result<()>) -> Result<()> {
    let _alone = alone();
    let lab = Lab::two_armed(engine)?;
    let before = objects()?;
    let netfw = Netfw::up(&lab, &rules::two_armed(ECHO))?;
    let brought: BTreeSet<_> = objects()?.difference(&before).cloned().collect();
    ensure!(brought.len() >= 3, "netfw is up with {brought:?} only");
    work(&netfw)?;
    netfw.down()?;
    let what = format!("all of {brought:?} to leave the kernel");
    wait::until(&what, || objects().ok()?.is_disjoint(&brought).then_some(()))
}

/// Up and down.
#[test]
fn after_down() -> Result<()> {
    Engine::chosen()?.iter().try_for_each(|&engine| expect_gone(engine, |_| Ok(())))
}

/// The daemon was killed, adopted, and killed again.
#[test]
fn after_a_killed_daemon() -> Result<()> {
    Engine::chosen()?.iter().try_for_each(|&engine| {
        expect_gone(engine, |netfw| {
            netfw.kill()?;
            netfw.start()?;
            netfw.kill()
        })
    })
}

/// Many changes leave no more objects than the first.
#[test]
fn after_many_changes() -> Result<()> {
    let _alone = alone();
    let lab = Lab::two_armed(Engine::chosen()?[0])?;
    let netfw = Netfw::up(&lab, &rules::two_armed(ECHO))?;
    let change =
        |number: u16| netfw.reload(&rules::two_armed(&ECHO.replace("7000", &(7000 + number).to_string())));
    (0..8).try_for_each(change)?;
    let before = objects()?.len();
    (8..24).try_for_each(change)?;
    wait::until("no more objects than before", || (objects().ok()?.len() <= before).then_some(()))?;
    netfw.finish()
}

/// An `up` that failed halfway.
#[test]
fn after_a_failed_up() -> Result<()> {
    let _alone = alone();
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, "[interfaces]\nexternal = [\"eth0\"]\ninternal = [\"eth9\"]\n")?;
    let before = objects()?;
    let path = netfw.rules().display().to_string();
    ensure!(netfw.command(["up", "-d", "-c", &path])?.code != 0);
    wait::until("nothing new in the kernel", || objects().ok()?.is_subset(&before).then_some(()))?;
    netfw.expect_untouched()
}
