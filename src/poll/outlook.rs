//! When a run will end, and how unsure that is, from its counts. Pure: moments come in, lengths of time go out.
//!
//! The time that remains is taken to be log-logistic: its median is what is left to do at the speed so far, and its spread
//! is how far off such guesses are: the noise of a count (few samples done: an unsure speed) and what no count tells
//! (changes of speed, stragglers). It is reckoned from the last count that moved, so that a predicted end which passes
//! makes the run less likely to end any moment, not more.

use std::time::Duration;

use tokio::time::Instant;

use super::prior::Prior;
use crate::run::{Moment, RunState};

/// How far off a guess is whatever the counts: the spread of the logarithm of the time that remains.
const SPREAD: f64 = 0.35;

/// By how much more towards the end, where a few slow samples decide.
const SPREAD_AT_THE_END: f64 = 1.2;

/// A run whose samples are all settled mostly ends within this.
const FINISHING: Duration = Duration::from_secs(2);
const FINISHING_SPREAD: f64 = 1.0;

/// A count at a moment.
type Point = (Instant, u64);

/// What a run's counts have shown. Small: there is one for each of many runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outlook {
    /// Where the speed is measured from: nothing done yet, or the first count that was seen.
    from: Option<Point>,
    /// Whether `from` is the run's creation, its queueing included.
    from_creation: bool,
    /// The present count, and when it was first seen.
    changed: Option<Point>,
    /// When counts were seen first.
    since: Option<Instant>,
}

/// The time that a run still takes, as it looks at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Remaining {
    /// From the last count that moved, half of such runs take longer than this, in seconds.
    median: f64,
    /// How fast the chances fall off around the median; the larger the surer.
    shape: f64,
    /// How long ago that count moved, in seconds.
    passed: f64,
    /// For how long counts have been seen.
    watched: Duration,
}

impl Outlook {
    /// Takes in a count. Counts that fall start again.
    pub fn observe(&mut self, state: &RunState, now: Moment) {
        let Some(done) = state.progress.done() else { return };
        let since = *self.since.get_or_insert(now.mono);
        match self.changed {
            Some((_, before)) if before == done => {
                if done == 0 {
                    // Still queueing: nothing was done up to now.
                    self.from = Some((now.mono, 0));
                    self.from_creation = false;
                }
                return;
            }
            Some((_, before)) if before > done => {
                let now = Some((now.mono, done));
                *self = Self { since: Some(since), from: now, changed: now, from_creation: false };
                return;
            }
            // Enough has been seen to do without the guess that it began at its creation.
            Some((at, before))
                if self.from_creation && done >= before.saturating_add(before / 8).saturating_add(3) =>
            {
                self.from = Some((at, before));
                self.from_creation = false;
            }
            _ => {}
        }
        if self.from.is_none() {
            let age = state
                .created_at
                .and_then(|created| Duration::try_from(now.wall.duration_since(created)).ok());
            let creation = age.and_then(|age| now.mono.checked_sub(age)).filter(|_| done > 0);
            self.from_creation = creation.is_some();
            self.from = Some(creation.map_or((now.mono, done), |creation| (creation, 0)));
        }
        if self.from_creation && self.changed.is_some() {
            // Keeps the first count that was seen, to measure from it when more has been.
            let enough = self
                .changed
                .is_some_and(|(_, before)| done >= before.saturating_add(before / 8).saturating_add(3));
            if !enough && state.progress.total.is_none_or(|total| done < total) {
                return;
            }
        }
        self.changed = Some((now.mono, done));
    }

    /// Samples a second.
    pub fn per_second(&self) -> Option<f64> {
        let ((from, before), (at, done)) = (self.from?, self.changed?);
        let rate = done.checked_sub(before)? as f64 / at.saturating_duration_since(from).as_secs_f64();
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }

    /// The time that remains: by the counts, or by what earlier runs of the spec took where that is surer; `None` where neither
    /// says anything.
    pub fn remaining(&self, state: &RunState, prior: Option<&Prior>, now: Moment) -> Option<Remaining> {
        let counted = self.counted(state, now.mono);
        let expected = prior.and_then(|prior| expected(state, prior, now));
        match (counted, expected) {
            // One that takes longer than the others is not like them.
            (Some(counted), Some(expected))
                if expected.left() > 0.0 && expected.doubt() < counted.doubt() =>
            {
                Some(expected)
            }
            (counted, expected) => counted.or(expected),
        }
    }

