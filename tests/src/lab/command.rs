//! Running programs to their end, with everything they said.

use std::{
    ffi::OsStr,
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// A hung program ends here rather than with the whole test run; `timeout` reports it as exit code 124.
const LIMIT: &str = "180";

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; 124 if it hung.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output without the last newline, or an error that tells everything.
    pub fn success(&self) -> Result<String> {
        self.expect_code(0)?;
        Ok(self.stdout.trim_end().to_owned())
    }

    /// Fails unless the program ended with `code`.
    pub fn expect_code(&self, code: i32) -> Result<&Self> {
        if self.code == code {
            return Ok(self);
        }
        let Self { line, code: got, stdout, stderr } = self;
        bail!("`{line}` ended with {got} instead of {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs `words` and waits for the end.
pub fn run<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Result<Finished> {
    feed(words, "")
}

/// Runs `words` with `input` on standard input and waits for the end.
pub fn feed<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>, input: &str) -> Result<Finished> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).args(words);
    let line = line_of(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{line}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading is no error here: its exit code speaks.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for `{line}`"))?;
    Ok(Finished {
        line,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The words after `timeout --kill-after=… LIMIT`.
fn line_of(command: &Command) -> String {
    let words: Vec<_> = command.get_args().skip(2).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
