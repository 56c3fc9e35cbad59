//! Annotations for CI systems: one per run, or the worst ones if the system shows only some.

use super::exit::Exit;
use super::verdict::Judged;
use crate::run::RunStatus;
use crate::span;
use crate::words::samples;

/// Runners show this many annotations of a level per step, and drop the others without a word: GitHub's and Azure's.
const MOST_ANNOTATIONS: usize = 10;

/// The severity of an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
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
}

/// One annotation per run, at most as many of each level as a runner shows: the worst, where there are more, and how many were
/// left out. `hinted` says that a notice was printed before, `elsewhere` what has all of them (`the summary has`).
pub(super) fn annotations(judged: &[Judged], hinted: bool, elsewhere: &str) -> Vec<(Level, String)> {
    let of_level = |level: Level| judged.iter().filter(move |judged| Level::of(judged) == level);
    let room = |level: Level| MOST_ANNOTATIONS - usize::from(hinted && level == Level::Notice);
    let fits = |level: &Level| of_level(*level).count() <= room(*level);
    if Level::ALL.iter().all(fits) {
        return judged.iter().map(|judged| (Level::of(judged), message(judged))).collect();
    }
    let mut annotations = Vec::new();
    for level in Level::ALL {
        let mut runs: Vec<&Judged> = of_level(level).collect();
        runs.sort_by_key(|judged| {
            (judged.verdict.rank(), std::cmp::Reverse(judged.run.watched.state.progress.failed))
        });
        let shown = if runs.len() <= room(level) { runs.len() } else { room(level) - 1 };
        annotations.extend(runs[..shown].iter().map(|judged| (level, message(judged))));
        if shown < runs.len() {
            annotations.push((level, left_out(&runs[shown..], elsewhere)));
        }
    }
    annotations
}

/// `31 more runs: 28 failed, 3 canceled; the step summary has all of them`.
fn left_out(runs: &[&Judged], elsewhere: &str) -> String {
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
    format!("{runs}: {}; {elsewhere} all of them", counts.join(", "))
}

/// The text of a run's annotation.
fn message(judged: &Judged) -> String {
    let state = &judged.run.watched.state;
    let status = state.status.as_ref().map_or("was never seen", RunStatus::as_str);
    let samples = samples(state.progress).map(|samples| format!(" ({samples} samples)")).unwrap_or_default();
    let took = state.took().map(|took| format!(" in {}", span::human(took))).unwrap_or_default();
    let reason = judged.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} {status}{samples}{took}{reason}", judged.run.watched.subject.label())
}

#[cfg(test)]
mod tests {
    use super::super::verdict::samples::judged;
    use super::*;

    #[test]
    fn ten_of_a_level_are_shown_the_worst_first_and_the_rest_is_counted() {
        let canceled = (0..8).map(|id| judged(id, Exit::Canceled, 0));
        let failed = (8..12).map(|id| judged(id, Exit::Failed, 0));
        let partial = (12..30).map(|id| judged(id, Exit::Succeeded, id as u64));
        let well = (30..40).map(|id| judged(id, Exit::Succeeded, 0));
        let all: Vec<Judged> = canceled.chain(failed).chain(partial).chain(well).collect();
        let shown = annotations(&all, true, "the step summary has");
        for level in Level::ALL {
            let count = shown.iter().filter(|(shown, _)| *shown == level).count();
            assert_eq!(count, if level == Level::Notice { 9 } else { 10 }, "{level:?}: {shown:?}");
        }
        let lines: Vec<&str> = shown.iter().map(|(_, message)| message.as_str()).collect();
        assert!(
            lines[0].starts_with("r8 ") && lines[4].starts_with("r0 "),
            "the worst verdict first: {lines:?}"
        );
        assert_eq!(lines[9], "3 more runs: 3 canceled; the step summary has all of them");
        assert!(lines[10].starts_with("r29 "), "most failed samples first: {lines:?}");
        assert_eq!(lines[19], "9 more runs: 9 succeeded; the step summary has all of them");
        assert_eq!(lines[28], "2 more runs: 2 succeeded; the step summary has all of them");
    }

    #[test]
    fn what_fits_is_in_the_order_asked_for() {
        let all = [judged(1, Exit::Succeeded, 0), judged(2, Exit::Failed, 0)];
        let levels: Vec<Level> =
            annotations(&all, true, "the step summary has").iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::Notice, Level::Error]);
    }
}