    fn counted(&self, state: &RunState, now: Instant) -> Option<Remaining> {
        let (at, done) = self.changed?;
        let total = state.progress.total.filter(|total| *total > 0)?;
        let passed = now.saturating_duration_since(at).as_secs_f64();
        let watched = now.saturating_duration_since(self.since?);
        let (_, before) = self.from?;
        if done >= total {
            return Some(Remaining::new(FINISHING.as_secs_f64(), FINISHING_SPREAD, passed, watched));
        }
        let counted = done.saturating_sub(before);
        let median = (total - done) as f64 / self.per_second()?;
        let share = done as f64 / total as f64;
        let end = SPREAD_AT_THE_END * share.powi(20);
        let spread = (1.0 / counted.max(1) as f64 + SPREAD * SPREAD + end * end).sqrt();
        Some(Remaining::new(median, spread, passed, watched))
    }
}

/// What earlier runs of the spec let expect, reckoned from the creation.
fn expected(state: &RunState, prior: &Prior, now: Moment) -> Option<Remaining> {
    let age = Duration::try_from(now.wall.duration_since(state.created_at?)).ok()?;
    let (median, spread) = prior.of(state.progress.total);
    Some(Remaining::new(median, spread, age.as_secs_f64(), age))
}

impl Remaining {
    fn new(median: f64, spread: f64, passed: f64, watched: Duration) -> Self {
        // A log-logistic of this shape has that spread of its logarithm.
        let shape = std::f64::consts::PI / (3f64.sqrt() * spread);
        Self { median: median.max(0.001), shape, passed, watched }
    }

    /// How far off the guess may be, in seconds.
    fn doubt(&self) -> f64 {
        self.median / self.shape
    }

