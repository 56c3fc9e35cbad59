//! When a run will end, and how uncertain that is. Pure: takes moments and counts, returns durations.
//!
//! Makes two estimates of the remaining time, each with a spread. One uses the counts: the samples left at the speed so
//! far. The other uses the usual duration of earlier runs of the spec, or of runs in general. Their average is weighted
//! by certainty. The average gives the probability of an end, and that gives the next poll. docs/polling.md explains it
//! on one page.

use std::time::Duration;

use tokio::time::Instant;

use super::guess::Guess;
use super::prior::Prior;
use crate::run::{Moment, RunState};

/// Minimum spread of the logarithm of the remaining time estimated from counts. Larger: fewer polls close to the
/// predicted end, more before and after it.
const COUNTED_SPREAD: f64 = 0.3;

/// Spread from a single sample, in the same unit; for n samples, it is divided by the root of n. Larger: early counts
/// count less.
const SAMPLE_SPREAD: f64 = 0.9;

/// Minimum remaining time, as a share of the time without a new sample. Larger: fewer polls of stalled runs.
const SILENCE: f64 = 1.0 / 3.0;

/// Weight of usual durations when there are counts, from 0 to 1. At 1, the counts of a long run are trusted too late.
const PRIOR_WEIGHT: f64 = 0.3;

/// Probability per second of an end that no count predicts (mostly failures), times the age in seconds. Larger: early
/// failures are noticed sooner, at the cost of requests for all other runs.
const UNPREDICTED: f64 = 0.05;

/// Minimum number of samples that a shown estimate is based on.
const MEASURED: u64 = 2;

/// Factor on the price of a request while neither counts nor earlier runs say anything. Without it, such runs take a
/// third more requests than the others.
const BLIND: f64 = 1.5;

/// Minimum remaining time that an estimate may give, in seconds.
const SHORTEST: f64 = 0.5;

/// Usual maximum time between the last settled sample and the end of a run.
const FINISHING: Duration = Duration::from_secs(2);
const FINISHING_SPREAD: f64 = 1.0;

/// A count and when it was read.
type Point = (Instant, u64);

/// What a run's counts have shown. Kept small, because every run has one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outlook {
    /// Start of the speed measurement: no samples done yet, or the first count.
    from: Option<Point>,
    /// Whether `from` is the run's creation, which includes its time in the queue.
    from_creation: bool,
    /// The current count, and when it was first read.
    changed: Option<Point>,
    /// When the first answer came.
    since: Option<Instant>,
}

/// The remaining time of a run, estimated at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Remaining {
    guess: Guess,
    /// How long the run has been watched.
    watched: Duration,
    /// Probability per second of an end that the estimate does not predict.
    unpredicted: f64,
    /// Factor on the price of a request.
    dearer: f64,
    /// Remaining seconds to show to people, without the usual durations of runs in general. Zero or less once it has
    /// passed.
    likely: f64,
}

