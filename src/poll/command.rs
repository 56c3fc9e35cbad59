//! Requests that other tasks send to the running scheduler.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::counters::SchedulerStats;
use super::settings::Settings;
use super::update::RunView;
use crate::api::RunSource;
use crate::run::RunId;
use crate::store::Watched;

/// A request to the running scheduler.
pub enum Command {
    /// Poll every active run once more and reply when done. Ignores the request budget but obeys the API's
    /// `Retry-After`.
    FinalPoll(oneshot::Sender<()>),
    /// Watch these runs too. For runs that are watched already, only the name, channels and deadline change.
    Add(Vec<Watched>),
    /// Stop watching a run. Replies once nothing more is recorded for it. The reply is dropped if the run is not
    /// watched.
    Remove(RunId, oneshot::Sender<()>),
    /// Reply with the current view of every watched run.
    Snapshot(oneshot::Sender<Vec<RunView>>),
    /// Use these settings and this source from now on.
    Reconfigure(Box<Settings>, Arc<dyn RunSource>),
    /// The machine was suspended, so timers may have expired unnoticed.
    Resumed,
    /// Reply with the scheduler's statistics.
    Stats(oneshot::Sender<SchedulerStats>),
    /// Reply with the current view of one run.
    View(RunId, oneshot::Sender<Option<RunView>>),
    /// Reply at once. Proves that the loop still runs.
    Ping(oneshot::Sender<()>),
}
