//! What the scheduler reports to observers. Values only; the scheduler asks nothing back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::health::{Down, Up};
use crate::api::Listed;
use crate::run::{DoubtKind, RunChange, RunState, Subject};
use crate::store::{StoreError, Watched};

/// Where updates go. Nothing is dropped. A reader in this process that falls behind costs memory.
pub type Updates = mpsc::UnboundedSender<Update>;

/// A report to observers.
#[derive(Debug, Clone)]
pub enum Update {
    /// A run changed, or its polls began or stopped failing.
    Run(Box<RunView>, RunChange),
    /// An answer raised a doubt of a new kind about a run.
    Doubt {
        /// The run.
        subject: Subject,
        /// The kind of doubt.
        kind: DoubtKind,
        /// The API's message, or the status that it gave.
        message: String,
    },
    /// The API cannot be reached.
    ApiDown(Down, String),
    /// The API can be reached again.
    ApiUp(Up),
    /// An observation could not be recorded. It will be made and recorded again.
    StoreFailed(StoreError),
    /// The store works again.
    StoreWell,
    /// The API accepts the key again after refusing it.
    KeyAccepted,
    /// A list was read for discovery.
    Found(Found),
    /// Fetching the list for discovery fails; the reason.
    DiscoveryFailed(String),
    /// A run was added to the watch list or removed from it.
    WatchList,
}

/// What discovery read in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The wanted runs that are not watched.
    pub runs: Vec<Listed>,
    /// When the newest run of the whole list was created.
    pub newest: Option<Timestamp>,
    /// The generation of the settings that this result belongs to.
    pub generation: u64,
}

/// The current view of one run.
#[derive(Debug, Clone)]
pub struct RunView {
    /// The run.
    pub subject: Subject,
    /// The name of its spec, once it is known and if the settings keep it.
    pub spec_name: Option<Arc<str>>,
    /// Its state.
    pub state: RunState,
    /// Recent samples per second.
    pub per_second: Option<f64>,
    /// When it is expected to end.
    pub expected_end: Option<Instant>,
    /// Why polls of it fail at the moment.
    pub trouble: Option<Trouble>,
    /// The number of polls so far.
    pub polls: u32,
}

/// Failing polls of a run.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// The last error.
    pub message: Arc<str>,
    /// The number of failures in a row.
    pub times: u32,
}

/// A run at the end of the watch.
#[derive(Debug, Clone)]
pub struct FinalRun {
    /// The run, as it is watched.
    pub watched: Watched,
    /// The number of polls.
    pub polls: u32,
    /// The API's last answer about it, as it was sent.
    pub body: Option<Bytes>,
    /// Why it could not be read, if the last poll failed.
    pub trouble: Option<Trouble>,
}

impl FinalRun {
    /// A run that was never polled.
    pub fn new(watched: Watched) -> Self {
        Self { watched, polls: 0, body: None, trouble: None }
    }
}

/// Maximum time for the final poll when a deadline passes.
pub const FINAL_POLL: Duration = Duration::from_secs(10);
