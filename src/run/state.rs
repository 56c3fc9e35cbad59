//! The state of one watched run between two answers.
//!
//! Defines the record that the store keeps and the scheduler holds: a few hundred bytes. Only `transition` changes it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::doubt::{Doubt, Patience};
use super::{Progress, RunStatus, SpecId, Terminal};

/// A watched run, as last known.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The API's last status; `None` before the first answer.
    pub status: Option<RunStatus>,
    /// The last counts.
    pub progress: Progress,
    /// When the run was created, according to the API.
    pub created_at: Option<Timestamp>,
    /// When it ended, according to the API.
    pub completed_at: Option<Timestamp>,
    /// The run's spec.
    pub spec_id: Option<SpecId>,
    /// When the watch began.
    pub watched_at: Timestamp,
    /// When runwatch last saw the status change.
    pub changed_at: Option<Timestamp>,
    /// When runwatch last saw the counts change.
    pub progress_at: Option<Timestamp>,
    /// How the watch of the run ended. Once set, it never changes.
    pub ended: Option<Ending>,
    /// When runwatch saw the end.
    pub ended_at: Option<Timestamp>,
    /// When the last overdue warning was sent.
    pub overdue_told_at: Option<Timestamp>,
    /// When the last stalled warning was sent; cleared when the run makes progress.
    pub stalled_told_at: Option<Timestamp>,
    /// A reason to stop watching that has not lasted long enough yet. Boxed, because few runs have one.
    pub doubt: Option<Box<Doubt>>,
}

/// How the watch of a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The API gave a terminal status.
    Finished(Terminal),
    /// The API does not know the id and never did.
    NeverFound,
    /// The API knew the id once but does not any more.
    Gone,
    /// The API refused the key, even after it was read again.
    KeyRefused,
    /// The status stayed a word that runwatch does not know.
    Unknowable,
    /// The API kept refusing the request itself (400, 405, a redirect, …).
    Rejected,
}

impl Ending {
    /// One word for it: `finished`, or the reason why a run was lost, as in its event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Finished(_) => "finished",
            Self::NeverFound => "never_found",
            Self::Gone => "deleted",
            Self::KeyRefused => "key_refused",
            Self::Unknowable => "unknown_status",
            Self::Rejected => "rejected",
        }
    }
}

impl RunState {
    /// A run that was not polled yet.
    pub fn new(watched_at: Timestamp) -> Self {
        Self {
            status: None,
            progress: Progress::default(),
            created_at: None,
            completed_at: None,
            spec_id: None,
            watched_at,
            changed_at: None,
            progress_at: None,
            ended: None,
            ended_at: None,
            overdue_told_at: None,
            stalled_told_at: None,
            doubt: None,
        }
    }

    /// Whether the API ever answered with this run.
    pub fn was_seen(&self) -> bool {
        self.status.is_some()
    }

    /// When the run last made progress: a count or the status changed, or the watch began.
    pub fn moved_at(&self) -> Timestamp {
        [self.progress_at, self.changed_at].into_iter().flatten().fold(self.watched_at, Timestamp::max)
    }

    /// Removes an end that did not come from the API, so that the watch continues.
    pub fn watch_again(&mut self) {
        self.ended = None;
        self.ended_at = None;
    }

    /// When the current doubt becomes an end through time alone. A poll is due then at the latest.
    pub fn doubt_ends_at(&self, patience: &Patience) -> Option<Instant> {
        self.doubt.as_ref()?.ends_at(self.was_seen(), patience)
    }

    /// The run's duration by the API's clock: from its creation, including the queue, to its end.
    pub fn took(&self) -> Option<Duration> {
        let span = self.completed_at?.duration_since(self.created_at?);
        span.try_into().ok()
    }
}
