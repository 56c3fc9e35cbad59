//! The result as a few named values for later steps of a CI job.

use std::time::Duration;

use super::exit::Exit;
use super::verdict::Judged;
use crate::run::RunStatus;
use crate::run::text::one_line;

/// Names and values. The run that decides the verdict gives the status; samples are summed over all runs.
pub(super) fn outputs(judged: &[Judged], exit: Exit, waited: Duration) -> [(&'static str, String); 6] {
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
}
