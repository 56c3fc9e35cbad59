//! What others ask of the scheduler while it runs.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::counters::Standing;
use super::settings::Settings;
use super::update::RunView;
use crate::api::RunSource;
use crate::run::RunId;
use crate::store::Watched;

/// What the scheduler can be asked while it runs.
pub enum Command {
    /// Poll every run that has not ended once more, now, and answer when that is done. The budget does not count for
    /// this; what the API asked for (`Retry-After`) does.
    LastPoll(oneshot::Sender<()>),
    /// Watch these runs too. Those that are watched already stay as they are, but for their names, channels and deadlines.
    Add(Vec<Watched>),
    /// Watch a run no more. Answered when nothing more is recorded of it; nothing comes back if it is not watched.
    Remove(RunId, oneshot::Sender<()>),
    /// What is watched, as it looks now.
    Snapshot(oneshot::Sender<Vec<RunView>>),
    /// Go about it differently from now on, asking there.
    Reconfigure(Box<Settings>, Arc<dyn RunSource>),
    /// The machine was asleep: what was waited for may have happened.
    Resumed,
    /// How it stands.
    Standing(oneshot::Sender<Standing>),
    /// One of what is watched, as it looks now.
    View(RunId, oneshot::Sender<Option<RunView>>),
    /// Answer. Whoever asks learns that the loop moves.
    Ping(oneshot::Sender<()>),
}
