//! Writes to the store, in the right order.
//!
//! Owns the commits and saves in progress, and knows which runs have newer data than the store. Writes for one run go
//! one after another. A save never carries a state that a commit in progress replaces. A commit waits for a save of its
//! run that is in progress. So the stored state never goes back. The scheduler handles failed writes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::outage::Outage;
use super::update::Update;
use crate::run::{Event, Transition};
use crate::store::{ChannelName, Commit, MomentName, Routes, RunStore, StoreError, Watched};

type Written = Result<(), StoreError>;

/// What a commit is for.
#[derive(Debug)]
pub(super) enum Recording {
    /// An observation of a run.
    Run {
        index: u32,
        transition: Box<Transition>,
        /// Time until the next poll, if the run is still active.
        pause: Duration,
    },
    /// When an outage was notified; `None` records that it is over.
    Outage(Outage, Option<Timestamp>),
}

/// The content of a commit. Its channels are chosen when it is written, because the routes may change before.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) run: Option<Watched>,
    pub(super) events: Vec<Event>,
    pub(super) moment: Option<(MomentName, Option<Timestamp>)>,
}

enum Job {
    Commit(Recording),
    Save(Vec<u32>),
}

/// A write that succeeded or failed.
pub(super) enum Done {
    Commit(Recording, Written),
    Save(Written),
}

/// Writes to the store, in order.
pub(super) struct Recorder {
    store: Arc<dyn RunStore>,
    routes: watch::Receiver<Routes>,
    save_every: Option<Duration>,
    writes: JoinSet<Written>,
    jobs: HashMap<Id, Job>,
    /// Runs with a commit in progress or waiting.
    committing: HashSet<u32>,
    /// Runs in the save in progress. At most one save is in progress.
    saving: HashSet<u32>,
    /// Commits that wait for the save.
    waiting: Vec<(Draft, Recording)>,
    /// Runs with newer counts than the store. Counts cause no notification.
    unsaved: BTreeSet<u32>,
    /// When the next save is due.
    save_at: Option<Instant>,
    failed: bool,
}

impl Recorder {
    pub(super) fn new(
        store: Arc<dyn RunStore>,
        routes: watch::Receiver<Routes>,
        save_every: Option<Duration>,
    ) -> Self {
        Self {
            store,
            routes,
            save_every,
            writes: JoinSet::new(),
            jobs: HashMap::new(),
            committing: HashSet::new(),
            saving: HashSet::new(),
            waiting: Vec::new(),
            unsaved: BTreeSet::new(),
            save_at: None,
            failed: false,
        }
    }

    /// Uses other routes and another save interval for later writes.
    pub(super) fn reconfigure(&mut self, routes: watch::Receiver<Routes>, save_every: Option<Duration>) {
        (self.routes, self.save_every) = (routes, save_every);
    }

    /// Writes a commit, after the writes in progress for its run.
    pub(super) fn commit(&mut self, draft: Draft, recording: Recording) {
        if let Recording::Run { index, .. } = recording {
            self.committing.insert(index);
            if self.saving.contains(&index) {
                return self.waiting.push((draft, recording));
            }
        }
        self.send(draft, recording);
    }

    fn send(&mut self, draft: Draft, recording: Recording) {
        let (store, routes) = (Arc::clone(&self.store), self.routes.clone());
        let task = self.writes.spawn(async move {
            let commit = routed(draft, &routes.borrow());
            store.commit(commit).await
        });
        self.jobs.insert(task.id(), Job::Commit(recording));
    }

    /// Saves a run's counts with the next save.
    pub(super) fn save_soon(&mut self, index: u32) {
        if let Some(every) = self.save_every {
            self.unsaved.insert(index);
            self.save_at.get_or_insert_with(|| Instant::now() + every);
        }
    }

    /// When the next save is due; `None` if none can begin.
    pub(super) fn save_at(&self) -> Option<Instant> {
        self.save_at.filter(|_| self.saving.is_empty())
    }

