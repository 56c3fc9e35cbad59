//! How many deliveries to send to a receiver at once, and how long to wait after a refusal without `Retry-After`. Pure.
//!
//! A refusal halves the number. It grows by one after a whole round of accepted deliveries.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after a refusal that names none, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// The pace of one channel.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    allowed: usize,
    /// Deliveries accepted since `allowed` last changed.
    taken: usize,
    /// Until when nothing is sent.
    held_until: Option<Instant>,
    /// Refusals in a row without `Retry-After`.
    unsaid: u32,
}

impl Pace {
    /// The pace of a channel with this maximum number of attempts in flight.
    pub(super) fn new(most: usize) -> Self {
        Self { most, allowed: most, taken: 0, held_until: None, unsaid: 0 }
    }

    /// How many may be sent at once.
    pub(super) fn allowed(&self) -> usize {
        self.allowed
    }

    /// A delivery was refused. Returns how long to hold the channel. A refusal during a hold changes nothing, because
    /// that delivery was sent together with the refused one.
    pub(super) fn refused(&mut self, wait: Option<Duration>, now: Instant) -> Duration {
        let rest = self.held_until.and_then(|until| until.checked_duration_since(now));
        let is_new = rest.is_none_or(|rest| rest.is_zero());
        if is_new {
            self.allowed = (self.allowed / 2).max(1);
            self.taken = 0;
            self.unsaid = if wait.is_some() { 0 } else { self.unsaid.saturating_add(1) };
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.unsaid.saturating_sub(1).min(16));
        let pause = wait.unwrap_or(doubled.min(LONGEST_PAUSE)).max(rest.unwrap_or_default());
        self.held_until = Some(now + pause);
        pause
    }

    /// A delivery was accepted.
    pub(super) fn taken(&mut self) {
        self.unsaid = 0;
        self.taken += 1;
        if self.taken >= self.allowed && self.allowed < self.most {
            self.allowed += 1;
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn refusals_halve_once_a_round_and_what_is_taken_raises_it_again() {
        let now = Instant::now();
        let mut pace = Pace::new(8);
        for _ in 0..3 {
            assert_eq!(pace.refused(Some(SECOND), now), SECOND);
        }
        assert_eq!(pace.allowed(), 4, "three of one round");
        pace.refused(Some(SECOND), now + SECOND);
        pace.refused(Some(SECOND), now + 2 * SECOND);
        pace.refused(Some(SECOND), now + 3 * SECOND);
        assert_eq!(pace.allowed(), 1, "and never to nothing");
        for expected in [2, 2, 3, 3, 3, 4] {
            pace.taken();
            assert_eq!(pace.allowed(), expected);
        }
        for _ in 0..99 {
            pace.taken();
        }
        assert_eq!(pace.allowed(), 8);
    }

    #[test]
    fn without_a_word_the_pause_is_doubled_up_to_the_longest() {
        let mut now = Instant::now();
        let mut pace = Pace::new(2);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = pace.refused(None, now);
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        pace.taken();
        assert_eq!(pace.refused(None, now), SECOND);
    }

    #[test]
    fn a_shorter_wait_does_not_end_a_longer_one() {
        let now = Instant::now();
        let mut pace = Pace::new(2);
        assert_eq!(pace.refused(Some(60 * SECOND), now), 60 * SECOND);
        assert_eq!(pace.refused(Some(SECOND), now + SECOND), 59 * SECOND);
    }
}
