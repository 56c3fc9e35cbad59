//! Problems with the configuration, shown with their location: path, line, column, the line itself, and what to do.
//!
//! Limits how many are kept, so that a file with a hundred thousand mistakes costs no more per mistake than one with
//! two. `mask` decides which part of a line may be shown. The code that finds a problem writes its title and help.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::mask;
use super::reader::closest;
use crate::run::printable;

/// Maximum number of problems shown for each severity, the first in the file. The others are only counted.
const SHOWN: usize = 50;

/// Maximum number of suggestions for misspelt names, because each compares all known names.
const SUGGESTIONS: usize = 1000;

/// Maximum length of a title or help, in characters.
const LONGEST: usize = 1000;

/// Maximum length of a line that is shown, in bytes: hiding its secrets takes longer than linear time.
const LONGEST_LINE: usize = 4096;

/// The severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is accepted, but something is probably wrong.
    Warning,
}

/// A problem. Quotes no more of the file than may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The severity.
    pub severity: Severity,
    /// What is wrong.
    pub title: String,
    /// Its byte range in the file; `None` if it is not in the file (an environment variable, a flag).
    pub span: Option<Range<usize>>,
    /// What to do.
    pub help: Option<String>,
    /// Whether the configuration cannot be used. An error that does not refuse it is an error for `config check` and a
    /// warning elsewhere: one channel cannot be used, or a setting never has an effect.
    pub refuses: bool,
}

/// Collects problems. Shared by all code that reads the configuration.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Found>,
    /// The starts of lines.
    lines: Vec<usize>,
    /// Lines with broken syntax. Other problems on them are not reported.
    broken: RefCell<HashSet<usize>>,
    /// The location of the first secret in the file itself.
    inline_secret: RefCell<Option<Range<usize>>>,
    suggestions: Cell<usize>,
}

/// The first problems of the file, and the total number.
#[derive(Debug, Default)]
struct Found {
    /// By location, then by order of discovery.
    errors: BTreeMap<(usize, usize), Problem>,
    warnings: BTreeMap<(usize, usize), Problem>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    errors: usize,
    warnings: usize,
    refusing: usize,
}

impl Problems {
    /// For a file with this text.
    pub(super) fn of(text: &str) -> Self {
        Self { lines: line_starts(text), ..Self::default() }
    }

