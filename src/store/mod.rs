//! What is remembered: the state of every watched run, and the outbox of everything still to be told.
//!
//! This is the only bridge between the half that watches and the half that notifies. One transaction writes a run's new
//! state and its outbox rows. The two traits are the door; [`SqliteStore`] is the one thing behind it today. They speak of
//! owners and leases, so that several daemons can share a store one day.

mod admin;
mod adopt;
mod aside;
mod batch;
mod between;
mod channels;
mod copy;
mod damage;
mod files;
mod found;
mod guard;
mod ids;
mod lock;
mod order;
mod outbox;
mod purge;
mod queue;
mod routes;
mod row;
mod runs;
mod salvage;
mod schema;
mod sqlite;
#[cfg(test)]
mod testing;
mod took;
mod worker;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::BoxFuture;
use crate::run::{Event, EventId, RunId, RunState, SpecId, Subject};

pub use self::took::Took;
pub use admin::{Delivery, DeliveryFilter, DeliveryState, Retried, Stats};
pub use adopt::{Adopted, Adoption, Fate};
pub use aside::{roll_forward, set_aside};
pub use copy::{copy_unused, is_copy};
pub use lock::{InUse, Lock};
pub use purge::Kept;
pub use routes::{Route, Routes};
pub use salvage::{Salvaged, salvage};
pub use sqlite::{Original, SqliteStore};

/// The name of a notification channel.
pub type ChannelName = Arc<str>;

/// What a moment is remembered by.
pub type MomentName = Cow<'static, str>;

/// A watched run: what is to be done about it, and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// Which run.
    pub subject: Subject,
    /// The channels that tell of it; `None` for all.
    pub notify: Option<Arc<[ChannelName]>>,
    /// How long after its creation it is overdue.
    pub deadline: Option<Duration>,
    /// Who wants it watched.
    pub origin: Origin,
    /// What is known of it.
    pub state: RunState,
}

/// Who wants a run watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// The configuration names it, and nobody else does.
    #[default]
    Configured,
    /// Nobody named it: it was found.
    Found,
    /// It was added by a command.
    Added,
}

impl Watched {
    /// A run that nobody has asked about yet, told to all channels.
    pub fn new(subject: Subject, at: Timestamp) -> Self {
        Self { subject, notify: None, deadline: None, origin: Origin::Configured, state: RunState::new(at) }
    }
}

/// What one observation writes, all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The run and its new state, if it is about one.
    pub run: Option<Watched>,
    /// Events, each with the channels that are to tell it.
    pub events: Vec<(Event, Vec<ChannelName>)>,
    /// A moment to remember by this name, or to forget.
    pub moment: Option<(MomentName, Option<Timestamp>)>,
}

/// The half of the store that watching uses.
pub trait RunStore: Send + Sync + 'static {
    /// Every run the store knows.
    fn load(&self) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>>;

    /// A moment that was remembered.
    fn moment(&self, name: MomentName) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>>;

    /// What the last runs of a spec took that succeeded, a few of them.
    fn took(&self, spec: SpecId) -> BoxFuture<'_, Result<Vec<Took>, StoreError>>;

    /// Has runs watched: writes what is to be done about them, whether they are there or not, and gives them with what is
    /// known of them. An end that the API never gave is taken back.
    fn add(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>>;

    /// Writes what is known of runs, without anything to tell. Those that are not there stay away.
    fn save(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets runs; what is still to be told of them is told.
    fn forget(&self, runs: Vec<RunId>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Writes one observation. When this returns, it is as durable as the store is.
    ///
    /// An (event, channel) pair that is there already is left as it is.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Who works on a claimed delivery: one per process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(pub Arc<str>);

/// What is taken out of the outbox, and by whom.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Deliveries to this channel.
    pub channel: &'a ChannelName,
    /// Who takes them.
    pub owner: &'a Owner,
    /// What is due by now.
    pub now: Timestamp,
    /// For how long.
    pub lease: Duration,
    /// At most this many.
    pub limit: usize,
    /// Not these rows: the caller holds them still, whatever became of their leases.
    pub in_hand: &'a [i64],
}

/// A delivery that was claimed and must be finished, or falls back when its lease ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The outbox row.
    pub id: i64,
    /// Which claim of the row this is: a later claim has another number.
    pub claim: i64,
    /// The event's stable name.
    pub event_id: EventId,
    /// The type of event, as it is written.
    pub kind: Arc<str>,
    /// The run it is about.
    pub run_id: Option<Arc<str>>,
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
    /// It failed; try again at that time.
    Retry {
        /// When.
        at: Timestamp,
        /// What went wrong.
        error: String,
    },
    /// It was put off for a reason that says nothing about the event: this is not counted as an attempt.
    Postponed {
        /// Its new place in the order of what is due; `None` keeps the one that it has.
        at: Option<Timestamp>,
        /// Why.
        error: String,
    },
    /// Given up.
    Dead {
        /// What went wrong last.
        error: String,
    },
}

/// What is recorded of an attempt, all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// How it went.
    pub outcome: Outcome,
    /// The beginning of what the receiver said, if it refused.
    pub answer: Option<String>,
    /// What follows from it.
    pub follows: Follows,
    /// How the channel was configured for the attempt. Where it is configured otherwise by now, a failure says nothing.
    /// `None` does not ask.
    pub fingerprint: Option<Arc<str>>,
}

