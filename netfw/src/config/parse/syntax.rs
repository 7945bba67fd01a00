//! What is not TOML at all: said in our words, and kept from causing errors that are not there.

use std::{ops::Range, sync::Arc};

use toml::de::Error;

use crate::config::{
    Diagnostic, Severity,
    source::{Source, Span},
};

/// The parts of a text that could not be read.
#[derive(Debug)]
pub(in crate::config) struct Damage {
    errors: Vec<Diagnostic>,
    /// From here on the tree is guesswork: the structure is broken, not just a value.
    lost_from: usize,
}

impl Damage {
    /// Sorts out the errors of the TOML parser for `source`.
    pub(super) fn assess(source: &Arc<Source>, errors: &[Error]) -> Self {
        let end = source.text().len();
        let start = |error: &Error| error.span().map_or(end, |span| span.start);
        let broken = errors.iter().filter(|error| !is_local(error)).map(start).min();
        let kept = errors.iter().filter(|error| broken.is_none_or(|broken| start(error) <= broken));
        let mut errors: Vec<Diagnostic> = Vec::new();
        for error in kept {
            let error = describe(source, error, start(error));
            if errors.iter().all(|other| other.line != error.line) {
                errors.push(error);
            }
        }
        let lost_from = broken.map_or(usize::MAX, |broken| table_before(source.text(), broken));
        Self { errors, lost_from }
    }

    /// Whether nothing behind a certain place can be trusted, so that names cannot be looked up.
    pub(in crate::config) fn is_structural(&self) -> bool {
        self.lost_from != usize::MAX
    }

    /// Whether a finding is about something that was read, and not a consequence of the damage.
    pub(in crate::config) fn spares(&self, source: &Source, finding: &Diagnostic) -> bool {
        let elsewhere = finding.file != source.path();
        let apart = self.errors.iter().all(|error| error.line != finding.line);
        // A part that is missing from a file cut short is not known to be missing.
        let known = finding.span.end < self.lost_from && !(self.is_structural() && finding.span.is_empty());
        elsewhere || (apart && known)
    }

    /// The errors themselves.
    pub(in crate::config) fn into_errors(self) -> Vec<Diagnostic> {
        self.errors
    }
}

/// Errors behind which the parser goes on with the right structure.
fn is_local(error: &Error) -> bool {
    const LOCAL: [&str; 6] = [
        "duplicate key",
        "string values must be quoted",
        "invalid boolean",
        "invalid float",
        "invalid integer",
        "unexpected leading zero",
    ];
    LOCAL.iter().any(|message| error.message().starts_with(message))
}

/// Start of the table that `offset` is in: what stands above it is complete.
fn table_before(text: &str, offset: usize) -> usize {
    let above = &text[..text.floor_char_boundary(offset)];
    if above.starts_with('[') && !above.contains("\n[") {
        return 0;
    }
    above.rfind("\n[").map_or(0, |newline| newline + 1)
}

fn describe(source: &Arc<Source>, error: &Error, start: usize) -> Diagnostic {
    let at = |range: Range<usize>| Span { source: source.clone(), range };
    let span = at(error.span().unwrap_or(start..start));
    if error.message() == "duplicate key" {
        let message = format!("\"{}\" is written twice", span.text());
        return Diagnostic::at(Severity::Error, &span, message, "keep one of them, or join both");
    }
    if let Some((key, value)) = bare_value(source, start).filter(|_| is_local(error)) {
        let (message, help) = describe_bare(key, &source.text()[value.clone()]);
        return Diagnostic::at(Severity::Error, &at(value), message, help);
    }
    let help = help(error.message(), &source.text()[source.line_range(start)]);
    Diagnostic::at(Severity::Error, &span, error.message(), help)
}

/// What to write for a bare `value` that is neither a number nor a truth value.
fn describe_bare(key: &str, value: &str) -> (String, String) {
    let lower = value.to_lowercase();
    if value.is_empty() {
        let help = format!("write one behind the \"=\", or take \"{key}\" out");
        (format!("\"{key}\" has no value"), help)
    } else if value.bytes().all(|byte| byte.is_ascii_digit()) {
        let help = format!("write {key} = {}", value.trim_start_matches('0'));
        ("a number does not begin with 0".to_owned(), help)
    } else if lower == "true" || lower == "false" {
        ("true and false are written small".to_owned(), format!("write {key} = {lower}"))
    } else {
        ("text stands in quotes".to_owned(), format!("write {key} = \"{value}\""))
    }
}

/// What to do about a broken structure that the parser noticed in `line`.
fn help(message: &str, line: &str) -> String {
    let head = line.trim().trim_matches(['[', ']']);
    if message.starts_with("unclosed array table") {
        format!("write [[{head}]]")
    } else if message.starts_with("unclosed table") {
        format!("write [{head}]")
    } else if message.contains("array") {
        "end the list above with \"]\", its words with commas between them".to_owned()
    } else {
        "write one key = value a line, text in \"quotes\", lists in [brackets]".to_owned()
    }
}

/// Key and value of a line `key = value` whose value is bare: neither quoted, nor a list, nor a table.
fn bare_value(source: &Source, offset: usize) -> Option<(&str, Range<usize>)> {
    let line = source.line_range(offset);
    let text = &source.text()[line.clone()];
    let (key, value) = text.split_once('=')?;
    let bare = value.split('#').next()?.trim();
    let start = line.end - value.len() + (value.len() - value.trim_start().len());
    (!bare.contains(['[', '{', '"', '\''])).then_some((key.trim(), start..start + bare.len()))
}
