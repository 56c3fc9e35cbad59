//! What is remembered: the state of every watched run, and the outbox of everything still to be told.
//!
//! This is the only bridge between the half that watches and the half that notifies. One transaction writes a run's new
//! state and its outbox rows. The two traits are the door; [`SqliteStore`] is the one thing behind it today. They speak of
//! owners and leases, so that several daemons can share a store one day.

mod outbox;
mod queue;
mod routes;
mod runs;
mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::BoxFuture;
use crate::run::{Event, EventId, RunState, Subject};

pub use routes::{Route, Routes};
pub use sqlite::SqliteStore;

/// The name of a notification channel.
pub type ChannelName = Arc<str>;

/// A watched run as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRun {
    /// Which run.
    pub subject: Subject,
    /// What is known of it.
    pub state: RunState,
}

/// What one observation writes, all of it or nothing.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The run and its new state.
    pub run: StoredRun,
    /// Events, each with the channels that are to tell it.
    pub events: Vec<(Event, Vec<ChannelName>)>,
}

/// The half of the store that watching uses.
pub trait RunStore: Send + Sync + 'static {
    /// Every run the store knows.
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredRun>, StoreError>>;

    /// Writes one observation. When this returns, it is as durable as the store is.
    ///
    /// An (event, channel) pair that is there already is left as it is.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Who works on a claimed delivery: one per process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(pub Arc<str>);

/// A delivery that was claimed and must be finished, or falls back when its lease ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The outbox row.
    pub id: i64,
    /// The event's stable name.
    pub event_id: EventId,
    /// The bytes to send.
    pub payload: Arc<str>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// Try again at that time.
    Retry {
        /// When.
        at: Timestamp,
        /// What went wrong.
        error: String,
    },
    /// Given up.
    Dead {
        /// What went wrong last.
        error: String,
    },
}

/// A delivery that is not done.
#[derive(Debug, Clone, PartialEq)]
pub struct Undelivered {
    /// The channel.
    pub channel: ChannelName,
    /// The bytes of the event.
    pub payload: Arc<str>,
    /// Attempts so far.
    pub attempts: u32,
    /// Given up, or still to be tried at this time.
    pub due_at: Option<Timestamp>,
    /// Whether an attempt is under way.
    pub in_flight: bool,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// The half of the store that notifying uses.
pub trait Outbox: Send + Sync + 'static {
    /// Takes up to `limit` deliveries of a channel that are due, for `lease`; counts the attempt before it is made.
    fn claim<'a>(
        &'a self,
        channel: &'a ChannelName,
        owner: &'a Owner,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Claimed>, StoreError>>;

    /// Holds a claimed delivery until `until`; false if it is not `owner`'s any more.
    fn renew<'a>(
        &'a self,
        id: i64,
        owner: &'a Owner,
        until: Timestamp,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Records how an attempt went; false if the delivery is not `owner`'s any more.
    fn finish<'a>(
        &'a self,
        id: i64,
        owner: &'a Owner,
        now: Timestamp,
        outcome: Outcome,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// When a channel next has something to do; `None` if nothing is pending.
    fn next_due<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> BoxFuture<'a, Result<Option<Timestamp>, StoreError>>;

    /// Counts up with every commit that put something into the outbox: what a worker waits on.
    fn changed(&self) -> watch::Receiver<u64>;

    /// Everything that was not delivered, pending or given up.
    fn undelivered(&self) -> BoxFuture<'_, Result<Vec<Undelivered>, StoreError>>;
}

/// Why the store could not do what was asked. Nothing of the call has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// What to do about it.
    pub kind: StoreErrorKind,
    /// What happened, for people.
    pub message: String,
}

/// The families of store errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No space left.
    Full,
    /// The file or its directory cannot be written.
    ReadOnly,
    /// The file is damaged or no store.
    Corrupt,
    /// Somebody else uses it.
    Busy,
    /// Anything else.
    Other,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let kind = match error.sqlite_error_code() {
            Some(Code::DiskFull) => StoreErrorKind::Full,
            Some(Code::ReadOnly | Code::PermissionDenied) => StoreErrorKind::ReadOnly,
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => StoreErrorKind::Corrupt,
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => StoreErrorKind::Busy,
            _ => StoreErrorKind::Other,
        };
        Self { kind, message: error.to_string() }
    }
}
