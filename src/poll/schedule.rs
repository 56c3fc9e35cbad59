//! When to poll a run next: capped exponential backoff with jitter. Pure, except for the jitter.
//!
//! There are two separate curves, one while the API answers and one while it does not. Both use the `backoff` crate.
//! That crate is unmaintained (RUSTSEC-2025-0012). Only this file uses it, so that it is easy to replace. Two facts
//! about backoff 0.4 shape this file. It gives up after 15 minutes unless `max_elapsed_time` is `None`. It applies
//! jitter after the cap, so that 60 s can become 66 s: hence the clamp.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, SystemClock};

use super::outlook::Remaining;

/// One backoff curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    /// The first interval.
    pub initial: Duration,
    /// Ratio of each interval to the one before; at least 1.
    pub multiplier: f64,
    /// The longest interval, jitter included.
    pub max: Duration,
    /// Jitter: an interval is spread evenly over ± this share of itself; from 0 to 1.
    pub jitter: f64,
}

impl Curve {
    /// The interval after `current`, with jitter, and the next value of `current`.
    ///
    /// `current` is the interval without jitter; start with [`Curve::initial`].
    #[expect(
        clippy::disallowed_types,
        reason = "what the crate wants; it is read for `max_elapsed_time` only"
    )]
    fn advance(&self, current: Duration) -> (Duration, Duration) {
        let mut backoff = ExponentialBackoff {
            current_interval: current.min(self.max),
            initial_interval: self.initial,
            randomization_factor: self.jitter,
            multiplier: self.multiplier,
            max_interval: self.max,
            max_elapsed_time: None,
            start_time: std::time::Instant::now(),
            clock: SystemClock::default(),
        };
        let jittered = backoff.next_backoff().unwrap_or(self.max).min(self.max);
        (jittered, backoff.current_interval)
    }
}

/// The schedule that all runs share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The curve while polls succeed and the counts say nothing.
    pub healthy: Curve,
    /// The curve while polls fail.
    pub error: Curve,
    /// Price of a request relative to delay. `None` uses the curves only.
    pub price: Option<f64>,
}

impl Policy {
    /// The shortest pause that an outlook may give.
    fn floor(&self) -> Duration {
        FLOOR.min(self.healthy.initial)
    }

    /// The longest pause that an outlook may give. A longer one saves hardly any requests, but delays unexpected ends.
    fn cap(&self) -> Duration {
        self.healthy.max.saturating_mul(2)
    }
}

/// Minimum time between two polls of a run, however close its end.
const FLOOR: Duration = Duration::from_secs(1);

/// Seconds of delay that a request is worth at a price of 1. Larger: fewer requests at every eagerness, and more delay.
/// With this value, `normal` takes somewhat less than 30 requests per run.
const WORTH: f64 = 0.45;

/// Exponent of the price. Smaller: `low` and `high` are closer to `normal`. At 1, `high` would take 40 requests per
/// run, for a second of delay.
const PRICE_POWER: f64 = 0.75;

/// The longest pause, as a multiple of the time watched. Larger: a few requests fewer per run, but failures at the
/// start are noticed later.
const LIVELY: u32 = 2;

/// A run's position on the two curves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    healthy: Duration,
    error: Duration,
}

impl Pace {
    /// The start of both curves.
    pub fn new(policy: &Policy) -> Self {
        Self { healthy: policy.healthy.initial, error: policy.error.initial }
    }

    /// Time to wait after a poll that was answered. With a price and an outlook, it is the pause that is worth the
    /// price, with jitter. Otherwise the curve decides. A change of status restarts the curve, because a run that just
    /// changed may soon change again.
    pub fn after_answer(
        &mut self,
        policy: &Policy,
        status_changed: bool,
        remaining: Option<Remaining>,
    ) -> Duration {
        self.error = policy.error.initial;
        if status_changed {
            self.healthy = policy.healthy.initial;
        }
        let (wait, next) = policy.healthy.advance(self.healthy);
        self.healthy = next;
        let (Some(price), Some(remaining)) = (policy.price, remaining) else { return wait };
        // An estimate from the first poll may be wrong, because the run may fail at once.
        let lively = remaining.watched().saturating_mul(LIVELY).max(policy.healthy.initial);
        let cap = policy.cap().min(lively);
        let initial = policy.healthy.initial.min(cap);
        let floor = if remaining.is_beyond(initial) { initial } else { policy.floor() };
        let pause = remaining.pause(WORTH * price.powf(PRICE_POWER), floor, cap);
        let spread = 1.0 + policy.healthy.jitter * (2.0 * fastrand::f64() - 1.0);
        let jittered = Duration::try_from_secs_f64(pause.as_secs_f64() * spread).unwrap_or(cap);
        jittered.clamp(floor.min(cap), cap)
    }

    /// Time to wait after a poll that failed. `floor` is the API's `Retry-After`.
    pub fn after_error(&mut self, policy: &Policy, floor: Option<Duration>) -> Duration {
        let (wait, next) = policy.error.advance(self.error);
        self.error = next;
        wait.max(floor.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curve(initial: u64, multiplier: f64, max: u64, jitter: f64) -> Curve {
        Curve { initial: Duration::from_millis(initial), multiplier, max: Duration::from_millis(max), jitter }
    }

    fn policy() -> Policy {
        Policy { healthy: curve(1000, 1.5, 60_000, 0.0), error: curve(1000, 2.0, 8000, 0.0), price: None }
    }

    fn seconds(waits: impl IntoIterator<Item = Duration>) -> Vec<f64> {
        waits.into_iter().map(|wait| wait.as_secs_f64()).collect()
    }

    /// Any number, with extra weight on extreme ones.
    fn hostile() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..3, 0u64..2000, Just(u64::MAX), any::<u64>()]
    }

