//! When to ask about a run next: capped, jittered exponential backoff. Pure but for the jitter.
//!
//! Two separate curves, one while the API answers and one while it does not, both on the `backoff` crate. That crate is
//! unmaintained (RUSTSEC-2025-0012); this is the only file that uses it, so that replacing it changes nothing else.
//! Facts about backoff 0.4 that shape this file: `max_elapsed_time` is 15 minutes unless set to `None`, after which it
//! gives up; jitter is applied after the cap, so that 60 s can become 66 s: hence the clamp.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, SystemClock};

use super::outlook::Remaining;

/// One backoff curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    /// The first interval.
    pub initial: Duration,
    /// Each interval is this many times the one before; at least 1.
    pub multiplier: f64,
    /// No interval is longer, jitter included.
    pub max: Duration,
    /// An interval is spread evenly over ± this share of itself; from 0 to 1.
    pub jitter: f64,
}

impl Curve {
    /// The interval after `current`, jittered, and the next value of `current`.
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
    /// While polls succeed and the counts say nothing.
    pub healthy: Curve,
    /// While they fail.
    pub error: Curve,
    /// How many seconds of delay a request is worth; `None` leaves it at the curves.
    pub price: Option<f64>,
}

impl Policy {
    /// The shortest pause that an outlook may ask for.
    fn floor(&self) -> Duration {
        FLOOR.min(self.healthy.initial)
    }

    /// The longest, where requests are worth `price` and so many seconds are left by the guess. Where they are dear it is more
    /// far from the end: a fifth of what is left.
    fn cap(&self, price: f64, left: f64) -> Duration {
        let cap = self.healthy.max.saturating_mul(2);
        let most = cap.as_secs_f64() * (price / DEAR).clamp(1.0, 3.0);
        cap.max(Duration::try_from_secs_f64(most.min(left / 5.0)).unwrap_or_default())
    }
}

/// However near the end is, a run is not asked about more often.
const FLOOR: Duration = Duration::from_secs(1);

/// A request that is worth more seconds of delay than this is dear.
const DEAR: f64 = 2.0;

/// Where one run stands on the two curves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    healthy: Duration,
    error: Duration,
}

impl Pace {
    /// At the start of both curves.
    pub fn new(policy: &Policy) -> Self {
        Self { healthy: policy.healthy.initial, error: policy.error.initial }
    }

    /// How long to wait after a poll that was answered. A change of status starts the curve again: what has just
    /// begun to move may move again soon. Where the counts say when the run may end, the next poll aims at that: far from
    /// it never more often than the curve, close to it as often as the price makes worth while.
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
        // Not longer than twice the time it has been watched: what a first look promises may fail at once.
        let cap = policy.cap(price, remaining.left()).min(remaining.watched().saturating_mul(2).max(wait));
        let pause = remaining.pause(price, policy.floor(), cap);
        if remaining.is_beyond(wait) { pause.max(wait) } else { pause }
    }

    /// How long to wait after a poll that failed. `floor` is what the API asked for (`Retry-After`).
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

    #[test]
    fn grows_to_the_cap_and_stays() {
        let mut pace = Pace::new(&policy());
        let waits = seconds((0..13).map(|_| pace.after_answer(&policy(), false, None)));
        assert_eq!(waits[..4], [1.0, 1.5, 2.25, 3.375]);
        assert_eq!(waits[11..], [60.0, 60.0]);
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
        /// Whatever the counts say: never below the floor, nor above twice the longest interval; far from the end, where requests
        /// are dear, up to three times that.
        #[test]
        fn the_counts_move_it_within_bounds(
            counts in prop::collection::vec((1u64..5000, 0u64..2000), 1..20),
            total in 1u64..2000,
            price in 0.01f64..100.0,
        ) {
            let (start, policy) = (crate::clock::now(), Policy { price: Some(price), ..policy() });
            let (mut pace, mut outlook) = (Pace::new(&policy), crate::poll::Outlook::default());
            let mut state = crate::run::RunState::new(start.wall);
            let mut now = start;
            for (wait, done) in counts {
                let wait = Duration::from_secs(wait);
                now = crate::run::Moment { mono: now.mono + wait, wall: now.wall + wait };
                state.progress.completed = Some(done);
                state.progress.total = Some(total);
                outlook.observe(&state, now);
                let remaining = outlook.remaining(&state, None, now);
                let pause = pace.after_answer(&policy, false, remaining).as_secs_f64();
                let far = remaining.map_or(0.0, |remaining| remaining.left() / 5.0);
                let most = if price <= 2.0 { 120.0 } else { far.clamp(120.0, 360.0) };
                prop_assert!((1.0..=most + 1e-6).contains(&pause), "{pause} s at {price}, {far}");
            }
        }

        /// Within the jitter of where the curve is, never above the cap, whatever the numbers.
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
