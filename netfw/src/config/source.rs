//! Texts that rules come from, and places in them.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use crate::policy::Place;

/// One file as it was read: its path as the user wrote it, and its content.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: Arc<str>,
    /// Byte offset at which each line starts, once somebody asks for a place in it: a list of a million is hardly ever cited.
    lines: OnceLock<Vec<usize>>,
}

impl Source {
    /// Takes the content of the file at `path`.
    pub fn new(path: &Path, text: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), text: text.into(), lines: OnceLock::new() })
    }

    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let starts = self.text.match_indices('\n').map(|(newline, _)| newline + 1);
            std::iter::once(0).chain(starts).collect()
        })
    }

    /// Path under which errors name it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole content.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Line and column of a byte offset, both from 1, columns in characters.
    pub fn position(&self, offset: usize) -> (u32, u32) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.lines().partition_point(|start| *start <= offset);
        let column = self.text[self.lines()[line - 1]..offset].chars().count() + 1;
        (count(line), count(column))
    }

    /// Byte range of the line that holds `offset`, without its line break.
    pub fn line_range(&self, offset: usize) -> Range<usize> {
        let line = self.lines().partition_point(|start| *start <= offset);
        let start = self.lines()[line - 1];
        let end = self.lines().get(line).map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }
}

/// Positions are shown to people: a file with more lines than fit is not one of theirs.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A stretch of bytes in one of the files that make up a rules file.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// The file.
    pub source: Arc<Source>,
    /// Bytes of it.
    pub range: Range<usize>,
}

impl Span {
    /// File and line, for reports.
    pub(crate) fn place(&self) -> Place {
        Place { file: self.source.path().to_owned(), line: self.source.position(self.range.start).0 }
    }

    /// What is written there.
    pub(crate) fn text(&self) -> &str {
        self.source.text().get(self.range.clone()).unwrap_or_default()
    }
}

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub span: Span,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new(Path::new("x"), "ä = 1\n\nbc");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(3), (1, 3), "a letter of two bytes is one column");
        assert_eq!(source.position(8), (3, 1));
        assert_eq!(source.position(10), (3, 3), "the end of the text");
        assert_eq!(source.position(99), (3, 3), "behind the end");
    }

    #[test]
    fn a_line_ends_before_its_break() {
        let source = Source::new(Path::new("x"), "one\ntwo");
        assert_eq!(source.line_range(2), 0..3);
        assert_eq!(source.line_range(4), 4..7);
    }
}
