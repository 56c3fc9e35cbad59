//! The polling loop: one queue of due runs, a bounded number of polls in flight, one request budget.
//!
//! Owns the order of steps for a poll: poll, judge, record, and only then believe. A transition that cannot be recorded
//! is not believed, and the run is polled again until it can be. Other parts decide (`lister`, `judge`, `account`,
//! `final_poll`) or do one job each (`requests`, `recorder`, `histories`). This file carries out what they decide. It
//! knows nothing about notifications.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::account::{Account, Fallout};
use super::command::Command;
use super::counters::SchedulerStats;
use super::final_poll::FinalPoll;
use super::histories::Histories;
use super::judge::{self, Verdict};
use super::lister::{Lister, Rules, Step, View};
use super::outage::{Notice, Outage, OutagesTold};
use super::places::{self, InFlight, Places};
use super::recorder::{Done, Draft, Recorder, Recording};
use super::requests::{Came, Polled, Requests};
use super::settings::Settings;
use super::slot::{Slot, Stage};
use super::slots::Slots;
use super::update::{FinalRun, RunView, Update, Updates};
use crate::api::{Answer, Listing, PollError, PollErrorKind, RunSource};
use crate::clock::{self, WallClock};
use crate::run::{Moment, RunChange, RunId, Transition};
use crate::store::{RunStore, Watched};

/// The asker's number for the list, which belongs to no run.
const LIST: u32 = u32::MAX;