    /// An error that refuses the configuration.
    pub(super) fn error(&self, span: Range<usize>, title: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, Some(span), &title.into(), &help.into(), true);
    }

    /// An error that does not refuse it: one channel cannot be used, or a setting never has an effect.
    pub(super) fn check_error(&self, span: Range<usize>, title: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, Some(span), &title.into(), &help.into(), false);
    }

    /// A TOML syntax error. Other problems on its line only follow from it.
    pub(super) fn syntax_error(&self, span: Range<usize>, title: String) {
        self.error(span.clone(), title, "");
        self.broken.borrow_mut().insert(self.line_of(span.start));
    }

    /// Whether parts of the file could not be read, so that something that seems missing may be there.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken.borrow().is_empty()
    }

    /// An error about something missing. Not reported if parts of the file could not be read.
    pub(super) fn missing(&self, span: Range<usize>, title: impl Into<String>, help: impl Into<String>) {
        if !self.is_broken() {
            self.error(span, title, help);
        }
    }

    /// An error that is not in the file.
    pub(super) fn error_elsewhere(&self, title: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, None, &title.into(), &help.into(), true);
    }

    /// An error that is not in the file and does not refuse it. Code that needs the wrong value refuses it.
    pub(super) fn check_error_elsewhere(&self, title: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, None, &title.into(), &help.into(), false);
    }

    /// A warning in the file, or about something outside it.
    pub(super) fn warning(
        &self,
        span: Option<Range<usize>>,
        title: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Severity::Warning, span, &title.into(), &help.into(), false);
    }

    fn push(&self, severity: Severity, span: Option<Range<usize>>, title: &str, help: &str, refuses: bool) {
        if self.is_echo(span.as_ref()) {
            return;
        }
        let mut found = self.found.borrow_mut();
        let Found { errors, warnings, counts } = &mut *found;
        counts.refusing += usize::from(refuses);
        let (kept, count) = match severity {
            Severity::Error => (errors, &mut counts.errors),
            Severity::Warning => (warnings, &mut counts.warnings),
        };
        *count += 1;
        // Problems outside the file come last.
        let place = (span.as_ref().map_or(usize::MAX, |span| span.start), *count);
        if kept.len() == SHOWN && kept.last_key_value().is_some_and(|(last, _)| *last < place) {
            return;
        }
        let title = printable(title, LONGEST);
        let help = Some(printable(help, LONGEST)).filter(|help| !help.is_empty());
        kept.insert(place, Problem { severity, title, span, help, refuses });
        if kept.len() > SHOWN {
            kept.pop_last();
        }
    }

    fn is_echo(&self, span: Option<&Range<usize>>) -> bool {
        let broken = self.broken.borrow();
        span.is_some_and(|span| !broken.is_empty() && broken.contains(&self.line_of(span.start)))
    }

    /// The line number of a location, from 1.
    pub(super) fn line_of(&self, at: usize) -> usize {
        line_of(&self.lines, at)
    }

    /// The most similar name, if there is one. Stops after many suggestions.
    pub(super) fn suggest<'c>(
        &self,
        name: &str,
        candidates: impl Iterator<Item = &'c str>,
    ) -> Option<&'c str> {
        let made = self.suggestions.get();
        self.suggestions.set(made + 1);
        if made < SUGGESTIONS { closest(name, candidates.take(SUGGESTIONS)) } else { None }
    }

    /// Records a secret that is written in the file itself.
    pub(super) fn inline_secret(&self, span: &Range<usize>) {
        self.inline_secret.borrow_mut().get_or_insert_with(|| span.clone());
    }

    /// Warns about the first secret in the file itself, if everyone can read the file.
    pub(super) fn warn_of_inline_secret(&self, path: &Path) {
        let Some(span) = self.inline_secret.take() else { return };
        let help = format!("chmod 600 {}, or keep the secret in a file of its own", path.display());
        self.warning(Some(span), "everybody on this machine can read this secret", help);
    }

    /// Whether any problem so far refuses the configuration.
    pub(super) fn refuse(&self) -> bool {
        self.found.borrow().counts.refusing > 0
    }

    /// All problems in the order of the file; those outside it come last.
    pub(super) fn into_report(self, source: Option<(&Path, &str)>) -> Report {
        let Found { errors, warnings, counts } = self.found.into_inner();
        let (path, text) =
            source.map_or((None, String::new()), |(path, text)| (Some(path.into()), text.into()));
        let mut kept: Vec<_> = errors.into_iter().chain(warnings).collect();
        kept.sort_by_key(|((start, _), _)| *start);
        let problems = kept.into_iter().map(|(_, problem)| problem).collect();
        Report { path, text, lines: self.lines, problems, counts }
    }
}

/// The problems of one configuration, with its file.
#[derive(Clone, Default)]
pub struct Report {
    path: Option<PathBuf>,
    text: String,
    lines: Vec<usize>,
    /// The first problems, in the order of the file.
    pub problems: Vec<Problem>,
    counts: Counts,
}

impl fmt::Debug for Report {
    /// Leaves out the text of the file, which may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("path", &self.path)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl Report {
    /// The number of problems of one severity, including those that are not shown.
    pub fn count(&self, severity: Severity) -> usize {
        match severity {
            Severity::Error => self.counts.errors,
            Severity::Warning => self.counts.warnings,
        }
    }

    /// The problems of one severity, for people; empty if there are none. Ends without a line break.
    pub fn render(&self, severity: Severity, colour: bool) -> String {
        let chosen: Vec<_> = self.problems.iter().filter(|problem| problem.severity == severity).collect();
        let mut parts: Vec<String> =
            chosen.iter().map(|problem| self.render_one(problem, severity, colour)).collect();
        let more = self.count(severity) - chosen.len();
        if more > 0 {
            let word = if severity == Severity::Error { "error" } else { "warning" };
            parts.push(format!("{more} more {word}{}", if more == 1 { "" } else { "s" }));
        }
        parts.join("\n\n")
    }

    /// All problems that do not refuse the configuration, as warnings, for a command that uses it anyway.
    pub fn render_usable(&self, colour: bool) -> String {
        let tolerated = self.problems.iter().filter(|problem| !problem.refuses);
        let shown = tolerated.map(|problem| self.render_one(problem, Severity::Warning, colour));
        shown.collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(&self, problem: &Problem, severity: Severity, colour: bool) -> String {
        let level = match severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(problem.title.as_str()));
        let line;
        if let (Some(path), Some(span)) = (&self.path, &problem.span) {
            let path = printable(&path.to_string_lossy(), LONGEST);
            let place = self.place(span);
            if place.line.len() > LONGEST_LINE {
                let origin = Origin::path(path).line(place.number).char_column(place.column);
                group = group.element(origin);
            } else {
                let (text, marked) = place.masked(span);
                line = text;
                let snippet = Snippet::source(line.as_str())
                    .line_start(place.number)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(marked));
                group = group.element(snippet);
            }
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    /// Where a span begins.
    fn place(&self, span: &Range<usize>) -> Place<'_> {
        let start = floor(&self.text, span.start);
        let number = line_of(&self.lines, start);
        let from = self.lines.get(number - 1).copied().unwrap_or_default();
        let rest = &self.text[from..];
        let line = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = line[..floor(line, start.saturating_sub(from))].chars().count() + 1;
        Place { number, column, from, line }
    }
}

