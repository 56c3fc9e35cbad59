//! What is written down, and in which order.
//!
//! Owns the commits and saves under way, and which runs are known to be more than the store has. A run's writes go one after the
//! other: a save never leaves with a state that a commit under way replaces, and a commit waits for a save of its run that is
//! under way. So the store never goes back. What cannot be recorded is for the scheduler to see again; nothing here believes.

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

/// What a commit is about.
#[derive(Debug)]
pub(super) enum Recording {
    /// An observation of a run.
    Run {
        index: u32,
        transition: Box<Transition>,
        /// The pause before the next poll, should the run go on.
        pause: Duration,
    },
    /// When an outage was told, or that it is over.
    Outage(Outage, Option<Timestamp>),
}

/// What a commit writes. Who tells of it is found out when it is written: until then the routes may change.
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

/// Something that was written, or could not be.
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
    /// Runs of which a commit is under way, or waits.
    committing: HashSet<u32>,
    /// Runs in the save under way; there is one at most.
    saving: HashSet<u32>,
    /// Commits that wait for it.
    waiting: Vec<(Draft, Recording)>,
    /// Runs of which more is known than the store has: counts, which change nothing that is told.
    unsaved: BTreeSet<u32>,
    /// When they are written down next.
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

    /// Other routes and another interval, for what is written from now on.
    pub(super) fn reconfigure(&mut self, routes: watch::Receiver<Routes>, save_every: Option<Duration>) {
        (self.routes, self.save_every) = (routes, save_every);
    }

    /// Writes a commit, after what is under way for its run.
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

    /// Has a run's counts written down with others', before long.
    pub(super) fn save_soon(&mut self, index: u32) {
        if let Some(every) = self.save_every {
            self.unsaved.insert(index);
            self.save_at.get_or_insert_with(|| Instant::now() + every);
        }
    }

    /// When a save is due, if one may begin.
    pub(super) fn save_at(&self) -> Option<Instant> {
        self.save_at.filter(|_| self.saving.is_empty())
    }

    /// Begins a save if one is due; `state` gives a run as it is known now. Runs that are being committed are left for the next.
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

    /// Has what is unsaved written down as soon as it may be.
    pub(super) fn save_now(&mut self, now: Instant) {
        self.save_at = (!self.unsaved.is_empty()).then_some(now);
    }

    fn rearm(&mut self, now: Instant) {
        self.save_at = self.save_every.filter(|_| !self.unsaved.is_empty()).map(|every| now + every);
    }

    /// Waits for the next write to be done; `None` if none is under way. Nothing is lost if this is dropped while it waits.
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
                        // It wrote all that was known.
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

    /// Whether something of a run is being written.
    pub(super) fn is_writing(&self, index: u32) -> bool {
        self.committing.contains(&index) || self.saving.contains(&index)
    }

    /// Nothing more is to be saved of a run that is not watched any more.
    pub(super) fn forget(&mut self, index: u32) {
        self.unsaved.remove(&index);
    }

    /// Says once when the store fails, and once when it works again.
    pub(super) fn turn(&mut self, error: Option<&StoreError>) -> Option<Update> {
        let failed = error.is_some();
        if std::mem::replace(&mut self.failed, failed) == failed {
            return None;
        }
        Some(error.map_or(Update::StoreWell, |error| Update::StoreFailed(error.clone())))
    }
}

/// A commit with each event's channels, of those that the run has chosen.
fn routed(draft: Draft, routes: &Routes) -> Commit {
    let Draft { run, events, moment } = draft;
    let chosen: Option<Arc<[ChannelName]>> = run.as_ref().and_then(|run| run.notify.clone());
    let route = |event: Event| {
        let channels = routes.of(event.payload.kind, chosen.as_deref());
        (event, channels)
    };
    Commit { events: events.into_iter().map(route).collect(), run, moment }
}