/// Polls runs. Create it with [`Scheduler::new`], add runs with [`Scheduler::watch`], then call [`Scheduler::run`].
pub struct Scheduler {
    settings: Settings,
    slots: Slots,
    account: Account,
    requests: Requests,
    lister: Lister,
    recorder: Recorder,
    histories: Histories,
    final_poll: FinalPoll,
    places: Places,
    updates: Updates,
    commands: mpsc::Receiver<Command>,
    wall: WallClock,
    /// Number of polls in a row that confirmed what a list said.
    confirmed: u32,
    /// Whether the last poll was of a slow run.
    sent_slow: bool,
    /// When any run last got an answer.
    answered_at: Option<Instant>,
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
        let now = Instant::now();
        Self {
            slots: Slots::default(),
            account: Account::new(settings.requests_per_minute, now),
            requests: Requests::new(source),
            lister: Lister::new(Rules::of(&settings), now),
            recorder: Recorder::new(Arc::clone(&store), settings.routes.clone(), settings.save_every),
            histories: Histories::new(store),
            final_poll: FinalPoll::default(),
            places: Places::default(),
            updates,
            commands,
            wall: Arc::new(clock::wall),
            confirmed: 0,
            sent_slow: false,
            answered_at: None,
            settings,
        }
    }

    /// Reads the wall clock there instead.
    #[must_use]
    pub fn with_wall(mut self, wall: WallClock) -> Self {
        self.wall = wall;
        self
    }

    fn now(&self) -> Moment {
        Moment { mono: Instant::now(), wall: (self.wall)() }
    }

    /// Adds a run, to be polled as soon as the budget allows. Leaves a run that is watched already as it is.
    pub fn watch(&mut self, watched: Watched) {
        self.slots.add(watched, &self.settings.policy, Instant::now());
    }

    /// Takes the notifications of outages that were sent before this process started.
    pub fn outages_were_told(&mut self, told: OutagesTold) {
        self.account.outages.were_told(told);
    }

    /// Polls until cancelled, waits for the writes in progress, then returns the final state of every run.
    pub async fn run(mut self, cancel: CancellationToken) -> Vec<FinalRun> {
        loop {
            self.start_due();
            self.save_if_due();
            let wake = [self.wake_at(), self.mind_silence()].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                Some(done) = self.recorder.next() => self.written(done),
                Some(came) = self.requests.next() => match came {
                    Came::Poll(Some(index), polled) => self.polled(index, polled),
                    Came::List(Some(listed)) => self.listed(listed),
                    // It was cancelled.
                    Came::Poll(None, _) | Came::List(None) => {}
                },
                Some(()) = self.histories.next() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        // A cancelled poll has changed nothing, but a commit in progress may be durable already.
        self.requests.shutdown().await;
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

    /// Sends the requests that are due, within the budget and the limit on polls in flight.
    fn start_due(&mut self) {
        let now = Instant::now();
        let steps = self.lister.decide(now, &self.view_for_list(now));
        self.take_steps(steps, self.now());
        while self.requests.polls() < self.account.room(&self.settings) {
            let Some(index) = self.first_due(now) else { return };
            if self.final_poll.includes(index) {
                self.account.limiter.spend(now);
            } else if self.account.limiter.take(now).is_err() {
                return;
            }
            self.poll(index);
        }
        if let Some((at, run)) = self.place_to_free(now)
            && at <= now
        {
            self.give_up_place(run, now);
        }
    }

    /// The run to poll now, if one is due. If there is only one place, two slow runs do not get it in a row while another
    /// run is due.
    fn first_due(&self, now: Instant) -> Option<u32> {
        let first = |room_for_slow| self.slots.first_due(now, room_for_slow, self.confirmed);
        let room_for_slow = self.room_for_slow();
        let other = if self.sent_slow && self.settings.max_in_flight == 1 { first(false) } else { None };
        other.or_else(|| first(room_for_slow))
    }

    /// If no place is free: the poll to cancel for the next run that does not hang, and when.
    fn place_to_free(&self, now: Instant) -> Option<(Instant, u32)> {
        if self.requests.polled_runs().count() < self.account.room(&self.settings) {
            return None;
        }
        let unlimited = self.final_poll.is_under_way();
        let budget_at = if unlimited { now } else { self.account.limiter.next_at(now) };
        let needed_at = self.slots.next_due(false)?.max(budget_at);
        let polls = self.requests.polled_runs().filter_map(|run| {
            let slot = self.slots.get(run)?;
            Some(InFlight { run, sent_at: slot.sent_at, slow: slot.slow, answered_in: slot.answered_in })
        });
        self.places.give_up(polls).map(|(at, run)| (at.max(needed_at), run))
    }

    /// Cancels a poll that hangs. Its run is polled again as a slow one, after the runs that are due now. If it was slow
    /// already, the poll counts as failed.
    fn give_up_place(&mut self, run: u32, now: Instant) {
        let Some(slot) = self.slots.get_mut(run) else { return };
        let was_slow = std::mem::replace(&mut slot.slow, true);
        if let Stage::Polling { task } = &slot.stage {
            self.requests.abort(&task.clone());
        }
        if was_slow && !self.final_poll.includes(run) {
            return self.hung(run);
        }
        slot.log_next_poll("its request hangs, and another run is due", Duration::ZERO);
        self.slots.schedule(run, now);
    }

    /// A poll of a slow run was cancelled, because it hung and another run is due.
    fn hung(&mut self, run: u32) {
        let now = clock::now();
        let Some(slot) = self.slots.hold(run) else { return };
        let took = crate::span::human(now.mono.saturating_duration_since(slot.sent_at));
        let error = PollError::transient(format!("no answer within {took}, when another run was due"));
        self.settings.counters.count(Some(&error), now.wall);
        let verdict = judge::failed(slot, &error, self.answered_at, &self.settings, now);
        self.settle(run, verdict, now);
    }

    /// When to wake up if nothing happens before; `None` if nothing is due.
    fn wake_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let room = self.requests.polls() < self.account.room(&self.settings);
        let due = self.slots.next_due(self.room_for_slow()).filter(|_| room);
        let due = due.map(|due| due.max(self.account.limiter.next_at(now)));
        let place = self.place_to_free(now).map(|(at, _)| at);
        let list = self.lister.wake_at(now, &self.view_for_list(now));
        [due, place, list, self.recorder.save_at()].into_iter().flatten().min()
    }

    /// Reports what becomes due while the API accepts no requests. Returns when more is due.
    fn mind_silence(&mut self) -> Option<Instant> {
        let now = self.now();
        let silence = self.account.silence(&self.slots, &self.settings.alerts, now);
        self.carry_out(silence.notices, now);
        for index in silence.overdue {
            let Some(slot) = self.slots.get(index) else { continue };
            let Some(due) = slot.due() else { continue };
            let verdict = judge::held(slot, due, &self.settings, now);
            self.slots.hold(index);
            self.settle(index, verdict, now);
        }
        silence.wake_at
    }

    /// Whether one more request to a slow run may be sent. Slow runs get a share of the requests in flight in
    /// proportion to their number.
    fn room_for_slow(&self) -> bool {
        if self.slots.slow() == 0 {
            return true;
        }
        let is_slow = |index: &u32| self.slots.get(*index).is_some_and(|slot| slot.slow);
        let in_flight = self.requests.polled_runs().filter(is_slow).count();
        let (waiting, active) = (self.slots.slow(), self.slots.active());
        places::room_for_slow(self.settings.max_in_flight, in_flight, waiting, active)
    }

    fn save_if_due(&mut self) {
        let slots = &self.slots;
        let state = |index| slots.get(index).map(|slot| slot.watched.clone());
        self.recorder.save_if_due(Instant::now(), state);
    }

    fn tell(&self, update: Update) {
        // If nobody receives updates any more, the watch continues without them.
        let _ = self.updates.send(update);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::FinalPoll(reply) => self.poll_once_more(reply),
            Command::Add(runs) => runs.into_iter().for_each(|run| self.add(run)),
            Command::Remove(id, reply) => self.remove(&id, reply),
            Command::Snapshot(reply) => {
                let now = self.now();
                let _ = reply.send(self.slots.iter().map(|(_, slot)| self.view(slot, now)).collect());
            }
            Command::Reconfigure(settings, source) => self.reconfigure(*settings, source),
            Command::Resumed => {
                // The server that had the polls in flight may be gone.
                self.break_off_list();
                self.recall();
            }
            Command::View(id, reply) => {
                let slot = self.slots.find(&id).and_then(|index| self.slots.get(index));
                let _ = reply.send(slot.map(|slot| self.view(slot, self.now())));
            }
            Command::Stats(reply) => {
                let _ = reply.send(SchedulerStats {
                    runs: self.slots.by_status(),
                    in_flight: self.requests.len(),
                    budget_used: self.account.limiter.used(Instant::now()),
                });
            }
            Command::Ping(reply) => {
                let _ = reply.send(());
            }
        }
    }

    fn reconfigure(&mut self, settings: Settings, source: Arc<dyn RunSource>) {
        self.account.limiter.set_rate(settings.requests_per_minute, Instant::now());
        self.settings = settings;
        self.requests.reconfigure(source);
        self.recorder.reconfigure(self.settings.routes.clone(), self.settings.save_every);
        // A list in flight was fetched for other runs.
        self.break_off_list();
        self.lister.reconfigure(Rules::of(&self.settings));
        if self.settings.discovery.is_none() {
            let now = self.now();
            let over = self.account.outages.over(Outage::List);
            self.carry_out(over, now);
            self.end_outages_if_nobody_polls(now);
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
        self.slots.leave(index, reply);
        self.leave_if_written(index);
    }

    /// Removes a run that is marked for removal, once no write for it is in progress.
    fn leave_if_written(&mut self, index: u32) {
        if self.slots.leaves(index) && !self.recorder.is_writing(index) {
            self.leave(index);
        }
    }

    /// Removes a run and cancels its request.
    fn leave(&mut self, index: u32) {
        let Some((slot, leaving)) = self.slots.remove(index) else { return };
        self.recorder.forget(index);
        self.account.release(index);
        self.tell(Update::WatchList);
        if let Stage::Polling { task } = slot.stage {
            self.requests.abort(&task);
        }
        for reply in leaving {
            let _ = reply.send(());
        }
        self.count_final_poll(index);
        self.end_outages_if_nobody_polls(self.now());
    }

    /// Without any polls, nothing would notice the end of an outage.
    fn end_outages_if_nobody_polls(&mut self, now: Moment) {
        if self.slots.active() == 0 && self.settings.discovery.is_none() {
            let notices = self.account.outages.nobody_polls(now);
            self.carry_out(notices, now);
        }
    }

    /// Makes every run due, except those with a pause from the API, and cancels their polls. Returns these runs, and
    /// those with an older answer still being recorded.
    fn recall(&mut self) -> (Vec<u32>, Vec<u32>) {
        let recalled = self.slots.recall(Instant::now());
        for task in &recalled.tasks {
            self.requests.abort(task);
        }
        (recalled.due, recalled.recording)
    }

    /// Polls every run once more. Polls in flight do not count: they began too early, and may hang.
    fn poll_once_more(&mut self, reply: oneshot::Sender<()>) {
        self.break_off_list();
        let (due, recording) = self.recall();
        self.final_poll.begin(due, recording, reply);
        if self.account.limiter.is_held(Instant::now()) {
            self.final_poll.cut_short();
        }
        self.final_poll.answer_if_done();
    }

    /// Marks a run's final poll as done, or polls again if the recorded answer is older.
    fn count_final_poll(&mut self, index: u32) {
        let now = Instant::now();
        let may_ask = |slot: &Slot| slot.is_active() && slot.not_before.is_none_or(|at| at <= now);
        if self.final_poll.saw(index, self.slots.get(index).is_some_and(may_ask)) {
            self.slots.schedule(index, now);
        }
    }

    /// The lister's inputs.
    fn view_for_list(&self, now: Instant) -> View<'_> {
        View {
            slots: &self.slots,
            budget_at: self.account.limiter.next_at(now),
            key_refused: self.account.outages.is_key_refused(),
            final_poll: self.final_poll.is_under_way(),
            room_for_slow: self.room_for_slow(),
            confirmed: self.confirmed,
        }
    }

    /// Carries out the lister's steps.
    fn take_steps(&mut self, steps: Vec<Step>, now: Moment) {
        for step in steps {
            match step {
                Step::StopWaiting => self.stop_waiting_for_list(now.mono),
                Step::Hold { until } => {
                    self.slots.hold_for_list(now.mono, until, self.settings.policy.healthy.max);
                }
                Step::Fetch { why, gather } => self.fetch_list(why, gather, now.mono),
                Step::Found(found) => self.tell(Update::Found(found)),
                Step::Unlisted { run, until } => {
                    if let Some(slot) = self.slots.get_mut(run) {
                        slot.unlisted_until = until;
                    }
                }
                Step::Observe { run, said } => {
                    self.slots.hold(run);
                    self.observed(run, Answer { run: *said, body: bytes::Bytes::new() }, now);
                }
                Step::Confirm { run, confirm } => self.slots.confirm(run, confirm, now.mono),
            }
        }
    }

    fn fetch_list(&mut self, why: &str, gather: Option<Instant>, now: Instant) {
        let due_within = gather.map(|soon| crate::span::human(soon.saturating_duration_since(now)));
        tracing::debug!(why, due_within, "fetching the list of runs");
        self.account.limiter.spend(now);
        if let Some(soon) = gather {
            self.slots.gather_for_list(soon);
        }
        self.slots.forget_answers();
        self.lister.began(now);
        self.requests.list(self.slots.ids(), self.settings.discovery.clone());
    }

    fn stop_waiting_for_list(&mut self, now: Instant) {
        self.lister.stop_waiting();
        self.slots.recall_listing(now);
    }

    fn break_off_list(&mut self) {
        self.requests.abort_list();
        self.lister.broken_off();
        self.slots.recall_listing(Instant::now());
    }

    fn listed(&mut self, listed: Result<Listing, PollError>) {
        self.lister.ended();
        let now = self.now();
        self.settings.counters.count(listed.as_ref().err(), now.wall);
        match listed {
            Ok(listing) => self.read_list(listing, now),
            Err(error) => self.no_list(&error, now),
        }
    }

    fn read_list(&mut self, listing: Listing, now: Moment) {
        if self.slots.active() == 0 {
            // If runs are watched, their polls decide whether the API can be used, because no list ends a watch.
            let notices = self.account.outages.answered(now);
            self.carry_out(notices, now);
        }
        self.account.release(LIST);
        self.lister.came(listing.bytes, now.mono);
        let over = self.account.outages.over(Outage::List);
        self.carry_out(over, now);
        if self.final_poll.is_under_way() {
            // It came too early to use.
            return self.break_off_list();
        }
        self.lister.used(listing.bytes, now.mono);
        let steps = self.lister.read(listing, now.mono, &self.view_for_list(now.mono));
        self.take_steps(steps, now);
    }

    fn no_list(&mut self, error: &PollError, now: Moment) {
        let alone = self.slots.active() == 0;
        let failure = self.lister.failed(error, alone, now.mono);
        if alone && !(failure.others_answer && error.kind == PollErrorKind::Transient) {
            // Without polls, only the list shows that the API cannot be used.
            self.api_failed(LIST, error, failure.hold, now);
        } else if error.kind != PollErrorKind::Throttled {
            self.account.release(LIST);
        } else if self.account.throttled(LIST, now.mono + failure.hold, now.mono) {
            self.final_poll.cut_short();
        }
        if self.settings.discovery.is_some() {
            if failure.is_trouble {
                self.tell(Update::DiscoveryFailed(error.message.clone()));
            }
            // A failing list hides new runs even if polls work. An outage of the whole API is reported as such.
            if let Some(since) = self.lister.failing_since(self.account.outages.is_api_out(), now) {
                let alerts = self.settings.alerts;
                let lasts = self.account.outages.lasts(Outage::List, "list_failed", since, &alerts, now);
                self.carry_out(lasts, now);
            }
        }
        self.stop_waiting_for_list(now.mono);
    }

    /// Polls a run.
    fn poll(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.polls = slot.polls.saturating_add(1);
        slot.sent_at = Instant::now();
        self.sent_slow = slot.slow;
        self.confirmed = if slot.confirm.goes_first() { self.confirmed.saturating_add(1) } else { 0 };
        self.lister.polled();
        let task = self.requests.poll(index, slot.watched.subject.id.clone());
        self.slots.sent(index, task);
    }

    /// A poll ended.
    fn polled(&mut self, index: u32, polled: Polled) {
        let now = self.now();
        self.settings.counters.count_poll(&polled, now.wall);
        let Some(slot) = self.slots.hold(index) else { return };
        slot.answered_meanwhile = self.lister.is_under_way();
        match polled {
            Ok(answer) => {
                self.places.answered(now.mono.saturating_duration_since(slot.sent_at));
                judge::polled(slot, now);
                self.account.release(index);
                self.answered_at = Some(now.mono);
                self.lister.run_answered(answer.body.len());
                self.observed(index, answer, now);
            }
            Err(error) => {
                let verdict = judge::failed(slot, &error, self.answered_at, &self.settings, now);
                self.api_failed(index, &error, verdict.pause, now);
                self.settle(index, verdict, now);
            }
        }
    }

    /// The API answered with a run, to a poll or in the list.
    fn observed(&mut self, index: u32, answer: Answer, now: Moment) {
        let notices = self.account.outages.answered(now);
        self.carry_out(notices, now);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let histories = &self.histories;
        let verdict =
            judge::answered(slot, answer, |state| histories.of(state).copied(), &self.settings, now);
        if self.settings.policy.price.is_some() {
            self.histories.learn(&verdict.transition.state);
        }
        self.settle(index, verdict, now);
    }

    /// Updates the state of the API and the key after an error from any asker. `pause` is how long that asker waits.
    fn api_failed(&mut self, asker: u32, error: &PollError, pause: Duration, now: Moment) {
        let active = self.slots.active();
        let Fallout { notices, holds_all } =
            self.account.failed(asker, active, error, pause, &self.settings, now);
        self.carry_out(notices, now);
        if holds_all {
            self.final_poll.cut_short();
        }
    }

    /// Carries out notices about outages.
    fn carry_out(&mut self, notices: impl IntoIterator<Item = Notice>, now: Moment) {
        for notice in notices {
            match notice.draft(&self.settings.source, now) {
                Ok((draft, recording)) => self.recorder.commit(draft, recording),
                Err(update) => self.tell(update),
            }
        }
    }

    /// Records a transition and its events in one transaction. A transition that no restart needs is not recorded but
    /// believed at once.
    fn settle(&mut self, index: u32, verdict: Verdict, now: Moment) {
        let Some(slot) = self.slots.get(index) else { return };
        let subject = &slot.watched.subject;
        let events = verdict.events(&self.settings.source, subject, now);
        let Verdict { transition, pause, show, doubt, .. } = verdict;
        if let Some((kind, message)) = doubt {
            self.tell(Update::Doubt { subject: subject.clone(), kind, message });
        }
        if transition.change >= RunChange::Status || !events.is_empty() {
            judge::log_warnings(&events, subject);
            let run = Watched { state: transition.state.clone(), ..slot.watched.clone() };
            let draft = Draft { run: Some(run), events, moment: None };
            let transition = Box::new(transition);
            self.recorder.commit(draft, Recording::Run { index, transition, pause });
        } else {
            if transition.change == RunChange::Progress {
                self.recorder.save_soon(index);
            }
            self.believe(index, &transition, pause, show);
        }
    }

    fn written(&mut self, done: Done) {
        let result = match &done {
            Done::Commit(_, written) | Done::Save(written) => written.as_ref().err(),
        };
        if let Some(turn) = self.recorder.turn(result) {
            self.tell(turn);
        }
        match done {
            Done::Commit(Recording::Outage(outage, told_at), written) => {
                self.account.outages.recorded(outage, told_at, written.is_ok());
                self.end_outages_if_nobody_polls(self.now());
            }
            Done::Commit(Recording::Run { index, transition, pause }, Ok(())) => {
                self.believe(index, &transition, pause, true);
            }
            Done::Commit(Recording::Run { index, .. }, Err(_)) => self.not_recorded(index),
            Done::Save(_) => {
                for index in self.slots.leaving() {
                    self.leave_if_written(index);
                }
            }
        }
    }

    /// The write failed, so the observation does not count: the next poll makes it again, when the API allows.
    fn not_recorded(&mut self, index: u32) {
        if self.slots.leaves(index) {
            return self.leave_if_written(index);
        }
        let Some(slot) = self.slots.get_mut(index) else { return };
        let now = Instant::now();
        let at = now + slot.pace.after_error(&self.settings.policy, None);
        slot.quiet_until = Some(at);
        let at = slot.not_before.map_or(at, |not_before| at.max(not_before));
        slot.log_next_poll("it was not recorded", at.saturating_duration_since(now));
        self.slots.schedule(index, at);
        self.count_final_poll(index);
    }

    /// Accepts a transition, shows it, and schedules the next poll if the run is active.
    fn believe(&mut self, index: u32, transition: &Transition, pause: Duration, show: bool) {
        let (now, state) = (self.now(), &transition.state);
        let next =
            self.slots.get(index).map(|slot| judge::next_poll(slot, state, pause, &self.settings, now));
        self.histories.ended(state);
        self.slots.set_state(index, state.clone());
        let active = state.ended.is_none();
        if let Some((due, why)) = next.filter(|_| active) {
            self.slots.schedule(index, due);
            if let Some(slot) = self.slots.get(index) {
                slot.log_next_poll(why, due.saturating_duration_since(now.mono));
            }
        }
        if (show || transition.change > RunChange::None)
            && let Some(slot) = self.slots.get(index)
        {
            self.tell(Update::Run(Box::new(self.view(slot, now)), transition.change));
        }
        self.count_final_poll(index);
        if !active && !self.settings.keep_ended {
            self.leave(index);
        } else {
            self.leave_if_written(index);
        }
    }

    /// The current view of a run.
    fn view(&self, slot: &Slot, now: Moment) -> RunView {
        slot.view(self.histories.of(&slot.watched.state), now)
    }
}
