//! One run's way through a poll: ask, [`observe`], record, and only then believe.
//!
//! Owns the order of these steps. What cannot be recorded is not believed: the run is polled again until it can be.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::scheduler::Scheduler;
use super::slots::Watched;
use super::update::{Trouble, Update};
use crate::api::{Answer, PollError, PollErrorKind};
use crate::clock;
use crate::run::{Change, Details, DoubtKind, Event, Moment, Observation, RunState, Transition, observe};
use crate::store::{Commit, StoreError, StoredRun};

pub(super) type Polled = Result<Answer, PollError>;
pub(super) type Committed = Result<(), StoreError>;

/// An observation that is being recorded.
pub(super) struct Recording {
    index: u32,
    transition: Transition,
    /// The pause before the next poll, should the run go on.
    pause: Duration,
}

impl Scheduler {
    /// Sends the poll of a run.
    pub(super) fn poll(&mut self, index: u32) {
        self.slots.unschedule(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.polls = slot.polls.saturating_add(1);
        let (source, id) = (Arc::clone(&self.source), slot.watched.subject.id.clone());
        let task = self.polls.spawn(async move {
            let polled = source.poll(&id).await;
            if let Err(PollError {
                kind: PollErrorKind::Doubt(DoubtKind::KeyRefused),
                message,
                retry_after,
            }) = polled
            {
                // The key may have been rotated: the next poll goes out with what is there now.
                let reloaded = source.reload_key().await;
                let message = reloaded.err().map_or(message.clone(), |error| format!("{message}; {error}"));
                return Err(PollError {
                    kind: PollErrorKind::Doubt(DoubtKind::KeyRefused),
                    message,
                    retry_after,
                });
            }
            polled
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
        }
        let now = clock::now();
        match polled {
            Ok(answer) => self.observed(index, answer, now),
            Err(error) => self.failed(index, &error, now),
        }
    }

    /// The API answered with a run.
    fn observed(&mut self, index: u32, answer: Answer, now: Moment) {
        self.api_answered(now);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let was_in_trouble = slot.trouble.take().is_some();
        slot.not_before = None;
        if self.settings.keep_bodies {
            slot.body = Some(answer.body);
        }
        let details = answer.run.details.clone();
        let status = answer.run.status.clone();
        let before = &slot.watched.state;
        let transition = observe(before, &Observation::Answer(answer.run), now, &self.settings.patience);
        slot.speed.observe(&transition.state, now);
        let moved = transition.change >= Change::Status;
        let pause = slot.pace.after_answer(&self.settings.policy, moved);
        if transition.new_doubt.is_some() {
            self.tell_doubt(index, &transition, format!("the API gave the status {status}"));
        }
        if moved {
            self.record(index, transition, pause, details.as_deref(), now);
        } else {
            self.believe(index, &transition, pause, was_in_trouble);
        }
    }

    /// A poll brought no run.
    fn failed(&mut self, index: u32, error: &PollError, now: Moment) {
        match error.kind {
            PollErrorKind::Transient => {
                if let Some(down) = self.health.failed(index, self.slots.active(), now) {
                    self.tell(Update::ApiDown(down, error.message.clone()));
                }
            }
            PollErrorKind::Throttled | PollErrorKind::Doubt(_) => self.api_answered(now),
        }
        let Some(slot) = self.slots.get_mut(index) else { return };
        let times = slot.trouble.as_ref().map_or(0, |trouble| trouble.times).saturating_add(1);
        slot.trouble = Some(Trouble { message: error.message.as_str().into(), times });
        slot.not_before = error.retry_after.map(|wait| now.mono + wait);
        let pause = slot.pace.after_error(&self.settings.policy, error.retry_after);
        let before = slot.watched.state.clone();
        if error.kind == PollErrorKind::Throttled {
            // The limit is the key's, not the run's: nothing more is asked about any run.
            self.limiter.hold(now.mono + pause);
            self.end_look();
        }
        let PollErrorKind::Doubt(kind) = error.kind else {
            let state = before;
            let unchanged = Transition { state, change: Change::None, new_doubt: None };
            return self.believe(index, &unchanged, pause, true);
        };
        let transition = observe(&before, &Observation::Doubt(kind), now, &self.settings.patience);
        if transition.new_doubt.is_some() && transition.state.ended.is_none() {
            self.tell_doubt(index, &transition, error.message.clone());
        }
        if transition.change >= Change::Status {
            self.record(index, transition, pause, None, now);
        } else {
            self.believe(index, &transition, pause, true);
        }
    }

    /// Writes a transition and what is to be told of it, in one transaction.
    fn record(
        &mut self,
        index: u32,
        transition: Transition,
        pause: Duration,
        details: Option<&Details>,
        now: Moment,
    ) {
        let Some(slot) = self.slots.get(index) else { return };
        let Watched { subject, notify, .. } = &slot.watched;
        let state = &transition.state;
        let ending = state
            .ended
            .map(|ending| Event::of_ending(&self.settings.source, subject, ending, state, details, now.wall));
        let told = |event: Event| {
            let channels = self.settings.routes.of(event.payload.kind, notify.as_deref());
            (event, channels)
        };
        let commit = Commit {
            run: StoredRun { subject: subject.clone(), state: state.clone() },
            events: ending.into_iter().map(told).collect(),
        };
        let store = Arc::clone(&self.store);
        let task = self.commits.spawn(async move { store.commit(commit).await });
        self.recording.insert(task.id(), Recording { index, transition, pause });
    }

    pub(super) fn committed(&mut self, done: Result<(Id, Committed), JoinError>) {
        let (task, committed) = match done {
            Ok((task, committed)) => (task, committed.map_err(|error| error.message)),
            Err(error) => (error.id(), Err(format!("the commit panicked: {error}"))),
        };
        let Some(Recording { index, transition, pause }) = self.recording.remove(&task) else { return };
        match committed {
            Ok(()) => {
                if std::mem::take(&mut self.store_failed) {
                    self.tell(Update::StoreWell);
                }
                self.believe(index, &transition, pause, true);
            }
            Err(message) => {
                if !std::mem::replace(&mut self.store_failed, true) {
                    self.tell(Update::StoreFailed(message));
                }
                // As if it had not been seen: the next poll sees it again.
                let Some(slot) = self.slots.get_mut(index) else { return };
                let pause = slot.pace.after_error(&self.settings.policy, None);
                self.slots.schedule(index, Instant::now() + pause);
                self.looked_at(index);
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
        let due = next.min(doubt_ends.unwrap_or(next)).max(not_before.unwrap_or(now.mono));
        let active = state.ended.is_none();
        self.slots.set_state(index, state.clone());
        if active {
            self.slots.schedule(index, due);
        }
        if (show || transition.change > Change::None)
            && let Some(slot) = self.slots.get(index)
        {
            self.tell(Update::Run(Box::new(slot.view(now)), transition.change));
        }
        self.looked_at(index);
    }

    fn api_answered(&mut self, now: Moment) {
        if let Some(up) = self.health.answered(now) {
            self.tell(Update::ApiUp(up));
        }
    }

    fn tell_doubt(&self, index: u32, transition: &Transition, message: String) {
        if let (Some(slot), Some(kind)) = (self.slots.get(index), transition.new_doubt) {
            self.tell(Update::Doubt { subject: slot.watched.subject.clone(), kind, message });
        }
    }
}
