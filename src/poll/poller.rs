//! One run's way through a poll: ask, [`observe`], record, and only then believe.
//!
//! Owns the order of these steps. What cannot be recorded is not believed: the run is polled again until it can be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::alerts::Warning;
use super::outage::Outage;
use super::prior::Prior;
use super::scheduler::Scheduler;
use super::slots::Slot;
use super::update::{RunView, Trouble, Update};
use crate::api::{Answer, PollError, PollErrorKind, RunSource};
use crate::clock;
use crate::run::{
    Change, Details, DoubtKind, Ending, Event, Moment, Observation, RunState, SpecId, Terminal, Transition,
    observe,
};
use crate::store::{ChannelName, Commit, StoreError, Took, Watched};

pub(super) type Polled = Result<Answer, PollError>;
pub(super) type Committed = Result<(), StoreError>;

/// Something that is being recorded.
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

/// What a poll brought beside the transition.
struct News<'a> {
    /// For the event, should the run have ended.
    details: Option<&'a Details>,
    /// What is to be warned of.
    warnings: Vec<Warning>,
    /// Whether whoever looks on is to see the run although nothing changed.
    show: bool,
}

impl News<'_> {
    /// No answer, but something to see.
    fn trouble() -> Self {
        News { details: None, warnings: Vec::new(), show: true }
    }
}

