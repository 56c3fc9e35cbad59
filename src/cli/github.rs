//! The result for GitHub Actions: annotations, step outputs and a step summary.
//!
//! Formats: "Workflow commands for GitHub Actions" in GitHub's documentation. A command is a line, so that everything in
//! it is escaped.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use super::exit::Exit;
use super::out;
use super::verdict::Judged;
use crate::run::RunStatus;
use crate::run::text::{annotation_data, markdown_cell, one_line};
use crate::span;
use crate::words::samples;

/// A job on GitHub's own runners is killed after this.
const JOB_LIMIT: Duration = Duration::from_hours(6);

/// The runner shows this many annotations of a level per step, and drops the others without a word.
const MOST_ANNOTATIONS: usize = 10;

/// GitHub shows nothing of a step summary that is larger, in bytes.
const LARGEST_SUMMARY: usize = 1 << 20;

/// A hint where the job would be killed before the wait gives up.
pub(super) fn hint_about_timeout(timeout: Option<Duration>) -> Option<String> {
    let hint = match timeout {
        None => {
            "no --timeout is set: GitHub kills the job after six hours, without a result; set one, such as --timeout 5h"
        }
        Some(timeout) if timeout > JOB_LIMIT => {
            "--timeout is longer than the six hours after which GitHub kills the job, without a result"
        }
        Some(_) => return None,
    };
    Some(format!("::notice title=runwatch::{}", annotation_data(hint)))
}

/// One `::error` where there is no run to say anything of.
pub(super) fn could_not_begin(exit: Exit) -> String {
    format!("::error title=runwatch::the wait could not begin: {}", annotation_data(exit.meaning()))
}

/// How loudly an annotation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error,
    Warning,
    Notice,
}

impl Level {
    const ALL: [Self; 3] = [Self::Error, Self::Warning, Self::Notice];

