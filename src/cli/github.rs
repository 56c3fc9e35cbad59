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
use crate::run::text::{annotation_data, markdown_cell};
use crate::span;
use crate::words::samples;

/// A job on GitHub's own runners is killed after this.
const JOB_LIMIT: Duration = Duration::from_hours(6);

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

/// One `::notice`, `::warning` or `::error` a run.
pub(super) fn annotations(judged: &[Judged]) -> String {
    let mut text = String::new();
    for judged in judged {
        let state = &judged.run.state;
        let failed_samples = state.progress.failed.unwrap_or(0) > 0;
        let level = match judged.verdict {
            Exit::Succeeded if failed_samples => "warning",
            Exit::Succeeded | Exit::StillRunning => "notice",
            _ => "error",
        };
        let mut message = format!("{} {}", judged.run.subject.label(), describe(judged));
        if let Some(took) = state.took() {
            let _ = write!(message, " in {}", span::human(took));
        }
        let _ = writeln!(text, "::{level} title=DataFramer run::{}", annotation_data(&message));
    }
    text
}

fn describe(judged: &Judged) -> String {
    let state = &judged.run.state;
    let status = state.status.as_ref().map_or("was never seen", RunStatus::as_str);
    let samples = samples(state.progress).map(|samples| format!(" ({samples} samples)")).unwrap_or_default();
    let reason = judged.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{status}{samples}{reason}")
}

/// Appends the step outputs and the step summary, where GitHub has named files for them.
///
/// The run that decides the verdict gives the status; samples are summed over all runs.
pub(super) fn write_files(judged: &[Judged], exit: Exit, waited: Duration) -> Result<(), Exit> {
    let outputs = append("GITHUB_OUTPUT", &outputs(judged, exit, waited));
    append("GITHUB_STEP_SUMMARY", &summary(judged)).and(outputs)
}

fn outputs(judged: &[Judged], exit: Exit, waited: Duration) -> String {
    let deciding = judged.iter().find(|judged| judged.verdict == exit).or(judged.first());
    let status = deciding.and_then(|judged| judged.run.state.status.as_ref()).map_or("", RunStatus::as_str);
    let sum = |count: fn(&Judged) -> Option<u64>| {
        let counts: Vec<u64> = judged.iter().filter_map(count).collect();
        if counts.is_empty() {
            String::new()
        } else {
            counts.into_iter().fold(0, u64::saturating_add).to_string()
        }
    };
    let longest = judged.iter().filter_map(|judged| judged.run.state.took()).max().unwrap_or(waited);
    [
        ("verdict", exit.word().to_owned()),
        ("status", status.to_owned()),
        ("samples_completed", sum(|judged| judged.run.state.progress.completed)),
        ("samples_failed", sum(|judged| judged.run.state.progress.failed)),
        ("number_of_samples", sum(|judged| judged.run.state.progress.total)),
        ("duration_seconds", longest.as_secs().to_string()),
    ]
    .iter()
    .fold(String::new(), |text, (name, value)| text + name + "=" + value + "\n")
}

fn summary(judged: &[Judged]) -> String {
    let mut text = "### DataFramer runs\n\n| Run | Status | Verdict | Completed | Failed | Samples | Took |\n| --- | --- | --- | ---: | ---: | ---: | ---: |\n".to_owned();
    let count = |count: Option<u64>| count.map_or("–".to_owned(), |count| count.to_string());
    for judged in judged {
        let state = &judged.run.state;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            markdown_cell(judged.run.subject.label()),
            markdown_cell(state.status.as_ref().map_or("–", RunStatus::as_str)),
            markdown_cell(&judged.reason.as_ref().map_or_else(
                || judged.verdict.word().to_owned(),
                |reason| format!("{}: {reason}", judged.verdict.word())
            )),
            count(state.progress.completed),
            count(state.progress.failed),
            count(state.progress.total),
            state.took().map_or("–".to_owned(), span::human),
        );
    }
    text.push('\n');
    text
}

fn append(variable: &str, text: &str) -> Result<(), Exit> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else { return Ok(()) };
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        out::error(format_args!("cannot write to the file in {variable}: {error}"));
        Exit::Internal
    })
}
