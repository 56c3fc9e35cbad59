//! The loop that asks: one queue of due runs, a bounded number of polls in flight, one budget.
//!
//! Owns when polls start and how the loop ends. What a poll brought is `poller`'s; nothing here knows of notifications.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::alerts::Alerts;
use super::batch::{Costs, Mode};
use super::counters::{Counters, Standing};
use super::last_look::LastLook;
use super::limiter::Limiter;
use super::lister::{Discovery, Lister};
use super::outage::{Outages, OutagesTold};
use super::poller::Polled;
use super::prior::Prior;
use super::recorder::Recorder;
use super::schedule::Policy;
use super::slot::{Slot, Stage};
use super::slots::Slots;
use super::throttle::Throttle;
use super::update::{FinalRun, RunView, Update, Updates};
use crate::api::{Listing, PollError, RunSource};
use crate::clock;
use crate::run::{Patience, RunId, RunStatus, SpecId};
use crate::store::{Routes, RunStore, StoreError, Took, Watched};

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

/// The polling half. Made with [`Scheduler::new`], given runs with [`Scheduler::watch`], then [`Scheduler::run`].
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) source: Arc<dyn RunSource>,
    pub(super) store: Arc<dyn RunStore>,
    pub(super) slots: Slots,
    pub(super) limiter: Limiter,
    pub(super) outages: Outages,
    pub(super) throttle: Throttle,
    pub(super) recorder: Recorder,
    updates: Updates,
    commands: mpsc::Receiver<Command>,
    pub(super) polls: JoinSet<Polled>,
    pub(super) polled: HashMap<Id, u32>,
    pub(super) last_look: Option<LastLook>,
    pub(super) lists: JoinSet<Result<Listing, PollError>>,
    pub(super) lister: Lister,
    /// How many runs in a row were asked about to confirm what a list said.
    pub(super) confirmed: u32,
    /// When a run last answered.
    pub(super) answered_at: Option<Instant>,
    pub(super) costs: Costs,
    /// What runs of a spec may take; `None` where none is known, or not yet.
    pub(super) priors: HashMap<SpecId, Option<Prior>>,
    pub(super) histories: JoinSet<(SpecId, Result<Vec<Took>, StoreError>)>,
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
        let lister = Lister::new(&settings.policy);
        let recorder = Recorder::new(Arc::clone(&store), settings.routes.clone(), settings.save_every);
        Self {
            lister,
            confirmed: 0,
            answered_at: None,
            settings,
            source,
            store,
            slots: Slots::default(),
            limiter,
            outages: Outages::default(),
            throttle: Throttle::default(),
            recorder,
            updates,
            commands,
            polls: JoinSet::new(),
            polled: HashMap::new(),
            last_look: None,
            lists: JoinSet::new(),
            costs: Costs::default(),
            priors: HashMap::new(),
            histories: JoinSet::new(),
        }
    }

    /// Adds a run, to be polled as soon as the budget allows. A run that is watched already stays as it is.
    pub fn watch(&mut self, watched: Watched) {
        self.slots.add(watched, &self.settings.policy, Instant::now());
    }

    /// Takes note of what outages, should they go on, were told before this process began.
    pub fn outages_were_told(&mut self, told: OutagesTold) {
        self.outages.were_told(told);
    }

    /// Polls until cancelled, then lets what is being recorded finish, and gives the account of every run.
    pub async fn run(mut self, cancel: CancellationToken) -> Vec<FinalRun> {
        loop {
            self.start_due();
            self.save_if_due();
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                Some(done) = self.recorder.next() => self.written(done),
                Some(done) = self.polls.join_next_with_id() => self.answered(done),
                Some(listed) = self.lists.join_next() => self.listed(listed),
                Some(Ok((spec, took))) = self.histories.join_next() => self.learned(spec, &took.unwrap_or_default()),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        // A poll that is broken off has changed nothing; a commit under way may be durable already.
        self.polls.shutdown().await;
        self.lists.shutdown().await;
        while let Some(done) = self.recorder.next().await {
            self.written(done);
        }
        // Counts that are lost here are read again after the next start.
        self.recorder.save_now(Instant::now());
        self.save_if_due();
        while let Some(done) = self.recorder.next().await {
            self.written(done);
        }
        self.slots.into_final()
    }

    /// Sends the polls that are due, as far as the budget and the bound on polls in flight allow.
    fn start_due(&mut self) {
        let now = Instant::now();
        self.list_if_due(now);
        while self.polls.len() < self.room() {
            let Some(index) = self.slots.first_due(now, self.room_for_slow(), self.confirmed) else { return };
            if self.last_look.as_ref().is_some_and(|look| look.includes(index)) {
                self.limiter.spend(now);
            } else if self.limiter.take(now).is_err() {
                return;
            }
            self.poll(index);
        }
    }

    /// How many polls may be in flight. A key that is refused is tried with one at a time.
    fn room(&self) -> usize {
        let trying = self.outages.is_key_refused() && !self.settings.patience.refused_ends;
        if trying { 1 } else { self.settings.max_in_flight }
    }

    /// Whether one more request may be sent that is likely to hang: such runs share the requests in flight with the others, by
    /// their numbers.
    pub(super) fn room_for_slow(&self) -> bool {
        let is_slow = |index: &&u32| self.slots.get(**index).is_some_and(|slot| slot.slow);
        let under_way = self.polled.values().filter(is_slow).count();
        let (slow, active) = (self.slots.slow() + under_way, self.slots.active().max(1));
        let most = if slow < active { self.settings.max_in_flight.saturating_sub(1) } else { usize::MAX };
        under_way < (self.settings.max_in_flight * slow / active).min(most).max(1)
    }

    /// When something is to be done even if nothing happens; `None` if nothing is.
    fn wake_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let room = self.polls.len() < self.room();
        let due = self
            .slots
            .next_due(self.room_for_slow())
            .filter(|_| room)
            .map(|due| due.max(self.limiter.next_at(now)));
        let save = self.recorder.save_at();
        [due, self.list_at(now), save].into_iter().flatten().min()
    }

    pub(super) fn tell(&self, update: Update) {
        // Nobody looks on any more: the watch goes on all the same.
        let _ = self.updates.send(update);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::LastPoll(reply) => self.look_once_more(reply),
            Command::Add(runs) => runs.into_iter().for_each(|run| self.add(run)),
            Command::Remove(id, reply) => self.remove(&id, reply),
            Command::Snapshot(reply) => {
                let now = clock::now();
                let _ = reply.send(self.slots.iter().map(|(_, slot)| self.view(slot, now)).collect());
            }
            Command::Reconfigure(settings, source) => {
                self.limiter.set_rate(settings.requests_per_minute, Instant::now());
                self.settings = *settings;
                self.source = source;
                self.recorder.reconfigure(self.settings.routes.clone(), self.settings.save_every);
                // One that is under way was asked for other runs.
                self.look_anew();
            }
            Command::Resumed => self.catch_up(),
            Command::View(id, reply) => {
                let slot = self.slots.find(&id).and_then(|index| self.slots.get(index));
                let _ = reply.send(slot.map(|slot| self.view(slot, clock::now())));
            }
            Command::Standing(reply) => {
                let _ = reply.send(self.standing());
            }
            Command::Ping(reply) => {
                let _ = reply.send(());
            }
        }
    }

    fn standing(&self) -> Standing {
        let mut runs = BTreeMap::new();
        for (_, slot) in self.slots.iter().filter(|(_, slot)| slot.is_active()) {
            let status = slot.watched.state.status.as_ref().map_or("UNSEEN", RunStatus::as_str);
            // Not `entry`: that would make a string of every one of many runs.
            match runs.get_mut(status) {
                Some(count) => *count += 1,
                None => drop(runs.insert(status.to_owned(), 1)),
            }
        }
        Standing {
            runs,
            in_flight: self.polls.len() + self.lists.len(),
            budget_used: self.limiter.used(Instant::now()),
        }
    }

    fn add(&mut self, run: Watched) {
        let Some(index) = self.slots.find(&run.subject.id) else {
            self.watch(run);
            return self.tell(Update::WatchList);
        };
        if let Some(slot) = self.slots.get_mut(index) {
            let Watched { subject, notify, deadline, origin, .. } = run;
            slot.watched = Watched { subject, notify, deadline, origin, state: slot.watched.state.clone() };
        }
    }

    fn remove(&mut self, id: &RunId, reply: oneshot::Sender<()>) {
        let Some(index) = self.slots.find(id) else { return };
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.leaving.push(reply);
        self.leave_if_written(index);
    }

    /// Takes a run out that is to be, once nothing of it is being written any more.
    pub(super) fn leave_if_written(&mut self, index: u32) {
        let leaves = self.slots.get(index).is_some_and(|slot| !slot.leaving.is_empty());
        if leaves && !self.recorder.is_writing(index) {
            self.leave(index);
        }
    }

    /// Whether nothing is asked of the API any more, so that nobody would see an outage end.
    pub(super) fn nobody_polls(&self) -> bool {
        self.slots.active() == 0 && self.settings.discovery.is_none()
    }

    /// Takes a run out, and breaks off what is under way for it.
    pub(super) fn leave(&mut self, index: u32) {
        let Some(slot) = self.slots.remove(index) else { return };
        self.recorder.forget(index);
        self.throttle.answered(index);
        self.tell(Update::WatchList);
        let Slot { stage, leaving, .. } = slot;
        if let Stage::Polling { task } = stage {
            self.polled.remove(&task.id());
            task.abort();
        }
        for reply in leaving {
            let _ = reply.send(());
        }
        self.looked_at(index);
        if self.nobody_polls() {
            let now = clock::now();
            let notices = self.outages.nobody_polls(now);
            self.carry_out(notices, now);
        }
    }

    /// Makes every run due that the API has not asked to leave alone. Polls under way are broken off: whoever was to answer
    /// them is not there any more.
    fn catch_up(&mut self) {
        self.break_off_list();
        let recalled = self.slots.recall(Instant::now());
        for task in &recalled.tasks {
            self.polled.remove(task);
        }
    }

    fn save_if_due(&mut self) {
        let slots = &self.slots;
        let state = |index| slots.get(index).map(|slot| slot.watched.clone());
        self.recorder.save_if_due(Instant::now(), state);
    }
}
