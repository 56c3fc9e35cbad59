//! The verdict on each run and on all together: which exit code it means, and why.

use super::exit::Exit;
use super::threshold::Threshold;
use crate::poll::FinalRun;
use crate::run::{Ending, Progress, RunState, RunStatus, Terminal};

/// The thresholds that a SUCCEEDED run must meet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gate {
    pub(super) max_failed: Option<Threshold>,
    pub(super) min_completed: Option<Threshold>,
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Every run has ended.
    AllEnded,
    /// One run has finished (`--any`): only those that have count.
    OneFinished,
    /// One run has ended badly (`--fail-fast`): runs that are still active do not count.
    OneBad,
    /// The deadline passed.
    Deadline,
    /// Each run was polled once, as `status` does.
    OnePoll,
    /// Nobody reads the output any more: only the runs that have ended count.
    NobodyReads,
    /// A signal; which one, as its exit code.
    Signal(Exit),
}

/// A run with its verdict.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) run: FinalRun,
    pub(super) verdict: Exit,
    /// Why, where the status does not say it.
    pub(super) reason: Option<String>,
}

/// Judges every run, and all of them together.
pub(super) fn judge(runs: Vec<FinalRun>, gate: &Gate, cut: Cut) -> (Vec<Judged>, Exit) {
    let judged: Vec<Judged> = runs
        .into_iter()
        .map(|run| {
            let (verdict, reason) = of_run(&run, gate, cut);
            Judged { run, verdict, reason }
        })
        .collect();
    let counted = judged.iter().map(|judged| judged.verdict);
    let overall = match cut {
        Cut::Signal(exit) => exit,
        Cut::OneFinished => {
            let finished =
                |judged: &&Judged| matches!(judged.run.watched.state.ended, Some(Ending::Finished(_)));
            Exit::worst(judged.iter().filter(finished).map(|judged| judged.verdict))
        }
        // What was seen of a run stays its verdict, however the watch ends.
        Cut::OneBad | Cut::NobodyReads => {
            Exit::worst(counted.filter(|verdict| *verdict != Exit::StillRunning))
        }
        Cut::AllEnded | Cut::Deadline | Cut::OnePoll => Exit::worst(counted),
    };
    (judged, overall)
}

fn of_run(run: &FinalRun, gate: &Gate, cut: Cut) -> (Exit, Option<String>) {
    let status = run.watched.state.status.as_ref();
    let trouble = || run.trouble.as_ref().map(|trouble| trouble.message.to_string());
    match run.watched.state.ended {
        Some(Ending::Finished(Terminal::Succeeded)) => {
            below(&run.watched.state, gate).map_or((Exit::Succeeded, None), |(exit, why)| (exit, Some(why)))
        }
        Some(Ending::Finished(Terminal::Failed)) => (Exit::Failed, None),
        Some(Ending::Finished(Terminal::Canceled)) => (Exit::Canceled, None),
        Some(Ending::NeverFound) => (
            Exit::NotFound,
            Some("the API does not know this run: check the id, the key and the base URL".to_owned()),
        ),
        Some(Ending::Gone) => {
            (Exit::NotFound, Some("the API does not know this run any more: it was deleted".to_owned()))
        }
        Some(Ending::KeyRefused) => {
            (Exit::KeyRefused, Some(trouble().unwrap_or_else(|| "the API refused the key".to_owned())))
        }
        Some(Ending::Unknowable | Ending::Rejected) => (Exit::Unknown, Some(unknowable(status, trouble()))),
        None => match cut {
            Cut::Deadline if matches!(status, Some(RunStatus::Unknown(_))) => {
                (Exit::Unknown, Some(too_late(Some(unknowable(status, None)))))
            }
            Cut::OnePoll if matches!(status, Some(RunStatus::Unknown(_))) => {
                (Exit::Unknown, Some(unknowable(status, None)))
            }
            Cut::Deadline => (Exit::TimedOut, Some(too_late(trouble()))),
            Cut::AllEnded
            | Cut::OneFinished
            | Cut::OneBad
            | Cut::OnePoll
            | Cut::NobodyReads
            | Cut::Signal(_) => (Exit::StillRunning, trouble()),
        },
    }
}

