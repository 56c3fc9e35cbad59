//! The DataFramer API, as far as a watcher needs it: ask about one run, and say what came of it.
//!
//! `client` speaks HTTP, `wire` reads runs (`fields` what is in them, `scalar` a value of any type, `body` what kind of body it is,
//! `repair` JSON that is nearly JSON), `list` splits the list of runs, `refusal` reads everything that is not a run, `redacted` takes our own secrets out of
//! what was read. The rest of the program sees only [`RunSource`], so that tests can put a script in its place. Nothing here
//! knows of schedules or notifications.

mod body;
pub mod client;
mod fields;
mod list;
mod redacted;
mod refusal;
mod repair;
mod scalar;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::BoxFuture;
use crate::run::{Authority, DoubtKind, Run, RunId};

pub use client::{ApiClient, ApiSettings, SetupError};
pub use list::{Listed, Skipped};

/// One answer about one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What a watcher acts on.
    pub run: Run,
    /// The JSON object as the API sent it, unknown fields and all.
    pub body: Bytes,
}

/// Which runs of a list are wanted; what is not wanted of one may be taken out.
pub type Wanted = Arc<dyn Fn(&mut Listed) -> bool + Send + Sync>;

/// What a list of runs had.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// The runs that were wanted, newest first.
    pub runs: Vec<Listed>,
    /// How long the whole list was, in bytes.
    pub bytes: usize,
    /// When the newest run of the whole list was created, wanted or not.
    pub newest: Option<Timestamp>,
    /// What of it could not be read.
    pub skipped: Skipped,
}

/// Where runs are asked about.
pub trait RunSource: Send + Sync + 'static {
    /// Asks once. Bounded in time and size; never retries by itself.
    fn poll<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Answer, PollError>>;

    /// Reads the list of all runs, once, and gives those that are `wanted`. Bounded in time; what is not wanted takes no
    /// memory. A source that has no list says so.
    fn list(&self, wanted: Wanted) -> BoxFuture<'_, Result<Listing, PollError>> {
        drop(wanted);
        Box::pin(async { Err(PollError::transient("there is no list of runs")) })
    }

    /// Reads the API key again from where it came from, for keys that are rotated under a running watch.
    ///
    /// The error says what was wrong with the source; the old key stays in use.
    fn reload_key(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// Why a poll brought no run. Ends one attempt, never the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollError {
    /// What it means for the watch.
    pub kind: PollErrorKind,
    /// What happened, for people: no secrets, no HTML, one line.
    pub message: String,
    /// Whether the API itself said so, in JSON of its own form. Anything else (a web page, nothing, other JSON) may come
    /// from a proxy or a firewall on the way, and proves nothing about the run or the key.
    pub from_api: bool,
    /// Whether a web page was there in its place: of those, nothing is believed.
    pub is_page: bool,
    /// How long the API asked to be left alone: a floor, at most one hour.
    pub retry_after: Option<Duration>,
}

/// The families of poll errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollErrorKind {
    /// Nothing was learned: network trouble, a server in trouble, an answer that broke off or is no run. Ask again.
    Transient,
    /// The API asks for fewer requests (429). It is well; ask again, later, about any run.
    Throttled,
    /// The answer casts doubt on the run, the key or the address; it becomes an end if it lasts.
    Doubt(DoubtKind),
}

impl PollError {
    /// A transient error without further advice.
    pub fn transient(message: impl Into<String>) -> Self {
        Self {
            kind: PollErrorKind::Transient,
            message: message.into(),
            from_api: false,
            is_page: false,
            retry_after: None,
        }
    }

    /// Who said so.
    pub fn said_by(&self) -> Authority {
        match (self.from_api, self.is_page) {
            (true, _) => Authority::Api,
            (_, true) => Authority::Page,
            _ => Authority::Foreign,
        }
    }
}

impl fmt::Display for PollError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PollError {}
