//! What an answer or an error means for its run: the transition, the events and the next poll. Sends and records
//! nothing; it changes only the slot.

use std::time::Duration;

use tokio::time::Instant;

use super::alerts::{Alerts, Warning};
use super::prior::Prior;
use super::settings::Settings;
use super::slot::{Confirm, Slot};
use super::update::Trouble;
use crate::api::{Answer, PollError, PollErrorKind, spec_name};
use crate::run::{
    Authority, Details, DoubtKind, Event, EventKind, Moment, Observation, RunChange, RunState, Subject,
    Transition, observe,
};

/// An answer or error that took this long counts as slow. Slow runs get only their share of the polls in flight.
const HANGS: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_secs(1);

/// The result of a poll.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) transition: Transition,
    /// Time until the next poll, if the run is still active.
    pub(super) pause: Duration,
    /// Details for the event, if the run has finished.
    details: Option<Box<Details>>,
    warnings: Vec<Warning>,
    /// Whether to show the run although nothing changed.
    pub(super) show: bool,
    /// A doubt of a new kind, in words.
    pub(super) doubt: Option<(DoubtKind, String)>,
}

impl Verdict {
    /// The events to send.
    pub(super) fn events(&self, source: &str, subject: &Subject, now: Moment) -> Vec<Event> {
        let state = &self.transition.state;
        let ending = state.ended.filter(|_| self.transition.change == RunChange::Ended).map(|ending| {
            Event::of_ending(source, subject, ending, state, self.details.as_deref(), now.wall)
        });
        let warnings = self
            .warnings
            .iter()
            .map(|warning| Event::of_warning(source, subject, warning.kind, state, warning.since, now.wall));
        ending.into_iter().chain(warnings).collect()
    }
}

/// A poll of the run was answered.
pub(super) fn polled(slot: &mut Slot, now: Moment) {
    // Not after a list that has the run: the API asked for a pause between polls of it.
    slot.not_before = None;
    slot.confirm = Confirm::Nothing;
    slot.answered_in = now.mono.saturating_duration_since(slot.sent_at);
    slot.slow = slot.answered_in >= HANGS;
}

/// The API answered with the run, to a poll or in the list.
pub(super) fn answered(
    slot: &mut Slot,
    answer: Answer,
    prior_of: impl FnOnce(&RunState) -> Option<Prior>,
    settings: &Settings,
    now: Moment,
) -> Verdict {
    let was_in_trouble = slot.trouble.take().is_some();
    slot.seen_at = now.mono;
    if settings.keep_ended && slot.spec_name.is_none() {
        slot.spec_name = spec_name(&answer.body).map(Into::into);
    }
    if settings.keep_bodies && !answer.body.is_empty() {
        slot.body = Some(Box::new(answer.body));
    }
    let details = answer.run.details.clone();
    let status = answer.run.status.clone();
    let mut transition =
        observe(&slot.watched.state, &Observation::Answer(answer.run), now, &settings.patience);
    slot.outlook.observe(&transition.state, now);
    let prior = prior_of(&transition.state);
    let remaining = slot.outlook.remaining(&transition.state, prior.as_ref(), now);
    let moved = transition.change >= RunChange::Status;
    let pause = slot.pace.after_answer(&settings.policy, moved, remaining);
    let doubt = transition.new_doubt.map(|kind| (kind, format!("the API gave the status {status}")));
    // Only an answer shows that a run has stalled: during an outage it may have finished unseen.
    let warnings = settings.alerts.of_run(slot.watched.deadline, &mut transition.state, now.wall);
    Verdict { transition, pause, details, warnings, show: was_in_trouble, doubt }
}

