//! Where words go: documents and tables to standard output, failures to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use serde::Serialize;

use crate::{config::Diagnostic, daemon::Failure};

/// Prints a document, or its table.
///
/// # Errors
/// Nobody reads it.
pub fn print<T: Serialize>(json: bool, document: &T, render: impl FnOnce(&T) -> String) -> Result<()> {
    let mut output = io::stdout().lock();
    if json {
        writeln!(output, "{}", serde_json::to_string(document)?)?;
    } else {
        write!(output, "{}", render(document))?;
    }
    output.flush()?;
    Ok(())
}

/// Prints a text.
///
/// # Errors
/// Nobody reads it.
pub fn text(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

/// Before something is shown again, on a terminal.
pub fn clear_screen() {
    if io::stdout().is_terminal() {
        print!("\x1b[H\x1b[2J");
    }
}

/// Prints findings with the lines they are about.
pub fn findings(findings: &[Diagnostic]) {
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for finding in findings {
        eprint!("{}", finding.render(color));
    }
}

/// Says why a command failed.
pub fn failure(error: &anyhow::Error) {
    match error.downcast_ref::<Failure>() {
        Some(Failure::InvalidRules(wrong)) => findings(&wrong.errors),
        _ => eprintln!("error: {error:#}"),
    }
}
