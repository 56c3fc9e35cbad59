//! Poll counters, readable from other tasks at any time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

use crate::api::{Answer, PollError, PollErrorKind};
use crate::run::{DoubtKind, RunStatus};

/// Number of polls by outcome. The scheduler counts; anyone may read.
#[derive(Debug, Default)]
pub struct Counters {
    outcomes: [AtomicU64; OUTCOMES.len()],
    /// Microseconds since 1970; 0 before the first poll.
    last_poll: AtomicI64,
}

/// Outcomes of a poll, as metrics label them.
const OUTCOMES: [&str; 7] =
    ["answered", "transient_error", "throttled", "key_refused", "not_found", "rejected", "unknown_status"];

impl Counters {
    /// Counts a poll of a run.
    pub(super) fn count_poll(&self, polled: &Result<Answer, PollError>, now: Timestamp) {
        match polled {
            Ok(answer) if matches!(answer.run.status, RunStatus::Unknown(_)) => {
                self.count_kind(Some(PollErrorKind::Doubt(DoubtKind::UnknownStatus)), now);
            }
            polled => self.count(polled.as_ref().err(), now),
        }
    }

    /// Counts a request that failed or returned no single run.
    pub(super) fn count(&self, error: Option<&PollError>, now: Timestamp) {
        self.count_kind(error.map(|error| error.kind), now);
    }

    fn count_kind(&self, kind: Option<PollErrorKind>, now: Timestamp) {
        let outcome = match kind {
            None => 0,
            Some(PollErrorKind::Transient) => 1,
            Some(PollErrorKind::Throttled) => 2,
            Some(PollErrorKind::Doubt(DoubtKind::KeyRefused)) => 3,
            Some(PollErrorKind::Doubt(DoubtKind::Missing | DoubtKind::NoSuchPage)) => 4,
            Some(PollErrorKind::Doubt(DoubtKind::Rejected)) => 5,
            Some(PollErrorKind::Doubt(DoubtKind::UnknownStatus)) => 6,
        };
        self.outcomes[outcome].fetch_add(1, Ordering::Relaxed);
        self.last_poll.store(now.as_microsecond(), Ordering::Relaxed);
    }

    /// The number of polls for each outcome.
    pub fn polls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.iter().zip(&self.outcomes).map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }

    /// When the last answer to a poll came.
    pub fn last_poll(&self) -> Option<Timestamp> {
        let micros = self.last_poll.load(Ordering::Relaxed);
        Timestamp::from_microsecond(micros).ok().filter(|_| micros != 0)
    }
}

/// The scheduler's state at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SchedulerStats {
    /// Active runs by status; `UNSEEN` where the API has not answered yet.
    pub runs: BTreeMap<String, u64>,
    /// Polls in flight.
    pub in_flight: usize,
    /// Spent share of the request budget, from 0 to 1.
    pub budget_used: f64,
}
