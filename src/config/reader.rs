//! Reads one TOML table key by key, and collects problems instead of stopping.
//!
//! Owns the types of values. A value of the wrong type or out of range is a problem, and reading continues with the
//! default. A key that no one reads is unknown.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Problems;
use super::key::is_world_readable;
use super::mask;
use crate::http::{SetupError, check_ca_file};
use crate::span;

/// A table of the file, or a missing one, whose keys all have their defaults.
pub(super) struct Section<'s> {
    table: Option<&'s DeTable<'s>>,
    /// The table's name in messages, such as `[poll]`.
    name: String,
    /// Its start in the file.
    pub(super) span: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
    pub(super) problems: &'s Problems,
}

/// What is wrong with a value, and where the value is.
type Wrong = (Range<usize>, String);

type Value<'s> = &'s Spanned<DeValue<'s>>;

impl<'s> Section<'s> {
    /// The whole document.
    pub(super) fn root(table: Option<&'s DeTable<'s>>, problems: &'s Problems) -> Self {
        Self { table, name: "the file".into(), span: 0..0, asked: RefCell::default(), problems }
    }

    /// The table at `key`, or an empty one.
    pub(super) fn table(&self, key: &'static str) -> Section<'s> {
        let (table, span) = match self.get(key) {
            None => (None, 0..0),
            Some(value) => {
                let table = value.get_ref().as_table();
                if table.is_none() {
                    self.wrong_type(key, value, &format!("a table: write [{key}]"));
                }
                (table, value.span())
            }
        };
        Section { table, name: format!("[{key}]"), span, asked: RefCell::default(), problems: self.problems }
    }

    /// The tables of the array at `key`. `path` is their name in messages, such as `notify.webhook`.
    pub(super) fn tables(&self, key: &'static str, path: &str) -> Vec<Section<'s>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value, &tables_expected(path));
            return Vec::new();
        };
        array.iter().filter_map(|value| self.table_in(key, path, value)).collect()
    }

    /// Reads the tables of the array `value` that was taken out of this table at `key`, and frees each once it is read.
    /// The document of a large file takes many times the memory of what is kept of it. A table that is freed early
    /// leaves its place to what is kept of the next, so that nothing small holds the rest of the document's memory.
    pub(super) fn consume_tables(
        &self,
        key: &'static str,
        path: &str,
        value: Option<Spanned<DeValue<'s>>>,
        mut read: impl FnMut(Section<'_>),
    ) {
        self.ask(key);
        let Some(value) = value else { return };
        if value.get_ref().is_array() {
            let DeValue::Array(array) = value.into_inner() else { return };
            for value in array {
                self.table_in(key, path, &value).into_iter().for_each(&mut read);
            }
        } else {
            self.wrong_type(key, &value, &tables_expected(path));
        }
    }

    /// One table of the array at `key`.
    fn table_in<'t>(&self, key: &str, path: &str, value: Value<'t>) -> Option<Section<'t>>
    where
        's: 't,
    {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, &tables_expected(path));
        }
        table.map(|table| Section {
            table: Some(table),
            name: format!("[[{path}]]"),
            // Only its start, because an inline table is full of values.
            span: value.span().start..value.span().start + 1,
            asked: RefCell::default(),
            problems: self.problems,
        })
    }

    /// A string and its location.
    pub(super) fn string(&self, key: &'static str) -> Option<(&'s str, Range<usize>)> {
        let value = self.get(key)?;
        self.text(key, value, "a string in quotes")
    }

    /// A path; a leading `~/` means the home directory.
    pub(super) fn path(&self, key: &'static str) -> Option<(PathBuf, Range<usize>)> {
        let (text, span) = self.string(key)?;
        if text.is_empty() {
            self.problems.error(
                span,
                format!("`{key}` is empty"),
                "expected a path; leave the key out for the default",
            );
            return None;
        }
        let Some(rest) = text.strip_prefix("~/") else { return Some((PathBuf::from(text), span)) };
        if let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) {
            return Some((PathBuf::from(home).join(rest), span));
        }
        let title = format!("`{key}`: HOME is not set, so that ~ means nothing");
        self.problems.error(span, title, "write the whole path");
        None
    }

    /// The file of additional certificate authorities at `ca_file`, and what is wrong with it, if anything.
    pub(super) fn ca_file(&self) -> Option<(PathBuf, Option<Wrong>)> {
        let (path, span) = self.path("ca_file")?;
        let wrong = check_ca_file(Some(&path)).err().map(|error| match error {
            SetupError::CaFile { path, reason } => format!(
                "cannot use the CA file {}: {reason}; expected a PEM file with at least one certificate",
                mask::path(&path)
            ),
            error => error.to_string(),
        });
        Some((path, wrong.map(|wrong| (span, wrong))))
    }

    /// A duration above zero.
    pub(super) fn duration(&self, key: &'static str, default: Duration) -> Duration {
        self.time(key, default, span::parse)
    }

    /// An optional duration above zero.
    pub(super) fn optional_duration(&self, key: &'static str) -> Option<Duration> {
        self.span_of(key).map(|_| self.duration(key, Duration::ZERO)).or_else(|| {
            self.get(key);
            None
        })
    }

    /// A list of durations above zero.
    pub(super) fn durations(&self, key: &'static str, default: Vec<Duration>) -> Vec<Duration> {
        let Some(texts) = self.strings(key) else { return default };
        let read = |(text, span): (&str, Range<usize>)| {
            let wrong = |error| {
                self.problems.error(span, mask::strike(&format!("`{key}`: {error}"), text), "");
            };
            span::parse(text).map_err(wrong).ok()
        };
        texts.into_iter().filter_map(read).collect()
    }

    /// A duration that may be zero.
    pub(super) fn duration_or_zero(&self, key: &'static str, default: Duration) -> Duration {
        self.time(key, default, span::parse_or_zero)
    }

    fn time(
        &self,
        key: &'static str,
        default: Duration,
        parse: fn(&str) -> Result<Duration, span::SpanError>,
    ) -> Duration {
        let Some(value) = self.get(key) else { return default };
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "a length of time in quotes, such as \"30s\", \"5m\" or \"2h\"");
            return default;
        };
        parse(text).unwrap_or_else(|error| {
            self.problems.error(value.span(), mask::strike(&format!("`{key}`: {error}"), text), "");
            default
        })
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, key: &'static str, default: u32, bounds: RangeInclusive<u32>) -> u32 {
        let Some(value) = self.get(key) else { return default };
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(key, value, &expected);
            return default;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number =
            number.and_then(|number| u32::try_from(number).ok()).filter(|number| bounds.contains(number));
        number.unwrap_or_else(|| self.out_of_range(key, value, &expected, default))
    }

    /// A number within bounds; whole numbers are accepted.
    pub(super) fn number(&self, key: &'static str, default: f64, bounds: RangeInclusive<f64>) -> f64 {
        let Some(value) = self.get(key) else { return default };
        let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
        let number: Option<f64> = match value.get_ref() {
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|number| number as f64)
            }
            _ => {
                self.wrong_type(key, value, &expected);
                return default;
            }
        };
        let number = number.filter(|number| bounds.contains(number));
        number.unwrap_or_else(|| self.out_of_range(key, value, &expected, default))
    }

    fn out_of_range<T>(&self, key: &str, value: Value<'_>, expected: &str, default: T) -> T {
        self.problems.error(value.span(), format!("`{key}` is out of range"), format!("expected {expected}"));
        default
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.get(key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(key, value, "true or false");
            default
        })
    }

    /// One of some words, as the value that it stands for.
    pub(super) fn one_of<T: Clone>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let (text, span) = self.string(key)?;
        let found = find_word(text, words);
        if found.is_none() {
            let title = format!("invalid value `{}` for `{key}`", mask::quoted(text));
            self.problems.error(span, title, expected_words(words));
        }
        found
    }

    /// A list of strings, each with its location.
    pub(super) fn strings(&self, key: &'static str) -> Option<Vec<(&'s str, Range<usize>)>> {
        let value = self.get(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value, "a list of strings in brackets");
            return None;
        };
        Some(array.iter().filter_map(|value| self.text(key, value, "a list of strings in quotes")).collect())
    }

    /// A string or a list of strings, each with its location.
    pub(super) fn one_or_more(&self, key: &'static str) -> Vec<(&'s str, Range<usize>)> {
        match self.get(key).map(Spanned::get_ref) {
            None => Vec::new(),
            Some(DeValue::Array(_)) => self.strings(key).unwrap_or_default(),
            Some(_) => self.string(key).into_iter().collect(),
        }
    }

    /// Whether a key has an empty list.
    pub(super) fn is_empty_list(&self, key: &'static str) -> bool {
        self.get(key)
            .is_some_and(|value| matches!(value.get_ref(), DeValue::Array(array) if array.is_empty()))
    }

    /// A table of strings, each with its key and its location.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(String, &'s str, Range<usize>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, value, "a table of strings");
            return Vec::new();
        };
        let pairs = table.iter().filter_map(|(name, value)| {
            let (text, span) = self.text(key, value, "a table of strings in quotes")?;
            Some((name.get_ref().to_string(), text, span))
        });
        pairs.collect()
    }

    /// The names that the tables in this table have at `key`, or else their keys, even if the tables have mistakes.
    pub(super) fn names_of_tables(&self, key: &str) -> HashSet<String> {
        let name = |at: &str, value: &DeValue<'_>| match value.as_table().and_then(|table| table.get(key)) {
            Some(name) => name.get_ref().as_str().unwrap_or(at).to_owned(),
            None => at.to_owned(),
        };
        let tables = self.table.into_iter().flat_map(|table| table.iter());
        let names = tables.flat_map(|(at, value)| match value.get_ref() {
            DeValue::Array(array) => array.iter().map(|value| name(at.get_ref(), value.get_ref())).collect(),
            other => vec![name(at.get_ref(), other)],
        });
        names.collect()
    }

    /// Warns about a file with a secret that every user can read.
    pub(super) fn warn_if_world_readable(&self, path: &Path, span: &Range<usize>, what: &str) {
        if is_world_readable(path) {
            let shown = mask::path(path);
            self.problems.warning(
                Some(span.clone()),
                format!("everybody on this machine can read the {what} in {shown}"),
                format!("chmod 600 {shown}"),
            );
        }
    }

    /// The location of a key's value, if it exists.
    pub(super) fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.table?.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value.span())
    }

    /// Reports every key that was not read.
    pub(super) fn finish(self) {
        self.unknown_keys();
    }

    /// Like [`Section::finish`], for a borrowed section.
    pub(super) fn unknown_keys(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flat_map(|table| table.iter()) {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let help = match self.problems.suggest(name, asked.iter().copied()) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None if asked.is_empty() => String::new(),
                None => format!("the keys of {} are: {}", self.name, asked.join(", ")),
            };
            let unknown = format!("unknown key `{}` in {}", mask::quoted(name), self.name);
            self.problems.error(key.span(), unknown, help);
        }
    }

    /// Records that a key is known.
    fn ask(&self, key: &'static str) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
    }

    fn get(&self, key: &'static str) -> Option<Value<'s>> {
        self.ask(key);
        self.table?.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn text(&self, key: &str, value: Value<'s>, expected: &str) -> Option<(&'s str, Range<usize>)> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(key, value, expected);
        }
        text.map(|text| (text, value.span()))
    }

    fn wrong_type(&self, key: &str, value: Value<'_>, expected: &str) {
        let found = value.get_ref().type_str();
        self.problems.error(value.span(), format!("`{key}` must be {expected}"), format!("found: {found}"));
    }
}

/// What is expected of an array of tables.
fn tables_expected(path: &str) -> String {
    format!("one or more tables: write [[{path}]]")
}

/// The value that a word stands for.
pub(super) fn find_word<T: Clone>(text: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone())
}

/// The words that were expected.
pub(super) fn expected_words<T>(words: &[(&str, T)]) -> String {
    let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, before)) if !before.is_empty() => format!("expected {} or {last}", before.join(", ")),
        _ => format!("expected {}", words.concat()),
    }
}

/// The most similar candidate, if one is close.
pub(super) fn closest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let similarity = |candidate: &str| strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
    candidates
        .map(|candidate| (similarity(candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