/// Whether a run SUCCEEDED and met its thresholds.
pub(super) fn is_good(state: &RunState, gate: &Gate) -> bool {
    state.ended == Some(Ending::Finished(Terminal::Succeeded)) && below(state, gate).is_none()
}

/// The reason for a run that was still active at the deadline, with the trouble in polling it, if any.
fn too_late(trouble: Option<String>) -> String {
    let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
    format!("the deadline passed before it ended{trouble}")
}

fn unknowable(status: Option<&RunStatus>, trouble: Option<String>) -> String {
    match (trouble, status) {
        (Some(trouble), _) => trouble,
        (None, Some(status)) => format!("the status {status} is not known to this version of runwatch"),
        (None, None) => "the API gave no usable answer".to_owned(),
    }
}

/// All thresholds that a SUCCEEDED run misses or that cannot be checked, with the worst of their exit codes.
fn below(state: &RunState, gate: &Gate) -> Option<(Exit, String)> {
    let missed: Vec<(Exit, String)> =
        [too_many_failed(state.progress, gate), too_few_completed(state.progress, gate)]
            .into_iter()
            .flatten()
            .collect();
    let reasons: Vec<&str> = missed.iter().map(|(_, reason)| reason.as_str()).collect();
    let exit = Exit::worst(missed.iter().map(|(exit, _)| *exit));
    (!missed.is_empty()).then(|| (exit, reasons.join("; ")))
}

fn too_many_failed(progress: Progress, gate: &Gate) -> Option<(Exit, String)> {
    let limit = gate.max_failed?;
    let Some(failed) = progress.failed else { return Some(cannot_check("--max-failed", "samples_failed")) };
    match limit.is_exceeded_by(failed, progress.total) {
        None => Some(cannot_check("--max-failed", "number_of_samples")),
        Some(true) => {
            let of = of(progress);
            Some((
                Exit::BelowThreshold,
                format!("{failed}{of} samples failed, more than the {limit} allowed (--max-failed)"),
            ))
        }
        Some(false) => None,
    }
}

fn too_few_completed(progress: Progress, gate: &Gate) -> Option<(Exit, String)> {
    let limit = gate.min_completed?;
    let Some(completed) = progress.completed else {
        return Some(cannot_check("--min-completed", "samples_completed"));
    };
    match limit.is_reached_by(completed, progress.total) {
        None => Some(cannot_check("--min-completed", "number_of_samples")),
        Some(false) => {
            let of = of(progress);
            Some((
                Exit::BelowThreshold,
                format!(
                    "{completed}{of} samples completed, fewer than the {limit} required (--min-completed)"
                ),
            ))
        }
        Some(true) => None,
    }
}

fn of(progress: Progress) -> String {
    progress.total.map(|total| format!(" of {total}")).unwrap_or_default()
}

fn cannot_check(flag: &str, field: &str) -> (Exit, String) {
    (Exit::Unknown, format!("cannot check {flag}: the API gave no {field}"))
}

