//! The JSON messages on the socket. Fields may be added but are never removed or changed.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::run::{RunId, RunState, RunStatus};
use crate::store::{self, Origin, Watched};

/// `GET /v1/ping`: answered without the scheduler or the store, so it only shows that the daemon runs.
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
    /// The daemon's process id.
    pub pid: u32,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// The API's base URL.
    pub api: String,
    /// Active runs.
    pub going: u64,
    /// Ended runs that are still stored.
    pub ended: u64,
    /// Deliveries not made yet.
    pub deliveries_pending: i64,
    /// The current problems.
    pub troubles: Vec<String>,
}

/// `GET /v1/doctor`: the daemon's own checks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Doctor {
    /// In display order.
    pub findings: Vec<Finding>,
    /// The configuration file in use; older versions leave this out.
    #[serde(default)]
    pub config: Option<PathBuf>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The subject.
    pub what: String,
    /// The result.
    pub state: FindingState,
    /// Details.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// Fine.
    Ok,
    /// Missing, which may be fine.
    Absent,
    /// A problem.
    Wrong,
}

impl Finding {
    /// A check that passed.
    pub fn well(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), state: FindingState::Ok, found: found.into(), remedy: None }
    }

    /// Something is missing, which may be fine.
    pub fn absent(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { state: FindingState::Absent, ..Self::well(what, found) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// A problem, and what to do about it.
    pub fn wrong(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: FindingState::Wrong, remedy: Some(remedy.into()), ..Self::well(what, found) }
    }
}

/// `GET /v1/runs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Runs {
    /// All known runs, ordered by id.
    pub runs: Vec<Run>,
}

/// `GET /v1/runs/ID`: a run as the daemon knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The API's id.
    pub id: RunId,
    /// The run's name.
    pub name: Option<String>,
    /// The API's last status; `null` before its first answer.
    pub status: Option<RunStatus>,
    /// How the watch ended: `finished`, or why it was given up; `null` while the run is active.
    pub ended: Option<String>,
    /// Samples generated.
    pub samples_completed: Option<u64>,
    /// Samples that failed.
    pub samples_failed: Option<u64>,
    /// Samples requested.
    pub number_of_samples: Option<u64>,
    /// When the run was created, according to the API.
    pub created_at: Option<Timestamp>,
    /// When it ended, according to the API.
    pub completed_at: Option<Timestamp>,
    /// When the watch began.
    pub watched_at: Timestamp,
    /// When the daemon saw the end.
    pub ended_at: Option<Timestamp>,
    /// The channels that notify about it; `null` for all.
    pub notify: Option<Vec<String>>,
    /// Time after its creation when it becomes overdue.
    pub deadline_seconds: Option<u64>,
    /// Whether it was added by a command or discovered. Otherwise the configuration names it.
    pub added: bool,
    /// Whether discovery added it.
    #[serde(default)]
    pub found: bool,
    /// Why polls of it fail at the moment.
    pub trouble: Option<String>,
    /// Estimated time until the end.
    pub seconds_left: Option<u64>,
}

impl Run {
    /// A stored run.
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
    /// The runs to watch.
    #[serde(deserialize_with = "super::object::list")]
    pub runs: Vec<NewRun>,
}

/// A run to watch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// The API's id.
    pub id: RunId,
    /// The run's name.
    #[serde(default)]
    pub name: Option<String>,
    /// The channels that notify about it; all by default.
    #[serde(default)]
    pub notify: Option<Vec<String>>,
    /// Time after its creation when it becomes overdue.
    #[serde(default)]
    pub deadline_seconds: Option<u64>,
}

impl NewRun {
    /// A run with only an id, for all channels.
    pub fn of(id: RunId) -> Self {
        Self { id, name: None, notify: None, deadline_seconds: None }
    }
}

/// The result of `POST /v1/runs`. Runs listed here are durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Added {
    /// In the order of the request.
    pub runs: Vec<AddedRun>,
}

/// The result for one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddedRun {
    /// The run's id.
    pub id: RunId,
    /// Its status, if it has finished already and is not watched again.
    pub finished: Option<RunStatus>,
}

/// `GET /v1/deliveries`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deliveries {
    /// Latest first.
    pub deliveries: Vec<store::Delivery>,
}

/// `POST /v1/deliveries/retry`: selects undelivered deliveries that meet every condition given, or `all` of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRequest {
    /// Selects every one, and excludes conditions. A request without either is refused, so that a mistake never selects
    /// everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// The delivery with this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Deliveries in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<store::DeliveryState>,
    /// Deliveries to this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Deliveries about this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Deliveries of events since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// `POST /v1/deliveries/resend`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResendRequest {
    /// Events since then.
    pub since: Timestamp,
    /// To these channels; to all configured ones by default.
    #[serde(default)]
    pub channels: Option<Vec<String>>,
}

/// The result of `POST /v1/deliveries/retry` or `resend`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settled {
    /// The number of deliveries that are due now.
    pub deliveries: usize,
    /// The number of deliveries skipped because their channels are not configured.
    #[serde(default)]
    pub skipped: u64,
    /// Those channels.
    #[serde(default)]
    pub skipped_channels: Vec<String>,
}

/// The result of `POST /v1/reload`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// A summary of the new configuration.
    pub message: String,
}

/// An error.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// The message.
    pub error: String,
}
