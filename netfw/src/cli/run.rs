//! Commands, done.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::time::sleep;

use super::{
    args::{Arguments, Command, Up, period},
    bans, change,
    exit::Exit,
    explain, flows, output, packaging,
    watch::watch,
};
use crate::{
    config::{CheckReport, Loaded},
    daemon::{
        Failure, Instance,
        background::{self, Began},
        choice::Instead,
        control,
        health::Book,
        host::Host,
        lock, rules, run,
        state::State,
    },
    kernel::{Maps, boot_now},
    report::{
        challenging::challenging,
        stats::Stats,
        status::{PortForwards, Status},
        targets::targets,
    },
};

/// Does what was typed.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let Arguments { instance, json, command } = arguments;
    if let Some(name) = needs_root(command) {
        check_permission(name)?;
    }
    match command {
        Command::Up(up) => return bring_up(instance, up),
        Command::Down => asynchronously(control::down(instance))?,
        Command::Status => asynchronously(status(instance, *json))?,
        Command::Check { file } => return asynchronously(check(file, *json)),
        Command::Plan { file } => asynchronously(change::plan(instance, *json, file.as_deref()))?,
        Command::Reload(wanted) => asynchronously(change::reload(instance, *json, wanted))?,
        Command::Confirm => asynchronously(change::confirm(instance, *json))?,
        Command::Rollback(wanted) => asynchronously(change::roll_back(instance, *json, wanted))?,
        Command::Generations => change::generations(instance, *json)?,
        Command::Stats { watch } => asynchronously(stats(instance, *json, *watch))?,
        Command::Flows(typed) => asynchronously(flows::run(instance, *json, typed))?,
        Command::Completions { shell } => packaging::completions(*shell)?,
        Command::Man => packaging::manual()?,
        Command::Explain(typed) => asynchronously(explain::run(instance, *json, typed))?,
        Command::Ban { addresses, time } => asynchronously(bans::ban(instance, *json, addresses, *time))?,
        Command::Unban { addresses } => bans::unban(instance, *json, addresses)?,
        Command::Bans => bans::list(instance, *json)?,
        Command::Watch(typed) => asynchronously(watch(instance, *json, typed))?,
        Command::Top(_) => return Ok(not_yet("top")),
        Command::Doctor(_) => return Ok(not_yet("doctor")),
    }
    Ok(Exit::Done)
}

fn not_yet(what: &str) -> Exit {
    eprintln!("error: `netfw {what}` is not yet supported\nhelp: `netfw --help` lists what is");
    Exit::Usage
}

fn needs_root(command: &Command) -> Option<&'static str> {
    match command {
        Command::Up(_) => Some("up"),
        Command::Down => Some("down"),
        Command::Ban { .. } => Some("ban"),
        Command::Unban { .. } => Some("unban"),
        Command::Bans => Some("bans"),
        Command::Status => Some("status"),
        Command::Plan { .. } => Some("plan"),
        Command::Reload(_) => Some("reload"),
        Command::Confirm => Some("confirm"),
        Command::Rollback(_) => Some("rollback"),
        Command::Generations => Some("generations"),
        Command::Stats { .. } => Some("stats"),
        Command::Flows(_) => Some("flows"),
        Command::Watch(_) => Some("watch"),
        Command::Explain(_) => Some("explain"),
        _ => None,
    }
}

fn check_permission(command: &'static str) -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::NotRoot(command));
    }
    let (major, minor) = kernel_version();
    if (major, minor) < (6, 1) {
        return Err(Failure::OldKernel(format!("{major}.{minor}")));
    }
    Ok(())
}

