//! What an answer changes: the only place where a run can end.
//!
//! Owns [`observe`], a pure function from the old state and an observation to the new state and the change. An end is
//! final. Only a terminal status in an answer finishes a run. Every other end must last; `doubt` says how long
//! ([`Patience`]).

use super::doubt::{Authority, Doubt, DoubtKind, Patience};
use super::state::{Ending, RunState};
use super::{Moment, Run, RunStatus};

/// The result of a poll. Excludes transient errors, which say nothing about the run.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// A run, from a 2xx JSON body.
    Answer(Run),
    /// A reason for doubt, and who gave it.
    Doubt(DoubtKind, Authority),
}

/// The result of an observation.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The new state.
    pub state: RunState,
    /// The most important change.
    pub change: RunChange,
    /// The kind of a doubt that began with this answer. Worth one warning.
    pub new_doubt: Option<DoubtKind>,
}

/// What an answer changed, from least to most important.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunChange {
    /// Nothing.
    None,
    /// A count changed.
    Progress,
    /// The status changed, and the run is active.
    Status,
    /// The watch of this run ended.
    Ended,
}

/// Applies one observation. A run that ended stays exactly as it is.
pub fn observe(state: &RunState, seen: &Observation, now: Moment, patience: &Patience) -> Transition {
    let mut next = state.clone();
    if state.ended.is_some() {
        return Transition { state: next, change: RunChange::None, new_doubt: None };
    }
    let (mut change, doubt) = match seen {
        Observation::Answer(run) => {
            next.ended = run.status.terminal().map(Ending::Finished);
            let unknown = matches!(run.status, RunStatus::Unknown(_))
                .then_some((DoubtKind::UnknownStatus, Authority::Api));
            (take_in(&mut next, run, now), unknown)
        }
        // A page decides nothing, so it does not replace an earlier doubt either.
        Observation::Doubt(_, Authority::Page) if state.doubt.is_some() => {
            return Transition { state: next, change: RunChange::None, new_doubt: None };
        }
        Observation::Doubt(kind, said_by) => (RunChange::None, Some((*kind, *said_by))),
    };
    let before = state.doubt.as_deref();
    next.doubt =
        doubt.map(|(kind, said_by)| Box::new(Doubt::grown(before.copied(), kind, said_by, now.mono)));
    if next.ended.is_none() {
        next.ended = next.doubt.as_deref().and_then(|doubt| ending_of(doubt, &next, now, patience));
    }
    if next.ended.is_some() {
        next.ended_at = Some(now.wall);
        change = RunChange::Ended;
    }
    if next.moved_at() != state.moved_at() {
        next.stalled_told_at = None;
    }
    let new_doubt =
        doubt.map(|(kind, _)| kind).filter(|kind| before.is_none_or(|before| before.kind != *kind));
    Transition { state: next, change, new_doubt }
}

/// Copies an answer into the record. Fields missing in the answer keep their values.
fn take_in(state: &mut RunState, run: &Run, now: Moment) -> RunChange {
    let mut change = RunChange::None;
    let mut progress = run.progress;
    progress.total = progress.total.or(state.progress.total);
    if progress != state.progress {
        if progress.done() != state.progress.done() {
            state.progress_at = Some(now.wall);
        }
        state.progress = progress;
        change = RunChange::Progress;
    }
    if state.status.as_ref() != Some(&run.status) {
        state.status = Some(run.status.clone());
        state.changed_at = Some(now.wall);
        change = RunChange::Status;
    }
    state.created_at = run.created_at.or(state.created_at);
    state.completed_at = run.completed_at.or(state.completed_at);
    state.spec_id = run.spec_id.or(state.spec_id);
    change
}

