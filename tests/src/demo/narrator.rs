//! What the onlooker sees: each step, each command as typed, its output, and each claim once it has been checked.

use std::io::IsTerminal;

use anyhow::{Result, bail};

use crate::lab::{Host, command::Finished};

/// More lines of one command than this tell nobody anything.
const LINES: usize = 40;

/// Prints, and shortens what only the lab makes long.
#[derive(Debug)]
pub(super) struct Narrator {
    /// Long text, and what stands for it.
    shorter: Vec<(String, &'static str)>,
    colour: bool,
}

impl Narrator {
    pub(super) fn new(shorter: Vec<(String, &'static str)>) -> Self {
        Self { shorter, colour: std::io::stdout().is_terminal() }
    }

    /// Begins a step.
    pub(super) fn step(&self, title: &str) {
        println!("\n{}", self.paint("1", &format!("━━ {title}")));
    }

    /// Says something in between.
    pub(super) fn say(&self, text: &str) {
        println!("{text}");
    }

    /// Shows the command `words` on `host` without running it.
    pub(super) fn typed(&self, host: &str, words: &[String]) {
        let line = self.shorten(&words.join(" "));
        println!("{} {}", self.paint("36", &format!("{host}$")), self.paint("1", &line));
    }

    /// Runs `words` on `host`, shows the command and what it printed.
    pub(super) fn run(&self, host: &Host, words: &[String]) -> Result<Finished> {
        self.typed(host.name(), words);
        let finished = host.run(words)?;
        let output = format!("{}{}", finished.stdout, finished.stderr);
        self.print(&output);
        Ok(finished)
    }

    /// Shows text that a program printed.
    pub(super) fn print(&self, output: &str) {
        let lines: Vec<_> = output.trim_end().lines().collect();
        for line in lines.iter().take(LINES) {
            println!("    {}", self.shorten(line));
        }
        if lines.len() > LINES {
            println!("    … {} lines more", lines.len() - LINES);
        }
    }

    /// Prints the claim if it holds; else the demo ends here.
    pub(super) fn claim(&self, what: &str, holds: bool) -> Result<()> {
        if !holds {
            bail!("this should be so, and isn't: {what}");
        }
        println!("  {} {what}", self.paint("32", "✓"));
        Ok(())
    }

    fn shorten(&self, text: &str) -> String {
        self.shorter.iter().fold(text.to_owned(), |text, (long, short)| text.replace(long, short))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
