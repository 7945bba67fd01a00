//! From a path to a valid policy.

use std::{
    cell::RefCell,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    diagnostic::{Diagnostic, Severity},
    parse,
    problems::Problems,
    source::{Source, Span},
};
use crate::policy::{HostFacts, ValidPolicy, resolve::resolve};

/// A valid rules file.
#[derive(Debug)]
pub struct Loaded {
    /// What it means.
    pub policy: ValidPolicy,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// The rules file and then every file it includes, as they were read: all that is needed to load it again.
    pub sources: Vec<Arc<Source>>,
    /// Where each managed interface is named.
    interfaces: Vec<(String, Span)>,
}

impl Loaded {
    /// Text of the rules file.
    pub fn text(&self) -> &str {
        self.sources.first().map_or("", |source| source.text())
    }

    /// An error for each managed interface that the host does not have.
    pub fn missing_interfaces(&self, facts: &HostFacts) -> Vec<Diagnostic> {
        let exists = |name: &str| facts.interfaces.iter().any(|interface| interface.name == name);
        let missing = self.interfaces.iter().filter(|(name, _)| !exists(name));
        missing.map(|(name, span)| missing_interface(name, span, facts)).collect()
    }
}

fn missing_interface(name: &str, span: &Span, facts: &HostFacts) -> Diagnostic {
    let names: Vec<&str> = facts.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let help = match names.as_slice() {
        [] => "create it, or name another one".to_owned(),
        names => format!("write one that this host has: {}", names.join(", ")),
    };
    Diagnostic::at(Severity::Error, span, format!("interface {name} does not exist"), help)
}

/// Why a rules file cannot be used. It has at least one error.
#[derive(Debug)]
pub enum LoadError {
    /// There is no text to look at: missing, not permitted, not UTF-8.
    Unreadable(Box<Diagnostic>),
    /// The text is wrong.
    Invalid {
        /// Everything that is wrong, in the order of the file.
        errors: Vec<Diagnostic>,
        /// What is probably not meant either.
        warnings: Vec<Diagnostic>,
    },
}

impl LoadError {
    /// Everything that is wrong.
    pub fn errors(&self) -> &[Diagnostic] {
        match self {
            Self::Unreadable(error) => std::slice::from_ref(error),
            Self::Invalid { errors, .. } => errors,
        }
    }

    /// What is probably not meant.
    pub fn warnings(&self) -> &[Diagnostic] {
        match self {
            Self::Unreadable(_) => &[],
            Self::Invalid { warnings, .. } => warnings,
        }
    }
}

/// One line an error, as for the log.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors().iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// What `netfw check --json` prints.
#[derive(Debug, Serialize)]
pub struct CheckReport<'a> {
    /// Whether the rules file can be used.
    pub valid: bool,
    /// What is wrong.
    pub errors: &'a [Diagnostic],
    /// What is probably not meant.
    pub warnings: &'a [Diagnostic],
}

impl<'a> From<&'a Result<Loaded, LoadError>> for CheckReport<'a> {
    fn from(result: &'a Result<Loaded, LoadError>) -> Self {
        match result {
            Ok(loaded) => Self { valid: true, errors: &[], warnings: &loaded.warnings },
            Err(error) => Self { valid: false, errors: error.errors(), warnings: error.warnings() },
        }
    }
}

/// The files that the rules file at `path` includes, also those that are not there, whatever else is wrong with it.
pub fn included_files(path: &Path) -> Vec<PathBuf> {
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    let included = RefCell::new(Vec::new());
    let note = |path: &Path| {
        included.borrow_mut().push(path.to_owned());
        Ok(Arc::default())
    };
    parse::parse(&Source::new(path, text), &note, &mut Problems::default());
    included.into_inner()
}

/// Reads and judges the rules file at `path` and what it includes.
///
/// # Errors
/// [`LoadError`], with everything that is wrong at once.
pub fn load(path: &Path, facts: &HostFacts) -> Result<Loaded, LoadError> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    load_text(path, &text, &|included| Ok(fs::read_to_string(included)?.into()), facts)
}

/// Judges a text as if it were the file at `path`; `read` gives the files it includes.
///
/// # Errors
/// [`LoadError::Invalid`], with everything that is wrong at once.
pub fn load_text(
    path: &Path,
    text: &str,
    read: &dyn Fn(&Path) -> io::Result<Arc<str>>,
    facts: &HostFacts,
) -> Result<Loaded, LoadError> {
    let source = Source::new(path, text);
    let mut problems = Problems::default();
    let (mut model, damage) = parse::parse(&source, read, &mut problems);
    let policy = match damage.is_structural() {
        true => None,
        false => resolve(&mut model, facts, &mut problems),
    };
    problems.retain_errors(|error| damage.spares(&source, error));
    damage.into_errors().into_iter().for_each(|error| problems.push(error));
    let valid = policy.filter(|_| problems.error_count() == 0);
    let (errors, warnings) = problems.into_parts(path);
    let Some(policy) = valid else { return Err(LoadError::Invalid { errors, warnings }) };
    let interfaces = model.interfaces.into_iter().map(|interface| interface.name);
    let interfaces = interfaces.map(|name| (name.value, name.span)).collect();
    Ok(Loaded { policy, warnings, sources: model.sources, interfaces })
}

fn unreadable(path: &Path, error: &io::Error) -> LoadError {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "write the rules there, or name another file",
        io::ErrorKind::PermissionDenied => "run netfw as root, or let it read the file",
        io::ErrorKind::InvalidData => "save the file as UTF-8",
        io::ErrorKind::IsADirectory => "name the rules file inside it",
        _ => "name a file that can be read",
    };
    let message = format!("the rules file cannot be read: {error}");
    LoadError::Unreadable(Box::new(Diagnostic::whole_file(path, message, help)))
}
