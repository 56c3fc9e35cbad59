//! How fast a run goes and when it may be done, for people to look at. Decides nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::run::{Moment, RunState};

/// How many counts are remembered: enough for a recent rate, small enough for many runs.
const KEPT: usize = 6;

/// The last few counts of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Speed {
    points: [Option<(Instant, u64)>; KEPT],
}

impl Speed {
    /// Takes in a count. Counts that fall start the memory again.
    pub fn observe(&mut self, state: &RunState, now: Moment) {
        let Some(done) = state.progress.done() else { return };
        match self.points[0] {
            Some((_, last)) if last == done => return,
            Some((_, last)) if last > done => self.points = Default::default(),
            _ => {}
        }
        self.points.rotate_right(1);
        self.points[0] = Some((now.mono, done));
    }

    /// Samples a second: between the counts that are remembered, or, with one only, since the run was created.
    pub fn per_second(&self, state: &RunState, now: Moment) -> Option<f64> {
        let (last_at, last) = self.points[0]?;
        let (first_at, first) = self.points.iter().flatten().last().copied()?;
        let (samples, time) = if last > first {
            (last - first, last_at.saturating_duration_since(first_at))
        } else {
            (last, Duration::try_from(now.wall.duration_since(state.created_at?)).ok()?)
        };
        let rate = samples as f64 / time.as_secs_f64();
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }

    /// How long the rest takes at this speed; `None` where nothing can be said.
    pub fn remaining(&self, state: &RunState, now: Moment) -> Option<Duration> {
        let (last_at, last) = self.points[0]?;
        let rest = state.progress.total?.checked_sub(last).filter(|rest| *rest > 0)?;
        let needed = Duration::try_from_secs_f64(rest as f64 / self.per_second(state, now)?).ok()?;
        needed.checked_sub(now.mono.saturating_duration_since(last_at)).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::run::Progress;

    fn state(completed: u64, total: u64, created_before: Option<u64>, now: Moment) -> RunState {
        let mut state = RunState::new(now.wall);
        state.progress = Progress { completed: Some(completed), failed: None, total: Some(total) };
        state.created_at = created_before.map(|seconds| now.wall - Duration::from_secs(seconds));
        state
    }

    fn later(now: Moment, seconds: u64) -> Moment {
        Moment {
            mono: now.mono + Duration::from_secs(seconds),
            wall: now.wall + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn measures_between_counts() {
        let (mut speed, now) = (Speed::default(), clock::now());
        speed.observe(&state(10, 100, None, now), now);
        assert_eq!(speed.per_second(&state(10, 100, None, now), now), None);
        let then = later(now, 10);
        speed.observe(&state(30, 100, None, then), then);
        assert_eq!(speed.per_second(&state(30, 100, None, then), then), Some(2.0));
        assert_eq!(
            speed.remaining(&state(30, 100, None, then), later(then, 5)),
            Some(Duration::from_secs(30))
        );
    }

    #[test]
    fn a_watch_attached_in_mid_run_uses_the_creation() {
        let (mut speed, now) = (Speed::default(), clock::now());
        let state = state(50, 100, Some(100), now);
        speed.observe(&state, now);
        assert_eq!(speed.remaining(&state, now), Some(Duration::from_secs(100)));
    }

    #[test]
    fn says_nothing_where_nothing_can_be_said() {
        let (mut speed, now) = (Speed::default(), clock::now());
        for (completed, total) in [(0, 100), (100, 100), (120, 100)] {
            let state = state(completed, total, Some(100), now);
            speed.observe(&state, now);
            assert_eq!(speed.remaining(&state, now), None, "{completed} of {total}");
        }
        let state = state(5, 100, None, now);
        speed.observe(&state, now);
        assert_eq!(speed.per_second(&state, now), None, "a count that fell starts again");
    }
}
