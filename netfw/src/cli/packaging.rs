//! What a package ships beside the program, made from the command line's own description.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Arguments;

/// Prints a completion script.
pub(super) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "netfw", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

/// Prints the manual page, with every command.
pub(super) fn manual() -> Result<()> {
    let mut page = Vec::new();
    let manual = clap_mangen::Man::new(Arguments::command());
    manual.render(&mut page)?;
    Ok(io::stdout().write_all(&page)?)
}