/// A poll failed. `answered_at` is when any run last got an answer.
pub(super) fn failed(
    slot: &mut Slot,
    error: &PollError,
    answered_at: Option<Instant>,
    settings: &Settings,
    now: Moment,
) -> Verdict {
    let times = slot.trouble.as_ref().map_or(0, |trouble| trouble.times).saturating_add(1);
    slot.trouble = Some(Box::new(Trouble { message: error.message.as_str().into(), times }));
    slot.not_before = error.retry_after.map(|wait| now.mono + wait);
    let mut pause = slot.pace.after_error(&settings.policy, error.retry_after);
    if matches!(error.kind, PollErrorKind::Doubt(_)) {
        slot.confirm = match (slot.confirm, error.said_by()) {
            (Confirm::End | Confirm::Disputed, Authority::Api) => Confirm::Disputed,
            // A page of something on the way says nothing about the run.
            (Confirm::End, _) => Confirm::End,
            _ => Confirm::Nothing,
        };
    }
    let took = now.mono.saturating_duration_since(slot.sent_at);
    slot.answered_in = Duration::ZERO;
    slot.slow = error.kind == PollErrorKind::Transient && took >= SLOW;
    if slot.slow && answered_at.is_some_and(|at| at > slot.sent_at) {
        // Other runs got answers meanwhile, so only this run hangs. Its pause grows so that it takes at most half of a
        // place in flight.
        pause = pause.max(took).max(settings.policy.healthy.max.min(took * 2));
    }
    let before = &slot.watched.state;
    let mut transition = match error.kind {
        PollErrorKind::Doubt(kind) => {
            observe(before, &Observation::Doubt(kind, error.said_by()), now, &settings.patience)
        }
        _ => Transition { state: before.clone(), change: RunChange::None, new_doubt: None },
    };
    let doubt = transition.new_doubt.filter(|_| transition.state.ended.is_none());
    // The deadline has to be noticed even if the API answers but says nothing about the run. In an outage the run may
    // have ended unseen.
    let others_answer = answered_at.is_some_and(|at| at > slot.seen_at);
    let warnings = match error.kind {
        PollErrorKind::Transient if error.retry_after.is_none() && !others_answer => Vec::new(),
        _ => overdue(slot, &mut transition.state, &settings.alerts, now),
    };
    let doubt = doubt.map(|kind| (kind, error.message.clone()));
    Verdict { transition, pause, details: None, warnings, show: true, doubt }
}

/// The run is held back and overdue. `due` is its next poll.
pub(super) fn held(slot: &Slot, due: Instant, settings: &Settings, now: Moment) -> Verdict {
    let state = slot.watched.state.clone();
    let mut transition = Transition { state, change: RunChange::None, new_doubt: None };
    let warnings = overdue(slot, &mut transition.state, &settings.alerts, now);
    let pause = due.saturating_duration_since(now.mono);
    Verdict { transition, pause, details: None, warnings, show: false, doubt: None }
}

/// The warning that a run is overdue, when the API does not give its status.
fn overdue(slot: &Slot, state: &mut RunState, alerts: &Alerts, now: Moment) -> Vec<Warning> {
    Alerts { stalled_after: None, ..*alerts }.of_run(slot.watched.deadline, state, now.wall)
}

/// When to poll an active run next, and why. It is after `pause`, or earlier if a doubt ends the watch or the run
/// becomes overdue before. If the API asked for a pause, it is later.
pub(super) fn next_poll(
    slot: &Slot,
    state: &RunState,
    pause: Duration,
    settings: &Settings,
    now: Moment,
) -> (Instant, &'static str) {
    let next = now.mono + pause;
    let doubt_ends = state.doubt_ends_at(&settings.patience).filter(|at| *at > now.mono);
    let overdue = settings
        .alerts
        .overdue_at(slot.watched.deadline, state)
        .filter(|_| state.overdue_told_at.is_none())
        .and_then(|at| now.mono.checked_add(Duration::try_from(at.duration_since(now.wall)).ok()?));
    let due = [Some(next), doubt_ends, overdue].into_iter().flatten().min().unwrap_or(next);
    let due = due.max(slot.not_before.unwrap_or(now.mono));
    let why = match (&slot.trouble, due) {
        (Some(_), due) if slot.not_before == Some(due) => "the API asked for a pause",
        (_, due) if Some(due) == overdue => "it is overdue then",
        (_, due) if Some(due) == doubt_ends => "a doubt would end it then",
        (Some(_), _) => "the last request failed",
        (None, _) => "its schedule",
    };
    (due, why)
}

/// Logs the warnings that are recorded for a run.
pub(super) fn log_warnings(events: &[Event], subject: &Subject) {
    for event in events.iter().filter(|event| event.payload.kind.is_warning()) {
        let (run_id, run_name) = (subject.id.as_str(), subject.name.as_deref());
        let since = event.payload.data.since.map(tracing::field::display);
        let is_overdue = event.payload.kind == EventKind::RunOverdue;
        let what = if is_overdue { "is overdue" } else { "makes no progress" };
        tracing::warn!(run_id, run_name, since, "{} {what}", subject.label());
    }
}
