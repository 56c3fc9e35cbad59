//! Warnings about problems that are not the end of a run: a stalled run, an overdue run, an unreachable API. Pure.
//!
//! Decides when each warning is due and when to repeat it. The state records the warning in the same transaction as its
//! event, so a restart does not repeat it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::run::{EventKind, Moment, RunState};

/// When to warn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alerts {
    /// A run that has made no progress for this long is stalled. `None` disables the warning.
    pub stalled_after: Option<Duration>,
    /// A run without its own deadline is overdue this long after its creation. `None` disables the warning.
    pub overdue_after: Option<Duration>,
    /// An outage of the API that lasts this long causes a warning. `None` disables it.
    pub unreachable_after: Option<Duration>,
    /// Minimum time between two warnings about the same problem.
    pub remind_every: Duration,
}

/// A warning that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warning {
    /// `run.stalled` or `run.overdue`.
    pub kind: EventKind,
    /// When the problem began.
    pub since: Timestamp,
}

impl Alerts {
    /// When a run becomes overdue. `deadline` is the run's own.
    pub fn overdue_at(&self, deadline: Option<Duration>, state: &RunState) -> Option<Timestamp> {
        let begun = state.created_at.unwrap_or(state.watched_at);
        begun.checked_add(deadline.or(self.overdue_after)?).ok()
    }

    /// When the next warning about an overdue run is due: at the deadline, then once per reminder interval.
    pub fn tell_overdue_at(&self, deadline: Option<Duration>, state: &RunState) -> Option<Timestamp> {
        let at = self.overdue_at(deadline, state).filter(|_| state.ended.is_none())?;
        let Some(told) = state.overdue_told_at else { return Some(at) };
        Some(at.max(told.checked_add(self.remind_every).ok()?))
    }

    /// When the next warning about an outage that began at `since` is due, if the outage lasts until then.
    pub fn tell_outage_at(&self, since: Moment, told_at: Option<Timestamp>, now: Moment) -> Option<Instant> {
        let at = since.mono.checked_add(self.unreachable_after?)?;
        let Some(told) = told_at else { return Some(at) };
        let again = told.checked_add(self.remind_every).ok()?.duration_since(now.wall);
        Some(at.max(now.mono.checked_add(Duration::try_from(again).unwrap_or_default())?))
    }

    /// The warnings that are due for a run with a `deadline` of its own. Records them in the state.
    pub fn of_run(&self, deadline: Option<Duration>, state: &mut RunState, now: Timestamp) -> Vec<Warning> {
        if state.ended.is_some() {
            return Vec::new();
        }
        let overdue_at = self.overdue_at(deadline, state);
        let stalled_at = self.stalled_after.and_then(|after| state.moved_at().checked_add(after).ok());
        let moved_at = state.moved_at();
        let mut warnings = Vec::new();
        for (kind, at, since, told) in [
            (EventKind::RunOverdue, overdue_at, overdue_at, &mut state.overdue_told_at),
            (EventKind::RunStalled, stalled_at, Some(moved_at), &mut state.stalled_told_at),
        ] {
            if let (Some(at), Some(since)) = (at, since)
                && at <= now
                && self.may_tell(*told, now)
            {
                *told = Some(now);
                warnings.push(Warning { kind, since });
            }
        }
        warnings
    }

    /// Whether a warning is due for an outage of the API that began at `since`.
    pub fn of_outage(&self, since: Moment, told_at: Option<Timestamp>, now: Moment) -> bool {
        let lasted = now.mono.saturating_duration_since(since.mono);
        self.unreachable_after.is_some_and(|after| lasted >= after) && self.may_tell(told_at, now.wall)
    }

