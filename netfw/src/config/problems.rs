//! Collects what is wrong, so that everything is reported at once.

use std::path::Path;

use super::{
    diagnostic::{Diagnostic, Severity},
    source::Span,
};

/// The findings of one reading of a rules file.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// What is being looked at, such as `rule "ssh"`: opens the message.
    subject: Option<String>,
}

impl Problems {
    /// Records an error.
    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Diagnostic::at(Severity::Error, span, message, help));
    }

    /// Records a warning.
    pub(crate) fn warning(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Diagnostic::at(Severity::Warning, span, message, help));
    }

    /// Records a finding.
    pub(crate) fn push(&mut self, mut diagnostic: Diagnostic) {
        diagnostic.rule = self.subject.clone();
        match diagnostic.severity {
            Severity::Error => self.errors.push(diagnostic),
            Severity::Warning => self.warnings.push(diagnostic),
        }
    }

    /// Looks at one named thing: what `look` finds is reported as its.
    /// The flag tells whether nothing was wrong with it.
    pub(crate) fn about<T>(
        &mut self,
        subject: impl Into<String>,
        look: impl FnOnce(&mut Self) -> T,
    ) -> (T, bool) {
        let before = self.errors.len();
        let outer = self.subject.replace(subject.into());
        let found = look(self);
        self.subject = outer;
        (found, self.errors.len() == before)
    }

    /// Looks at something that takes no part: only what is wrong with it matters.
    pub(crate) fn without_warnings<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.warnings.len();
        let found = look(self);
        self.warnings.truncate(before);
        found
    }

    /// How many errors there are so far.
    pub(crate) fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// Drops the errors that `keep` refuses.
    pub(crate) fn retain_errors(&mut self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.errors.retain(keep);
    }

    /// Errors and warnings, each in the order of the files, `first` before the others.
    pub(crate) fn into_parts(mut self, first: &Path) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort_by_cached_key(|finding| {
                (finding.file != first, finding.file.clone(), finding.span.start)
            });
        }
        (self.errors, self.warnings)
    }
}
