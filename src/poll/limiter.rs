//! One request budget for all runs: a token bucket, implemented as the generic cell rate algorithm (GCRA). Pure.
//!
//! Decides when the next request may be sent. The caller makes it fair by always sending for the run that has been due
//! longest.

use std::time::Duration;

use tokio::time::Instant;

/// A request budget.
#[derive(Debug, Clone)]
pub struct Limiter {
    /// Time between requests at the full rate.
    interval: Duration,
    /// How far ahead of the rate a burst may run.
    tolerance: Duration,
    /// When the bucket would be full again: the theoretical arrival time.
    full_at: Instant,
    /// The API accepts no request before this (429).
    held_until: Instant,
}

impl Limiter {
    /// A budget of `per_minute` requests in any minute. A twelfth (five seconds' worth) may be sent at once.
    pub fn new(per_minute: u32, now: Instant) -> Self {
        let burst = (per_minute / 12).max(1);
        // The burst is part of the minute's budget, not on top of it.
        let sustained = per_minute.saturating_sub(burst - 1).max(1);
        let interval = Duration::from_mins(1) / sustained;
        Self { interval, tolerance: interval * burst, full_at: now, held_until: now }
    }

    /// Changes the rate. Spent requests stay spent.
    pub fn set_rate(&mut self, per_minute: u32, now: Instant) {
        let fresh = Self::new(per_minute, now);
        (self.interval, self.tolerance) = (fresh.interval, fresh.tolerance);
    }

    /// Takes one request out of the budget, or returns when the next one is available.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let allowed_at = self.next_at(now);
        if allowed_at > now {
            return Err(allowed_at);
        }
        self.spend(now);
        Ok(())
    }

    /// Takes one request even if the budget is empty. Later requests wait longer for it.
    pub fn spend(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// When the next request may be sent: now or later.
    pub fn next_at(&self, now: Instant) -> Instant {
        // One interval pays for the request itself; the tolerance is at least that long.
        let earliest = self.full_at + self.interval;
        earliest.checked_sub(self.tolerance).unwrap_or(now).max(self.held_until).max(now)
    }

    /// Spent share of the burst, from 0 to 1.
    pub fn used(&self, now: Instant) -> f64 {
        let spent = self.full_at.saturating_duration_since(now).as_secs_f64();
        (spent / self.tolerance.as_secs_f64()).clamp(0.0, 1.0)
    }

    /// Blocks all requests before `until`.
    pub fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(until);
    }

    /// Whether the API blocks all requests for now.
    pub fn is_held(&self, now: Instant) -> bool {
        self.held_until > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of requests sent in `seconds`, trying every millisecond.
    fn sent(limiter: &mut Limiter, start: Instant, seconds: u64) -> u32 {
        (0..seconds * 1000).map(|ms| u32::from(limiter.take(start + Duration::from_millis(ms)).is_ok())).sum()
    }

    #[test]
    fn gives_a_burst_and_never_more_than_the_budget_in_a_minute() {
        let start = Instant::now();
        for per_minute in [1, 7, 12, 60, 120, 6000] {
            let mut limiter = Limiter::new(per_minute, start);
            let burst = (0..per_minute).take_while(|_| limiter.take(start).is_ok()).count();
            assert_eq!(burst, (per_minute as usize / 12).max(1), "{per_minute} a minute");
            let minute = u32::try_from(burst).unwrap() + sent(&mut limiter, start, 60);
            assert!(
                minute <= per_minute && minute + 2 >= per_minute,
                "{minute} of {per_minute} in the first minute"
            );
        }
    }

    #[test]
    fn a_small_budget_still_moves() {
        let start = Instant::now();
        let mut limiter = Limiter::new(1, start);
        assert_eq!(limiter.take(start), Ok(()));
        assert_eq!(limiter.take(start), Err(start + Duration::from_mins(1)));
        assert_eq!(limiter.take(start + Duration::from_mins(1)), Ok(()));
    }

    #[test]
    fn rest_does_not_save_up_beyond_the_burst() {
        let start = Instant::now();
        let mut limiter = Limiter::new(120, start);
        let later = start + Duration::from_hours(1);
        assert_eq!((0..200).filter(|_| limiter.take(later).is_ok()).count(), 10);
    }

    #[test]
    fn a_hold_stops_everything_until_it_ends() {
        let start = Instant::now();
        let mut limiter = Limiter::new(120, start);
        limiter.hold(start + Duration::from_secs(17));
        limiter.hold(start + Duration::from_secs(5));
        assert_eq!(limiter.take(start), Err(start + Duration::from_secs(17)));
        assert!(limiter.is_held(start));
        assert_eq!(limiter.take(start + Duration::from_secs(17)), Ok(()));
    }

    #[test]
    fn what_was_overspent_is_paid_back() {
        let start = Instant::now();
        let mut limiter = Limiter::new(60, start);
        let one = limiter.interval;
        for _ in 0..65 {
            limiter.spend(start);
        }
        assert_eq!(limiter.next_at(start), start + one * 61);
    }
}
