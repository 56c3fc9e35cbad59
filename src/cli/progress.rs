//! Progress on a terminal: a line a run, drawn over itself. A leaf: it receives snapshots and is never asked.
//!
//! Runs that have ended scroll up as finished lines. Where there are more runs than the terminal has lines, the first
//! ones are drawn and the rest is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use console::{Style, style, truncate_str};
use tokio::time::Instant;

use super::foreground::View;
use super::out::{self, Out};
use crate::poll::{RunView, Update};
use crate::run::{Ending, RunChange, RunId, RunStatus, Subject, Terminal};
use crate::span;
use crate::words::{self, samples};

/// How often the times on screen move on.
const TICK: Duration = Duration::from_secs(1);

/// Widest a run's name may be drawn: a UUID.
const NAME: usize = 36;

/// Widest and narrowest a bar may be drawn, and what must be left beside it.
const BAR: (usize, usize) = (24, 6);
const BESIDE_BAR: usize = 40;

/// Wide enough for every status but an unknown one.
const STATUS: usize = 10;

/// The lines on the terminal.
pub(super) struct Progress {
    out: Out,
    /// The runs that have not ended, in the order asked for.
    rows: BTreeMap<usize, (Subject, Option<RunView>)>,
    index: BTreeMap<RunId, usize>,
    began: Instant,
    next_tick: Instant,
    name_width: usize,
}

impl Progress {
    /// A display for these runs.
    pub(super) fn new(subjects: Vec<Subject>, out: &Out) -> Self {
        let now = Instant::now();
        let width = subjects.iter().map(|subject| subject.label().chars().count()).max().unwrap_or(0);
        let progress = Self {
            out: out.clone(),
            index: subjects.iter().enumerate().map(|(at, subject)| (subject.id.clone(), at)).collect(),
            rows: subjects.into_iter().map(|subject| (subject, None)).enumerate().collect(),
            began: now,
            next_tick: now + TICK,
            name_width: width.min(NAME),
        };
        out.draw(progress.frame());
        progress
    }

    /// The block as it is to be drawn now.
    fn frame(&self) -> Vec<String> {
        let (height, width) = out::size();
        // One line for the rest, one for the cursor.
        let room = height.saturating_sub(2).max(1);
        let shown = self.rows.values().take(room);
        let mut lines: Vec<String> =
            shown.map(|(subject, view)| self.line(subject, view.as_ref(), width)).collect();
        if self.rows.len() > room {
            lines.push(format!("  … and {} more", self.rows.len() - room));
        }
        lines
    }

    fn line(&self, subject: &Subject, view: Option<&RunView>, width: usize) -> String {
        let status = view.and_then(|view| view.state.status.as_ref()).map_or("…", RunStatus::as_str);
        let name_width = self.name_width(width);
        let room = width.saturating_sub(name_width + STATUS + 5 + BESIDE_BAR);
        let fraction = view.and_then(|view| view.state.progress.fraction());
        let bar = match fraction {
            Some(fraction) if room >= BAR.1 => bar(fraction, room.min(BAR.0)) + " ",
            _ => String::new(),
        };
        let name = padded(subject.label(), name_width);
        format!("  {name} {status:STATUS$} {bar}{}", message(view, self.began))
    }

    /// How wide the column of names is on a terminal this wide: where it is narrow, what follows matters more.
    fn name_width(&self, width: usize) -> usize {
        self.name_width.min((width / 4).max(8))
    }

    /// The name, in a column of its own, for a line that stays.
    fn name(&self, subject: &Subject) -> String {
        padded(subject.label(), self.name_width)
    }

    fn run(&mut self, run: &RunView, change: RunChange) {
        let Some(at) = self.index.get(&run.subject.id).copied() else { return };
        if change < RunChange::Ended {
            if let Some((_, view)) = self.rows.get_mut(&at) {
                *view = Some(run.clone());
            }
            self.out.draw(self.frame());
        } else {
            self.rows.remove(&at);
            let warning = words::partial(run).map(|warning| format!("\n{warning}")).unwrap_or_default();
            let line = format!("{} {} {}{warning}", mark(run), self.name(&run.subject), words::standing(run));
            // In this order: the line never stands above a block that still has the run.
            self.out.draw(self.frame());
            self.out.say(&line);
        }
    }
}

