//! Who gets the places in flight, of which there are `max_in_flight`. Pure.
//!
//! A request that hangs holds its place until its timeout. Two rules keep such requests from delaying the others:
//!
//! - Slow runs, whose last request hung, get a share of the places in proportion to their number.
//! - Which runs hang is known only after a poll, so at the start, or when many begin to hang at once, they could take
//!   every place. When no place is free and another run is due, the longest poll of a run that is not slow yet is
//!   cancelled once it has taken longer than usual. Its run becomes slow and is polled again with the full timeout, so
//!   this costs one request per run.
//!
//! If only slow runs have places, as with `max_in_flight = 1`, one of their polls is cancelled in the same way and counts
//! as failed. A slow run that does answer keeps its place for twice the time of its last answer.

use std::time::Duration;

use tokio::time::Instant;

/// A poll keeps its place for at least this long.
const LEAST: Duration = Duration::from_secs(1);

/// A longer answer counts as this in the usual time, so that a few runs that hang do not change it much.
const MOST: Duration = Duration::from_secs(5);

/// A poll keeps its place for this many times the usual time of an answer. An API that is slow about every run thus
/// loses few polls.
const TIMES_USUAL: u32 = 2;

/// A poll in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlight {
    pub(super) run: u32,
    pub(super) sent_at: Instant,
    /// Whether the run was slow when it was sent.
    pub(super) slow: bool,
    /// How long its last poll took to be answered; zero if it was not.
    pub(super) answered_in: Duration,
}

/// What is known about the time that answers take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    /// Moving average over the last few answers.
    usual: Duration,
}

impl Places {
    /// An answer came after `took`.
    pub(super) fn answered(&mut self, took: Duration) {
        self.usual = (self.usual * 3 + took.min(MOST)) / 4;
    }

    /// The poll to cancel next when a place is needed, and when it may be cancelled: now or later. It is the poll of a
    /// slow run only if all are.
    pub(super) fn give_up(&self, polls: impl Iterator<Item = InFlight>) -> Option<(Instant, u32)> {
        let keep = LEAST.max(self.usual * TIMES_USUAL);
        let keep = |poll: &InFlight| if poll.slow { keep.max(poll.answered_in * TIMES_USUAL) } else { keep };
        let next = polls.map(|poll| (poll.slow, poll.sent_at + keep(&poll), poll.run)).min();
        next.map(|(_, at, run)| (at, run))
    }
}

/// Whether one more poll of a slow run may be sent. `in_flight` slow runs are being polled, `waiting` ones are not,
/// and `active` runs are watched.
pub(super) fn room_for_slow(most_in_flight: usize, in_flight: usize, waiting: usize, active: usize) -> bool {
    let (slow, active) = (waiting + in_flight, active.max(1));
    let most = if slow < active { most_in_flight.saturating_sub(1) } else { usize::MAX };
    in_flight < (most_in_flight * slow / active).min(most).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polls(start: Instant) -> Vec<InFlight> {
        let poll = |run, ms, slow| InFlight {
            run,
            sent_at: start + Duration::from_millis(ms),
            slow,
            answered_in: Duration::ZERO,
        };
        vec![poll(1, 0, true), poll(2, 300, false), poll(3, 200, false)]
    }

    #[test]
    fn the_longest_poll_gives_up_its_place_and_that_of_a_slow_run_only_if_all_are() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(Places::default().give_up(polls(start).into_iter()), Some((at(1200), 3)));
        assert_eq!(Places::default().give_up(polls(start).into_iter().take(1)), Some((at(1000), 1)));
        let answers = InFlight { answered_in: Duration::from_secs(8), ..polls(start)[0] };
        assert_eq!(Places::default().give_up([answers].into_iter()), Some((at(16_000), 1)));
        assert_eq!(Places::default().give_up(std::iter::empty()), None);
    }

    #[test]
    fn an_api_that_is_slow_gets_more_time() {
        let start = Instant::now();
        let keeps = |places: Places| places.give_up(polls(start).into_iter()).map(|(at, _)| at - start);
        let mut places = Places::default();
        (0..40).for_each(|_| places.answered(Duration::from_secs(3)));
        let keep = keeps(places).unwrap();
        assert!(keep > Duration::from_secs(6) && keep < Duration::from_millis(6300), "{keep:?}");
        (0..40).for_each(|_| places.answered(Duration::from_secs(29)));
        assert!(keeps(places) < Some(Duration::from_secs(11)));
        (0..40).for_each(|_| places.answered(Duration::from_millis(50)));
        assert_eq!(keeps(places), Some(Duration::from_millis(1200)));
    }

    #[test]
    fn slow_runs_get_their_share() {
        let room = |in_flight, waiting| room_for_slow(8, in_flight, waiting, 60);
        assert!(room(0, 1) && !room(1, 1), "at least one");
        assert!(room(4, 36) && !room(5, 35), "by their number");
        assert!(room(6, 52) && !room(7, 52), "never all places while others are watched");
        assert!(room(7, 53), "all, if all are slow");
    }
}
