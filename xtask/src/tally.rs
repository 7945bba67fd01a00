//! What test harnesses say, counted while it is shown.

use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead as _, BufReader},
    ops::AddAssign,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};

/// Runs `command`, shows its output and counts the results in it; the command must succeed.
pub(crate) fn watch(command: &mut Command) -> Result<Tally> {
    let (mut tally, status) = show(command, |_| ())?;
    tally.broken = !status.success();
    Ok(tally)
}

/// The same for a command whose status says nothing: it must print the line `success`.
pub(crate) fn watch_for(command: &mut Command, success: &str) -> Result<Tally> {
    let mut succeeded = false;
    let (mut tally, _) = show(command, |line| succeeded |= line == success)?;
    tally.broken = !succeeded;
    Ok(tally)
}

fn show(command: &mut Command, mut each: impl FnMut(&str)) -> Result<(Tally, ExitStatus)> {
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    eprintln!("$ {} {}", command.get_program().display(), words.join(" "));
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("{command:?} cannot be run"))?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("the output was asked for")?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally += Tally::of_line(line.trim_end());
        each(line.trim_end());
    }
    Ok((tally, child.wait()?))
}

/// What the test harnesses said in all.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
    /// The command failed: by a failed test, or because something does not compile or crashed.
    broken: bool,
}

impl Tally {
    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`; any other line counts nothing.
    fn of_line(line: &str) -> Self {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return Self::default();
        };
        let count = |what: &str| {
            let found = counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
            found.unwrap_or(0)
        };
        Self { passed: count("passed"), failed: count("failed"), skipped: count("ignored"), broken: false }
    }

    /// What a test program said that has ended.
    pub(crate) fn of(said: &str, status: ExitStatus) -> Self {
        let mut tally = Self::default();
        said.lines().for_each(|line| tally += Self::of_line(line));
        tally.broken = !status.success();
        tally
    }

    /// Whether nothing failed.
    pub(crate) fn ok(&self) -> bool {
        self.failed == 0 && !self.broken
    }

    /// Whether no test was run, by a test program that is sound.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.broken |= other.broken;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)?;
        if self.broken && self.failed == 0 {
            write!(to, "; a test program did not compile or crashed")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn a_result_line_is_counted_and_others_are_not() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(Tally::of_line(line), Tally { passed: 12, failed: 2, skipped: 1, broken: false });
        assert_eq!(Tally::of_line("test lab::ssh ... ok"), Tally::default());
    }
}
