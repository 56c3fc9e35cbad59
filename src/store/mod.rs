//! The store: the state of every watched run, and the outbox of all events to deliver.
//!
//! It is the only link between polling and notifying. One transaction writes a run's new state and its outbox rows.
//! Other modules use the two traits, and [`SqliteStore`] is their only implementation today. The traits have owners and
//! leases, so that several daemons can share a store later.

mod admin;
mod adopt;
mod aside;
mod batch;
mod between;
mod channels;
mod copy;
mod damage;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod history;
mod ids;
mod lock;
mod order;
mod outbox;
mod purge;
mod queue;
mod removed;
mod routes;
mod row;
mod runs;
mod salvage;
mod schema;
mod sqlite;
#[cfg(test)]
mod testing;
mod worker;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::BoxFuture;
use crate::run::{Event, EventId, RunId, RunState, SpecId, Subject};

pub use self::history::RunDuration;
pub use admin::{Delivery, DeliveryFilter, DeliveryState, Retried, Stats};
pub use adopt::{Adopted, Adoption, Fate};
pub use aside::{remove_own, roll_forward, set_aside};
pub use copy::{copy_unused, is_copy};
pub use lock::{InUse, Lock};
pub use purge::Kept;
pub use routes::{Route, Routes};
pub use salvage::{Salvaged, salvage};
pub use sqlite::{Original, SqliteStore};

/// The name of a notification channel.
pub type ChannelName = Arc<str>;

/// The key of a stored time.
pub type MomentName = Cow<'static, str>;

/// A watched run: its settings and its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// The run.
    pub subject: Subject,
    /// The channels to notify; `None` for all.
    pub notify: Option<Arc<[ChannelName]>>,
    /// Time after its creation when it becomes overdue.
    pub deadline: Option<Duration>,
    /// Who wants it watched.
    pub origin: Origin,
    /// Its state.
    pub state: RunState,
}

/// Who wants a run watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// Only the configuration.
    #[default]
    Configured,
    /// Nobody named it; discovery found it.
    Found,
    /// A command added it.
    Added,
}

impl Watched {
    /// A run that was never polled, for all channels.
    pub fn new(subject: Subject, at: Timestamp) -> Self {
        Self { subject, notify: None, deadline: None, origin: Origin::Configured, state: RunState::new(at) }
    }
}

/// The content of one transaction.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The run and its new state, if the commit is about one.
    pub run: Option<Watched>,
    /// Events, each with its channels.
    pub events: Vec<(Event, Vec<ChannelName>)>,
    /// A time to store under this key, or to delete.
    pub moment: Option<(MomentName, Option<Timestamp>)>,
}

/// The part of the store that polling uses.
pub trait RunStore: Send + Sync + 'static {
    /// Every stored run.
    fn load(&self) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>>;

    /// A stored time.
    fn moment(&self, name: MomentName) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>>;

    /// Durations of a few of the last runs of a spec that succeeded.
    fn durations(&self, spec: SpecId) -> BoxFuture<'_, Result<Vec<RunDuration>, StoreError>>;

    /// Writes the settings of runs, whether they exist or not. Returns the runs with their stored state. An end that
    /// did not come from the API is taken back.
    fn add(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>>;

    /// Writes the state of runs without any event. Skips runs that are not stored.
    fn save(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets runs. Their pending deliveries are still made.
    fn forget(&self, runs: Vec<RunId>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Writes one observation. When this returns, it is as durable as the store.
    ///
    /// Existing (event, channel) pairs stay as they are.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The owner of claims: one per process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(pub Arc<str>);

/// A request to claim deliveries.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Only deliveries to this channel.
    pub channel: &'a ChannelName,
    /// The claim's owner.
    pub owner: &'a Owner,
    /// Only deliveries that are due by this time.
    pub now: Timestamp,
    /// Duration of the lease.
    pub lease: Duration,
    /// Maximum number of deliveries.
    pub limit: usize,
    /// Rows to skip, because the caller still holds them even if their leases have ended.
    pub in_hand: &'a [i64],
}

/// A claimed delivery. It must be finished, or becomes free again when its lease ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The outbox row.
    pub id: i64,
    /// The number of this claim; a later claim of the row has another.
    pub claim: i64,
    /// The event's id.
    pub event_id: EventId,
    /// The event's type.
    pub kind: Arc<str>,
    /// The event's run.
    pub run_id: Option<Arc<str>>,
    /// The bytes to send.
    pub payload: Arc<str>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver accepted it.
    Delivered,
    /// It failed; retry at this time.
    Retry {
        /// The time.
        at: Timestamp,
        /// The error.
        error: String,
    },
    /// It was postponed for a reason that does not concern the event. This does not count as an attempt.
    Postponed {
        /// Its new due time; `None` keeps the old one.
        at: Option<Timestamp>,
        /// The reason.
        error: String,
    },
    /// Given up.
    Dead {
        /// The last error.
        error: String,
    },
}

/// The record of an attempt, written in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The result.
    pub outcome: Outcome,
    /// The start of the receiver's answer, if it refused.
    pub answer: Option<String>,
    /// The consequences.
    pub follows: Follows,
    /// The channel's fingerprint during the attempt. If the channel is configured differently by now, a failure does
    /// not count. `None` skips this check.
    pub fingerprint: Option<Arc<str>>,
}