    #[test]
    fn grows_to_the_cap_and_stays() {
        let mut pace = Pace::new(&policy());
        let waits = seconds((0..13).map(|_| pace.after_answer(&policy(), false, None)));
        assert_eq!(waits[..4], [1.0, 1.5, 2.25, 3.375]);
        assert_eq!(waits[11..], [60.0, 60.0]);
    }

    #[test]
    fn without_a_price_it_is_backoff_whatever_the_counts() {
        let start = crate::clock::now();
        let mut state = crate::run::RunState::new(start.wall);
        let (mut pace, mut outlook) = (Pace::new(&policy()), crate::poll::Outlook::default());
        let waits = seconds((0..5).map(|done| {
            state.progress = crate::run::Progress { completed: Some(done), failed: None, total: Some(5) };
            outlook.observe(&state, start);
            pace.after_answer(&policy(), false, outlook.remaining(&state, None, start))
        }));
        assert_eq!(waits, [1.0, 1.5, 2.25, 3.375, 5.0625]);
    }

    #[test]
    fn a_run_that_has_just_begun_is_polled_at_once() {
        let start = crate::clock::now();
        let policy = Policy { price: Some(10.0), ..policy() };
        let state = crate::run::RunState::new(start.wall);
        let (mut pace, mut outlook) = (Pace::new(&policy), crate::poll::Outlook::default());
        let mut now = start;
        let waits = seconds((0..4).map(|_| {
            outlook.observe(&state, now);
            let wait = pace.after_answer(&policy, false, outlook.remaining(&state, None, now));
            now = crate::run::Moment { mono: now.mono + wait, wall: now.wall + wait };
            wait
        }));
        assert_eq!(waits, [1.0, 2.0, 6.0, 18.0], "at most twice the time watched");
    }

    #[test]
    fn only_a_change_of_status_starts_it_again() {
        let mut pace = Pace::new(&policy());
        for _ in 0..5 {
            pace.after_answer(&policy(), false, None);
        }
        let before = pace.after_answer(&policy(), false, None);
        pace.after_error(&policy(), None);
        assert!(pace.after_answer(&policy(), false, None) > before, "an error resets nothing");
        assert_eq!(pace.after_answer(&policy(), true, None), Duration::from_secs(1));
    }

    #[test]
    fn errors_have_a_curve_of_their_own() {
        let mut pace = Pace::new(&policy());
        let waits = seconds((0..5).map(|_| pace.after_error(&policy(), None)));
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 8.0]);
        pace.after_answer(&policy(), false, None);
        assert_eq!(pace.after_error(&policy(), None), Duration::from_secs(1));
    }

    #[test]
    fn retry_after_is_a_floor_and_no_ceiling() {
        let mut pace = Pace::new(&policy());
        assert_eq!(pace.after_error(&policy(), Some(Duration::from_secs(17))), Duration::from_secs(17));
        assert_eq!(pace.after_error(&policy(), Some(Duration::ZERO)), Duration::from_secs(2));
    }

    proptest! {
        /// For all answers: the pause is never below the floor, nor above twice the longest interval or twice the time
        /// watched.
        #[test]
        fn the_guess_stays_within_bounds(
            answers in prop::collection::vec(
                (0u64..100_000, prop::option::of(hostile()), prop::option::of(hostile()), prop::option::of(hostile())),
                1..20,
            ),
            created in prop::option::of(-4_000_000_000i64..4_000_000_000),
            price in 0.000_1f64..1e6,
            initial in 1u64..100_000,
            max in 1u64..10_000_000,
            jitter in 0.0f64..=1.0,
        ) {
            let start = crate::clock::now();
            let healthy = curve(initial, 1.5, max.max(initial), jitter);
            let policy = Policy { healthy, price: Some(price), ..policy() };
            let (mut pace, mut outlook) = (Pace::new(&policy), crate::poll::Outlook::default());
            let mut state = crate::run::RunState::new(start.wall);
            state.created_at = created.map(|seconds| start.wall + jiff::SignedDuration::from_secs(seconds));
            let (mut now, mut first) = (start, None);
            for (wait, completed, failed, total) in answers {
                let wait = Duration::from_secs(wait);
                now = crate::run::Moment { mono: now.mono + wait, wall: now.wall + wait };
                let watched = now.mono - *first.get_or_insert(now.mono);
                state.progress = crate::run::Progress { completed, failed, total };
                outlook.observe(&state, now);
                let pause = pace.after_answer(&policy, false, outlook.remaining(&state, None, now));
                let most = (healthy.max * 2).min((watched * 2).max(healthy.initial));
                prop_assert!(pause <= most, "{pause:?} after {watched:?}");
                prop_assert!(pause >= FLOOR.min(healthy.initial).min(most), "{pause:?}");
            }
        }

        /// For all numbers: the pause is within the jitter of the curve, and never above the cap.
        #[test]
        fn stays_within_bounds(
            initial in 1u64..=86_400_000,
            factor in 1u64..=1_000_000,
            multiplier in 1.0f64..=100.0,
            jitter in 0.0f64..=1.0,
            steps in 1usize..200,
        ) {
            let max = initial.saturating_mul(factor).min(315_360_000_000);
            let curve = curve(initial, multiplier, max, jitter);
            let mut current = curve.initial;
            for _ in 0..steps {
                let (wait, next) = curve.advance(current);
                prop_assert!(wait <= curve.max);
                let least = current.min(curve.max).as_secs_f64() * (1.0 - jitter);
                prop_assert!(wait.as_secs_f64() >= least.min(curve.max.as_secs_f64()) - 1e-3, "{wait:?} < {least}");
                prop_assert!(next >= current.min(curve.max) && next <= curve.max);
                current = next;
            }
        }
    }
}
