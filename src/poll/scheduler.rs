//! The loop that asks: one queue of due runs, a bounded number of polls in flight, one budget.
//!
//! Owns when polls start and how the loop ends. What a poll brought is `poller`'s; nothing here knows of notifications.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::last_look::LastLook;
use super::limiter::Limiter;
use super::poller::{Committed, Polled, Recording};
use super::schedule::Policy;
use super::slots::{Slots, Watched};
use super::update::{FinalRun, Update, Updates};
use crate::api::RunSource;
use crate::run::Patience;
use crate::store::{Routes, RunStore};

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
    /// Who is told what.
    pub routes: Routes,
    /// Whether the last answer about each run is kept, for the report.
    pub keep_bodies: bool,
}

/// What the scheduler can be asked while it runs.
#[derive(Debug)]
pub enum Command {
    /// Poll every run that has not ended once more, now, and answer when that is done. The budget does not count for
    /// this; what the API asked for (`Retry-After`) does.
    LastPoll(oneshot::Sender<()>),
}

/// The polling half. Made with [`Scheduler::new`], given runs with [`Scheduler::watch`], then [`Scheduler::run`].
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) source: Arc<dyn RunSource>,
    pub(super) store: Arc<dyn RunStore>,
    pub(super) slots: Slots,
    pub(super) limiter: Limiter,
    pub(super) health: Health,
    updates: Updates,
    commands: mpsc::Receiver<Command>,
    pub(super) polls: JoinSet<Polled>,
    pub(super) polled: HashMap<Id, u32>,
    pub(super) commits: JoinSet<Committed>,
    pub(super) recording: HashMap<Id, Recording>,
    pub(super) store_failed: bool,
    pub(super) last_look: Option<LastLook>,
}

impl Scheduler {
    /// A scheduler without runs.
    pub fn new(
        settings: Settings,
        source: Arc<dyn RunSource>,
        store: Arc<dyn RunStore>,
        updates: Updates,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let limiter = Limiter::new(settings.requests_per_minute, Instant::now());
        Self {
            settings,
            source,
            store,
            slots: Slots::default(),
            limiter,
            health: Health::default(),
            updates,
            commands,
            polls: JoinSet::new(),
            polled: HashMap::new(),
            commits: JoinSet::new(),
            recording: HashMap::new(),
            store_failed: false,
            last_look: None,
        }
    }

    /// Adds a run, to be polled as soon as the budget allows. A run that is watched already stays as it is.
    pub fn watch(&mut self, watched: Watched) {
        self.slots.add(watched, &self.settings.policy, Instant::now());
    }

    /// Polls until cancelled, then lets what is being recorded finish, and gives the account of every run.
    pub async fn run(mut self, cancel: CancellationToken) -> Vec<FinalRun> {
        loop {
            self.start_due();
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(done) = self.commits.join_next_with_id() => self.committed(done),
                Some(done) = self.polls.join_next_with_id() => self.answered(done),
                Some(command) = self.commands.recv() => self.command(command),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        // A poll that is broken off has changed nothing; a commit under way may be durable already.
        self.polls.shutdown().await;
        while let Some(done) = self.commits.join_next_with_id().await {
            self.committed(done);
        }
        self.slots.into_final()
    }

    /// Sends the polls that are due, as far as the budget and the bound on polls in flight allow.
    fn start_due(&mut self) {
        let now = Instant::now();
        while self.polls.len() < self.settings.max_in_flight {
            let Some(index) = self.slots.first_due(now) else { return };
            if self.last_look.as_ref().is_some_and(|look| look.includes(index)) {
                self.limiter.spend(now);
            } else if self.limiter.take(now).is_err() {
                return;
            }
            self.poll(index);
        }
    }

    /// When something is to be done even if nothing happens; `None` if nothing is.
    fn wake_at(&self) -> Option<Instant> {
        if self.polls.len() >= self.settings.max_in_flight {
            return None;
        }
        let due = self.slots.next_due()?;
        Some(due.max(self.limiter.next_at(Instant::now())))
    }

    pub(super) fn tell(&self, update: Update) {
        // Nobody looks on any more: the watch goes on all the same.
        let _ = self.updates.send(update);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::LastPoll(reply) => self.look_once_more(reply),
        }
    }
}