    fn may_tell(&self, told_at: Option<Timestamp>, now: Timestamp) -> bool {
        told_at.is_none_or(|told| told.checked_add(self.remind_every).is_ok_and(|again| again <= now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::run::Subject;
    use crate::store::Watched;

    const ALERTS: Alerts = Alerts {
        stalled_after: Some(Duration::from_secs(100)),
        overdue_after: None,
        unreachable_after: Some(Duration::from_secs(900)),
        remind_every: Duration::from_secs(1000),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(deadline: Option<u64>) -> Watched {
        let mut run = Watched::new(Subject { id: "r".parse().unwrap(), name: None }, at(0));
        run.deadline = deadline.map(Duration::from_secs);
        run
    }

    /// The seconds in 0..=upto at which a warning is due, with its kind.
    fn told(alerts: &Alerts, run: &Watched, upto: i64) -> Vec<(i64, EventKind)> {
        let mut state = run.state.clone();
        let mut told = Vec::new();
        for second in 0..=upto {
            let warnings = alerts.of_run(run.deadline, &mut state, at(second));
            told.extend(warnings.into_iter().map(|warning| (second, warning.kind)));
        }
        told
    }

    #[test]
    fn told_when_due_and_again_no_sooner_than_the_reminder() {
        use EventKind::{RunOverdue, RunStalled};
        assert_eq!(told(&ALERTS, &run(None), 1200), [(100, RunStalled), (1100, RunStalled)]);
        let quiet = Alerts { stalled_after: None, ..ALERTS };
        assert_eq!(told(&quiet, &run(None), 5000), []);
        assert_eq!(told(&quiet, &run(Some(50)), 1100), [(50, RunOverdue), (1050, RunOverdue)]);
        let general = Alerts { overdue_after: Some(Duration::from_secs(70)), ..quiet };
        assert_eq!(told(&general, &run(None), 100), [(70, RunOverdue)]);
        assert_eq!(told(&general, &run(Some(80)), 100), [(80, RunOverdue)], "its own deadline wins");
    }

    #[test]
    fn progress_begins_a_new_stall() {
        let run = run(None);
        let mut state = run.state.clone();
        assert_eq!(ALERTS.of_run(run.deadline, &mut state, at(100)).len(), 1);
        state.progress_at = Some(at(150));
        state.stalled_told_at = None;
        assert!(ALERTS.of_run(run.deadline, &mut state, at(249)).is_empty());
        assert_eq!(ALERTS.of_run(run.deadline, &mut state, at(250))[0].since, at(150));
    }

    #[test]
    fn what_is_told_is_told_when_it_says_so() {
        let alerts = Alerts { stalled_after: None, ..ALERTS };
        let run = run(Some(50));
        let mut state = run.state.clone();
        let mut told = Vec::new();
        while let Some(due) = alerts.tell_overdue_at(run.deadline, &state).filter(|due| *due <= at(3000)) {
            assert!(alerts.of_run(run.deadline, &mut state, due - Duration::from_secs(1)).is_empty());
            assert_eq!(alerts.of_run(run.deadline, &mut state, due).len(), 1);
            told.push(due);
        }
        assert_eq!(told, [at(50), at(1050), at(2050)]);
        state.ended = Some(crate::run::Ending::Gone);
        assert_eq!(alerts.tell_overdue_at(run.deadline, &state), None);
    }

    #[test]
    fn the_deadline_counts_from_the_creation() {
        let mut run = run(Some(60));
        run.state.created_at = Some(at(-50));
        assert_eq!(ALERTS.overdue_at(run.deadline, &run.state), Some(at(10)));
        run.deadline = Some(Duration::MAX);
        assert_eq!(ALERTS.overdue_at(run.deadline, &run.state), None, "beyond the calendar is never");
    }

    #[test]
    fn an_outage_is_told_after_its_time_and_again_after_the_reminder() {
        let since = clock::now();
        let later = |seconds: u64| Moment {
            mono: since.mono + Duration::from_secs(seconds),
            wall: since.wall + Duration::from_secs(seconds),
        };
        assert!(!ALERTS.of_outage(since, None, later(899)));
        assert!(ALERTS.of_outage(since, None, later(900)));
        assert!(!ALERTS.of_outage(since, Some(later(900).wall), later(1899)));
        assert!(ALERTS.of_outage(since, Some(later(900).wall), later(1900)));
        let never = Alerts { unreachable_after: None, ..ALERTS };
        assert!(!never.of_outage(since, None, later(99_999)));
    }
}
