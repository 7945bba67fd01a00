//! The command line: typed words ([`args`]), done ([`run`]), told ([`output`], [`exit`]).

pub mod args;
mod bans;
mod change;
pub mod exit;
mod explain;
mod flows;
pub mod output;
mod packaging;
mod run;
mod watch;

use std::io::IsTerminal as _;

use clap::Parser as _;

use exit::Exit;

/// The program.
pub fn main() -> Exit {
    let arguments = args::Arguments::parse();
    start_log(&arguments);
    match run::run(&arguments) {
        Ok(exit) => exit,
        Err(error) => {
            let exit = Exit::of(&error);
            if exit != Exit::Done {
                output::failure(&error);
            }
            exit
        }
    }
}

/// `NETFW_LOG` chooses how much is said, as `tracing` filters are written. Without it a datapath that was asked to log is
/// heard.
fn start_log(arguments: &args::Arguments) {
    let debug = matches!(&arguments.command, args::Command::Up(up) if up.debug_datapath);
    let usual =
        if debug { "debug,notify=warn,netlink_proto=error" } else { "info,notify=warn,netlink_proto=error" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("NETFW_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_target(false)
        .init();
}