impl Scheduler {
    /// Sends the poll of a run.
    pub(super) fn poll(&mut self, index: u32) {
        self.slots.unschedule(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.polls = slot.polls.saturating_add(1);
        slot.confirm = false;
        self.lister.runs_turn = false;
        let (source, id) = (Arc::clone(&self.source), slot.watched.subject.id.clone());
        let task = self.polls.spawn(async move {
            let polled = source.poll(&id).await;
            with_fresh_key(&*source, polled).await
        });
        self.polled.insert(task.id(), index);
        slot.polling = Some(task);
    }

    pub(super) fn answered(&mut self, done: Result<(Id, Polled), JoinError>) {
        let (task, polled) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(PollError::transient(format!("the poll panicked: {error}")))),
        };
        // A poll that was broken off for a later one is not in the list any more.
        let Some(index) = self.polled.remove(&task) else { return };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.polling = None;
            slot.answered_meanwhile = self.lister.under_way;
        }
        let now = clock::now();
        self.settings.counters.count_poll(&polled, now.wall);
        match polled {
            Ok(answer) => {
                self.lister.others_answer |= self.lister.is_failing();
                self.observed(index, answer, now);
            }
            Err(error) => self.failed(index, &error, now),
        }
    }

    /// The API answered with a run.
    pub(super) fn observed(&mut self, index: u32, answer: Answer, now: Moment) {
        self.api_answered(now);
        self.api_is_of_use();
        let Some(slot) = self.slots.get_mut(index) else { return };
        let was_in_trouble = slot.trouble.take().is_some();
        slot.not_before = None;
        if !answer.body.is_empty() {
            self.costs.saw_run(answer.body.len());
        }
        if self.settings.keep_bodies && !answer.body.is_empty() {
            slot.body = Some(answer.body);
        }
        let details = answer.run.details.clone();
        let status = answer.run.status.clone();
        let before = &slot.watched.state;
        let transition = observe(before, &Observation::Answer(answer.run), now, &self.settings.patience);
        slot.outlook.observe(&transition.state, now);
        let prior = prior(&self.priors, &transition.state);
        let remaining = slot.outlook.remaining(&transition.state, prior, now);
        let moved = transition.change >= Change::Status;
        let pause = slot.pace.after_answer(&self.settings.policy, moved, remaining);
        self.learn(&transition.state);
        if transition.new_doubt.is_some() {
            self.tell_doubt(index, &transition, format!("the API gave the status {status}"));
        }
        // Only an answer shows that a run has not got on: it may have ended while nobody could be asked.
        let mut transition = transition;
        let warnings = match self.slots.get(index) {
            Some(slot) => self.settings.alerts.of_run(slot.watched.deadline, &mut transition.state, now.wall),
            None => Vec::new(),
        };
        let news = News { details: details.as_deref(), warnings, show: was_in_trouble };
        self.settle(index, transition, pause, &news, now);
    }

    /// What an error says of the API and of the key, whoever asked.
    pub(super) fn api_failed(&mut self, asker: u32, error: &PollError, pause: Duration, now: Moment) {
        match error.kind {
            PollErrorKind::Transient => {
                if let Some(down) = self.health.failed(asker, self.slots.active(), now) {
                    self.tell(Update::ApiDown(down, error.message.clone()));
                }
                if let Some(since) = self.health.down_since() {
                    self.tell_outage(Outage::Api, "no_answer", since, now);
                }
            }
            PollErrorKind::Doubt(DoubtKind::KeyRefused) => {
                self.api_answered(now);
                let since = *self.refused_since.get_or_insert(now);
                self.tell_outage(Outage::Api, "key_refused", since, now);
                if !self.settings.patience.refused_ends {
                    // The key is every run's: ever more seldom, and one at a time.
                    let refused = now.mono - since.mono;
                    self.limiter.hold(now.mono + pause.max(refused.min(self.settings.policy.error.max)));
                }
            }
            PollErrorKind::Throttled => {
                self.api_answered(now);
                // The limit is the key's, not the run's: nothing more is asked about any run.
                self.limiter.hold(now.mono + pause);
                self.end_look();
            }
            PollErrorKind::Doubt(_) => {
                self.api_answered(now);
                self.api_is_of_use();
            }
        }
    }

    /// A poll brought no run.
    fn failed(&mut self, index: u32, error: &PollError, now: Moment) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let times = slot.trouble.as_ref().map_or(0, |trouble| trouble.times).saturating_add(1);
        slot.trouble = Some(Trouble { message: error.message.as_str().into(), times });
        slot.not_before = error.retry_after.map(|wait| now.mono + wait);
        let pause = slot.pace.after_error(&self.settings.policy, error.retry_after);
        let before = slot.watched.state.clone();
        self.api_failed(index, error, pause, now);
        let PollErrorKind::Doubt(kind) = error.kind else {
            let state = before;
            let unchanged = Transition { state, change: Change::None, new_doubt: None };
            return self.settle(index, unchanged, pause, &News::trouble(), now);
        };
        let transition =
            observe(&before, &Observation::Doubt(kind, error.said_by()), now, &self.settings.patience);
        if transition.new_doubt.is_some() && transition.state.ended.is_none() {
            self.tell_doubt(index, &transition, error.message.clone());
        }
        self.settle(index, transition, pause, &News::trouble(), now);
    }

    /// Records a transition, with what is to be told of it, where anybody will want to know of it after a restart; and
    /// believes it at once where not.
    fn settle(&mut self, index: u32, transition: Transition, pause: Duration, news: &News<'_>, now: Moment) {
        let Some(slot) = self.slots.get(index) else { return };
        let subject = &slot.watched.subject;
        let source = &self.settings.source;
        let state = &transition.state;
        let ending = state
            .ended
            .filter(|_| transition.change == Change::Ended)
            .map(|ending| Event::of_ending(source, subject, ending, state, news.details, now.wall));
        let warnings = news
            .warnings
            .iter()
            .map(|warning| Event::of_warning(source, subject, warning.kind, state, warning.since, now.wall));
        let events: Vec<Event> = ending.into_iter().chain(warnings).collect();
        if transition.change >= Change::Status || !events.is_empty() {
            self.record(index, transition, pause, events);
        } else {
            if transition.change == Change::Progress {
                self.save_soon(index);
            }
            self.believe(index, &transition, pause, news.show);
        }
    }

    /// Writes a transition and what is to be told of it, in one transaction.
    fn record(&mut self, index: u32, transition: Transition, pause: Duration, events: Vec<Event>) {
        let Some(slot) = self.slots.get(index) else { return };
        let run = Watched { state: transition.state.clone(), ..slot.watched.clone() };
        let events = self.routed(events, run.notify.as_deref());
        let commit = Commit { run: Some(run), events, moment: None };
        self.commit(commit, Recording::Run { index, transition: Box::new(transition), pause });
    }

    /// Every event with the channels that tell it, of those in `chosen`.
    pub(super) fn routed(
        &self,
        events: Vec<Event>,
        chosen: Option<&[ChannelName]>,
    ) -> Vec<(Event, Vec<ChannelName>)> {
        let route = |event: Event| {
            let channels = self.settings.routes.borrow().of(event.payload.kind, chosen);
            (event, channels)
        };
        events.into_iter().map(route).collect()
    }

    pub(super) fn commit(&mut self, commit: Commit, recording: Recording) {
        let store = Arc::clone(&self.store);
        let task = self.commits.spawn(async move { store.commit(commit).await });
        self.recording.insert(task.id(), recording);
    }

    pub(super) fn committed(&mut self, done: Result<(Id, Committed), JoinError>) {
        let (task, committed) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(StoreError::internal(format!("the commit panicked: {error}")))),
        };
        let Some(recording) = self.recording.remove(&task) else { return };
        self.store_answered(committed.as_ref().err());
        match (recording, committed) {
            (Recording::Outage(outage, told_at), Ok(())) => self.outages_told.set(outage, told_at),
            // Told with the next failure; forgotten with the next answer.
            (Recording::Outage(..), Err(_)) => {}
            (Recording::Run { index, transition, pause }, Ok(())) => {
                self.believe(index, &transition, pause, true);
            }
            (Recording::Run { index, .. }, Err(_)) => {
                // As if it had not been seen: the next poll sees it again.
                let Some(slot) = self.slots.get_mut(index) else { return };
                if !slot.leaving.is_empty() {
                    return self.leave(index);
                }
                let pause = slot.pace.after_error(&self.settings.policy, None);
                self.slots.schedule(index, Instant::now() + pause);
                self.looked_at(index);
            }
        }
    }

    /// Tells once when the store fails, and once when it works again.
    pub(super) fn store_answered(&mut self, error: Option<&StoreError>) {
        match error {
            None => {
                if std::mem::take(&mut self.store_failed) {
                    self.tell(Update::StoreWell);
                }
            }
            Some(error) => {
                if !std::mem::replace(&mut self.store_failed, true) {
                    self.tell(Update::StoreFailed(error.clone()));
                }
            }
        }
    }

    /// Takes a transition for true, shows it, and puts the run back in the queue if it goes on.
    fn believe(&mut self, index: u32, transition: &Transition, pause: Duration, show: bool) {
        let now = clock::now();
        let state: &RunState = &transition.state;
        let next = now.mono + pause;
        // A doubt that would become an end by time is looked into on time, unless the API asked for more.
        let not_before = self.slots.get(index).and_then(|slot| slot.not_before);
        let doubt_ends = state.doubt_ends_at(&self.settings.patience).filter(|at| *at > now.mono);
        // So is a deadline.
        let overdue = self.slots.get(index).filter(|_| state.overdue_told_at.is_none()).and_then(|slot| {
            let at = self.settings.alerts.overdue_at(slot.watched.deadline, state)?;
            let wait = at.duration_since(now.wall);
            now.mono.checked_add(Duration::try_from(wait).ok()?)
        });
        let due = [Some(next), doubt_ends, overdue].into_iter().flatten().min().unwrap_or(next);
        let due = due.max(not_before.unwrap_or(now.mono));
        let active = state.ended.is_none();
        if let (Some(Ending::Finished(Terminal::Succeeded)), Some(spec)) = (state.ended, state.spec_id) {
            // There is one more to learn from.
            self.priors.remove(&spec);
        }
        self.slots.set_state(index, state.clone());
        if active {
            self.slots.schedule(index, due);
        }
        if (show || transition.change > Change::None)
            && let Some(slot) = self.slots.get(index)
        {
            self.tell(Update::Run(Box::new(self.view(slot, now)), transition.change));
        }
        self.looked_at(index);
        let leaves = self.slots.get(index).is_some_and(|slot| !slot.leaving.is_empty());
        if leaves || (!active && !self.settings.keep_ended) {
            self.leave(index);
        }
    }

    /// Looks up what earlier runs of its spec took, once.
    fn learn(&mut self, state: &RunState) {
        let Some(spec) = state.spec_id.filter(|_| state.ended.is_none()) else { return };
        if self.settings.policy.price.is_none() || self.priors.contains_key(&spec) {
            return;
        }
        self.priors.insert(spec, None);
        let store = Arc::clone(&self.store);
        self.histories.spawn(async move { (spec, store.took(spec).await) });
    }

    pub(super) fn learned(&mut self, spec: SpecId, took: &[Took]) {
        self.priors.insert(spec, Prior::from(took));
    }

    /// A run as it looks now.
    pub(super) fn view(&self, slot: &Slot, now: Moment) -> RunView {
        slot.view(prior(&self.priors, &slot.watched.state), now)
    }

    fn tell_doubt(&self, index: u32, transition: &Transition, message: String) {
        if let (Some(slot), Some(kind)) = (self.slots.get(index), transition.new_doubt) {
            self.tell(Update::Doubt { subject: slot.watched.subject.clone(), kind, message });
        }
    }
}

/// What is known of how long runs of its spec take.
fn prior<'p>(priors: &'p HashMap<SpecId, Option<Prior>>, state: &RunState) -> Option<&'p Prior> {
    priors.get(&state.spec_id?)?.as_ref()
}

/// Reads the key again where it was refused: it may have been rotated, and the next request goes out with what is there now.
pub(super) async fn with_fresh_key<T>(
    source: &dyn RunSource,
    asked: Result<T, PollError>,
) -> Result<T, PollError> {
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
