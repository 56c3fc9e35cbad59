//! What a run is, and what its answers mean. Pure: no I/O, no clock, and no imports from other modules.
//!
//! `id` and `status` are the vocabulary. [`Run`] is one answer of the API. `state` is the record of a watched run,
//! `doubt` is what ends a watch if it lasts, `transition` says what an answer changes, and `event` is what runwatch
//! sends.

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
pub use transition::{Observation, RunChange, Transition, observe};

/// One moment, read once and passed in. `mono` measures durations; `wall` is for people and records.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For differences within this process.
    pub mono: Instant,
    /// For stored and shown times (UTC).
    pub wall: Timestamp,
}

/// A run's progress, in samples. Any count may be missing, fall, or exceed the total; none of that ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Samples generated so far (`samples_completed`).
    pub completed: Option<u64>,
    /// Samples failed so far (`samples_failed`).
    pub failed: Option<u64>,
    /// Samples requested (`runtime_params.number_of_samples`): the only total that the API gives.
    pub total: Option<u64>,
}

impl Progress {
    /// Samples that are settled, generated or failed; `None` while the API gives no counts.
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

/// One answer of the API about one run: the fields that runwatch uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The status, as the API gave it.
    pub status: RunStatus,
    /// Counts so far.
    pub progress: Progress,
    /// When it was created, before its time in the queue.
    pub created_at: Option<Timestamp>,
    /// When it ended; may be missing on a finished run.
    pub completed_at: Option<Timestamp>,
    /// The run's spec.
    pub spec_id: Option<SpecId>,
    /// Fields of interest at the end only; `None` while the run is active.
    pub details: Option<Box<Details>>,
}

/// Maximum length of a string from the API that is stored or sent, in characters. It keeps a payload far below 20 kB.
pub const MAX_TEXT: usize = 300;

/// What people want to know about a finished run besides its status. Every field may be missing. Strings are
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
    /// Cost in dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<f64>,
    /// Number of files that the run generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_files: Option<u64>,
}

/// A run and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The API's id.
    pub id: RunId,
    /// The name from the configuration or the command line.
    pub name: Option<Arc<str>>,
}

impl Subject {
    /// The name, or the id without one.
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
