//! Whether the API can be reached. Reports once when it becomes unreachable and once when it recovers. Pure.
//!
//! Judges all runs together: if the API fails for one run only, that is not an outage.

use std::time::Duration;

use crate::run::Moment;

/// Number of different runs in a row without an answer that make an outage, even if others were not polled yet.
const ENOUGH: usize = 3;

/// Minimum number of failures in a row for an outage. One failure is a blip that nobody needs to see.
const AT_LEAST: u32 = 2;

/// What is known of the API's health.
#[derive(Debug, Default)]
pub struct Health {
    /// Different runs whose polls failed since the last answer; never more than [`ENOUGH`].
    failing: Vec<u32>,
    first_failure: Option<Moment>,
    failures: u32,
    down: bool,
    /// Whether the last failure was a 429.
    throttled: bool,
}

/// The start of an outage.
#[derive(Debug, Clone, Copy)]
pub struct Down {
    /// When the first poll failed.
    pub since: Moment,
    /// Whether the API answers, but only with 429.
    pub throttled: bool,
}

/// The end of an outage.
#[derive(Debug, Clone, Copy)]
pub struct Up {
    /// When the first poll failed.
    pub since: Moment,
    /// How long the outage lasted.
    pub lasted: Duration,
    /// Whether the API answered, but only with 429.
    pub throttled: bool,
}

impl Health {
    /// A poll of `run` failed or got a 429. `active` is the number of active runs. Returns the outage when it begins.
    pub fn failed(&mut self, run: u32, active: usize, throttled: bool, now: Moment) -> Option<Down> {
        let since = *self.first_failure.get_or_insert(now);
        if self.failing.len() < ENOUGH && !self.failing.contains(&run) {
            self.failing.push(run);
        }
        self.failures = self.failures.saturating_add(1);
        let outage = self.failing.len() >= ENOUGH.min(active.max(1)) && self.failures >= AT_LEAST;
        if self.down {
            return None;
        }
        // An outage keeps the kind that it began with.
        (self.down, self.throttled) = (outage, throttled);
        outage.then_some(Down { since, throttled })
    }

    /// No poll is allowed for a long time, so one failure is an outage. Returns the outage when it begins.
    pub fn silenced(&mut self) -> Option<Down> {
        let since = self.first_failure.filter(|_| !self.down)?;
        self.down = true;
        Some(Down { since, throttled: self.throttled })
    }

    /// When the first of the current failures happened.
    pub fn failing_since(&self) -> Option<Moment> {
        self.first_failure
    }

    /// When the current outage began.
    pub fn down_since(&self) -> Option<Moment> {
        self.first_failure.filter(|_| self.down)
    }

    /// The API answered, even if only with a refusal. Returns the end of the outage if there was one.
    pub fn answered(&mut self, now: Moment) -> Option<Up> {
        self.failing.clear();
        self.failures = 0;
        let since = self.first_failure.take()?;
        std::mem::take(&mut self.down).then(|| Up {
            since,
            lasted: now.mono.saturating_duration_since(since.mono),
            throttled: self.throttled,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn later(now: Moment, seconds: u64) -> Moment {
        Moment { mono: now.mono + Duration::from_secs(seconds), ..now }
    }

    #[test]
    fn an_outage_is_told_once_each_way() {
        let (mut health, now) = (Health::default(), clock::now());
        assert!(health.failed(0, 1, false, now).is_none(), "a blip is not told");
        let down = health.failed(0, 1, false, later(now, 1)).unwrap();
        assert_eq!(down.since.mono, now.mono, "since the first failure");
        assert!(health.failed(0, 1, false, later(now, 2)).is_none());
        assert_eq!(health.answered(later(now, 5)).unwrap().lasted, Duration::from_secs(5));
        assert!(health.answered(later(now, 6)).is_none());
        assert!(health.failed(0, 1, false, later(now, 7)).is_none());
        assert!(health.answered(later(now, 8)).is_none(), "nor is the end of a blip");
        health.failed(0, 1, false, later(now, 9));
        assert!(health.failed(0, 1, false, later(now, 10)).is_some(), "the next outage is told again");
    }

    #[test]
    fn one_failure_is_an_outage_where_nobody_may_ask_for_long() {
        let (mut health, now) = (Health::default(), clock::now());
        assert!(health.silenced().is_none(), "nothing has failed");
        assert!(health.failed(0, 1, true, now).is_none());
        assert!(health.silenced().is_some_and(|down| down.throttled && down.since.mono == now.mono));
        assert!(health.silenced().is_none(), "told once");
        assert!(health.failed(0, 1, false, later(now, 1)).is_none());
        assert!(health.answered(later(now, 2)).is_some_and(|up| up.throttled), "as it began");
    }

    #[test]
    fn one_run_in_trouble_is_no_outage() {
        let (mut health, now) = (Health::default(), clock::now());
        for round in 0..10 {
            assert!(health.failed(0, 2, false, later(now, round)).is_none());
            assert!(health.answered(later(now, round)).is_none());
        }
    }

    #[test]
    fn all_of_a_few_or_three_of_many_are() {
        let (mut health, now) = (Health::default(), clock::now());
        assert!(health.failed(0, 2, false, now).is_none());
        assert!(health.failed(0, 2, false, now).is_none());
        assert!(health.failed(1, 2, false, now).is_some());
        let mut health = Health::default();
        assert!(health.failed(0, 1000, false, now).is_none());
        assert!(health.failed(1, 1000, false, now).is_none());
        assert!(health.failed(2, 1000, false, now).is_some());
    }
}
