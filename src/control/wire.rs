//! What goes over the socket, in JSON. New fields may come; nothing is taken away or changed.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::run::{RunId, RunState, RunStatus};
use crate::store::{self, Origin, Watched};

/// `GET /v1/ping`: asks nothing of the scheduler or the store, so that whoever asks learns only that it is alive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ping {
    /// The daemon's version.
    pub version: String,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// The API it asks.
    pub api: String,
    /// Active runs.
    pub going: u64,
    /// Runs that have ended, as long as they are remembered.
    pub ended: u64,
    /// Deliveries still to be made.
    pub deliveries_pending: i64,
    /// What is wrong at the moment, in words.
    pub troubles: Vec<String>,
}

/// `GET /v1/doctor`: what the daemon finds around itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Doctor {
    /// In the order they are shown.
    pub findings: Vec<Finding>,
    /// The file that the daemon has its configuration from; older versions do not say.
    #[serde(default)]
    pub config: Option<PathBuf>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub what: String,
    /// How it is.
    pub state: FindingState,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// How something is that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// As it should be.
    Ok,
    /// Not there, and it may not have to be.
    Absent,
    /// Wrong.
    Wrong,
}

impl Finding {
    /// All is well.
    pub fn well(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), state: FindingState::Ok, found: found.into(), remedy: None }
    }

    /// It is not there, and may not have to be.
    pub fn absent(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { state: FindingState::Absent, ..Self::well(what, found) }
    }

    /// With what to do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// Something is wrong, and what to do about it.
    pub fn wrong(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: FindingState::Wrong, remedy: Some(remedy.into()), ..Self::well(what, found) }
    }
}

/// `GET /v1/runs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Runs {
    /// All that are known, in the order of their ids.
    pub runs: Vec<Run>,
}

/// `GET /v1/runs/ID`: a run as the daemon knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The API's id.
    pub id: RunId,
    /// What people call it.
    pub name: Option<String>,
    /// The API's last word; `null` before its first answer.
    pub status: Option<RunStatus>,
    /// How the watch of it ended: `finished`, or why it was given up; `null` while it is active.
    pub ended: Option<String>,
    /// Samples generated.
    pub samples_completed: Option<u64>,
    /// Samples given up on.
    pub samples_failed: Option<u64>,
    /// Samples asked for.
    pub number_of_samples: Option<u64>,
    /// When the run was created, by the API.
    pub created_at: Option<Timestamp>,
    /// When it ended, by the API.
    pub completed_at: Option<Timestamp>,
    /// When the watch of it began.
    pub watched_at: Timestamp,
    /// When the end was seen.
    pub ended_at: Option<Timestamp>,
    /// The channels that notify about it; `null` for all.
    pub notify: Option<Vec<String>>,
    /// How long after its creation it is overdue.
    pub deadline_seconds: Option<u64>,
    /// Whether a command added it, or it was found; else the configuration names it.
    pub added: bool,
    /// Whether nobody named it, and it was found.
    #[serde(default)]
    pub found: bool,
    /// Why it cannot be read at the moment.
    pub trouble: Option<String>,
    /// About how long it may still take.
    pub seconds_left: Option<u64>,
}

impl Run {
    /// A run as the store has it.
    pub fn of(run: &Watched) -> Self {
        let RunState { status, progress, created_at, completed_at, watched_at, ended, ended_at, .. } =
            &run.state;
        Self {
            id: run.subject.id.clone(),
            name: run.subject.name.as_deref().map(str::to_owned),
            status: status.clone(),
            ended: ended.map(|ended| ended.word().to_owned()),
            samples_completed: progress.completed,
            samples_failed: progress.failed,
            number_of_samples: progress.total,
            created_at: *created_at,
            completed_at: *completed_at,
            watched_at: *watched_at,
            ended_at: *ended_at,
            notify: run.notify.as_deref().map(|names| names.iter().map(ToString::to_string).collect()),
            deadline_seconds: run.deadline.map(|deadline| deadline.as_secs()),
            added: run.origin != Origin::Configured,
            found: run.origin == Origin::Found,
            trouble: None,
            seconds_left: None,
        }
    }
}

/// `POST /v1/runs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// What to watch.
    #[serde(deserialize_with = "super::object::list")]
    pub runs: Vec<NewRun>,
}

/// A run to be watched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// The API's id.
    pub id: RunId,
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
    /// The channels that notify about it; all by default.
    #[serde(default)]
    pub notify: Option<Vec<String>>,
    /// How long after its creation it is overdue.
    #[serde(default)]
    pub deadline_seconds: Option<u64>,
}

impl NewRun {
    /// A run by its id alone, for all channels.
    pub fn of(id: RunId) -> Self {
        Self { id, name: None, notify: None, deadline_seconds: None }
    }
}

/// What became of `POST /v1/runs`. What is in here is durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Added {
    /// In the order asked for.
    pub runs: Vec<AddedRun>,
}

/// What became of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddedRun {
    /// Which.
    pub id: RunId,
    /// Its last status, where it has finished already: it is not watched again.
    pub finished: Option<RunStatus>,
}

/// `GET /v1/deliveries`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deliveries {
    /// The latest first.
    pub deliveries: Vec<store::Delivery>,
}

/// `POST /v1/deliveries/retry`: undelivered deliveries that meet every condition given, or `all` of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRequest {
    /// Every one. Excludes conditions: a request without either is refused, so that a mistake never means everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// This one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// In this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<store::DeliveryState>,
    /// To this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// About this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Of events since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// `POST /v1/deliveries/resend`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResendRequest {
    /// Events since then.
    pub since: Timestamp,
    /// To these channels; to all that are configured by default.
    #[serde(default)]
    pub channels: Option<Vec<String>>,
}

/// What became of `POST /v1/deliveries/retry` or `resend`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settled {
    /// How many deliveries are due now.
    pub deliveries: usize,
    /// How many were left alone because their channels are not configured.
    #[serde(default)]
    pub skipped: u64,
    /// Those channels.
    #[serde(default)]
    pub skipped_channels: Vec<String>,
}

/// What became of `POST /v1/reload`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// What is done from now on, in words.
    pub message: String,
}

/// An error, in words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// What is wrong.
    pub error: String,
}
