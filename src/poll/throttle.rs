//! Which runs the API throttles (429), and what that means for the other runs. Pure.
//!
//! A 429 always holds back the run that was polled. It holds back all runs only if another request is throttled too,
//! and only until the second longest of these pauses ends. Another error with a `Retry-After` (503) holds back its run
//! only.

use std::collections::HashMap;

use tokio::time::Instant;

/// The askers that are held back, and until when.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    held: HashMap<u32, Instant>,
    /// Runs that got another error with a `Retry-After`.
    paused: HashMap<u32, Instant>,
}

impl Throttle {
    /// An asker got a 429 and waits until `until`. Returns until when all runs must wait, if they must.
    pub(super) fn refused(&mut self, asker: u32, until: Instant, now: Instant) -> Option<Instant> {
        self.held.retain(|_, held| *held > now);
        self.held.insert(asker, until);
        self.paused.remove(&asker);
        let mut all: Vec<Instant> = self.held.values().copied().collect();
        all.sort_unstable();
        // A single run may have a limit of its own and ask for an hour.
        all.iter().rev().nth(1).copied()
    }

    /// The askers that are held back.
    fn held(&self, now: Instant) -> impl Iterator<Item = u32> {
        self.held.iter().filter(move |(_, until)| **until > now).map(|(asker, _)| *asker)
    }

    /// A run got another error and waits until `until`, as the API asked.
    pub(super) fn paused(&mut self, run: u32, until: Instant, now: Instant) {
        self.held.remove(&run);
        self.paused.retain(|_, until| *until > now);
        self.paused.insert(run, until);
    }

    /// The runs that are not polled for now because the API asked for a pause.
    pub(super) fn unpolled(&self, now: Instant) -> impl Iterator<Item = u32> {
        let paused = self.paused.iter().filter(move |(_, until)| **until > now).map(|(run, _)| *run);
        self.held(now).chain(paused)
    }

    /// Whether no request is allowed: all runs are held back, or the only one of `active` runs is.
    pub(super) fn is_silent(&self, active: usize, now: Instant) -> bool {
        self.held(now).count() >= active.clamp(1, 2)
    }

    /// An asker was answered or is gone.
    pub(super) fn answered(&mut self, asker: u32) {
        self.held.remove(&asker);
        self.paused.remove(&asker);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_silent_where_nobody_is_left_to_ask() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(!throttle.is_silent(0, now) && !throttle.is_silent(1, now));
        throttle.refused(1, at(60), now);
        assert!(throttle.is_silent(1, at(59)) && !throttle.is_silent(2, at(59)));
        assert!(!throttle.is_silent(1, at(60)), "it asks again");
        throttle.refused(2, at(90), now);
        assert!(throttle.is_silent(5, at(59)) && !throttle.is_silent(5, at(60)));
        assert_eq!(throttle.held(at(89)).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn one_run_holds_itself_and_two_hold_the_account_as_long_as_both_wait() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(throttle.refused(1, at(3600), now), None);
        assert_eq!(throttle.refused(1, at(3600), at(1)), None, "again, but still alone");
        assert_eq!(throttle.refused(2, at(4), at(2)), Some(at(4)));
        assert_eq!(
            throttle.refused(3, at(9), at(5)),
            Some(at(9)),
            "the second is forgotten, the first is not"
        );
        assert_eq!(throttle.refused(4, at(3700), at(5)), Some(at(3600)));
        throttle.answered(1);
        assert_eq!(throttle.refused(3, at(30), at(20)), Some(at(30)));
    }
}
