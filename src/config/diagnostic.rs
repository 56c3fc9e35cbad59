//! Problems with the configuration, shown where they are: path, line, column, the line itself, and what to do.
//!
//! Owns the rule that a configuration file is full of secrets: in the lines shown, every string and comment is masked but
//! the one that the problem is about, and that one too if it may be a secret.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is taken, but something is likely wrong.
    Warning,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub title: String,
    /// Where in the file, as bytes; `None` for what is not in the file (an environment variable, a flag).
    pub span: Option<Range<usize>>,
    /// What to do.
    pub help: Option<String>,
    /// Whether the text at `span` may be shown.
    pub reveal: bool,
    /// Whether it makes one channel unusable and nothing else.
    pub channel_only: bool,
}

/// Problems as they are found. Shared by everything that reads.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    /// Where the first secret in the file itself is.
    inline_secret: RefCell<Option<Range<usize>>>,
}

impl Problems {
    /// An error at a place whose text may be shown.
    pub(super) fn error(&self, span: Range<usize>, title: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, Some(span), title.into(), help.into(), true);
    }

    /// An error at a place whose text may be a secret.
    pub(super) fn secret_error(&self, span: Range<usize>, title: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, Some(span), title.into(), help.into(), false);
    }

    /// An error that makes one channel unusable and nothing else.
    pub(super) fn channel_error(&self, span: Range<usize>, title: impl Into<String>) {
        self.error(span, title, "");
        if let Some(problem) = self.found.borrow_mut().last_mut() {
            problem.channel_only = true;
        }
    }

    /// An error that is not in the file.
    pub(super) fn error_elsewhere(&self, title: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, None, title.into(), help.into(), false);
    }

    /// A warning at a place, or about what is not in the file.
    pub(super) fn warning(
        &self,
        span: Option<Range<usize>>,
        title: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Severity::Warning, span, title.into(), help.into(), true);
    }

    fn push(
        &self,
        severity: Severity,
        span: Option<Range<usize>>,
        title: String,
        help: String,
        reveal: bool,
    ) {
        let help = Some(help).filter(|help| !help.is_empty());
        self.found.borrow_mut().push(Problem { severity, title, span, help, reveal, channel_only: false });
    }

    /// Takes note of a secret that is written in the file itself.
    pub(super) fn inline_secret(&self, span: &Range<usize>) {
        self.inline_secret.borrow_mut().get_or_insert_with(|| span.clone());
    }

    /// Warns of the first secret that is written in the file itself, where everybody can read that file.
    pub(super) fn warn_of_inline_secret(&self, path: &Path) {
        let Some(span) = self.inline_secret.take() else { return };
        let help = format!("chmod 600 {}, or keep the secret in a file of its own", path.display());
        self.push(
            Severity::Warning,
            Some(span),
            "everybody on this machine can read this secret".to_owned(),
            help,
            false,
        );
    }

    /// Whether anything found so far refuses the configuration.
    pub(super) fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|problem| problem.severity == Severity::Error && !problem.channel_only)
    }

    /// Everything found, in the order of the file; what is not in the file comes last.
    pub(super) fn into_report(self, source: Option<(&Path, &str)>) -> Report {
        let mut problems = self.found.into_inner();
        problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        let (path, text) =
            source.map_or((None, String::new()), |(path, text)| (Some(path.into()), text.into()));
        Report { path, text, problems }
    }
}

/// All problems of one configuration, with the file they are in.
#[derive(Debug, Clone, Default)]
pub struct Report {
    path: Option<PathBuf>,
    text: String,
    /// The problems, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Adds a warning about what is not in the file.
    pub(super) fn warn(&mut self, title: String, help: &str) {
        let help = Some(help.to_owned());
        let severity = Severity::Warning;
        self.problems.push(Problem { severity, title, span: None, help, reveal: false, channel_only: false });
    }

    /// How many problems are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }

    /// The problems of one severity, for people; empty if there are none. Ends without a line break.
    pub fn render(&self, severity: Severity, colour: bool) -> String {
        let chosen = self.problems.iter().filter(|problem| problem.severity == severity);
        chosen.map(|problem| self.render_one(problem, colour)).collect::<Vec<_>>().join("\n\n")
    }

    fn render_one(&self, problem: &Problem, colour: bool) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(problem.title.as_str()));
        let masked;
        if let (Some(path), Some(span)) = (&self.path, &problem.span) {
            masked = mask(&self.text, span, problem.reveal);
            let snippet = Snippet::source(masked.as_str())
                .path(path.to_string_lossy().into_owned())
                .annotation(AnnotationKind::Primary.span(on_one_line(&self.text, span)));
            group = group.element(snippet);
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// A span that ends where its first line does: a picture of a whole unclosed string helps nobody.
fn on_one_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = span.start.min(text.len());
    let end = span.end.min(text.len()).max(start);
    let line_end = text[start..].find('\n').map_or(text.len(), |offset| start + offset);
    start..end.min(line_end.max(start))
}

/// The text with everything starred out that may be a secret: all values (what stands behind a line's first `=`), and
/// whole lines that are neither a setting nor a table's head. Only `span` is shown, if it may be.
///
/// The length in bytes stays the same, so that spans still fit.
fn mask(text: &str, span: &Range<usize>, reveal: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let shown =
            if line.trim_start().starts_with('[') && !line.contains('=') && !line.contains(['"', '\'']) {
                line.find('#').unwrap_or(line.len())
            } else {
                line.find('=').map_or(0, |at| at + 1)
            };
        for (at, c) in line.char_indices() {
            if at < shown || c.is_whitespace() || (reveal && span.contains(&(start + at))) {
                out.push(c);
            } else {
                out.extend(std::iter::repeat_n('*', c.len_utf8()));
            }
        }
        start += line.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, span: Range<usize>, reveal: bool) -> String {
        let problems = Problems::default();
        if reveal {
            problems.error(span, "unknown key", "did you mean `poll`?");
        } else {
            problems.secret_error(span, "bad secret", "expected whsec_");
        }
        problems.into_report(Some((Path::new("a.toml"), text))).render(Severity::Error, false)
    }

    #[test]
    fn shows_path_line_column_and_what_to_do() {
        let shown = report("[api]\nplol = 1\n", 6..10, true);
        assert!(shown.contains("error: unknown key"), "{shown}");
        assert!(shown.contains("a.toml:2:1"), "{shown}");
        assert!(shown.contains("plol = *"), "{shown}");
        assert!(shown.contains("did you mean `poll`?"), "{shown}");
    }

    #[test]
    fn masks_what_may_be_a_secret() {
        let text = "secret = \"whsec_hunter2\" # old: hunter3\nurl = 'https://hunter4'\n";
        let shown = report(text, 9..24, false);
        assert!(shown.contains("secret = *************** * **** *******"), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
        // A problem with the key shows the key and still not the value.
        let shown = report(text, 0..6, true);
        assert!(shown.contains("secret = ") && !shown.contains("hunter"), "{shown}");
        // A problem with a value that is no secret shows that value alone.
        let shown = report("a = \"zero\" # hunter2", 4..10, true);
        assert!(shown.contains("\"zero\"") && !shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn masks_in_broken_files_too() {
        for text in [
            "k = \"hunter2",
            "k = \"\"\"\nhunter2\n",
            "k = 'hunter2\nx = 1",
            "url = https://hooks.example/hunter2",
            "headers = { Authorization = Bearer hunter2 }",
            "hunter2",
            "api_key hunter2",
            "  \"hunter2\",",
            "[[x]] # hunter2",
            "k = \"é\" # hunter2é",
        ] {
            for reveal in [true, false] {
                let shown = report(text, 0..1, reveal);
                assert!(!shown.contains("unter2"), "{text}: {shown}");
            }
        }
    }

    #[test]
    fn a_span_beyond_the_text_is_no_panic() {
        for span in [0..0, 5..5, 3..99, 99..120] {
            report("a = 1", span, true);
        }
    }
}