/// Judged runs for the tests of those that show them.
#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::poll::Watched;
    use crate::run::Subject;

    pub(in super::super) fn judged(id: usize, verdict: Exit, failed: u64) -> Judged {
        let mut state = RunState::new(jiff::Timestamp::UNIX_EPOCH);
        state.progress = Progress { completed: Some(1), failed: Some(failed), total: None };
        state.status = Some(RunStatus::Succeeded);
        state.ended = Some(Ending::Finished(Terminal::Succeeded));
        let subject = Subject { id: format!("r{id}").parse().unwrap(), name: None };
        let run = FinalRun::new(Watched { state, ..Watched::new(subject, jiff::Timestamp::UNIX_EPOCH) });
        Judged { run, verdict, reason: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::Watched;
    use crate::run::{RunState, Subject};

    fn run(
        status: &str,
        ended: Option<Ending>,
        progress: (Option<u64>, Option<u64>, Option<u64>),
    ) -> FinalRun {
        let mut state = RunState::new(jiff::Timestamp::UNIX_EPOCH);
        state.status = Some(RunStatus::parse(Some(status)));
        state.ended = ended;
        state.progress = Progress { completed: progress.0, failed: progress.1, total: progress.2 };
        let subject = Subject { id: "r".parse().unwrap(), name: None };
        FinalRun::new(Watched { state, ..Watched::new(subject, jiff::Timestamp::UNIX_EPOCH) })
    }

    fn succeeded(completed: Option<u64>, failed: Option<u64>, total: Option<u64>) -> FinalRun {
        run("SUCCEEDED", Some(Ending::Finished(Terminal::Succeeded)), (completed, failed, total))
    }

    fn gate(max_failed: Option<&str>, min_completed: Option<&str>) -> Gate {
        let read = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        Gate { max_failed: read(max_failed), min_completed: read(min_completed) }
    }

    fn overall(runs: Vec<FinalRun>, gate: &Gate, cut: Cut) -> Exit {
        judge(runs, gate, cut).1
    }

    #[test]
    fn thresholds_gate_a_run_that_succeeded() {
        for (max, min, exit) in [
            (None, None, Exit::Succeeded),
            (Some("7"), None, Exit::Succeeded),
            (Some("6"), None, Exit::BelowThreshold),
            (Some("3.5%"), None, Exit::Succeeded),
            (Some("3.4%"), None, Exit::BelowThreshold),
            (None, Some("193"), Exit::Succeeded),
            (None, Some("97%"), Exit::BelowThreshold),
            (Some("7"), Some("194"), Exit::BelowThreshold),
        ] {
            let runs = vec![succeeded(Some(193), Some(7), Some(200))];
            assert_eq!(overall(runs, &gate(max, min), Cut::AllEnded), exit, "{max:?} {min:?}");
        }
    }

    #[test]
    fn a_threshold_that_cannot_be_checked_is_not_met() {
        let strict = gate(Some("0"), None);
        assert_eq!(overall(vec![succeeded(Some(1), None, Some(1))], &strict, Cut::AllEnded), Exit::Unknown);
        let share = gate(None, Some("90%"));
        assert_eq!(overall(vec![succeeded(Some(1), Some(0), None)], &share, Cut::AllEnded), Exit::Unknown);
    }

    #[test]
    fn every_threshold_that_is_missed_is_named() {
        let both = gate(Some("2"), Some("99%"));
        let (judged, exit) = judge(vec![succeeded(Some(193), Some(7), Some(200))], &both, Cut::AllEnded);
        assert_eq!(exit, Exit::BelowThreshold);
        let reason = judged[0].reason.as_deref().unwrap();
        assert_eq!(
            reason,
            "7 of 200 samples failed, more than the 2 allowed (--max-failed); \
             193 of 200 samples completed, fewer than the 99% required (--min-completed)"
        );
        // One that is missed is worse than one that cannot be checked, and both are named.
        let (judged, exit) = judge(vec![succeeded(None, Some(7), Some(200))], &both, Cut::AllEnded);
        assert_eq!(exit, Exit::BelowThreshold);
        let reason = judged[0].reason.as_deref().unwrap();
        assert!(
            reason.contains("more than the 2") && reason.contains("cannot check --min-completed"),
            "{reason}"
        );
    }

    #[test]
    fn a_deadline_is_the_reason_of_every_run_it_cut_short() {
        let runs = || {
            let failed = run("FAILED", Some(Ending::Finished(Terminal::Failed)), (None, None, None));
            vec![failed, run("PROCESSING", None, (None, None, None)), run("PAUSED", None, (None, None, None))]
        };
        let (judged, exit) = judge(runs(), &Gate::default(), Cut::Deadline);
        assert_eq!(exit, Exit::Failed);
        let reasons: Vec<_> =
            judged.iter().map(|judged| judged.reason.as_deref().unwrap_or_default()).collect();
        assert_eq!(reasons[..2], ["", "the deadline passed before it ended"]);
        assert!(
            reasons[2].starts_with("the deadline passed before it ended: the status PAUSED"),
            "{reasons:?}"
        );
    }

    /// How a run can stand, and what it counts for: always, at the deadline, and where it was asked about once. `None` is
    /// nothing: it does not count.
    fn standings() -> Vec<(&'static str, FinalRun, Option<i32>)> {
        use Ending::{Finished, Gone, KeyRefused, NeverFound, Rejected, Unknowable};
        let of = |status, ended| run(status, ended, (Some(193), Some(7), Some(200)));
        vec![
            ("good", succeeded(Some(199), Some(1), Some(200)), Some(0)),
            ("partial", succeeded(Some(193), Some(7), Some(200)), Some(6)),
            ("uncounted", succeeded(None, None, None), Some(7)),
            ("failed", of("FAILED", Some(Finished(Terminal::Failed))), Some(1)),
            ("canceled", of("CANCELED", Some(Finished(Terminal::Canceled))), Some(3)),
            ("never found", of("PENDING", Some(NeverFound)), Some(5)),
            ("gone", of("PROCESSING", Some(Gone)), Some(5)),
            ("key refused", of("PROCESSING", Some(KeyRefused)), Some(4)),
            ("unknowable", of("PAUSED", Some(Unknowable)), Some(7)),
            ("rejected", of("PROCESSING", Some(Rejected)), Some(7)),
            ("active", of("PROCESSING", None), None),
            ("paused", of("PAUSED", None), None),
        ]
    }

    /// The code of a run by itself; `None` where it does not count.
    fn alone(name: &str, code: Option<i32>, cut: Cut) -> Option<i32> {
        match (code, cut) {
            // Only a run that has finished ends `--any`.
            (Some(_), Cut::OneFinished) => {
                code.filter(|_| ["good", "partial", "uncounted", "failed", "canceled"].contains(&name))
            }
            (Some(code), _) => Some(code),
            (None, Cut::Deadline | Cut::OnePoll) if name == "paused" => Some(7),
            (None, Cut::Deadline) => Some(124),
            (None, Cut::OnePoll | Cut::AllEnded) => Some(8),
            (None, _) => None,
        }
    }

    #[test]
    fn the_worst_of_every_pair_decides_however_the_watch_ends() {
        const WORST_FIRST: [i32; 11] = [70, 78, 4, 5, 1, 3, 6, 7, 124, 8, 0];
        let strict = gate(Some("2"), Some("99%"));
        let cuts = [
            Cut::AllEnded,
            Cut::OneFinished,
            Cut::OneBad,
            Cut::Deadline,
            Cut::OnePoll,
            Cut::NobodyReads,
            Cut::Signal(Exit::HungUp),
            Cut::Signal(Exit::Interrupted),
            Cut::Signal(Exit::Terminated),
        ];
        for cut in cuts {
            for first in 0..standings().len() {
                for second in 0..standings().len() {
                    let (a, run_a, code_a) = standings().swap_remove(first);
                    let (b, run_b, code_b) = standings().swap_remove(second);
                    let counted = [alone(a, code_a, cut), alone(b, code_b, cut)];
                    let place = |code: &i32| WORST_FIRST.iter().position(|other| other == code).unwrap();
                    let expected = match cut {
                        Cut::Signal(exit) => exit.code().into(),
                        _ => counted.into_iter().flatten().min_by_key(place).unwrap_or(0),
                    };
                    let (judged, exit) = judge(vec![run_a, run_b], &strict, cut);
                    assert_eq!(i32::from(exit.code()), expected, "{a} and {b}, {cut:?}");
                    // What was seen of each stays in its line of the report, however the watch ends.
                    for (judged, code) in judged.iter().zip([code_a, code_b]) {
                        let kept = code.is_none_or(|code| i32::from(judged.verdict.code()) == code);
                        assert!(kept, "{a} and {b}, {cut:?}: {:?}", judged.verdict);
                    }
                }
            }
        }
    }

    #[test]
    fn a_failed_run_is_failed_whatever_its_samples() {
        let failed = run("FAILED", Some(Ending::Finished(Terminal::Failed)), (Some(200), Some(0), Some(200)));
        assert_eq!(overall(vec![failed], &gate(Some("50%"), None), Cut::AllEnded), Exit::Failed);
    }

    #[test]
    fn what_goes_on_depends_on_why_the_watch_ended() {
        let going = || run("PROCESSING", None, (None, None, None));
        let good = || succeeded(None, None, None);
        let open = Gate::default();
        assert_eq!(overall(vec![good(), going()], &open, Cut::Deadline), Exit::TimedOut);
        assert_eq!(overall(vec![good(), going()], &open, Cut::OneFinished), Exit::Succeeded);
        assert_eq!(overall(vec![going()], &open, Cut::Signal(Exit::Terminated)), Exit::Terminated);
        assert_eq!(
            overall(vec![run("PAUSED", None, (None, None, None))], &open, Cut::Deadline),
            Exit::Unknown
        );
    }
}
