//! A small reader over the TOML tree that knows places, reports what does not fit, and goes on.

use std::{borrow::Cow, ops::Range, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::{
    problems::Problems,
    schema::Schema,
    source::{Source, Span, Spanned},
    suggest,
    value::{Parsed, Wrong},
};

/// A table whose keys are known to be in its schema.
pub(super) struct Table<'t> {
    entries: &'t DeTable<'t>,
    schema: &'static Schema,
    span: Span,
}

impl<'t> Table<'t> {
    /// The file as a table.
    pub(super) fn root(
        entries: &'t DeTable<'t>,
        schema: &'static Schema,
        source: &Arc<Source>,
        problems: &mut Problems,
    ) -> Self {
        let span = Span { source: source.clone(), range: 0..0 };
        let table = Self { entries, schema, span };
        table.refuse_unknown_keys(problems);
        table
    }

    /// Where its head stands.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// The value of `key`, if it is written.
    pub(super) fn get(&self, key: &'static str) -> Option<Node<'t>> {
        debug_assert!(self.schema.example(key).is_some(), "{key} is not in the schema");
        let example = self.schema.example(key).unwrap_or_default();
        let value = self.entries.get(key)?;
        Some(Node { key, example: example.into(), value: value.get_ref(), span: self.at(value.span()) })
    }

    /// The value of `key`, which must be written.
    pub(super) fn require(&self, key: &'static str, problems: &mut Problems) -> Option<Node<'t>> {
        let node = self.get(key);
        if node.is_none() {
            let example = self.schema.example(key).unwrap_or_default();
            problems.error(&self.span, format!("\"{key}\" is missing"), format!("write {example}"));
        }
        node
    }

    fn at(&self, range: Range<usize>) -> Span {
        Span { source: self.span.source.clone(), range }
    }

    fn refuse_unknown_keys(&self, problems: &mut Problems) {
        for key in self.entries.keys() {
            let (name, span) = (key.get_ref().as_ref(), self.at(key.span()));
            if self.schema.later.contains(&name) {
                let help = "take it out; this version of netfw would not obey it";
                problems.error(&span, format!("\"{name}\" is not yet supported"), help);
            } else if self.schema.example(name).is_none() {
                let (message, help) = self.unknown_key(name);
                problems.error(&span, message, help);
            }
        }
    }

    fn unknown_key(&self, name: &str) -> (String, String) {
        let place = match self.schema.header {
            "" => String::new(),
            header => format!(" in {header}"),
        };
        let known: Vec<&str> = self.schema.keys.iter().map(|(key, _)| *key).collect();
        let help = match suggest::nearest(name, known.iter().copied()) {
            Some(key) => format!("did you mean \"{key}\"?"),
            None => format!("write one of {}", known.join(", ")),
        };
        (format!("unknown key \"{}\"{place}", name.escape_debug()), help)
    }
}

/// A value and the key it belongs to.
#[derive(Clone)]
pub(super) struct Node<'t> {
    key: &'t str,
    /// What the whole line could be instead.
    example: Cow<'static, str>,
    value: &'t DeValue<'t>,
    pub(super) span: Span,
}

impl<'t> Node<'t> {
    /// As a table with the keys of `schema`.
    pub(super) fn table(&self, schema: &'static Schema, problems: &mut Problems) -> Option<Table<'t>> {
        let entries = self.typed(self.value.as_table(), problems)?;
        let table = Table { entries, schema, span: self.span.clone() };
        table.refuse_unknown_keys(problems);
        Some(table)
    }

    /// As a table whose keys are names that the user chooses; each value could be `example`.
    pub(super) fn names(
        &self,
        example: &'static str,
        problems: &mut Problems,
    ) -> Vec<(Spanned<&'t str>, Node<'t>)> {
        let Some(entries) = self.typed(self.value.as_table(), problems) else { return Vec::new() };
        let entry = |(key, value): (&'t toml::Spanned<_>, &'t toml::Spanned<DeValue<'t>>)| {
            let key_text: &'t Cow<'t, str> = key.get_ref();
            let name = Spanned { value: key_text.as_ref(), span: self.at(key.span()) };
            let example = format!("{} = {example}", name.value).into();
            let node = Node { key: name.value, example, value: value.get_ref(), span: self.at(value.span()) };
            (name, node)
        };
        entries.iter().map(entry).collect()
    }

    /// As one value or a list of them.
    pub(super) fn items(&self) -> Vec<Node<'t>> {
        let Some(array) = self.value.as_array() else { return vec![self.clone()] };
        let item = |value: &'t toml::Spanned<DeValue<'t>>| Node {
            value: value.get_ref(),
            span: self.at(value.span()),
            ..self.clone()
        };
        array.iter().map(item).collect()
    }

