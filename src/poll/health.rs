//! Whether the API can be reached at all, told once when it cannot and once when it can again.
//!
//! Owns the judgement over all runs together: one run that the API chokes on is that run's trouble, not an outage. Pure.

use std::time::Duration;

use crate::run::Moment;

/// So many different runs in a row without an answer are an outage, even if others have not been asked yet.
const ENOUGH: usize = 3;

/// So many failures in a row are, at the least: one alone is a blip that nobody needs to hear of.
const AT_LEAST: u32 = 2;

/// What is known of the API's health.
#[derive(Debug, Default)]
pub struct Health {
    /// Different runs whose last poll failed, since anything was answered; never more than [`ENOUGH`].
    failing: Vec<u32>,
    first_failure: Option<Moment>,
    failures: u32,
    down: bool,
    /// Whether the last failure was a 429.
    throttled: bool,
}

/// A turn for the worse.
#[derive(Debug, Clone, Copy)]
pub struct Down {
    /// When the first poll failed.
    pub since: Moment,
    /// Whether the API is there, and asks for fewer requests (429).
    pub throttled: bool,
}

/// A turn for the better.
#[derive(Debug, Clone, Copy)]
pub struct Up {
    /// When the first poll had failed.
    pub since: Moment,
    /// For how long.
    pub lasted: Duration,
    /// Whether the API was there, and asked for fewer requests (429).
    pub throttled: bool,
}

impl Health {
    /// A poll of `run` brought no answer, or a 429; `active` runs are being watched. Gives the outage the moment it is one.
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
        // An outage is told as what it began as.
        (self.down, self.throttled) = (outage, throttled);
        outage.then_some(Down { since, throttled })
    }

    /// Nobody may ask for long: one failure is an outage then. Gives it the moment it is one.
    pub fn silenced(&mut self) -> Option<Down> {
        let since = self.first_failure.filter(|_| !self.down)?;
        self.down = true;
        Some(Down { since, throttled: self.throttled })
    }

    /// Since when nothing has been answered.
    pub fn failing_since(&self) -> Option<Moment> {
        self.first_failure
    }

    /// Since when the API has been out of reach, if it is.
    pub fn down_since(&self) -> Option<Moment> {
        self.first_failure.filter(|_| self.down)
    }

    /// The API answered something, if only a refusal. Gives the end of the outage if there was one.
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
