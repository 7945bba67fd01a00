//! Files that sets are kept in: one address or network a line.

use std::{io, path::Path, sync::Arc};

use ipnet::IpNet;

use super::{Read, lists};
use crate::config::{
    problems::Problems,
    source::{Source, Span, Spanned},
    value,
};

/// With more wrong lines than this, the file is another kind of file.
const MOST_ERRORS: usize = 20;

/// The included files read so far.
pub(super) struct Includes<'a> {
    read: Read<'a>,
    /// The rules file first.
    sources: Vec<Arc<Source>>,
}

impl<'a> Includes<'a> {
    pub(super) fn new(rules_file: &Arc<Source>, read: Read<'a>) -> Self {
        Self { read, sources: vec![rules_file.clone()] }
    }

    pub(super) fn into_sources(self) -> Vec<Arc<Source>> {
        self.sources
    }

    /// The members in the file that `name` leads to, from the directory of the rules file.
    pub(super) fn members(&mut self, name: &Spanned<String>, problems: &mut Problems) -> Arc<[IpNet]> {
        let directory = name.span.source.path().parent().unwrap_or(Path::new(""));
        let path = directory.join(&name.value);
        match self.open(&path) {
            Ok(source) => lists::networks(&source).unwrap_or_else(|| members(&source, problems).into()),
            Err(error) => {
                let help = format!("create {}, or take the set out", path.display());
                problems.error(&name.span, format!("\"{}\" cannot be read: {error}", name.value), help);
                Arc::default()
            }
        }
    }

    fn open(&mut self, path: &Path) -> io::Result<Arc<Source>> {
        if let Some(source) = self.sources[1..].iter().find(|source| source.path() == path) {
            return Ok(source.clone());
        }
        let source = Source::new(path, (self.read)(path)?);
        self.sources.push(source.clone());
        Ok(source)
    }
}

fn members(source: &Arc<Source>, problems: &mut Problems) -> Vec<IpNet> {
    let mut members = Vec::new();
    let mut wrong_lines = 0;
    for (start, word) in words(source.text()) {
        match value::network(word) {
            Ok(network) => members.push(network),
            Err(wrong) => {
                let span = Span { source: source.clone(), range: start..start + word.len() };
                wrong_lines += 1;
                if wrong_lines > MOST_ERRORS {
                    problems.error(
                        &span,
                        "more lines of this file are wrong",
                        "write one address or network a line",
                    );
                    break;
                }
                problems.error(&span, wrong.message, wrong.help);
            }
        }
    }
    members
}

/// What stands on each line before its comment, and at which byte.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let start_of = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    let words = text.lines().filter_map(|line| line.split('#').next()).map(str::trim);
    words.filter(|word| !word.is_empty()).map(move |word| (start_of(word), word))
}
