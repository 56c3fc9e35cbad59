//! What is remembered of one watched run between two answers.
//!
//! Owns the record that the store keeps and the scheduler carries: a few hundred bytes. Only `transition` changes it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::doubt::{Doubt, Patience};
use super::{Progress, RunStatus, SpecId, Terminal};

/// A watched run, as last known.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The last status the API gave; `None` until it has answered once.
    pub status: Option<RunStatus>,
    /// The last counts.
    pub progress: Progress,
    /// When the run was created, by the API.
    pub created_at: Option<Timestamp>,
    /// When it ended, by the API.
    pub completed_at: Option<Timestamp>,
    /// What it was made from.
    pub spec_id: Option<SpecId>,
    /// When the watch began.
    pub watched_at: Timestamp,
    /// When the status last changed, as seen from here.
    pub changed_at: Option<Timestamp>,
    /// When the counts last changed, as seen from here.
    pub progress_at: Option<Timestamp>,
    /// How the watch of it ended. Once set it never changes.
    pub ended: Option<Ending>,
    /// When that was seen.
    pub ended_at: Option<Timestamp>,
    /// When it was last told that the run is past its deadline.
    pub overdue_told_at: Option<Timestamp>,
    /// When it was last told that the run makes no progress; forgotten when it does.
    pub stalled_told_at: Option<Timestamp>,
    /// A reason to give up that has not yet lasted long enough.
    pub doubt: Option<Doubt>,
}

/// How the watch of a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The API gave a terminal status.
    Finished(Terminal),
    /// The API does not know the id and never did.
    NeverFound,
    /// The API knew the id once and does not any more.
    Gone,
    /// The API refused the key, also after it was read again.
    KeyRefused,
    /// The status stayed a word that nobody here knows.
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
    /// A run that nobody has asked about yet.
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

    /// Whether the API has ever answered with this run.
    pub fn was_seen(&self) -> bool {
        self.status.is_some()
    }

    /// When the run last got on: its counts moved, its status changed, or the watch of it began.
    pub fn moved_at(&self) -> Timestamp {
        [self.progress_at, self.changed_at].into_iter().flatten().fold(self.watched_at, Timestamp::max)
    }

    /// Takes back an end that the API never gave: the run is watched on.
    pub fn watch_again(&mut self) {
        self.ended = None;
        self.ended_at = None;
    }

    /// When the present doubt becomes an end, if it would by time alone: a poll is due then at the latest.
    pub fn doubt_ends_at(&self, patience: &Patience) -> Option<Instant> {
        self.doubt?.ends_at(self.was_seen(), patience)
    }

    /// How long the run took by the API's own clock: from creation, queue included, to its end.
    pub fn took(&self) -> Option<Duration> {
        let span = self.completed_at?.duration_since(self.created_at?);
        span.try_into().ok()
    }
}
