//! The layout of the live display: which parts of a line fit, and how wide the columns are. Pure.
//!
//! If the terminal is too narrow, whole parts are dropped: first the rate, then the bar, the time left and the elapsed
//! time. The name, the status and the counts always stay. If there are too few rows, the last line counts the runs that
//! are not shown.

use ratatui_core::style::{Color, Modifier, Style};

use super::facts::Facts;
use crate::cli::block::Size;
use crate::cli::picture::{Picture, columns, cut};
use crate::run::{Ending, Terminal};

/// Width of the sign and the space after it.
const SIGN: usize = 2;

/// Width of the status column, enough for every known status.
const STATUS: usize = 10;

/// Minimum width of the name column.
const NAME: usize = 8;

/// Minimum widths, so that columns do not move while the times change: `59m 59s`, `~59m left`, `12.3/min`.
const ELAPSED: usize = 7;
const LEFT: usize = 9;
const RATE: usize = 8;

/// Minimum and maximum width of a bar.
const BAR: (usize, usize) = (8, 24);

/// Minimum widths of the terminal for two spaces between columns, and for `7 failed` instead of `✗7`.
const ROOMY: usize = 60;
const WORDY: usize = 100;

/// Minimum width for the message of a failing poll.
const MESSAGE: usize = 12;

/// Counts of the watched runs, by outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) all: usize,
    pub(super) finished: usize,
    pub(super) failed: usize,
    pub(super) canceled: usize,
    /// The watch ended without a terminal status.
    pub(super) given_up: usize,
}

impl Totals {
    /// Counts a run that has ended.
    pub(super) fn count(&mut self, ended: Option<Ending>) {
        let counted = match ended {
            None => return,
            Some(Ending::Finished(Terminal::Succeeded)) => &mut 0,
            Some(Ending::Finished(Terminal::Failed)) => &mut self.failed,
            Some(Ending::Finished(Terminal::Canceled)) => &mut self.canceled,
            Some(_) => &mut self.given_up,
        };
        *counted += 1;
        self.finished += usize::from(matches!(ended, Some(Ending::Finished(_))));
    }

    /// `3 of 30 finished, 1 failed`.
    pub(super) fn line(self) -> String {
        let bad = [(self.failed, "failed"), (self.canceled, "canceled"), (self.given_up, "given up")];
        let bad = bad.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!(", {count} {word}"));
        format!("{} of {} finished{}", self.finished, self.all, bad.collect::<String>())
    }
}

/// How many runs fit. One row is reserved for the cursor, and with several runs one for the totals.
pub(super) fn room(all: usize, size: Size) -> usize {
    let lines = size.height.saturating_sub(1).max(1);
    if all > 1 { lines - 1 } else { lines }
}

/// The display: a line for each of `shown`, and the totals. `more` runs are not shown.
pub(super) fn picture(shown: &[Facts], more: usize, totals: Totals, size: Size) -> Picture {
    let several = totals.all > 1;
    let width = size.width - 1;
    let mut picture = Picture::blank(width, shown.len() + usize::from(several && !is_done(shown, more)));
    let widths = Columns::fit(shown, width);
    for (line, facts) in shown.iter().enumerate() {
        widths.put(&mut picture, line, facts);
    }
    if several {
        let more = if more > 0 && !shown.is_empty() { format!("and {more} more · ") } else { String::new() };
        let text = cut(&format!("{more}{}", totals.line()), width.saturating_sub(SIGN));
        picture.put(SIGN, shown.len(), &text, faint());
    }
    picture
}

/// Whether nothing is left to show.
fn is_done(shown: &[Facts], more: usize) -> bool {
    shown.is_empty() && more == 0
}

/// Widths of the columns; zero if a column is dropped.
#[derive(Debug, Default)]
struct Columns {
    name: usize,
    status: usize,
    samples: usize,
    failed: usize,
    bar: usize,
    left: usize,
    elapsed: usize,
    rate: usize,
    gap: usize,
    all: usize,
}

impl Columns {
    fn fit(rows: &[Facts], all: usize) -> Self {
        let gap = if all + 1 >= ROOMY { 2 } else { 1 };
        let widest = |text: &dyn Fn(&Facts) -> usize| rows.iter().map(text).max().unwrap_or(0);
        // The share of the line that a long name may take from the optional parts.
        let fair = (all / 3).max(NAME);
        let name = widest(&|facts| facts.name.wants(fair));
        let mut fit = Self {
            status: widest(&|facts| columns(&facts.status)).max(STATUS),
            samples: widest(&|facts| columns(&facts.samples)),
            failed: widest(&|facts| columns(&failed(facts, all))),
            gap,
            all,
            ..Self::default()
        };
        let must = SIGN
            + [fit.status, fit.samples, fit.failed].iter().map(|width| fit.with_gap(*width)).sum::<usize>();
        let mut free = all.saturating_sub(must + name.min(fair));
        let has_bar = rows.iter().any(|facts| facts.fraction.is_some());
        // In the reverse order of dropping.
        let parts: [(&mut usize, usize); 4] = [
            (&mut fit.elapsed, widest(&|facts| columns(&facts.elapsed)).max(ELAPSED)),
            (&mut fit.left, widest(&|facts| columns(&facts.left)).max(LEFT)),
            (&mut fit.bar, if has_bar { BAR.0 } else { 0 }),
            (&mut fit.rate, widest(&|facts| columns(&facts.rate)).max(RATE)),
        ];
        for (part, width) in parts {
            let needed = if width > 0 { width + gap } else { 0 };
            if needed > free {
                break;
            }
            *part = width;
            free -= needed;
        }
        let spare = all.saturating_sub(must + fit.optional());
        // The name gets the remaining width, unless the message of a failing poll needs it.
        let has_message = fit.elapsed > 0 && rows.iter().any(|facts| facts.trouble.is_some());
        fit.name = name.min(if has_message { fair } else { spare.max(NAME) });
        let spare = spare.saturating_sub(fit.name);
        if fit.bar > 0 {
            fit.bar += spare.min(BAR.1 - BAR.0);
        }
        fit
    }

