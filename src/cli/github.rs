//! The result for GitHub Actions: annotations, step outputs and a step summary.
//!
//! Formats: "Workflow commands for GitHub Actions" in GitHub's documentation. A command is a line, so that everything in
//! it is escaped.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::annotations::{Level, annotations};
use super::exit::Exit;
use super::outputs::outputs;
use super::summary::summary;
use super::verdict::Judged;
use super::{out, output_file};
use crate::run::text::annotation_data;

/// Time after which GitHub kills a job on its own runners.
const JOB_LIMIT: Duration = Duration::from_hours(6);

/// Maximum size of a step summary in bytes. GitHub shows nothing of a larger one.
const LARGEST_SUMMARY: usize = 1 << 20;

/// A hint if the job would be killed before the wait ends.
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

/// One `::error` for a wait that could not begin, so that there are no runs to annotate.
pub(super) fn could_not_begin(exit: Exit) -> String {
    format!("::error title=runwatch::the wait could not begin: {}", annotation_data(exit.meaning()))
}

/// One `::notice`, `::warning` or `::error` per annotation.
pub(super) fn commands(judged: &[Judged], hinted: bool) -> String {
    let mut text = String::new();
    for (level, message) in annotations(judged, hinted, "the step summary has") {
        let command = match level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "notice",
        };
        let _ = writeln!(text, "::{command} title=DataFramer run::{}", annotation_data(&message));
    }
    text
}

/// Appends the step outputs and the step summary to the files that GitHub names.
pub(super) fn write_files(judged: &[Judged], exit: Exit, waited: Duration) -> Result<(), Exit> {
    let outputs = append("GITHUB_OUTPUT", |_| {
        outputs(judged, exit, waited)
            .iter()
            .fold(String::new(), |text, (name, value)| text + name + "=" + value + "\n")
    });
    let left = |length: u64| LARGEST_SUMMARY.saturating_sub(usize::try_from(length).unwrap_or(usize::MAX));
    append("GITHUB_STEP_SUMMARY", |length| summary(judged, left(length))).and(outputs)
}

/// Appends to the file that a variable names, if it names one. `text` gets the length of the file.
fn append(variable: &str, text: impl FnOnce(u64) -> String) -> Result<(), Exit> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else { return Ok(()) };
    let open = output_file::append_to(Path::new(&path));
    let written = open.and_then(|mut file| {
        let length = file.metadata()?.len();
        file.write_all(text(length).as_bytes())
    });
    written.map_err(|error| {
        out::error(format_args!("cannot write to the file in {variable}: {error}"));
        Exit::Internal
    })
}