impl From<Outcome> for Settlement {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, answer: None, follows: Follows::default(), fingerprint: None }
    }
}

/// Consequences of an attempt, written with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Follows {
    /// An event and its channels.
    pub event: Option<(Event, Vec<ChannelName>)>,
    /// The channel's fingerprint, if the receiver refuses everything as it is configured now.
    pub disable: Option<Arc<str>>,
    /// Until when the channel is held.
    pub hold: Option<Timestamp>,
}

/// The result of [`Outbox::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It is recorded.
    Recorded,
    /// It failed and is not retried, because the end of its run supersedes it.
    Superseded,
    /// It failed, but the channel was reconfigured meanwhile: it is due at once, and the attempt does not count.
    Requeued,
    /// It failed and is given up, because the channel was removed.
    Abandoned,
    /// Another claim of the row exists by now: nothing was written.
    Stale,
}

/// A delivery that was not made.
#[derive(Debug, Clone, PartialEq)]
pub struct Undelivered {
    /// The channel.
    pub channel: ChannelName,
    /// The event's bytes.
    pub payload: Arc<str>,
    /// Attempts so far, including one in flight.
    pub attempts: u32,
    /// When it is retried; `None` if it is given up.
    pub due_at: Option<Timestamp>,
    /// Whether an attempt is in flight.
    pub in_flight: bool,
    /// The last error.
    pub last_error: Option<String>,
}

/// The part of the store that notifying uses.
pub trait Outbox: Send + Sync + 'static {
    /// Records how a channel is configured, before its deliveries are claimed. If the configuration has changed,
    /// pending deliveries become due at once, with the full retry schedule again. Returns why the channel is disabled,
    /// if it is. `formerly` are the fingerprints that earlier versions gave to the same configuration.
    fn open<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
        formerly: &'a [String],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>>;

    /// Claims due deliveries, earliest first. For each run, at most one is claimed at a time: the oldest.
    fn claim<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<Vec<Claimed>, StoreError>>;

    /// Records an attempt and its consequences.
    fn finish<'a>(
        &'a self,
        claimed: &'a Claimed,
        owner: &'a Owner,
        now: Timestamp,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Finished, StoreError>>;

    /// Releases claims (`id`, `claim`) whose deliveries were not sent to a channel with this `fingerprint`. They stay due,
    /// and no attempt is counted. Settles those that the end of their run supersedes, and those of removed channels.
    fn release<'a>(
        &'a self,
        claims: &'a [(i64, i64)],
        owner: &'a Owner,
        now: Timestamp,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Why a channel with this `fingerprint` is disabled, if it is.
    fn disabled<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>>;

    /// When the channel's next delivery is due, without the rows in hand; `None` if nothing else is pending.
    fn next_due<'a>(
        &'a self,
        channel: &'a ChannelName,
        now: Timestamp,
        in_hand: &'a [i64],
    ) -> BoxFuture<'a, Result<Option<Timestamp>, StoreError>>;

    /// Counts the commits that give a worker something to do. Workers wait for it to change.
    fn changed(&self) -> watch::Receiver<u64>;

    /// Every delivery that was not made, pending or given up.
    fn undelivered(&self) -> BoxFuture<'_, Result<Vec<Undelivered>, StoreError>>;
}

/// Why a call failed. Nothing of it has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// What to do about it.
    pub kind: StoreErrorKind,
    /// What happened, for people.
    pub message: String,
}

/// The kinds of store errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No space left.
    Full,
    /// The file or its directory cannot be written.
    ReadOnly,
    /// The file is damaged or not a store.
    Corrupt,
    /// Another process uses it.
    Busy,
    /// Reading or writing failed.
    Io,
    /// The path is not a file, or it is another user's.
    Unusable,
    /// A newer version wrote it.
    Newer,
    /// The open files are no longer at their paths: data written to them is lost when the process ends.
    Moved,
    /// The store's thread has ended through a bug. Only a new process helps.
    Ended,
    /// Anything else.
    Other,
}

impl StoreErrorKind {
    /// Whether the files have to be replaced, so that a retry does not help.
    pub fn is_lasting(self) -> bool {
        matches!(self, Self::Corrupt | Self::Moved)
    }
}

impl StoreError {
    /// An error inside runwatch.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: StoreErrorKind::Other, message: message.into() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&rusqlite::Error> for StoreError {
    fn from(error: &rusqlite::Error) -> Self {
        let kind = damage::kind_of(error);
        Self { kind, message: error.to_string() }
    }
}
