//! Scenario 23: the unit of the service, as the service manager understands it. It is asked for the start that it would
//! compute, so what a line of the unit implies is part of what is checked.

mod machine;
mod units;

use anyhow::{Result, ensure};

use self::machine::{Machine, Start, Unit, values};

const NETFW: &str = "netfw.service";
/// Where a machine's start ends.
const FULL: &str = "multi-user.target";
const UNIT: &str = include_str!("../../../packaging/netfw.service");

/// A machine with everything that may want the network, and netfw.
fn machine() -> Result<Machine> {
    let machine = Machine::new()?;
    units::MANAGERS.into_iter().chain(units::SERVERS).try_for_each(|unit| machine.install_service(unit))?;
    machine.add(units::BEHIND_SOCKET)?;
    machine.install(units::SOCKET)?;
    machine.install((NETFW, UNIT))?;
    Ok(machine)
}

fn expect_waiting(start: &Start, later: &str, first: &str) -> Result<()> {
    ensure!(start.starts(later) && start.starts(first), "{later} or {first} is not started:\n{}", start.said);
    ensure!(start.waits(later, first), "{later} may begin before {first} has");
    ensure!(!start.waits(first, later), "{first} and {later} wait for one another");
    Ok(())
}

/// No interface gets an address, and nobody listens, before the rules hold.
#[test]
fn the_network_waits_for_the_rules() -> Result<()> {
    let start = machine()?.start(FULL)?;
    for (manager, _) in units::MANAGERS {
        expect_waiting(&start, manager, NETFW)?;
    }
    for (server, _) in units::SERVERS {
        expect_waiting(&start, server, NETFW)?;
    }
    expect_waiting(&start, units::SOCKET.0, NETFW)?;
    // Whom nobody has thought of: each early service that is about the network waits for this, all others for that.
    ["network-pre.target", "sysinit.target"].iter().try_for_each(|all| expect_waiting(&start, all, NETFW))
}

/// The file systems are there, and what systemd-sysctl would switch off is switched on after it.
#[test]
fn the_rules_wait_for_what_they_need() -> Result<()> {
    let machine = machine()?;
    machine.install(units::VAR)?;
    let start = machine.start(FULL)?;
    for first in ["local-fs.target", "systemd-sysctl.service", "systemd-modules-load.service", units::VAR.0] {
        expect_waiting(&start, NETFW, first)?;
    }
    Ok(())
}

/// The service manager has nothing to say about the unit: no word that it does not know, no circle of units of which it would
/// have to leave one out.
#[test]
fn the_unit_is_understood() -> Result<()> {
    let machine = machine()?;
    machine.install(units::VAR)?;
    let said = machine.start(FULL)?.said;
    let complaint = said.lines().find(|line| line.contains(NETFW) || line.contains("cycle"));
    ensure!(complaint.is_none(), "{complaint:?}");
    Ok(())
}

/// The failure of nothing else keeps the rules away, as a file system that cannot be mounted would; and without them the
/// machine starts all the same.
#[test]
fn it_depends_on_nothing() -> Result<()> {
    let machine = machine()?;
    machine.install(units::VAR)?;
    let start = machine.start(FULL)?;
    let netfw = start.unit(NETFW)?;
    for key in ["Requires", "Requisite", "BindsTo", "PartOf"] {
        let others: Vec<_> = values(netfw, key).filter(|name| *name != "system.slice").collect();
        ensure!(others.is_empty(), "{key}: {others:?}");
    }
    ensure!(values(netfw, "Conflicts").eq(["shutdown.target"]), "something ends it");
    for key in ["RequiredBy", "RequisiteOf", "BoundBy"] {
        ensure!(values(netfw, key).next().is_none(), "its failure is that of {key}");
    }
    let conditions = netfw.keys().find(|key| key.starts_with("Condition") || key.starts_with("Assert"));
    ensure!(conditions.is_none(), "it is left out where {conditions:?} says so");
    Ok(())
}

/// Who repairs the machine, and switches its network on by hand, does so behind the rules.
#[test]
fn it_starts_for_a_rescue_too() -> Result<()> {
    ensure!(machine()?.start("rescue.target")?.starts(NETFW), "a machine to be repaired is open");
    Ok(())
}

fn expect(unit: &Unit, key: &str, expected: &str) -> Result<()> {
    let found: Vec<_> = values(unit, key).collect();
    ensure!(found == [expected], "{key} is {found:?} instead of {expected}");
    Ok(())
}

/// It is taken for started once it says so, but waited for no longer than a person would; and a failure is not the end.
#[test]
fn ready_is_what_it_says_itself() -> Result<()> {
    let start = machine()?.start(FULL)?;
    let netfw = start.unit(NETFW)?;
    for (key, expected) in [("Type", "notify"), ("NotifyAccess", "main"), ("Restart", "on-failure")] {
        expect(netfw, key, expected)?;
    }
    ensure!(
        !values(netfw, "TimeoutStartSec").any(|time| time == "infinity"),
        "a start that hangs holds all up"
    );
    ensure!(UNIT.lines().any(|line| line == "StartLimitIntervalSec=0"), "after some failures it is given up");
    Ok(())
}

/// Stopping or restarting it sends the daemon one signal, and that is all: nothing is run that would take the rules away, and
/// no directory of its state goes with it.
#[test]
fn stopping_takes_no_rules_away() -> Result<()> {
    let start = machine()?.start(FULL)?;
    let netfw = start.unit(NETFW)?;
    for (key, expected) in
        [("KillMode", "mixed"), ("KillSignal", "SIGTERM"), ("RestartKillSignal", "SIGTERM")]
    {
        expect(netfw, key, expected)?;
    }
    let commands: Vec<_> = values(netfw, "Command Line").collect();
    ensure!(commands.len() == 2, "more is run than the start and the reload: {commands:?}");
    ensure!(commands[0].contains("up") && commands[1].contains("-HUP"), "{commands:?}");
    let kept = ["RuntimeDirectory", "StateDirectory"].map(|key| values(netfw, key).next().is_none());
    ensure!(kept == [true; 2], "its directories are the service manager's to remove");
    Ok(())
}

/// What it pins and mounts is seen by the whole machine.
#[test]
fn it_lives_in_the_machine_s_own_namespaces() -> Result<()> {
    let start = machine()?.start(FULL)?;
    let netfw = start.unit(NETFW)?;
    let own = |(key, values): (&String, &Vec<String>)| {
        let about =
            ["Private", "Protect", "Root", "Mount", "Dynamic"].iter().any(|word| key.starts_with(word));
        (about && values.iter().any(|value| !["no", "/", "default"].contains(&value.as_str())))
            .then(|| key.clone())
    };
    let own: Vec<_> = netfw.iter().filter_map(own).collect();
    ensure!(own.is_empty(), "{own:?} make it a place of its own");
    let paths = ["ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "TemporaryFileSystem"];
    ensure!(paths.iter().all(|key| values(netfw, key).next().is_none()), "paths make it a place of its own");
    Ok(())
}