impl From<Outcome> for Settlement {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, answer: None, follows: Follows::default(), fingerprint: None }
    }
}

/// What follows from an attempt, written with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Follows {
    /// An event, and the channels that are to tell it.
    pub event: Option<(Event, Vec<ChannelName>)>,
    /// The channel wants nothing more, as it is configured now: this stands for that.
    pub disable: Option<Arc<str>>,
    /// Nothing is to be sent to the channel before.
    pub hold: Option<Timestamp>,
}

/// What became of [`Outbox::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It is recorded.
    Recorded,
    /// It failed, and is not tried again: the end of its run has overtaken it.
    Superseded,
    /// It failed, and the channel has been configured otherwise since: it is due at once, and nothing was counted.
    Requeued,
    /// It failed, and the channel is not configured any more: it is given up.
    Abandoned,
    /// Somebody else has claimed it since: nothing was written.
    Stale,
}

/// A delivery that is not done.
#[derive(Debug, Clone, PartialEq)]
pub struct Undelivered {
    /// The channel.
    pub channel: ChannelName,
    /// The bytes of the event.
    pub payload: Arc<str>,
    /// Attempts so far, one under way included.
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
    /// Takes note of how a channel is configured now, before anything of it is claimed. What is pending for one that was
    /// configured otherwise becomes due at once, with the full retry schedule again. Gives why the channel is disabled, if it
    /// is. `formerly` are fingerprints that earlier versions gave to the same configuration.
    fn open<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
        formerly: &'a [String],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>>;

    /// Takes deliveries that are due, the earliest first. Of each run at most one is taken at a time, the oldest.
    fn claim<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<Vec<Claimed>, StoreError>>;

    /// Records how an attempt went, and what follows from that.
    fn finish<'a>(
        &'a self,
        claimed: &'a Claimed,
        owner: &'a Owner,
        now: Timestamp,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Finished, StoreError>>;

    /// Gives back claims (`id`, `claim`) for which nothing was sent to a channel of this `fingerprint`. They stay due, and no
    /// attempt is counted; but what the end of its run has overtaken is settled, and so is what is for a channel that has gone.
    fn release<'a>(
        &'a self,
        claims: &'a [(i64, i64)],
        owner: &'a Owner,
        now: Timestamp,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Why a channel, as it is configured now (`fingerprint`), is disabled, if it is.
    fn disabled<'a>(
        &'a self,
        channel: &'a ChannelName,
        fingerprint: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>>;

    /// When a channel next has something to do, beside the rows in hand; `None` if nothing else is pending.
    fn next_due<'a>(
        &'a self,
        channel: &'a ChannelName,
        now: Timestamp,
        in_hand: &'a [i64],
    ) -> BoxFuture<'a, Result<Option<Timestamp>, StoreError>>;

    /// Counts up with every commit that gives a worker something to do: what a worker waits on.
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
    /// Reading or writing failed.
    Io,
    /// What is at its path is no file, or somebody else's.
    Unusable,
    /// A newer version wrote it.
    Newer,
    /// The files that are open are not at their paths any more: what is written to them is lost when the process ends.
    Moved,
    /// The part that works for it has ended, by a bug: only another process mends that.
    Ended,
    /// Anything else.
    Other,
}

impl StoreErrorKind {
    /// Whether the files have to be replaced: trying again is of no use.
    pub fn is_lasting(self) -> bool {
        matches!(self, Self::Corrupt | Self::Moved)
    }
}

impl StoreError {
    /// Something that is nobody's fault outside.
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