    /// Begins a save if one is due. `state` returns a run's current state. Runs with a commit in progress wait for the
    /// next save.
    pub(super) fn save_if_due(&mut self, now: Instant, state: impl Fn(u32) -> Option<Watched>) {
        if self.save_at().is_none_or(|at| at > now) {
            return;
        }
        let (later, ready): (BTreeSet<u32>, BTreeSet<u32>) =
            std::mem::take(&mut self.unsaved).into_iter().partition(|index| self.committing.contains(index));
        self.unsaved = later;
        self.rearm(now);
        let runs: Vec<(u32, Watched)> =
            ready.into_iter().filter_map(|index| Some((index, state(index)?))).collect();
        if runs.is_empty() {
            return;
        }
        let (indexes, runs): (Vec<u32>, Vec<Watched>) = runs.into_iter().unzip();
        self.saving = indexes.iter().copied().collect();
        let store = Arc::clone(&self.store);
        let task = self.writes.spawn(async move { store.save(runs).await });
        self.jobs.insert(task.id(), Job::Save(indexes));
    }

    /// Saves everything unsaved as soon as possible.
    pub(super) fn save_now(&mut self, now: Instant) {
        self.save_at = (!self.unsaved.is_empty()).then_some(now);
    }

    fn rearm(&mut self, now: Instant) {
        self.save_at = self.save_every.filter(|_| !self.unsaved.is_empty()).map(|every| now + every);
    }

    /// Waits for the next write to end; `None` if none is in progress. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Done> {
        loop {
            let done = self.writes.join_next_with_id().await?;
            if let Some(done) = self.finished(done) {
                return Some(done);
            }
        }
    }

    fn finished(&mut self, done: Result<(Id, Written), JoinError>) -> Option<Done> {
        let (task, written) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(StoreError::internal(format!("writing panicked: {error}")))),
        };
        match self.jobs.remove(&task)? {
            Job::Commit(recording) => {
                if let Recording::Run { index, .. } = recording {
                    self.committing.remove(&index);
                    if written.is_ok() {
                        // The commit wrote all data of the run.
                        self.unsaved.remove(&index);
                    }
                }
                Some(Done::Commit(recording, written))
            }
            Job::Save(indexes) => {
                self.saving.clear();
                if written.is_err() {
                    self.unsaved.extend(indexes);
                    if self.save_at.is_none() {
                        self.rearm(Instant::now());
                    }
                }
                for (draft, recording) in std::mem::take(&mut self.waiting) {
                    self.send(draft, recording);
                }
                Some(Done::Save(written))
            }
        }
    }

    /// Whether a write for a run is in progress or waiting.
    pub(super) fn is_writing(&self, index: u32) -> bool {
        self.committing.contains(&index) || self.saving.contains(&index)
    }

    /// Drops the unsaved data of a run that is no longer watched.
    pub(super) fn forget(&mut self, index: u32) {
        self.unsaved.remove(&index);
    }

    /// Returns an update when the store begins to fail, and when it works again.
    pub(super) fn turn(&mut self, error: Option<&StoreError>) -> Option<Update> {
        let failed = error.is_some();
        if std::mem::replace(&mut self.failed, failed) == failed {
            return None;
        }
        Some(error.map_or(Update::StoreWell, |error| Update::StoreFailed(error.clone())))
    }
}

/// A commit that assigns each event its channels, from those that the run has chosen.
fn routed(draft: Draft, routes: &Routes) -> Commit {
    let Draft { run, events, moment } = draft;
    let chosen: Option<Arc<[ChannelName]>> = run.as_ref().and_then(|run| run.notify.clone());
    let route = |event: Event| {
        let channels = routes.of(event.payload.kind, chosen.as_deref());
        (event, channels)
    };
    Commit { events: events.into_iter().map(route).collect(), run, moment }
}
