//! What a run is, and what its history means. Pure: no I/O, no clock, and nothing of ours is imported.
//!
//! `id` and `status` are the vocabulary, [`Run`] is one answer of the API, `state` is what is remembered of a watched
//! run, `doubt` is what may mean its end if it lasts, `transition` says what an answer changes, and `event` is what the world is told of it.

mod doubt;
pub mod event;
mod id;
mod spec;
mod state;
mod status;
pub mod text;
mod transition;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use doubt::{Authority, Doubt, DoubtKind, Limit, Patience};
pub use event::{Event, EventId, EventKind};
pub use id::{RunId, RunIdError};
pub use spec::SpecId;
pub use state::{Ending, RunState};
pub use status::{RunStatus, Terminal};
pub use text::printable;
pub use transition::{Change, Observation, Transition, observe};

/// One moment, read once and passed in: `mono` measures durations, `wall` is for people and for records.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For differences within this process.
    pub mono: Instant,
    /// For stored and shown times (UTC).
    pub wall: Timestamp,
}

/// How far a run is, in samples. Any count may be missing, fall, or pass the total: none of them ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Samples generated so far (`samples_completed`).
    pub completed: Option<u64>,
    /// Samples given up on so far (`samples_failed`).
    pub failed: Option<u64>,
    /// Samples asked for (`runtime_params.number_of_samples`): the only denominator there is.
    pub total: Option<u64>,
}

impl Progress {
    /// Samples that are settled, generated or failed; `None` while the API counts nothing.
    pub fn done(&self) -> Option<u64> {
        match (self.completed, self.failed) {
            (None, None) => None,
            (completed, failed) => Some(completed.unwrap_or(0).saturating_add(failed.unwrap_or(0))),
        }
    }

    /// The settled share of the total, from 0 to 1; `None` without a total.
    pub fn fraction(&self) -> Option<f64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((self.done()? as f64 / total as f64).min(1.0))
    }
}

/// One answer of the API about one run: the fields a watcher acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The API's word for where it stands.
    pub status: RunStatus,
    /// Counts so far.
    pub progress: Progress,
    /// When it was created, time in the queue included.
    pub created_at: Option<Timestamp>,
    /// When it ended; may be missing on a run that has.
    pub completed_at: Option<Timestamp>,
    /// What it was made from.
    pub spec_id: Option<SpecId>,
    /// What only the last answer is read for; `None` while the run goes on.
    pub details: Option<Box<Details>>,
}

/// The longest string of the API's that is kept or told, in characters: it keeps a payload far under 20 kB.
pub const MAX_TEXT: usize = 300;

/// What people want to know of a finished run, beyond how it ended. Every field may be missing; strings are
/// [`printable`] and at most [`MAX_TEXT`] characters long.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Name of the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec_name: Option<String>,
    /// Version of the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec_version: Option<i64>,
    /// Name of the seed dataset; none for seedless specs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_name: Option<String>,
    /// Who started the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by_email: Option<String>,
    /// Dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<f64>,
    /// How many files the run made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_files: Option<u64>,
}

/// Which run is meant, and what people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The API's id.
    pub id: RunId,
    /// The name given in the configuration or on the command line.
    pub name: Option<Arc<str>>,
}

impl Subject {
    /// The name people gave it, else the id.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(completed: Option<u64>, failed: Option<u64>, total: Option<u64>) -> Progress {
        Progress { completed, failed, total }
    }

    #[test]
    fn counts_what_is_there() {
        assert_eq!(progress(None, None, Some(5)).done(), None);
        assert_eq!(progress(Some(3), None, None).done(), Some(3));
        assert_eq!(progress(Some(u64::MAX), Some(1), None).done(), Some(u64::MAX));
        assert_eq!(progress(Some(3), Some(1), Some(8)).fraction(), Some(0.5));
        assert_eq!(progress(Some(9), Some(1), Some(8)).fraction(), Some(1.0));
        assert_eq!(progress(Some(9), Some(1), Some(0)).fraction(), None);
    }
}
