//! What the scheduler needs to know before it starts. A reload replaces it as a whole.

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

/// What the scheduler needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The backoff curves.
    pub policy: Policy,
    /// Requests a minute, for all runs together.
    pub requests_per_minute: u32,
    /// Polls in flight at once.
    pub max_in_flight: usize,
    /// How long doubts are borne.
    pub patience: Patience,
    /// The API's base URL: part of every event's id.
    pub source: Arc<str>,
    /// Who is told what: read when a commit is made.
    pub routes: watch::Receiver<Routes>,
    /// When to warn of what goes on.
    pub alerts: Alerts,
    /// Whether the list of all runs is asked for in place of many runs.
    pub batch: Mode,
    /// Whether runs are looked for that nobody named.
    pub discovery: Option<Discovery>,
    /// Whether the last answer about each run is kept, for the report.
    pub keep_bodies: bool,
    /// Whether runs that have ended are kept, for the report.
    pub keep_ended: bool,
    /// Where polls are counted.
    pub counters: Arc<Counters>,
    /// How often counts are written down, which change nothing that is told; `None` never.
    pub save_every: Option<Duration>,
}