    fn with_gap(&self, width: usize) -> usize {
        if width > 0 { width + self.gap } else { 0 }
    }

    fn optional(&self) -> usize {
        [self.bar, self.left, self.elapsed, self.rate].iter().map(|width| self.with_gap(*width)).sum()
    }

    fn put(&self, picture: &mut Picture, line: usize, facts: &Facts) {
        let plain = Style::new();
        let coloured = Style::new().fg(facts.sign.1);
        picture.put(0, line, facts.sign.0, coloured);
        let name = facts.name.fit(self.name);
        picture.put(SIGN, line, &name, plain.add_modifier(Modifier::BOLD));
        if let Some(url) = &facts.url {
            picture.link(SIGN, line, columns(&name), url);
        }
        let mut at = SIGN + self.name + self.gap;
        picture.put(at, line, &facts.status, coloured);
        at += self.status + self.gap;
        picture.put(at + self.samples.saturating_sub(columns(&facts.samples)), line, &facts.samples, plain);
        at += self.with_gap(self.samples);
        picture.put(at, line, &failed(facts, self.all), plain.fg(Color::Red));
        at += self.with_gap(self.failed);
        let rest = self.all.saturating_sub(at);
        if let Some(trouble) = facts.trouble.as_ref().filter(|_| rest >= MESSAGE) {
            picture.put(at, line, &cut(trouble, rest), plain.fg(Color::Yellow));
            return;
        }
        if let Some(fraction) = facts.fraction.filter(|_| self.bar > 0) {
            let (done, open) = bar(fraction, self.bar);
            picture.put(at, line, &done, plain.fg(Color::Cyan));
            picture.put(at + columns(&done), line, &open, plain.fg(Color::DarkGray));
        }
        at += self.with_gap(self.bar);
        for (width, text) in
            [(self.left, &facts.left), (self.elapsed, &facts.elapsed), (self.rate, &facts.rate)]
        {
            if width > 0 {
                picture.put(at + width.saturating_sub(columns(text)), line, text, plain);
                at += width + self.gap;
            }
        }
    }
}

/// The permanent line of a run whose watch is over, aligned with the other permanent lines.
pub(super) fn last_line(facts: &Facts, name_width: usize, outcome: &str) -> Picture {
    let name = facts.name.fit(name_width.max(facts.name.width()));
    let status = SIGN + name_width.max(columns(&name)) + 2;
    let rest = if facts.status.is_empty() { status } else { status + columns(&facts.status).max(STATUS) + 2 };
    let mut picture = Picture::blank(rest + columns(outcome), 1);
    let coloured = Style::new().fg(facts.sign.1);
    picture.put(0, 0, facts.sign.0, coloured);
    picture.put(SIGN, 0, &name, Style::new().add_modifier(Modifier::BOLD));
    if let Some(url) = &facts.url {
        picture.link(SIGN, 0, columns(&name), url);
    }
    picture.put(status, 0, &facts.status, coloured);
    picture.put(rest, 0, outcome, Style::new());
    picture
}

fn failed(facts: &Facts, all: usize) -> String {
    match facts.failed {
        None => String::new(),
        Some(failed) if all + 1 >= WORDY => format!("{failed} failed"),
        Some(failed) => format!("✗{failed}"),
    }
}

/// The filled and the empty part of a bar. It is completely filled only at the end.
fn bar(fraction: f64, width: usize) -> (String, String) {
    let done = (0..width).take_while(|at| (*at as f64 + 1.0) / width as f64 <= fraction).count();
    ("█".repeat(done), "░".repeat(width - done))
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_at_the_end_only() {
        assert_eq!(bar(0.5, 4), ("██".to_owned(), "░░".to_owned()));
        assert_eq!(bar(0.99, 4), ("███".to_owned(), "░".to_owned()));
        assert_eq!(bar(1.0, 4), ("████".to_owned(), String::new()));
        assert_eq!(bar(0.0, 4), (String::new(), "░░░░".to_owned()));
    }

    #[test]
    fn totals_name_what_is_not_good() {
        let totals = Totals { all: 30, finished: 3, failed: 1, ..Totals::default() };
        assert_eq!(totals.line(), "3 of 30 finished, 1 failed");
        assert_eq!(Totals { all: 2, ..Totals::default() }.line(), "0 of 2 finished");
    }
}
