//! What the scheduler tells whoever looks on: values only, nothing is asked back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::health::{Down, Up};
use crate::api::Listed;
use crate::run::{Change, DoubtKind, RunState, Subject};
use crate::store::{StoreError, Watched};

/// Where updates go. Nothing is ever dropped; the reader is in this process and keeps up or uses memory.
pub type Updates = mpsc::UnboundedSender<Update>;

/// Something worth seeing.
#[derive(Debug, Clone)]
pub enum Update {
    /// A run moved, or its polls began or ceased to fail.
    Run(Box<RunView>, Change),
    /// An answer cast a doubt of a new kind on a run.
    Doubt {
        /// Which run.
        subject: Subject,
        /// What kind of doubt.
        kind: DoubtKind,
        /// What the API said, or the status it gave.
        message: String,
    },
    /// The API cannot be reached.
    ApiDown(Down, String),
    /// It can be reached again.
    ApiUp(Up),
    /// An observation could not be recorded. It will be made and recorded again.
    StoreFailed(StoreError),
    /// Recording works again.
    StoreWell,
    /// The API accepts the key again, which it had refused.
    KeyAccepted,
    /// A list was read, looking for runs that nobody named.
    Found(Found),
    /// Such lists cannot be had; why.
    LookFailed(String),
    /// A run was added to those that are watched, or taken out.
    WatchList,
}

/// What a list had of the runs that are looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Those that are not watched.
    pub runs: Vec<Listed>,
    /// When the newest run of the whole list was created.
    pub newest: Option<Timestamp>,
    /// Of what was looked for.
    pub generation: u64,
}

/// One run as it looks now.
#[derive(Debug, Clone)]
pub struct RunView {
    /// Which run.
    pub subject: Subject,
    /// What is known of it.
    pub state: RunState,
    /// Samples a second, lately.
    pub per_second: Option<f64>,
    /// When it may be done.
    pub expected_end: Option<Instant>,
    /// Why it cannot be read at the moment.
    pub trouble: Option<Trouble>,
    /// How many requests were made for it.
    pub polls: u32,
}

/// Polls of a run that fail.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What went wrong last.
    pub message: Arc<str>,
    /// How many polls in a row.
    pub times: u32,
}

/// A run at the end of the watch.
#[derive(Debug, Clone)]
pub struct FinalRun {
    /// The run, as it is watched.
    pub watched: Watched,
    /// How many requests were made for it.
    pub polls: u32,
    /// The API's last answer about it, as it was sent.
    pub body: Option<Bytes>,
    /// Why it could not be read, if the last poll failed.
    pub trouble: Option<Trouble>,
}

impl FinalRun {
    /// A run that nobody has asked about.
    pub fn new(watched: Watched) -> Self {
        Self { watched, polls: 0, body: None, trouble: None }
    }
}

/// How long a watch may take for one more look at everything when its deadline passes.
pub const LAST_POLL: Duration = Duration::from_secs(10);