impl View for Progress {
    fn update(&mut self, update: &Update) {
        if let Update::Run(run, change) = update {
            self.run(run, *change);
        } else if let Some(notice) = words::notice(update) {
            self.out.say(&notice);
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        (!self.rows.is_empty()).then_some(self.next_tick)
    }

    fn tick(&mut self) {
        self.next_tick = Instant::now() + TICK;
        self.out.draw(self.frame());
    }

    fn finish(&mut self) {
        // What has not ended leaves a plain line instead of its bar.
        let rows = std::mem::take(&mut self.rows);
        let line = |(subject, view): &(Subject, Option<RunView>)| {
            let standing = view.as_ref().map_or_else(|| "not seen yet".to_owned(), words::standing);
            format!("… {} {standing}", self.name(subject))
        };
        let lines: Vec<String> = rows.values().map(line).collect();
        self.out.draw(Vec::new());
        if !lines.is_empty() {
            self.out.say(&lines.join("\n"));
        }
    }
}

fn padded(name: &str, width: usize) -> String {
    format!("{:width$}", truncate_str(name, width, "…"))
}

/// A bar of `width` characters, filled to `fraction`.
fn bar(fraction: f64, width: usize) -> String {
    let filled = (0..width).take_while(|at| (*at as f64 + 0.5) / width as f64 <= fraction).count();
    format!("{}{}", style("━".repeat(filled)).cyan(), style("━".repeat(width - filled)).black().bright())
}

/// What stands behind the bar: samples, rate, time left, time taken, and what is wrong.
fn message(view: Option<&RunView>, began: Instant) -> String {
    let Some(view) = view else { return span::human(words::round(began.elapsed())) };
    let mut parts = Vec::new();
    parts.extend(samples(view.state.progress));
    parts.extend(view.per_second.map(rate));
    parts.extend(words::left(view));
    let elapsed = view
        .state
        .created_at
        .and_then(|created| Duration::try_from(crate::clock::wall().duration_since(created)).ok())
        .unwrap_or_else(|| began.elapsed());
    parts.push(span::human(words::round(elapsed)));
    if let Some(trouble) = &view.trouble {
        parts.push(style(format!("({})", trouble.message)).yellow().to_string());
    }
    parts.join("  ")
}

/// Samples per second, minute or hour, whichever is a number to read.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 0.5 => format!("{rate:.1}/s"),
        rate if rate * 60.0 >= 0.5 => format!("{:.1}/min", rate * 60.0),
        rate => format!("{:.1}/h", rate * 3600.0),
    }
}

/// How it ended, in one character.
fn mark(run: &RunView) -> String {
    let (mark, style) = match run.state.ended {
        Some(Ending::Finished(Terminal::Succeeded)) => ("✓", Style::new().green()),
        Some(Ending::Finished(Terminal::Canceled)) => ("–", Style::new().yellow()),
        _ => ("✗", Style::new().red()),
    };
    style.apply_to(mark).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_to_read() {
        assert_eq!(rate(2.14), "2.1/s");
        assert_eq!(rate(0.1), "6.0/min");
        assert_eq!(rate(0.001), "3.6/h");
    }

    #[test]
    fn a_bar_is_full_at_the_end_only() {
        let filled = |fraction| console::strip_ansi_codes(&bar(fraction, 10)).chars().count();
        assert_eq!(filled(0.0), 10);
        console::set_colors_enabled(true);
        assert_eq!(bar(0.5, 4), format!("{}{}", style("━━").cyan(), style("━━").black().bright()));
        assert_eq!(bar(1.0, 4), format!("{}{}", style("━━━━").cyan(), style("").black().bright()));
        assert_eq!(bar(0.0, 4), format!("{}{}", style("").cyan(), style("━━━━").black().bright()));
    }
}