    fn of(judged: &Judged) -> Self {
        let failed_samples = judged.run.watched.state.progress.failed.unwrap_or(0) > 0;
        match judged.verdict {
            Exit::Succeeded if failed_samples => Self::Warning,
            Exit::Succeeded | Exit::StillRunning => Self::Notice,
            _ => Self::Error,
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// One `::notice`, `::warning` or `::error` per run, as many of each as the runner shows: the worst, where there are more,
/// and how many were left out. `hinted` says that a notice was printed before.
pub(super) fn annotations(judged: &[Judged], hinted: bool) -> String {
    let mut text = String::new();
    let of_level = |level: Level| judged.iter().filter(move |judged| Level::of(judged) == level);
    let room = |level: Level| MOST_ANNOTATIONS - usize::from(hinted && level == Level::Notice);
    let fits = |level: &Level| of_level(*level).count() <= room(*level);
    if Level::ALL.iter().all(fits) {
        for judged in judged {
            annotate(&mut text, Level::of(judged), &message(judged));
        }
        return text;
    }
    for level in Level::ALL {
        let mut runs: Vec<&Judged> = of_level(level).collect();
        runs.sort_by_key(|judged| {
            (judged.verdict.rank(), std::cmp::Reverse(judged.run.watched.state.progress.failed))
        });
        let shown = if runs.len() <= room(level) { runs.len() } else { room(level) - 1 };
        for judged in &runs[..shown] {
            annotate(&mut text, level, &message(judged));
        }
        if shown < runs.len() {
            annotate(&mut text, level, &left_out(&runs[shown..]));
        }
    }
    text
}

fn annotate(text: &mut String, level: Level, message: &str) {
    let _ = writeln!(text, "::{} title=DataFramer run::{}", level.command(), annotation_data(message));
}

/// `31 more runs: 28 failed, 3 canceled; the step summary has all of them`.
fn left_out(runs: &[&Judged]) -> String {
    let mut counts: Vec<(Exit, usize)> = Vec::new();
    for judged in runs {
        match counts.iter_mut().find(|(verdict, _)| *verdict == judged.verdict) {
            Some((_, count)) => *count += 1,
            None => counts.push((judged.verdict, 1)),
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(verdict, count)| format!("{count} {}", verdict.word().replace('_', " ")))
        .collect();
    let runs = if runs.len() == 1 { "1 more run".to_owned() } else { format!("{} more runs", runs.len()) };
    format!("{runs}: {}; the step summary has all of them", counts.join(", "))
}

/// What an annotation says of a run.
fn message(judged: &Judged) -> String {
    let state = &judged.run.watched.state;
    let status = state.status.as_ref().map_or("was never seen", RunStatus::as_str);
    let samples = samples(state.progress).map(|samples| format!(" ({samples} samples)")).unwrap_or_default();
    let took = state.took().map(|took| format!(" in {}", span::human(took))).unwrap_or_default();
    let reason = judged.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} {status}{samples}{took}{reason}", judged.run.watched.subject.label())
}

/// Appends the step outputs and the step summary, where GitHub has named files for them.
///
/// The run that decides the verdict gives the status; samples are summed over all runs.
pub(super) fn write_files(judged: &[Judged], exit: Exit, waited: Duration) -> Result<(), Exit> {
    let outputs = append("GITHUB_OUTPUT", |_| outputs(judged, exit, waited));
    let left = |length: u64| LARGEST_SUMMARY.saturating_sub(usize::try_from(length).unwrap_or(usize::MAX));
    append("GITHUB_STEP_SUMMARY", |length| summary(judged, left(length))).and(outputs)
}

fn outputs(judged: &[Judged], exit: Exit, waited: Duration) -> String {
    let deciding = judged.iter().find(|judged| judged.verdict == exit).or(judged.first());
    let status =
        deciding.and_then(|judged| judged.run.watched.state.status.as_ref()).map_or("", RunStatus::as_str);
    let sum = |count: fn(&Judged) -> Option<u64>| {
        let counts: Vec<u64> = judged.iter().filter_map(count).collect();
        if counts.is_empty() {
            String::new()
        } else {
            counts.into_iter().fold(0, u64::saturating_add).to_string()
        }
    };
    let longest = judged.iter().filter_map(|judged| judged.run.watched.state.took()).max().unwrap_or(waited);
    [
        ("verdict", exit.word().to_owned()),
        ("status", one_line(status).into_owned()),
        ("samples_completed", sum(|judged| judged.run.watched.state.progress.completed)),
        ("samples_failed", sum(|judged| judged.run.watched.state.progress.failed)),
        ("number_of_samples", sum(|judged| judged.run.watched.state.progress.total)),
        ("duration_seconds", longest.as_secs().to_string()),
    ]
    .iter()
    .fold(String::new(), |text, (name, value)| text + name + "=" + value + "\n")
}

/// A table of the runs, of `largest` bytes at most: the worst runs, where not all of them fit.
fn summary(judged: &[Judged], largest: usize) -> String {
    let rows: Vec<String> = judged.iter().map(row).collect();
    let head = "### DataFramer runs\n\n| Run | Status | Verdict | Completed | Failed | Samples | RunDuration |\n| --- | --- | --- | ---: | ---: | ---: | ---: |\n";
    // The blank line at the end, and a line that says how many are left out.
    let mut room = largest.saturating_sub(head.len() + 100);
    let mut worst_first: Vec<usize> = (0..judged.len()).collect();
    worst_first.sort_by_key(|at| judged[*at].verdict.rank());
    let fits = |at: &usize| {
        let left = room.checked_sub(rows[*at].len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let mut shown: Vec<usize> = worst_first.into_iter().take_while(fits).collect();
    shown.sort_unstable();
    let table: String = shown.iter().map(|at| rows[*at].as_str()).collect();
    let more = match judged.len() - shown.len() {
        0 => String::new(),
        more => format!("\n… and {more} more runs: GitHub shows no larger summary\n"),
    };
    format!("{head}{table}{more}\n")
}

fn row(judged: &Judged) -> String {
    let state = &judged.run.watched.state;
    let count = |count: Option<u64>| count.map_or("–".to_owned(), |count| count.to_string());
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |\n",
        markdown_cell(judged.run.watched.subject.label()),
        markdown_cell(state.status.as_ref().map_or("–", RunStatus::as_str)),
        markdown_cell(&judged.reason.as_ref().map_or_else(
            || judged.verdict.word().to_owned(),
            |reason| format!("{}: {reason}", judged.verdict.word())
        )),
        count(state.progress.completed),
        count(state.progress.failed),
        count(state.progress.total),
        state.took().map_or("–".to_owned(), span::human),
    )
}

/// Appends to the file that a variable names, if it names one. `text` gets the length of the file.
fn append(variable: &str, text: impl FnOnce(u64) -> String) -> Result<(), Exit> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else { return Ok(()) };
    let open = OpenOptions::new().append(true).create(true).open(&path);
    let written = open.and_then(|mut file| {
        let length = file.metadata()?.len();
        file.write_all(text(length).as_bytes())
    });
    written.map_err(|error| {
        out::error(format_args!("cannot write to the file in {variable}: {error}"));
        Exit::Internal
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{FinalRun, Watched};
    use crate::run::{Ending, Progress, RunState, Subject, Terminal};

    fn judged(id: usize, verdict: Exit, failed: u64) -> Judged {
        let mut state = RunState::new(jiff::Timestamp::UNIX_EPOCH);
        state.progress = Progress { completed: Some(1), failed: Some(failed), total: None };
        state.status = Some(RunStatus::Succeeded);
        state.ended = Some(Ending::Finished(Terminal::Succeeded));
        let subject = Subject { id: format!("r{id}").parse().unwrap(), name: None };
        let run = FinalRun::new(Watched { state, ..Watched::new(subject, jiff::Timestamp::UNIX_EPOCH) });
        Judged { run, verdict, reason: None }
    }

    #[test]
    fn ten_of_a_level_are_shown_the_worst_first_and_the_rest_is_counted() {
        let canceled = (0..8).map(|id| judged(id, Exit::Canceled, 0));
        let failed = (8..12).map(|id| judged(id, Exit::Failed, 0));
        let partial = (12..30).map(|id| judged(id, Exit::Succeeded, id as u64));
        let well = (30..40).map(|id| judged(id, Exit::Succeeded, 0));
        let all: Vec<Judged> = canceled.chain(failed).chain(partial).chain(well).collect();
        let text = annotations(&all, true);
        for level in ["error", "warning", "notice"] {
            let shown = text.lines().filter(|line| line.starts_with(&format!("::{level} "))).count();
            assert_eq!(shown, if level == "notice" { 9 } else { 10 }, "{level}: {text}");
        }
        let lines: Vec<&str> = text.lines().map(|line| line.rsplit("::").next().unwrap()).collect();
        assert!(
            lines[0].starts_with("r8 ") && lines[4].starts_with("r0 "),
            "the worst verdict first: {text}"
        );
        assert_eq!(lines[9], "3 more runs: 3 canceled; the step summary has all of them");
        assert!(lines[10].starts_with("r29 "), "most failed samples first: {text}");
        assert_eq!(lines[19], "9 more runs: 9 succeeded; the step summary has all of them");
        assert_eq!(lines[28], "2 more runs: 2 succeeded; the step summary has all of them");
    }

    #[test]
    fn a_summary_is_as_large_as_github_shows_and_has_the_worst() {
        let all: Vec<Judged> = (0..12_000)
            .map(|id| judged(id, if id % 4_000 == 3_999 { Exit::Failed } else { Exit::Succeeded }, 0))
            .collect();
        let text = summary(&all, LARGEST_SUMMARY);
        assert_eq!(text.lines().count(), 12_000 + 5, "all of them fit");
        let text = summary(&all, 100_000);
        assert!(text.len() <= 100_000 && text.len() > 99_000, "{}", text.len());
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| r")).collect();
        for failed in ["| r3999 |", "| r7999 |", "| r11999 |"] {
            assert!(rows.iter().any(|row| row.starts_with(failed)), "{failed}");
        }
        assert!(rows[0].starts_with("| r0 |"), "in the order asked for: {}", rows[0]);
        assert!(text.ends_with(&format!(
            "\n\n… and {} more runs: GitHub shows no larger summary\n\n",
            12_000 - rows.len()
        )));
        assert!(summary(&all, 0).contains("… and 12000 more runs"), "the file is full already");
    }

    #[test]
    fn what_fits_is_in_the_order_asked_for() {
        let all = [judged(1, Exit::Succeeded, 0), judged(2, Exit::Failed, 0)];
        let text = annotations(&all, true);
        assert!(text.starts_with("::notice") && text.lines().count() == 2, "{text}");
    }
}
