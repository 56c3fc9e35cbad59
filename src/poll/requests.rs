//! The requests in flight: polls of runs, and the list of all runs.
//!
//! Knows which task polls which run. A cancelled poll is forgotten at once, so its answer is never used for a run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::lister::Discovery;
use crate::api::{Answer, Listed, Listing, PollError, PollErrorKind, RunSource};
use crate::run::{DoubtKind, RunId};

pub(super) type Polled = Result<Answer, PollError>;

/// A request that ended.
pub(super) enum Came {
    /// A poll. The run is `None` if the poll was cancelled.
    Poll(Option<u32>, Polled),
    /// The list; `None` if it was cancelled.
    List(Option<Result<Listing, PollError>>),
}

/// The requests in flight.
pub(super) struct Requests {
    source: Arc<dyn RunSource>,
    polls: JoinSet<Polled>,
    runs: HashMap<Id, u32>,
    lists: JoinSet<Result<Listing, PollError>>,
}

impl Requests {
    pub(super) fn new(source: Arc<dyn RunSource>) -> Self {
        Self { source, polls: JoinSet::new(), runs: HashMap::new(), lists: JoinSet::new() }
    }

    /// Sends later requests to this source.
    pub(super) fn reconfigure(&mut self, source: Arc<dyn RunSource>) {
        self.source = source;
    }

    /// Polls a run.
    pub(super) fn poll(&mut self, run: u32, id: RunId) -> AbortHandle {
        let source = Arc::clone(&self.source);
        let task = self.polls.spawn(async move {
            let polled = source.poll(&id).await;
            with_fresh_key(&*source, polled).await
        });
        self.runs.insert(task.id(), run);
        task
    }

    /// Fetches the list. Keeps only the watched runs and those to discover.
    pub(super) fn list(&mut self, watched: HashSet<RunId>, discovery: Option<Discovery>) {
        let source = Arc::clone(&self.source);
        let wanted = move |listed: &mut Listed| {
            if watched.contains(&listed.id) {
                // Nobody uses the details, and for many runs they would take much memory.
                listed.run.details = None;
                return true;
            }
            discovery.as_ref().is_some_and(|discovery| (discovery.wanted)(listed))
        };
        self.lists.spawn(async move {
            let listed = source.list(Arc::new(wanted)).await;
            with_fresh_key(&*source, listed).await
        });
    }

    /// Cancels a poll.
    pub(super) fn abort(&mut self, task: &AbortHandle) {
        self.runs.remove(&task.id());
        task.abort();
    }

    /// Cancels the list, even if its answer is already here.
    pub(super) fn abort_list(&mut self) {
        self.lists = JoinSet::new();
    }

    /// Waits for the next request to end; `None` if none is in flight. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Came> {
        tokio::select! {
            biased;
            Some(done) = self.polls.join_next_with_id() => {
                let (task, polled) = match done {
                    Ok(done) => done,
                    Err(error) => {
                        (error.id(), Err(PollError::transient(format!("the poll panicked: {error}"))))
                    }
                };
                Some(Came::Poll(self.runs.remove(&task), polled))
            }
            Some(done) = self.lists.join_next() => Some(Came::List(match done {
                Ok(listed) => Some(listed),
                Err(error) if JoinError::is_cancelled(&error) => None,
                Err(error) => Some(Err(PollError::transient(format!("the list panicked: {error}")))),
            })),
            else => None,
        }
    }

    /// The number of polls in flight.
    pub(super) fn polls(&self) -> usize {
        self.polls.len()
    }

    /// The number of requests in flight, including the list.
    pub(super) fn len(&self) -> usize {
        self.polls.len() + self.lists.len()
    }

    /// The runs that are being polled.
    pub(super) fn polled_runs(&self) -> impl Iterator<Item = u32> {
        self.runs.values().copied()
    }

    /// Cancels everything.
    pub(super) async fn shutdown(&mut self) {
        self.polls.shutdown().await;
        self.lists.shutdown().await;
    }
}

/// If the API refused the key, reads the key again. It may have been rotated, and the next request uses the new one.
async fn with_fresh_key<T>(source: &dyn RunSource, asked: Result<T, PollError>) -> Result<T, PollError> {
    match asked {
        Err(error) if error.kind == PollErrorKind::Doubt(DoubtKind::KeyRefused) => {
            let message = match source.reload_key().await {
                Ok(()) => error.message,
                Err(reload) => format!("{}; {reload}", error.message),
            };
            Err(PollError { message, ..error })
        }
        asked => asked,
    }
}