fn kernel_version() -> (u32, u32) {
    let release = nix::sys::utsname::uname().ok();
    let release = release.map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers =
        release.split(|byte: char| !byte.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The daemon has one thing to do at a time: one thread.
fn asynchronously<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn bring_up(instance: &Instance, up: &Up) -> Result<Exit> {
    if up.detach && !up.detached {
        return match background::start()? {
            Began::Ready(line) => {
                println!("{line}");
                Ok(Exit::Done)
            }
            Began::Failed(code) => Ok(Exit::from_code(code)),
        };
    }
    if up.detached {
        background::leave_session()?;
    }
    asynchronously(serve(instance, up))?;
    Ok(Exit::Done)
}

async fn serve(instance: &Instance, up: &Up) -> Result<()> {
    let wanted = control::Up {
        instance: instance.clone(),
        file: up.config.clone(),
        debug: up.debug_datapath,
        boot: up.boot,
    };
    let mut inputs = run::Inputs::open(&wanted.file)?;
    let started = control::up(&wanted).await?;
    if up.debug_datapath
        && let Err(error) = inputs.listen_to_datapath(instance)
    {
        eprintln!("warning: the datapath's log cannot be read: {error:#}");
    }
    output::findings(&started.warnings);
    if let Some(Instead { failure, holds }) = started.instead {
        output::failure(&failure.into());
        eprintln!("warning: {} is not used; {holds}", up.config.display());
    }
    println!("{}", started.ready);
    std::io::stdout().flush()?;
    // Where no service manager waits for it, this does nothing.
    sd_notify::notify(&[NotifyState::Ready]).context("cannot tell the service manager")?;
    if up.detached {
        background::leave_terminal(instance)?;
    }
    run::run(instance, inputs, started.daemon).await
}

async fn check(file: &Path, json: bool) -> Result<Exit> {
    let host = Host::gather().await?;
    let result = rules::check_file(file, &host);
    let (report, exit) = match &result {
        Ok(Loaded { warnings, .. }) => (CheckReport { valid: true, errors: &[], warnings }, Exit::Done),
        Err(Failure::InvalidRules(wrong)) => (
            CheckReport { valid: false, errors: &wrong.errors, warnings: &wrong.warnings },
            Exit::InvalidRules,
        ),
        Err(other) => anyhow::bail!("{other}"),
    };
    if json {
        output::print(true, &report, |_| String::new())?;
        return Ok(exit);
    }
    output::findings(report.errors);
    output::findings(report.warnings);
    if report.valid {
        println!("{} is valid", file.display());
    }
    Ok(exit)
}

/// An instance's memory and maps, for reading.
pub(super) fn open(instance: &Instance) -> Result<(State, Maps)> {
    let pins = instance.pins();
    if !pins.exist() {
        return Err(Failure::NotUp(instance.clone()).into());
    }
    Ok((State::load(instance)?, Maps::open(&pins)?))
}

async fn status(instance: &Instance, json: bool) -> Result<()> {
    let (state, maps) = open(instance)?;
    // Rules that cannot be read are no reason to say nothing.
    let loaded = rules::load_applied(instance, &Host::default()).ok().flatten();
    let forwards = match &loaded {
        Some(loaded) => PortForwards {
            targets: targets(&state, &loaded.policy, &maps, &Book::load(instance)?)?,
            challenging: challenging(&loaded.policy, &maps)?,
        },
        None => PortForwards::default(),
    };
    let daemon = lock::daemon(instance).map(nix::unistd::Pid::as_raw);
    let host = Host::gather().await?;
    let status = Status::read(instance, &state, daemon, &maps, boot_now(), forwards, &host)?;
    output::print(json, &status, Status::render)
}

async fn stats(instance: &Instance, json: bool, watch: Option<f64>) -> Result<()> {
    let host = Host::gather().await?;
    loop {
        let (state, maps) = open(instance)?;
        let loaded = rules::load_applied(instance, &host)?.context("the rules in force are not known")?;
        let targets = targets(&state, &loaded.policy, &maps, &Book::load(instance)?)?;
        let stats = Stats::read(&state, &loaded.policy, &maps.counters()?, &targets)?;
        if watch.is_some() && !json {
            output::clear_screen();
        }
        output::print(json, &stats, Stats::render)?;
        match watch {
            Some(seconds) => sleep(period(seconds)).await,
            None => return Ok(()),
        }
    }
}
