//! What is wrong in a rules file, and how a person, a log or a program reads it.

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::source::{Source, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The rules file is not valid.
    Error,
    /// Valid, but probably not what was meant.
    Warning,
}

/// One finding in a rules file: where, what, and what to write instead.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The rules file or the file it includes.
    pub file: PathBuf,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: u32,
    /// Column in characters, from 1; 0 when the file as a whole is meant.
    pub column: u32,
    /// Bytes of the file that are marked.
    pub span: Range<usize>,
    /// The rule, port-forward or other thing with a name that it is about, such as `rule "ssh"`.
    pub rule: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    source: Option<Arc<Source>>,
    also: Option<(Range<usize>, String)>,
}

impl Diagnostic {
    /// A finding at `span`.
    pub(crate) fn at(
        severity: Severity,
        span: &Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (line, column) = span.source.position(span.range.start);
        Self {
            severity,
            file: span.source.path().to_owned(),
            line,
            column,
            span: span.range.clone(),
            rule: None,
            message: message.into(),
            help: help.into(),
            source: Some(span.source.clone()),
            also: None,
        }
    }

    /// A doubt about a file as a whole.
    pub fn doubt(file: impl Into<PathBuf>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::whole_file(file, message, help) }
    }

    /// An error about a file as a whole.
    pub fn whole_file(file: impl Into<PathBuf>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            span: 0..0,
            rule: None,
            message: message.into(),
            help: help.into(),
            source: None,
            also: None,
        }
    }

    /// Marks a second place, with a few words about it.
    #[must_use]
    pub(crate) fn and_at(mut self, span: &Span, words: impl Into<String>) -> Self {
        if self.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, &span.source)) {
            self.also = Some((span.range.clone(), words.into()));
        }
        self
    }

    /// For the terminal: the line it is about with the place underlined, and the remedy below.
    pub fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let mut text = String::new();
        let handler = GraphicalReportHandler::new_themed(theme).with_wrap_lines(false).with_links(false);
        match handler.render_report(&mut text, &Snippet::of(self)) {
            Ok(()) => text,
            Err(fmt::Error) => format!("{self}\n"),
        }
    }

    /// The message, opened by the name of what it is about.
    fn headline(&self) -> String {
        match &self.rule {
            Some(rule) => format!("{rule}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// One line, for logs: `file:line:column: message; help`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if self.severity == Severity::Warning {
            write!(f, " warning:")?;
        }
        write!(f, " {}; {}", self.headline(), self.help)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let position = |number: u32| (number > 0).then_some(number);
        let mut object = serializer.serialize_struct("Diagnostic", 6)?;
        object.serialize_field("file", &self.file)?;
        object.serialize_field("line", &position(self.line))?;
        object.serialize_field("column", &position(self.column))?;
        object.serialize_field("rule", &self.rule)?;
        object.serialize_field("message", &self.headline())?;
        object.serialize_field("help", &self.help)?;
        object.end()
    }
}

/// A diagnostic in the form miette draws.
#[derive(Debug)]
struct Snippet<'a> {
    diagnostic: &'a Diagnostic,
    headline: String,
    source: Option<NamedSource<Arc<str>>>,
}

impl<'a> Snippet<'a> {
    fn of(diagnostic: &'a Diagnostic) -> Self {
        let named = |source: &Arc<Source>| {
            NamedSource::new(source.path().display().to_string(), source.text().clone())
        };
        let headline = match diagnostic.source {
            Some(_) => diagnostic.headline(),
            None => format!("{}: {}", diagnostic.file.display(), diagnostic.headline()),
        };
        Self { diagnostic, headline, source: diagnostic.source.as_ref().map(named) }
    }
}

impl fmt::Display for Snippet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline)
    }
}

impl std::error::Error for Snippet<'_> {}

impl miette::Diagnostic for Snippet<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.diagnostic.help))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        let main = LabeledSpan::new_primary_with_span(None, self.diagnostic.span.clone());
        let also = self.diagnostic.also.as_ref();
        let also = also.map(|(range, words)| LabeledSpan::new_with_span(Some(words.clone()), range.clone()));
        Some(Box::new(std::iter::once(main).chain(also)))
    }
}
