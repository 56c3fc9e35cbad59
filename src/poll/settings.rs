//! The scheduler's settings. A reload replaces all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::alerts::Alerts;
use super::batch::Mode;
use super::counters::Counters;
use super::lister::Discovery;
use super::schedule::Policy;
use crate::run::Patience;
use crate::store::Routes;

/// The scheduler's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The backoff curves.
    pub policy: Policy,
    /// Requests per minute, for all runs together.
    pub requests_per_minute: u32,
    /// Maximum number of polls in flight.
    pub max_in_flight: usize,
    /// How long to tolerate doubtful answers.
    pub patience: Patience,
    /// The API's base URL, which is part of every event's id.
    pub source: Arc<str>,
    /// Which channels get which events. Read when a commit is written.
    pub routes: watch::Receiver<Routes>,
    /// When to warn about active runs.
    pub alerts: Alerts,
    /// Whether one list of all runs may replace many polls.
    pub batch: Mode,
    /// Discovery of runs that nobody named; `None` disables it.
    pub discovery: Option<Discovery>,
    /// Whether to keep the last answer about each run, for the report.
    pub keep_bodies: bool,
    /// Whether to keep finished runs and the names of specs, for the report and the display.
    pub keep_ended: bool,
    /// Where polls are counted.
    pub counters: Arc<Counters>,
    /// How often to save counts, which cause no notification; `None` for never.
    pub save_every: Option<Duration>,
}
