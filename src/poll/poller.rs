//! One run's way through a poll: ask, [`observe`], record, and only then believe.
//!
//! Owns the order of these steps. What cannot be recorded is not believed: the run is polled again until it can be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::alerts::{Alerts, Warning};
use super::outage::{Notice, Outage};
use super::prior::Prior;
use super::recorder::{Done, Draft, Recording};
use super::scheduler::Scheduler;
use super::slot::Slot;
use super::update::{RunView, Trouble, Update};
use crate::api::{Answer, PollError, PollErrorKind, RunSource};
use crate::clock;
use crate::run::{
    Change, Details, DoubtKind, Ending, Event, EventKind, Moment, Observation, RunState, SpecId, Subject,
    Terminal, Transition, observe,
};
use crate::store::{Took, Watched};

pub(super) type Polled = Result<Answer, PollError>;
/// An answer that took this long was long in coming; an error that did has held a place for long.
const HANGS: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_secs(1);

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
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.polls = slot.polls.saturating_add(1);
        slot.sent_at = Instant::now();
        self.confirmed = if slot.confirm { self.confirmed.saturating_add(1) } else { 0 };
        self.lister.runs_turn = false;
        let (source, id) = (Arc::clone(&self.source), slot.watched.subject.id.clone());
        let task = self.polls.spawn(async move {
            let polled = source.poll(&id).await;
            with_fresh_key(&*source, polled).await
        });
        self.polled.insert(task.id(), index);
        self.slots.sent(index, task);
    }

    pub(super) fn answered(&mut self, done: Result<(Id, Polled), JoinError>) {
        let (task, polled) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(PollError::transient(format!("the poll panicked: {error}")))),
        };
        // A poll that was broken off for a later one is not in the list any more.
        let Some(index) = self.polled.remove(&task) else { return };
        if let Some(slot) = self.slots.hold(index) {
            slot.answered_meanwhile = self.lister.under_way;
        }
        let now = clock::now();
        self.settings.counters.count_poll(&polled, now.wall);
        match polled {
            Ok(answer) => {
                self.throttle.answered(index);
                self.answered_at = Some(now.mono);
                if let Some(slot) = self.slots.get_mut(index) {
                    slot.confirm = false;
                    slot.slow = now.mono.saturating_duration_since(slot.sent_at) >= HANGS;
                }
                self.lister.others_answer |= self.lister.is_failing();
                self.observed(index, answer, now);
            }
            Err(error) => self.failed(index, &error, now),
        }
    }

    /// The API answered with a run.
    pub(super) fn observed(&mut self, index: u32, answer: Answer, now: Moment) {
        let notices = self.outages.answered(now);
        self.carry_out(notices, now);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let was_in_trouble = slot.trouble.take().is_some();
        slot.not_before = None;
        slot.seen_at = now.mono;
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

    /// What an error says of the API and of the key, whoever asked; `pause` is how long the asker waits.
    pub(super) fn api_failed(&mut self, asker: u32, error: &PollError, pause: Duration, now: Moment) {
        let active = self.slots.active();
        let notices = self.outages.failed(asker, active, error, &self.settings.alerts, now);
        self.carry_out(notices, now);
        match error.kind {
            PollErrorKind::Doubt(DoubtKind::KeyRefused) if !self.settings.patience.refused_ends => {
                if let Some(since) = self.outages.refused_since() {
                    // The key is every run's: ever more seldom, and one at a time.
                    let refused = now.mono - since.mono;
                    self.limiter.hold(now.mono + pause.max(refused.min(self.settings.policy.error.max)));
                }
            }
            PollErrorKind::Throttled => self.throttled(asker, now.mono + pause, now.mono),
            _ => self.throttle.answered(asker),
        }
    }

    /// A request was refused for being one too many: the asker waits, and all do if it is not alone with that.
    pub(super) fn throttled(&mut self, asker: u32, until: Instant, now: Instant) {
        if let Some(until) = self.throttle.refused(asker, until, now) {
            self.limiter.hold(until);
            self.end_look();
        }
    }

    /// Does what is to be done about outages.
    pub(super) fn carry_out(&mut self, notices: impl IntoIterator<Item = Notice>, now: Moment) {
        for notice in notices {
            match notice {
                Notice::Tell(update) => self.tell(update),
                Notice::Notify { outage, reason, since } => {
                    tracing::warn!(%since, "{}", lasting(outage, reason));
                    let event = Event::of_outage(&self.settings.source, reason, since, now.wall);
                    let moment = Some((outage.moment().into(), Some(now.wall)));
                    let draft = Draft { events: vec![event], moment, run: None };
                    self.recorder.commit(draft, Recording::Outage(outage, Some(now.wall)));
                }
                Notice::Over(outage) => {
                    let draft = Draft { moment: Some((outage.moment().into(), None)), ..Draft::default() };
                    self.recorder.commit(draft, Recording::Outage(outage, None));
                }
            }
        }
    }

    /// A poll brought no run.
    fn failed(&mut self, index: u32, error: &PollError, now: Moment) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let times = slot.trouble.as_ref().map_or(0, |trouble| trouble.times).saturating_add(1);
        slot.trouble = Some(Trouble { message: error.message.as_str().into(), times });
        slot.not_before = error.retry_after.map(|wait| now.mono + wait);
        let mut pause = slot.pace.after_error(&self.settings.policy, error.retry_after);
        slot.confirm &= !matches!(error.kind, PollErrorKind::Doubt(_));
        let took = now.mono.saturating_duration_since(slot.sent_at);
        slot.slow = error.kind == PollErrorKind::Transient && took >= SLOW;
        if slot.slow && self.answered_at.is_some_and(|at| at > slot.sent_at) {
            // Others were answered meanwhile: it hangs by itself, and takes no more time than it leaves to them.
            pause = pause.max(took).max(self.settings.policy.healthy.max.min(took * 2));
        }
        let before = slot.watched.state.clone();
        self.api_failed(index, error, pause, now);
        let PollErrorKind::Doubt(kind) = error.kind else {
            let mut unchanged = Transition { state: before, change: Change::None, new_doubt: None };
            // An API that is there and says nothing of the run must not keep a deadline from being noticed.
            let warnings = match error.kind {
                PollErrorKind::Throttled => self.overdue(index, &mut unchanged, now),
                _ => Vec::new(),
            };
            return self.settle(index, unchanged, pause, &News { warnings, ..News::trouble() }, now);
        };
        let transition =
            observe(&before, &Observation::Doubt(kind, error.said_by()), now, &self.settings.patience);
        if transition.new_doubt.is_some() && transition.state.ended.is_none() {
            self.tell_doubt(index, &transition, error.message.clone());
        }
        let mut transition = transition;
        let warnings = self.overdue(index, &mut transition, now);
        self.settle(index, transition, pause, &News { warnings, ..News::trouble() }, now);
    }

    /// That a run is past its deadline, where the API does not say how it stands.
    fn overdue(&self, index: u32, transition: &mut Transition, now: Moment) -> Vec<Warning> {
        let deadline = self.slots.get(index).and_then(|slot| slot.watched.deadline);
        let alerts = Alerts { stalled_after: None, ..self.settings.alerts };
        alerts.of_run(deadline, &mut transition.state, now.wall)
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
                self.recorder.save_soon(index);
            }
            self.believe(index, &transition, pause, news.show);
        }
    }

    /// Writes a transition and what is to be told of it, in one transaction.
    fn record(&mut self, index: u32, transition: Transition, pause: Duration, events: Vec<Event>) {
        let Some(slot) = self.slots.get(index) else { return };
        for event in events.iter().filter(|event| event.payload.kind.is_warning()) {
            let Subject { id, name } = &slot.watched.subject;
            let (run_id, since) = (id.as_str(), event.payload.data.since.map(tracing::field::display));
            let label = slot.watched.subject.label();
            let is_overdue = event.payload.kind == EventKind::RunOverdue;
            let what = if is_overdue { "is overdue" } else { "makes no progress" };
            tracing::warn!(run_id, run_name = name.as_deref(), since, "{label} {what}");
        }
        let run = Watched { state: transition.state.clone(), ..slot.watched.clone() };
        let draft = Draft { run: Some(run), events, moment: None };
        self.recorder.commit(draft, Recording::Run { index, transition: Box::new(transition), pause });
    }

    pub(super) fn written(&mut self, done: Done) {
        let result = match &done {
            Done::Commit(_, written) | Done::Save(written) => written.as_ref().err(),
        };
        if let Some(turn) = self.recorder.turn(result) {
            self.tell(turn);
        }
        match done {
            Done::Commit(Recording::Outage(outage, told_at), written) => {
                self.outages.recorded(outage, told_at, written.is_ok());
                if self.nobody_polls() {
                    // Nobody would see it end.
                    let now = clock::now();
                    let notices = self.outages.nobody_polls(now);
                    self.carry_out(notices, now);
                }
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

    /// As if it had not been seen: the next poll sees it again, when the API allows.
    fn not_recorded(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if !slot.leaving.is_empty() {
            return self.leave_if_written(index);
        }
        let at = Instant::now() + slot.pace.after_error(&self.settings.policy, None);
        let at = slot.not_before.map_or(at, |not_before| at.max(not_before));
        let wait = crate::span::human(at.saturating_duration_since(Instant::now()));
        tracing::debug!(
            run_id = slot.watched.subject.id.as_str(),
            why = "it was not recorded",
            "next poll in {wait}"
        );
        self.slots.schedule(index, at);
        self.looked_at(index);
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
            if let Some(slot) = self.slots.get(index) {
                let why = match (&slot.trouble, due) {
                    (Some(_), due) if not_before == Some(due) => "the API asked for a pause",
                    (_, due) if Some(due) == overdue => "it is overdue then",
                    (_, due) if Some(due) == doubt_ends => "a doubt would end it then",
                    (Some(_), _) => "the last request failed",
                    (None, _) => "its schedule",
                };
                let wait = crate::span::human(due.saturating_duration_since(now.mono));
                tracing::debug!(run_id = slot.watched.subject.id.as_str(), why, "next poll in {wait}");
            }
        }
        if (show || transition.change > Change::None)
            && let Some(slot) = self.slots.get(index)
        {
            self.tell(Update::Run(Box::new(self.view(slot, now)), transition.change));
        }
        self.looked_at(index);
        if !active && !self.settings.keep_ended {
            self.leave(index);
        } else {
            self.leave_if_written(index);
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

/// An outage that lasts, for the log.
fn lasting(outage: Outage, reason: &str) -> &'static str {
    match (outage, reason) {
        (Outage::List, _) => "the list of runs has not been fetched for long: new runs are not found",
        (Outage::Api, "key_refused") => "the API has refused the key for long",
        (Outage::Api, "throttled") => "the API has answered nothing but 429 for long",
        (Outage::Api, _) => "the API has been unreachable for long",
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