/// The line that a span begins in.
struct Place<'a> {
    /// Its number, from 1.
    number: usize,
    /// The column of the span, in characters from 1.
    column: usize,
    /// Where the line begins in the file, in bytes.
    from: usize,
    line: &'a str,
}

impl Place<'_> {
    /// The part of the line that may be shown, and the part of it that is marked.
    fn masked(&self, span: &Range<usize>) -> (String, Range<usize>) {
        let masked = mask::line(self.line);
        // The masked line has the same number of characters, but not of bytes.
        let begin = nth(&masked, self.column - 1);
        let end = self.line[..floor(self.line, span.end.saturating_sub(self.from))].chars().count();
        let end = nth(&masked, end);
        (masked, begin..end.max(begin))
    }
}

/// Where the `n`th character begins, from 0.
fn nth(text: &str, n: usize) -> usize {
    text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)
}

/// The starts of lines.
fn line_starts(text: &str) -> Vec<usize> {
    let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect()
}

/// The line number of a location, from 1.
fn line_of(starts: &[usize], at: usize) -> usize {
    starts.partition_point(|start| *start <= at).max(1)
}

/// The last character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, span: Range<usize>) -> String {
        let problems = Problems::of(text);
        problems.error(span, "unknown key", "did you mean `poll`?");
        problems.into_report(Some((Path::new("a.toml"), text))).render(Severity::Error, false)
    }

    #[test]
    fn shows_path_line_column_and_what_to_do() {
        let shown = report("[api]\nplol = 1\n", 6..10);
        assert!(shown.contains("error: unknown key"), "{shown}");
        assert!(shown.contains("a.toml:2:1"), "{shown}");
        assert!(shown.contains("plol = *"), "{shown}");
        assert!(shown.contains("did you mean `poll`?"), "{shown}");
    }

    #[test]
    fn columns_are_characters() {
        let text = "name = \"é…🙂\"; batch = 1\r\n";
        let at = text.find("batch").unwrap();
        let shown = report(text, at..at + 5);
        assert!(shown.contains("a.toml:1:15"), "{shown}");
    }

    #[test]
    fn a_span_anywhere_is_no_panic() {
        let text = "a = \"é\"\n";
        for start in 0..12 {
            for end in 0..12 {
                report(text, start..end);
            }
        }
        report("", 0..0);
    }

    #[test]
    fn of_a_line_that_is_too_long_only_the_place_is_shown() {
        let text = format!("x = 1\nnotify = [{}]\n", "\"a\", ".repeat(LONGEST_LINE / 5));
        let at = text.rfind('a').unwrap();
        let shown = report(&text, at..at + 1);
        assert!(shown.contains(&format!("a.toml:2:{}", at - 5)) && !shown.contains("notify"), "{shown}");
        assert!(report(&text[..LONGEST_LINE], 6..12).contains("notify"));
    }

    #[test]
    fn the_first_problems_of_the_file_are_kept_and_the_others_counted() {
        let text = "\n".repeat(200);
        let problems = Problems::of(&text);
        // Found from the end to the start.
        for line in (0..120).rev() {
            problems.error(line..line, format!("no. {line}."), "");
        }
        problems.warning(None, "a warning", "");
        let report = problems.into_report(Some((Path::new("a.toml"), &text)));
        let shown = report.render(Severity::Error, false);
        assert!(
            shown.contains("no. 0.") && shown.contains("no. 49.") && !shown.contains("no. 50."),
            "{shown}"
        );
        assert!(shown.ends_with("\n70 more errors"), "{shown}");
        assert_eq!((report.count(Severity::Error), report.count(Severity::Warning)), (120, 1));
        assert!(!report.render(Severity::Warning, false).contains("more"));
    }

    #[test]
    fn nothing_that_moves_a_terminal_is_printed() {
        let text = "\"a\u{1b}[2J\u{202e}\" = 1\n";
        let problems = Problems::of(text);
        problems.error(0..5, "unknown \u{1b}[2J\nkey", "a\u{7}b");
        let path = Path::new("a\n::error::\u{1b}.toml");
        let shown = problems.into_report(Some((path, text))).render(Severity::Error, false);
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
        assert!(!shown.contains("\n::error"), "{shown:?}");
    }
}