impl Outlook {
    /// Takes in a count. If the count falls, the measurement starts again.
    pub fn observe(&mut self, state: &RunState, now: Moment) {
        let since = *self.since.get_or_insert(now.mono);
        let Some(done) = state.progress.done() else { return };
        match self.changed {
            Some((_, before)) if before == done => {
                if done == 0 {
                    // Still queued: no samples are done so far.
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
            // Enough samples are done to measure without assuming that the run began at its creation.
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
            // Keeps the first count as the start of the measurement until enough samples are done.
            let enough = self
                .changed
                .is_some_and(|(_, before)| done >= before.saturating_add(before / 8).saturating_add(3));
            if !enough && state.progress.total.is_none_or(|total| done < total) {
                return;
            }
        }
        self.changed = Some((now.mono, done));
    }

    /// Samples per second.
    pub fn per_second(&self) -> Option<f64> {
        let ((from, before), (at, done)) = (self.from?, self.changed?);
        let rate = done.checked_sub(before)? as f64 / at.saturating_duration_since(from).as_secs_f64();
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }

    /// The remaining time; `None` before the first answer.
    pub fn remaining(&self, state: &RunState, prior: Option<&Prior>, now: Moment) -> Option<Remaining> {
        let watched = now.mono.saturating_duration_since(self.since?);
        let created = state.created_at.and_then(|at| Duration::try_from(now.wall.duration_since(at)).ok());
        let age = created.unwrap_or_default().max(watched).as_secs_f64().max(1.0);
        let total = state.progress.total;
        // Without a creation time, the age is too short to compare. A run that already takes longer than the others is
        // unlike them.
        let own = prior.filter(|_| created.is_some()).map(|prior| Guess::of(prior.of(total), age));
        let alike = own.filter(|own| own.left() > 0.0);
        let counted = self.counted(total, now.mono);
        let broad = Guess::of(Prior::BROAD, age);
        let (guess, likely) = match (counted, alike) {
            (Some(Counted::Settled(guess)), _) => (guess, guess.left()),
            (Some(Counted::Left { guess, .. }), Some(own)) => {
                let both = guess.weighed_with(own, PRIOR_WEIGHT);
                (both, both.median)
            }
            (Some(Counted::Left { guess, likely }), None) => {
                (guess.weighed_with(broad, PRIOR_WEIGHT), likely)
            }
            (None, _) => own.map_or((broad, 0.0), |own| (own, own.left())),
        };
        let is_blind = counted.is_none() && own.is_none();
        Some(Remaining {
            guess,
            likely,
            watched,
            unpredicted: if counted.is_some() { UNPREDICTED / age } else { 0.0 },
            dearer: if is_blind { BLIND } else { 1.0 },
        })
    }

    /// The estimate from the counts.
    fn counted(&self, total: Option<u64>, now: Instant) -> Option<Counted> {
        let ((at, done), (_, before)) = (self.changed?, self.from?);
        let total = total.filter(|total| *total > 0)?;
        let silence = now.saturating_duration_since(at).as_secs_f64();
        if done >= total {
            return Some(Counted::Settled(Guess::new(FINISHING.as_secs_f64(), FINISHING_SPREAD, silence)));
        }
        let (left, moved) = ((total - done) as f64, done.saturating_sub(before).max(1) as f64);
        let (rate, seen) = (self.per_second()?, done.saturating_sub(before));
        let needed = left / rate;
        let rest = (needed - silence).max(SILENCE * silence).max(SHORTEST);
        let variance = COUNTED_SPREAD.powi(2) + SAMPLE_SPREAD.powi(2) * (1.0 / moved + 1.0 / left);
        // While no sample comes, time alone brings the end closer by one sample at most. After a silence in which the
        // run could have finished, the estimate means nothing.
        let means_something = seen >= MEASURED && silence < needed;
        let likely = if means_something { needed - silence.min(1.0 / rate) } else { 0.0 };
        Some(Counted::Left { guess: Guess::new(rest, variance.sqrt(), 0.0), likely })
    }
}

/// What the counts say.
#[derive(Clone, Copy)]
enum Counted {
    /// Every sample is settled.
    Settled(Guess),
    /// The estimate for the samples left, and the seconds to show for them.
    Left { guess: Guess, likely: f64 },
}

impl Remaining {
    /// Remaining time to show to people. `None` once it has passed, or if nothing is known about this run.
    pub fn expected(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.likely).ok().filter(|rest| !rest.is_zero())
    }

    /// The pause after which another poll is worth `price` seconds of delay, between `floor` and `cap`.
    ///
    /// If the end has a probability of `h` per second, polling every `d` seconds costs `h·d/2` of delay and `price/d`
    /// of requests per second. The sum is least at `d = √(2·price/h)`. If the probability changes over time, the next
    /// poll is due when these intervals have used up one: `∫ √(h/(2·price)) = 1`.
    pub fn pause(&self, price: f64, floor: Duration, cap: Duration) -> Duration {
        let (floor_s, cap_s) = (floor.as_secs_f64(), cap.as_secs_f64());
        let twice = 2.0 * price * self.dearer;
        let density = |after: f64| ((self.guess.hazard(after) + self.unpredicted) / twice).sqrt();
        let (mut after, mut used) = (0.0, 0.0);
        // The steps grow with time: small where precision matters, and few in total.
        while after < cap_s {
            let step = (0.08 * (self.guess.passed + after)).min(0.05 * cap_s).max(0.02 * floor_s).max(0.05);
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

    /// How long the run has been watched. An estimate is not trusted for much longer than this.
    pub fn watched(&self) -> Duration {
        self.watched
    }

    /// Whether the run is very unlikely to end within `pause`.
    pub fn is_beyond(&self, pause: Duration) -> bool {
        // One in ten such runs ends before this.
        let early = self.guess.median * (1.0f64 / 9.0).powf(1.0 / self.guess.shape);
        early - self.guess.passed > pause.as_secs_f64()
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

    /// The outlook after these (seconds from the start, count) pairs of `total` samples, and the moment of the last.
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
            let expected = outlook.remaining(&state, None, now).unwrap().expected();
            assert_eq!(expected, None, "{counts:?} of {total}");
        }
        // If the count falls, the measurement starts again.
        let (outlook, state, now) = after(&[(0, 0), (10, 50), (20, 3)], 100);
        assert_eq!(outlook.remaining(&state, None, now).unwrap().expected(), None);
        assert_eq!(Outlook::default().remaining(&state, None, now), None, "before the first answer");
    }

    #[test]
    fn an_estimate_needs_two_samples_and_does_not_count_down_while_none_comes() {
        let (outlook, known, now) = after(&[(0, 0), (10, 1)], 10);
        assert_eq!(outlook.remaining(&known, None, now).unwrap().expected(), None, "one sample");
        let (outlook, known, now) = after(&[(0, 0), (10, 1), (20, 2)], 10);
        let left = |after| {
            let left = outlook.remaining(&known, None, later(now, after)).unwrap().expected();
            left.map(|left| left.as_secs())
        };
        assert_eq!([left(0), left(5), left(10), left(79)], [Some(80), Some(75), Some(70), Some(70)]);
        assert_eq!(left(80), None, "it could have finished by now");
    }

    #[test]
    fn far_from_the_end_it_asks_rarely_and_close_to_it_often() {
        let pause = |counts: &[(u64, u64)]| {
            let (outlook, state, now) = after(counts, 1000);
            outlook.remaining(&state, None, now).unwrap().pause(0.7, FLOOR, CAP)
        };
        assert!(pause(&[(0, 0), (1000, 300)]) > Duration::from_secs(100));
        assert!(pause(&[(0, 0), (1000, 995)]) < Duration::from_secs(6));
        assert!(pause(&[(0, 0), (1000, 1000)]) < Duration::from_secs(5));
    }

    #[test]
    fn an_end_that_does_not_come_is_asked_about_ever_more_seldom() {
        let (outlook, state, now) = after(&[(0, 0), (1000, 990)], 1000);
        let pause = |passed: u64| {
            outlook.remaining(&state, None, later(now, passed)).unwrap().pause(0.7, FLOOR, CAP * 100)
        };
        assert!(pause(20) < pause(100) && pause(100) < pause(1000) && pause(1000) < pause(20_000));
    }

    #[test]
    fn earlier_runs_help_until_the_counts_know_better() {
        let took = |seconds| crate::store::RunDuration { seconds, samples: None };
        let prior = Prior::from(&[took(600.0), took(620.0), took(580.0), took(600.0)]).unwrap();
        let start = clock::now();
        let unseen = state(0, 1000, Some(300), start);
        let expected = |outlook: &Outlook, state: &RunState, now| {
            outlook.remaining(state, Some(&prior), now)?.expected()
        };
        let mut silent = Outlook::default();
        silent.observe(&RunState { progress: Progress::default(), ..unseen.clone() }, start);
        let rest = expected(&silent, &unseen, start).unwrap().as_secs();
        assert!((290..310).contains(&rest), "without counts the others say it: {rest}");
        // For a run far slower than the others, five samples of a thousand change little; three hundred do.
        let (outlook, known, now) = after(&[(0, 0), (5, 5)], 1000);
        let known = RunState { created_at: unseen.created_at, ..known };
        let rest = expected(&outlook, &known, now).unwrap().as_secs();
        assert!((300..950).contains(&rest), "between the others' 300 and the counts' 995: {rest}");
        let (outlook, known, now) = after(&[(0, 0), (300, 30), (3000, 300)], 1000);
        let known = RunState { created_at: Some(start.wall), ..known };
        let rest = expected(&outlook, &known, now).unwrap().as_secs();
        assert!((5500..7001).contains(&rest), "by the counts: {rest}");
        let unborn = RunState::new(start.wall);
        assert_eq!(expected(&silent, &unborn, start), None, "without a creation nothing");
    }

    #[test]
    fn a_young_run_without_counts_is_polled_more_often_than_an_old_one() {
        let (outlook, state, now) = after(&[(0, 0)], 0);
        let at = |age| outlook.remaining(&state, None, later(now, age)).unwrap().pause(0.7, FLOOR, CAP);
        assert!(at(300) < at(3000) && at(3000) < at(30_000), "{:?} {:?}", at(300), at(3000));
        assert!(at(300) > Duration::from_secs(10), "{:?}", at(300));
    }

    proptest! {
        /// For all counts: the pause stays within its bounds, and a higher price gives fewer requests.
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
