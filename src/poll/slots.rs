//! The runs being watched and the order in which they are due: a few hundred bytes each, and no task.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::schedule::{Pace, Policy};
use super::speed::Speed;
use super::update::{FinalRun, RunView, Trouble};
use crate::run::{Moment, RunId, RunState, Subject};
use crate::store::ChannelName;

/// A run to watch.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Which run.
    pub subject: Subject,
    /// The channels that tell of it; `None` for all.
    pub notify: Option<Arc<[ChannelName]>>,
    /// What is known of it already.
    pub state: RunState,
}

/// One watched run.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) watched: Watched,
    pub(super) pace: Pace,
    pub(super) speed: Speed,
    pub(super) polls: u32,
    pub(super) trouble: Option<Trouble>,
    pub(super) body: Option<Bytes>,
    /// The API asked not to be asked about this run before.
    pub(super) not_before: Option<Instant>,
    /// A poll under way.
    pub(super) polling: Option<AbortHandle>,
    /// When it is due; `None` while a poll or a commit is under way, and after the end.
    due: Option<Instant>,
}

impl Slot {
    pub(super) fn view(&self, now: Moment) -> RunView {
        let state = &self.watched.state;
        RunView {
            subject: self.watched.subject.clone(),
            per_second: self.speed.per_second(state, now),
            expected_end: self.speed.remaining(state, now).and_then(|rest| now.mono.checked_add(rest)),
            state: state.clone(),
            trouble: self.trouble.clone(),
        }
    }

    /// Whether what a poll brought is being recorded.
    pub(super) fn is_recording(&self) -> bool {
        self.is_active() && self.due.is_none() && self.polling.is_none()
    }

    pub(super) fn is_active(&self) -> bool {
        self.watched.state.ended.is_none()
    }
}

/// All watched runs.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    by_id: HashMap<RunId, u32>,
    due: BTreeSet<(Instant, u32)>,
    active: usize,
}

impl Slots {
    /// Adds a run, due at once unless it has ended. A run that is there already stays as it is; `None` then.
    pub(super) fn add(&mut self, watched: Watched, policy: &Policy, now: Instant) -> Option<u32> {
        let index = u32::try_from(self.all.len()).ok()?;
        let id = watched.subject.id.clone();
        if self.by_id.contains_key(&id) {
            return None;
        }
        let active = watched.state.ended.is_none();
        self.by_id.insert(id, index);
        self.all.push(Slot {
            watched,
            pace: Pace::new(policy),
            speed: Speed::default(),
            polls: 0,
            trouble: None,
            body: None,
            not_before: None,
            polling: None,
            due: None,
        });
        if active {
            self.active += 1;
            self.schedule(index, now);
        }
        Some(index)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        self.all.get(index as usize)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.all.get_mut(index as usize)
    }

    /// How many runs have not ended.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Puts a run in its place in the order.
    pub(super) fn schedule(&mut self, index: u32, due: Instant) {
        self.unschedule(index);
        if let Some(slot) = self.all.get_mut(index as usize) {
            slot.due = Some(due);
            self.due.insert((due, index));
        }
    }

    /// Takes a run out of the order.
    pub(super) fn unschedule(&mut self, index: u32) {
        if let Some(due) = self.all.get_mut(index as usize).and_then(|slot| slot.due.take()) {
            self.due.remove(&(due, index));
        }
    }

    /// When the next run is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The run that has been due for the longest, if any is.
    pub(super) fn first_due(&self, now: Instant) -> Option<u32> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, index)| *index)
    }

    /// Records the new state of a run.
    pub(super) fn set_state(&mut self, index: u32, state: RunState) {
        if let Some(slot) = self.all.get_mut(index as usize) {
            let was_active = slot.is_active();
            slot.watched.state = state;
            if was_active && !slot.is_active() {
                self.active -= 1;
                self.unschedule(index);
            }
        }
    }

    /// Runs that have not ended.
    pub(super) fn active_runs(&self) -> Vec<u32> {
        (0u32..).zip(&self.all).filter(|(_, slot)| slot.is_active()).map(|(index, _)| index).collect()
    }

    /// Everything, for the report at the end.
    pub(super) fn into_final(self) -> Vec<FinalRun> {
        self.all
            .into_iter()
            .map(|slot| FinalRun {
                subject: slot.watched.subject,
                state: slot.watched.state,
                polls: slot.polls,
                body: slot.body,
                trouble: slot.trouble,
            })
            .collect()
    }
}