    /// As [`items`](Self::items), of which there must be one.
    pub(super) fn some_items(&self, problems: &mut Problems) -> Vec<Node<'t>> {
        let items = self.items();
        if items.is_empty() {
            let help = format!("leave \"{}\" out, or write {}", self.key, self.example);
            problems.error(&self.span, "the list is empty", help);
        }
        items
    }

    /// A string under `key` of this table, if there is one, without judging it.
    pub(super) fn peek(&self, key: &str) -> Option<Spanned<&'t str>> {
        let value = self.value.as_table()?.get(key)?;
        Some(Spanned { value: value.get_ref().as_str()?, span: self.at(value.span()) })
    }

    /// Whether it is a table, in braces or with a head of its own.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Whether it is the string `word`.
    pub(super) fn is(&self, word: &str) -> bool {
        self.value.as_str() == Some(word)
    }

    /// As a truth value.
    pub(super) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        self.typed(self.value.as_bool(), problems)
    }

    /// As a whole number that `parse` understands.
    pub(super) fn number<T>(&self, problems: &mut Problems, parse: impl Fn(i128) -> Parsed<T>) -> Option<T> {
        let number = self.typed(self.integer(), problems)?;
        self.accept(parse(number), problems).map(|spanned| spanned.value)
    }

    /// As a string that `parse` understands.
    pub(super) fn word<T>(
        &self,
        problems: &mut Problems,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<Spanned<T>> {
        let text = self.typed(self.value.as_str(), problems)?;
        self.accept(parse(text), problems)
    }

    /// As a number, or a string that `parse` understands.
    pub(super) fn word_or_number<T>(
        &self,
        problems: &mut Problems,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<Spanned<T>> {
        match self.integer() {
            Some(number) => self.accept(parse(&number.to_string()), problems),
            None => self.word(problems, parse),
        }
    }

    /// As one of the words in `choices`.
    pub(super) fn choice<T: Copy>(&self, problems: &mut Problems, choices: &[(&str, T)]) -> Option<T> {
        self.word(problems, |text| choose(self.key, text, choices)).map(|spanned| spanned.value)
    }

    fn integer(&self) -> Option<i128> {
        let integer = self.value.as_integer()?;
        i128::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn accept<T>(&self, parsed: Parsed<T>, problems: &mut Problems) -> Option<Spanned<T>> {
        match parsed {
            Ok(value) => Some(Spanned { value, span: self.span.clone() }),
            Err(Wrong { message, help }) => {
                problems.error(&self.span, message, help);
                None
            }
        }
    }

    /// Reports a value of another type than expected.
    fn typed<T>(&self, value: Option<T>, problems: &mut Problems) -> Option<T> {
        if value.is_none() {
            let kind = match self.value {
                DeValue::Boolean(_) => "true or false",
                DeValue::Array(_) => "a list",
                DeValue::Integer(_) => "a number",
                DeValue::Float(_) => "a fraction",
                DeValue::Datetime(_) => "a date",
                DeValue::String(_) => "text in quotes",
                DeValue::Table(_) => "a table",
            };
            problems.error(
                &self.span,
                format!("\"{}\" cannot be {kind}", self.key),
                format!("write {}", self.example),
            );
        }
        value
    }

    fn at(&self, range: Range<usize>) -> Span {
        Span { source: self.span.source.clone(), range }
    }
}

fn choose<T: Copy>(key: &str, text: &str, choices: &[(&str, T)]) -> Parsed<T> {
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let help = match suggest::nearest(text, words.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("write {}", suggest::one_of(&words)),
    };
    Err(Wrong::new(format!("\"{key}\" cannot be \"{}\"", text.escape_debug()), help))
}