fn ending_of(doubt: &Doubt, state: &RunState, now: Moment, patience: &Patience) -> Option<Ending> {
    doubt.is_end(state.was_seen(), now.mono, patience).then_some(match doubt.kind {
        DoubtKind::Missing | DoubtKind::NoSuchPage if state.was_seen() => Ending::Gone,
        DoubtKind::Missing | DoubtKind::NoSuchPage => Ending::NeverFound,
        DoubtKind::KeyRefused => Ending::KeyRefused,
        DoubtKind::UnknownStatus => Ending::Unknowable,
        DoubtKind::Rejected => Ending::Rejected,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::run::{Progress, Terminal};

    const PATIENCE: Patience = Patience {
        grace: Duration::from_secs(60),
        unknown_after: Some(Duration::from_secs(1800)),
        refused_ends: true,
    };

    fn answer(word: &str, completed: u64) -> Observation {
        Observation::Answer(Run {
            status: RunStatus::parse(Some(word)),
            progress: Progress { completed: Some(completed), failed: Some(0), total: Some(10) },
            created_at: None,
            completed_at: None,
            spec_id: None,
            details: None,
        })
    }

    /// Applies observations at seconds from the start, and returns the last transition.
    fn play(patience: &Patience, seen: &[(u64, Observation)]) -> Transition {
        let start = Instant::now();
        let mut last = Transition {
            state: RunState::new(Timestamp::UNIX_EPOCH),
            change: RunChange::None,
            new_doubt: None,
        };
        for (at, observation) in seen {
            let now = Moment {
                mono: start + Duration::from_secs(*at),
                wall: Timestamp::from_second(i64::try_from(*at).unwrap()).unwrap(),
            };
            last = observe(&last.state, observation, now, patience);
        }
        last
    }

    fn ended(patience: &Patience, seen: &[(u64, Observation)]) -> Option<Ending> {
        play(patience, seen).state.ended
    }

    #[test]
    fn only_a_terminal_status_finishes_a_run() {
        for (word, end) in [
            ("SUCCEEDED", Some(Terminal::Succeeded)),
            ("FAILED", Some(Terminal::Failed)),
            ("CANCELLED", Some(Terminal::Canceled)),
            ("PROCESSING", None),
            ("PAUSED", None),
        ] {
            assert_eq!(ended(&PATIENCE, &[(0, answer(word, 10))]), end.map(Ending::Finished), "{word}");
        }
    }

    #[test]
    fn full_counters_end_nothing() {
        assert_eq!(ended(&PATIENCE, &[(0, answer("PROCESSING", 10)), (9, answer("PROCESSING", 11))]), None);
    }

    #[test]
    fn an_id_never_seen_has_the_grace_and_no_more() {
        let missing = || Observation::Doubt(DoubtKind::Missing, Authority::Api);
        assert_eq!(ended(&PATIENCE, &[(0, missing()), (59, missing())]), None);
        assert_eq!(ended(&PATIENCE, &[(0, missing()), (60, missing())]), Some(Ending::NeverFound));
        let none = Patience { grace: Duration::ZERO, ..PATIENCE };
        assert_eq!(ended(&none, &[(0, missing())]), Some(Ending::NeverFound));
    }

    #[test]
    fn a_run_that_was_seen_is_gone_when_it_stays_gone() {
        let missing = || Observation::Doubt(DoubtKind::Missing, Authority::Api);
        let seen = |rest: &[(u64, Observation)]| [&[(0, answer("PROCESSING", 1))], rest].concat();
        let gone = play(&PATIENCE, &seen(&[(5, missing()), (6, missing()), (65, missing())]));
        assert_eq!(gone.state.ended, Some(Ending::Gone));
        assert_eq!(gone.state.status, Some(RunStatus::Processing));
        for too_soon in [
            vec![(5, missing())],
            vec![(5, missing()), (6, missing())],
            (5..64).map(|at| (at, missing())).collect(),
            vec![(5, missing()), (500, missing())],
            vec![(5, missing()), (60, answer("PROCESSING", 2)), (61, missing()), (90, missing())],
        ] {
            assert_eq!(ended(&PATIENCE, &seen(&too_soon)), None, "{too_soon:?}");
            // Nor with a grace period of zero, which only concerns ids that were never seen.
            let none = Patience { grace: Duration::ZERO, ..PATIENCE };
            let at_once: Vec<_> = too_soon.into_iter().filter(|(at, _)| *at < 15).collect();
            assert_eq!(ended(&none, &seen(&at_once)), None, "{at_once:?}");
        }
    }

    #[test]
    fn what_something_on_the_way_says_must_last() {
        use DoubtKind::{KeyRefused, NoSuchPage, Rejected};
        for (kind, end) in
            [(NoSuchPage, Ending::Gone), (KeyRefused, Ending::KeyRefused), (Rejected, Ending::Rejected)]
        {
            let play = |said_by, upto: u64| {
                let every = (5..=upto).map(|at| (at, Observation::Doubt(kind, said_by)));
                ended(&PATIENCE, &[vec![(0, answer("PROCESSING", 1))], every.collect()].concat())
            };
            assert_eq!(play(Authority::Foreign, 5 + 899), None, "{kind:?}");
            assert_eq!(play(Authority::Foreign, 5 + 1800), Some(end), "{kind:?}");
            assert_eq!(play(Authority::Page, 99_999), None, "{kind:?}");
        }
        // A single answer of the API among them counts as one.
        let mixed = [
            (0, answer("PROCESSING", 1)),
            (5, Observation::Doubt(KeyRefused, Authority::Page)),
            (6, Observation::Doubt(KeyRefused, Authority::Foreign)),
            (7, Observation::Doubt(KeyRefused, Authority::Api)),
        ];
        assert_eq!(ended(&PATIENCE, &mixed), None);
        // On an id that was never seen, a wrong address is more likely.
        let never = |upto: u64| {
            let said = (0..=upto).map(|at| (at, Observation::Doubt(NoSuchPage, Authority::Foreign)));
            ended(&PATIENCE, &said.collect::<Vec<_>>())
        };
        assert_eq!((never(59), never(60)), (None, Some(Ending::NeverFound)));
    }

    #[test]
    fn a_refused_key_is_asked_about_once_more() {
        let refused = || Observation::Doubt(DoubtKind::KeyRefused, Authority::Api);
        assert_eq!(ended(&PATIENCE, &[(0, refused())]), None);
        assert_eq!(ended(&PATIENCE, &[(0, refused()), (1, refused())]), Some(Ending::KeyRefused));
        let daemon = Patience { refused_ends: false, ..PATIENCE };
        assert_eq!(ended(&daemon, &[(0, refused()), (1, refused()), (99_999, refused())]), None);
    }

    #[test]
    fn an_unknown_status_is_warned_of_once_and_borne_for_its_time() {
        let first = play(&PATIENCE, &[(0, answer("PAUSED", 1))]);
        assert_eq!(first.new_doubt, Some(DoubtKind::UnknownStatus));
        let second = play(&PATIENCE, &[(0, answer("PAUSED", 1)), (1799, answer("PAUSED", 1))]);
        assert_eq!((second.new_doubt, second.state.ended), (None, None));
        assert_eq!(
            ended(&PATIENCE, &[(0, answer("PAUSED", 1)), (1800, answer("PAUSED", 1))]),
            Some(Ending::Unknowable)
        );
        let back = [(0, answer("PAUSED", 1)), (900, answer("PROCESSING", 1)), (1800, answer("PAUSED", 1))];
        assert_eq!(ended(&PATIENCE, &back), None);
        let daemon = Patience { unknown_after: None, ..PATIENCE };
        assert_eq!(ended(&daemon, &[(0, answer("PAUSED", 1)), (99_999, answer("PAUSED", 1))]), None);
    }

    #[test]
    fn says_when_a_doubt_would_end() {
        let state = play(&PATIENCE, &[(7, Observation::Doubt(DoubtKind::Missing, Authority::Api))]).state;
        let ends = state.doubt_ends_at(&PATIENCE).unwrap()
            - state.doubt_ends_at(&Patience { grace: Duration::ZERO, ..PATIENCE }).unwrap();
        assert_eq!(ends, PATIENCE.grace);
    }

    #[test]
    fn a_count_that_is_left_out_is_remembered() {
        let mut bare = answer("PROCESSING", 4);
        if let Observation::Answer(run) = &mut bare {
            run.progress.total = None;
        }
        let last = play(&PATIENCE, &[(0, answer("PROCESSING", 3)), (1, bare)]);
        assert_eq!(last.state.progress, Progress { completed: Some(4), failed: Some(0), total: Some(10) });
        assert_eq!(last.change, RunChange::Progress);
    }

    fn any_observation() -> impl Strategy<Value = Observation> {
        prop_oneof![
            (
                prop::sample::select(vec![
                    "PENDING",
                    "PROCESSING",
                    "SUCCEEDED",
                    "FAILED",
                    "CANCELED",
                    "PAUSED"
                ]),
                0..12u64
            )
                .prop_map(|(word, count)| answer(word, count)),
            prop::sample::select(vec![
                DoubtKind::Missing,
                DoubtKind::NoSuchPage,
                DoubtKind::KeyRefused,
                DoubtKind::Rejected
            ])
            .prop_flat_map(|kind| {
                prop::sample::select(vec![Authority::Api, Authority::Foreign, Authority::Page])
                    .prop_map(move |said_by| Observation::Doubt(kind, said_by))
            }),
        ]
    }

    proptest! {
        /// Invariant 1: after the end, no later observation changes anything.
        #[test]
        fn terminal_is_sticky(seen in prop::collection::vec((0..5000u64, any_observation()), 1..40)) {
            let mut seen = seen;
            seen.sort_by_key(|(at, _)| *at);
            let mut end: Option<RunState> = None;
            for upto in 1..=seen.len() {
                let state = play(&PATIENCE, &seen[..upto]).state;
                if let Some(end) = &end {
                    prop_assert_eq!(end.ended, state.ended);
                    prop_assert_eq!(&end.status, &state.status);
                }
                if state.ended.is_some() {
                    end = Some(state);
                }
            }
        }

        /// Invariant 3: pages end nothing, whatever other answers come in between.
        #[test]
        fn pages_change_no_end(
            seen in prop::collection::vec((0..5000u64, any_observation()), 1..40),
            pages in prop::collection::vec(0..5000u64, 0..40),
        ) {
            // Excludes an answer of another kind, which would reset the doubt.
            let api = |(_, observation): &(u64, Observation)| !matches!(observation, Observation::Doubt(kind, _) if *kind != DoubtKind::KeyRefused);
            let mut without: Vec<_> = seen.into_iter().filter(api).collect();
            let page = Observation::Doubt(DoubtKind::KeyRefused, Authority::Page);
            let mut with = [without.clone(), pages.into_iter().map(|at| (at, page.clone())).collect()].concat();
            without.sort_by_key(|(at, _)| *at);
            with.sort_by_key(|(at, _)| *at);
            let end = |seen: &[(u64, Observation)]| ended(&PATIENCE, seen);
            let end_with = end(&with);
            prop_assert!(end_with.is_none() || end_with == end(&without), "{end_with:?}");
        }

        /// Invariant 1: `Finished` comes only from an answer with that very status.
        #[test]
        fn finished_needs_a_terminal_answer(seen in prop::collection::vec((0..5000u64, any_observation()), 1..40)) {
            let mut seen = seen;
            seen.sort_by_key(|(at, _)| *at);
            let last = play(&PATIENCE, &seen);
            if let Some(Ending::Finished(terminal)) = last.state.ended {
                prop_assert_eq!(last.state.status.and_then(|s| s.terminal()), Some(terminal));
            }
        }
    }
}
