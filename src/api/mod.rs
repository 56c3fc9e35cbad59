//! The part of the DataFramer API that a watcher needs: poll one run or list all runs, and classify the answer.
//!
//! `client` speaks HTTP. `wire` reads runs, with `fields` for their fields, `scalar` for values of any type, `body` for
//! the kind of body, and `repair` for slightly broken JSON. `list` splits the list of runs. `refusal` reads everything
//! that is not a run. `redacted` removes secrets from what was read. Other modules see only [`RunSource`], so tests can
//! use a script instead. This module knows nothing about schedules or notifications.

mod body;
pub mod client;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
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
pub use wire::spec_name;

/// One answer about one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The fields that runwatch uses.
    pub run: Run,
    /// The JSON object as the API sent it, with unknown fields.
    pub body: Bytes,
}

/// Decides which runs of a list are wanted. May remove parts of a run that are not.
pub type Wanted = Arc<dyn Fn(&mut Listed) -> bool + Send + Sync>;

/// The content of a list of runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// The wanted runs, newest first.
    pub runs: Vec<Listed>,
    /// Size of the whole list, in bytes.
    pub bytes: usize,
    /// When the newest run of the whole list was created, wanted or not.
    pub newest: Option<Timestamp>,
    /// Entries that could not be read.
    pub skipped: Skipped,
}

/// A source of runs.
pub trait RunSource: Send + Sync + 'static {
    /// Sends one request, limited in time and size. Never retries.
    fn poll<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Answer, PollError>>;

    /// Reads the list of all runs once and returns those that are `wanted`. Limited in time; other runs take no memory.
    /// A source without a list returns an error.
    fn list(&self, wanted: Wanted) -> BoxFuture<'_, Result<Listing, PollError>> {
        drop(wanted);
        Box::pin(async { Err(PollError::transient("there is no list of runs")) })
    }

    /// Reads the API key again from its source, because keys may be rotated during a watch.
    ///
    /// The error says what is wrong with the source. The old key stays in use.
    fn reload_key(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// Why a poll returned no run. Ends one attempt, never the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollError {
    /// What it means for the watch.
    pub kind: PollErrorKind,
    /// What happened, for people: one line without secrets or HTML.
    pub message: String,
    /// Whether the API itself said so, in JSON of its own form. Anything else (a web page, an empty body, other JSON)
    /// may come from a proxy or a firewall, and proves nothing about the run or the key.
    pub from_api: bool,
    /// Whether the body was a web page, which is never believed.
    pub is_page: bool,
    /// How long the API wants no requests: a minimum, at most one hour.
    pub retry_after: Option<Duration>,
}

/// The kinds of poll errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollErrorKind {
    /// Nothing was learned, because of a network error, a server error, or an answer that is cut off or not a run.
    /// Retry.
    Transient,
    /// The API wants fewer requests (429). Retry later, with any run.
    Throttled,
    /// The answer raises a doubt about the run, the key or the address, which ends the watch if it lasts.
    Doubt(DoubtKind),
}

impl PollError {
    /// A transient error without `Retry-After`.
    pub fn transient(message: impl Into<String>) -> Self {
        Self {
            kind: PollErrorKind::Transient,
            message: message.into(),
            from_api: false,
            is_page: false,
            retry_after: None,
        }
    }

    /// Who gave this answer.
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
