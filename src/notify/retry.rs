//! When to retry: the schedule that Standard Webhooks 1.0.0 suggests. Pure, except for the jitter.

use std::time::Duration;

/// Pauses before each attempt, the first being zero: ten attempts over 75 h 35 min.
const PAUSES: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

/// Maximum delay of a retry, as a share of its pause.
const JITTER: f64 = 0.1;

/// Pauses between attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySchedule {
    pauses: Vec<Duration>,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        Self { pauses: PAUSES.to_vec() }
    }
}

impl RetrySchedule {
    /// One attempt at once, and one after each of these pauses.
    pub fn after(pauses: &[Duration]) -> Self {
        Self { pauses: std::iter::once(Duration::ZERO).chain(pauses.iter().copied()).collect() }
    }

    /// The pauses that Standard Webhooks suggests, nine between ten attempts.
    pub fn suggested() -> Vec<Duration> {
        PAUSES[1..].to_vec()
    }

    /// A single attempt.
    pub fn once() -> Self {
        Self { pauses: vec![Duration::ZERO] }
    }

    /// The pause after `failed` attempts, or `None` after the last. `random` is from 0 to 1. The pause is lengthened by
    /// up to a tenth, so that receivers that failed together are not retried together.
    pub fn pause(&self, failed: u32, random: f64) -> Option<Duration> {
        let pause = *self.pauses.get(failed as usize)?;
        Some(pause.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_over_75_hours_and_35_minutes() {
        let schedule = RetrySchedule::default();
        let pauses: Vec<_> = (1..).map_while(|failed| schedule.pause(failed, 0.0)).collect();
        assert_eq!(pauses.len(), 9, "nine pauses between ten attempts");
        assert_eq!(pauses.iter().sum::<Duration>(), Duration::from_secs(75 * 3600 + 35 * 60 + 5));
        assert_eq!(schedule.pause(10, 0.0), None);
    }

    #[test]
    fn jitter_only_lengthens() {
        let schedule = RetrySchedule::default();
        assert_eq!(schedule.pause(2, 1.0), Some(Duration::from_secs(330)));
        assert_eq!(schedule.pause(2, 7.0), Some(Duration::from_secs(330)));
    }
}