    /// For people: how long it may still take; `None` once that has passed.
    pub fn expected(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.left()).ok().filter(|rest| !rest.is_zero())
    }

    /// How likely the end is `after` seconds from now, per second, if it has not come by then.
    fn hazard(&self, after: f64) -> f64 {
        let ratio = (self.passed + after).max(1e-6) / self.median;
        let power = ratio.powf(self.shape);
        // For large powers the fraction is 1, and infinity by infinity is no number.
        let fraction = if power.is_finite() { power / (1.0 + power) } else { 1.0 };
        self.shape / (ratio * self.median) * fraction
    }

    /// The pause after which asking again is worth `price` seconds of delay, between `floor` and `cap`.
    ///
    /// Where the end has a chance of `h` per second, asking every `d` seconds costs `h·d/2` of delay and `price/d` of
    /// requests each second: least at `d = √(2·price/h)`. Over a chance that changes, the next question is due when these
    /// intervals have used up one: `∫ √(h/(2·price)) = 1`.
    pub fn pause(&self, price: f64, floor: Duration, cap: Duration) -> Duration {
        let (floor_s, cap_s) = (floor.as_secs_f64(), cap.as_secs_f64());
        let density = |after: f64| (self.hazard(after) / (2.0 * price)).sqrt();
        let (mut after, mut used) = (0.0, 0.0);
        // Steps grow with the time they are at: fine where it matters, few in all.
        while after < cap_s {
            let step = (0.05 * (self.passed + after)).min(0.05 * cap_s).max(0.02 * floor_s).max(0.05);
            let gained = step * density(after + step / 2.0);
            if used + gained >= 1.0 {
                after += step * ((1.0 - used) / gained).clamp(0.0, 1.0);
                break;
            }
            used += gained;
            after += step;
        }
        Duration::try_from_secs_f64(after).unwrap_or(cap).clamp(floor, cap.max(floor))
    }

    /// What is left by the guess, in seconds; below zero once that has passed.
    pub fn left(&self) -> f64 {
        self.median - self.passed
    }

    /// For how long counts have been seen: what is known no longer than that is not to be trusted for much longer.
    pub fn watched(&self) -> Duration {
        self.watched
    }

    /// Whether the end is so far off that it would surprise within this.
    pub fn is_beyond(&self, pause: Duration) -> bool {
        // One of ten such runs ends before this.
        let early = self.median * (1.0f64 / 9.0).powf(1.0 / self.shape);
        early - self.passed > pause.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;
    use crate::run::Progress;

    const FLOOR: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_secs(120);

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

    /// The outlook after these counts at seconds from the start, of a total, and the moment of the last.
    fn after(counts: &[(u64, u64)], total: u64) -> (Outlook, RunState, Moment) {
        let start = clock::now();
        let mut outlook = Outlook::default();
        let (mut last, mut known) = (start, state(0, total, None, start));
        for (at, done) in counts {
            last = later(start, *at);
            known = state(*done, total, None, start);
            outlook.observe(&known, last);
        }
        (outlook, known, last)
    }

    #[test]
    fn the_speed_counts_from_the_first_sample_and_not_from_the_queue() {
        let (outlook, state, now) = after(&[(0, 0), (300, 0), (310, 10), (400, 100)], 200);
        assert_eq!(outlook.per_second(), Some(1.0));
        assert_eq!(outlook.remaining(&state, None, now).unwrap().expected(), Some(Duration::from_secs(100)));
    }

    #[test]
    fn a_watch_attached_in_mid_run_uses_the_creation_until_it_has_seen_enough() {
        let (mut outlook, now) = (Outlook::default(), clock::now());
        let first = state(50, 100, Some(100), now);
        outlook.observe(&first, now);
        let expected = outlook.remaining(&first, None, now).unwrap().expected();
        assert_eq!(expected, Some(Duration::from_secs(100)));
        let then = later(now, 10);
        let more = state(70, 100, Some(100), now);
        outlook.observe(&more, then);
        assert_eq!(outlook.per_second(), Some(2.0), "what was seen is surer than the creation");
    }

    #[test]
    fn says_nothing_where_nothing_can_be_said() {
        for (counts, total) in
            [(&[(0, 0)][..], 100), (&[(0, 0), (9, 0)], 100), (&[(0, 5)], 100), (&[(0, 0), (9, 5)], 0)]
        {
            let (outlook, state, now) = after(counts, total);
            assert_eq!(outlook.remaining(&state, None, now), None, "{counts:?} of {total}");
        }
        // Counts that fall start again.
        let (outlook, state, now) = after(&[(0, 0), (10, 50), (20, 3)], 100);
        assert_eq!(outlook.remaining(&state, None, now), None);
    }

    #[test]
    fn far_from_the_end_it_asks_rarely_and_close_to_it_often() {
        let pause = |counts: &[(u64, u64)]| {
            let (outlook, state, now) = after(counts, 1000);
            outlook.remaining(&state, None, now).unwrap().pause(2.0, FLOOR, CAP)
        };
        assert!(pause(&[(0, 0), (1000, 300)]) > Duration::from_secs(100));
        assert!(pause(&[(0, 0), (1000, 995)]) < Duration::from_secs(6));
        assert!(pause(&[(0, 0), (1000, 1000)]) < Duration::from_secs(5));
    }

    #[test]
    fn an_end_that_does_not_come_is_asked_about_ever_more_seldom() {
        let (outlook, state, now) = after(&[(0, 0), (1000, 990)], 1000);
        let pause =
            |passed: u64| outlook.remaining(&state, None, later(now, passed)).unwrap().pause(2.0, FLOOR, CAP);
        assert!(pause(20) < pause(100) && pause(100) < pause(1000) && pause(1000) < pause(20_000));
    }

    #[test]
    fn earlier_runs_help_until_the_counts_know_better() {
        let took = |seconds| crate::store::Took { seconds, samples: None };
        let prior = Prior::from(&[took(600.0), took(620.0), took(580.0), took(600.0)]).unwrap();
        let start = clock::now();
        let unseen = state(0, 1000, Some(300), start);
        let expected = |outlook: &Outlook, state: &RunState, now| {
            outlook.remaining(state, Some(&prior), now)?.expected()
        };
        let rest = expected(&Outlook::default(), &unseen, start).unwrap().as_secs();
        assert!((290..310).contains(&rest), "without counts the others say it: {rest}");
        // A run that is far slower than the others: five of a thousand do not say so yet, three hundred do.
        let (outlook, known, now) = after(&[(0, 0), (5, 5)], 1000);
        assert_eq!(
            expected(&outlook, &RunState { created_at: unseen.created_at, ..known }, now).unwrap().as_secs()
                / 100,
            2
        );
        let (outlook, known, now) = after(&[(0, 0), (300, 30), (3000, 300)], 1000);
        assert_eq!(
            expected(&outlook, &RunState { created_at: Some(start.wall), ..known }, now).unwrap().as_secs(),
            7000
        );
        assert_eq!(
            expected(&Outlook::default(), &RunState::new(start.wall), start),
            None,
            "without a creation nothing"
        );
    }

    proptest! {
        /// Whatever the counts: within the bounds, and dearer requests are fewer.
        #[test]
        fn stays_within_bounds(
            counts in prop::collection::vec((0u64..100_000, 0u64..u64::MAX), 0..8),
            total in prop_oneof![0u64..100, Just(u64::MAX), any::<u64>()],
            passed in prop_oneof![0u64..1000, 0u64..10_000_000],
            cap in 0u64..200_000,
        ) {
            let mut counts = counts;
            counts.sort_by_key(|(at, _)| *at);
            let (outlook, state, now) = after(&counts, total);
            if let Some(remaining) = outlook.remaining(&state, None, later(now, passed)) {
                let cheap = remaining.pause(0.5, FLOOR, CAP);
                let dear = remaining.pause(8.0, FLOOR, CAP);
                let any = remaining.pause(2.0, FLOOR, Duration::from_millis(cap));
                prop_assert!(any >= FLOOR && any <= Duration::from_millis(cap).max(FLOOR));
                prop_assert!(cheap >= FLOOR && dear <= CAP && cheap <= dear, "{cheap:?} {dear:?} {remaining:?}");
            }
        }
    }
}
