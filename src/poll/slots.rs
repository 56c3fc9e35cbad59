//! The runs being watched and the order in which they are due: a few hundred bytes each, and no task.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::outlook::Outlook;
use super::prior::Prior;
use super::schedule::{Pace, Policy};
use super::update::{FinalRun, RunView, Trouble};
use crate::run::{Moment, RunId, RunState};
use crate::store::Watched;

/// One watched run.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) watched: Watched,
    pub(super) pace: Pace,
    pub(super) outlook: Outlook,
    pub(super) polls: u32,
    pub(super) trouble: Option<Trouble>,
    pub(super) body: Option<Bytes>,
    /// The API asked not to be asked about this run before.
    pub(super) not_before: Option<Instant>,
    /// A poll under way.
    pub(super) polling: Option<AbortHandle>,
    /// The list is being asked for in its place.
    pub(super) listing: bool,
    /// An answer about it came while a list was being asked for: that is older.
    pub(super) answered_meanwhile: bool,
    /// The last list that was asked in its place did not have it: it is asked about by itself until then.
    pub(super) unlisted_until: Option<Instant>,
    /// To be asked about by itself next, whatever the list says.
    pub(super) confirm: bool,
    /// To be taken out as soon as what is being recorded of it has been.
    pub(super) leaving: Vec<oneshot::Sender<()>>,
    /// When it is due; `None` while a poll or a commit is under way, and after the end.
    due: Option<Instant>,
}

impl Slot {
    pub(super) fn view(&self, prior: Option<&Prior>, now: Moment) -> RunView {
        let state = &self.watched.state;
        RunView {
            subject: self.watched.subject.clone(),
            per_second: self.outlook.per_second(),
            expected_end: self
                .outlook
                .remaining(state, prior, now)
                .and_then(|rest| now.mono.checked_add(rest.expected()?)),
            state: state.clone(),
            trouble: self.trouble.clone(),
            polls: self.polls,
        }
    }

    /// Whether what a poll brought is being recorded.
    pub(super) fn is_recording(&self) -> bool {
        self.is_active() && self.due.is_none() && self.polling.is_none() && !self.listing
    }

    /// Whether a list may tell of it then. Not where the API asked for a pause (`Retry-After`): it might be asked about too soon.
    fn can_be_listed(&self, then: Instant) -> bool {
        !self.confirm && self.not_before.is_none() && self.unlisted_until.is_none_or(|at| at <= then)
    }

    /// Whether it waits for its turn.
    pub(super) fn is_waiting(&self) -> bool {
        self.due.is_some()
    }

    pub(super) fn is_active(&self) -> bool {
        self.watched.state.ended.is_none()
    }
}

/// All watched runs.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// In boxes: a tree that is filled in order leaves half of each node empty.
    all: BTreeMap<u32, Box<Slot>>,
    /// The next run's number. They are not used twice: what comes late about a run that is gone finds nothing.
    next: u32,
    by_id: HashMap<RunId, u32>,
    due: BTreeSet<(Instant, u32)>,
    /// Of these, those that a list can tell of.
    for_list: BTreeSet<(Instant, u32)>,
    active: usize,
}

impl Slots {
    /// Adds a run, due at once unless it has ended. A run that is there already stays as it is; `None` then.
    pub(super) fn add(&mut self, watched: Watched, policy: &Policy, now: Instant) -> Option<u32> {
        let id = watched.subject.id.clone();
        if self.by_id.contains_key(&id) {
            return None;
        }
        let index = self.next;
        self.next = self.next.checked_add(1)?;
        let active = watched.state.ended.is_none();
        self.by_id.insert(id, index);
        let slot = Slot {
            watched,
            pace: Pace::new(policy),
            outlook: Outlook::default(),
            polls: 0,
            trouble: None,
            body: None,
            not_before: None,
            polling: None,
            listing: false,
            answered_meanwhile: false,
            unlisted_until: None,
            confirm: false,
            leaving: Vec::new(),
            due: None,
        };
        self.all.insert(index, Box::new(slot));
        if active {
            self.active += 1;
            self.schedule(index, now);
        }
        Some(index)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        self.all.get(&index).map(|slot| &**slot)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.all.get_mut(&index).map(|slot| &mut **slot)
    }

    /// Where a run is.
    pub(super) fn find(&self, id: &RunId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// Every run.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.all.iter().map(|(index, slot)| (*index, &**slot))
    }

    /// Takes a run out altogether.
    pub(super) fn remove(&mut self, index: u32) -> Option<Slot> {
        self.unschedule(index);
        let slot = self.all.remove(&index)?;
        self.by_id.remove(&slot.watched.subject.id);
        if slot.is_active() {
            self.active -= 1;
        }
        Some(*slot)
    }

    /// The runs that are to be taken out.
    pub(super) fn leaving(&self) -> Vec<u32> {
        self.iter().filter(|(_, slot)| !slot.leaving.is_empty()).map(|(index, _)| index).collect()
    }

    /// How many runs have not ended.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Puts a run in its place in the order.
    pub(super) fn schedule(&mut self, index: u32, due: Instant) {
        self.unschedule(index);
        if let Some(slot) = self.all.get_mut(&index) {
            slot.due = Some(due);
            self.due.insert((due, index));
            if slot.can_be_listed(due) {
                self.for_list.insert((due, index));
            }
        }
    }

    /// Takes a run out of the order.
    pub(super) fn unschedule(&mut self, index: u32) {
        if let Some(due) = self.all.get_mut(&index).and_then(|slot| slot.due.take()) {
            self.due.remove(&(due, index));
            self.for_list.remove(&(due, index));
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

    /// The runs that are due.
    pub(super) fn iter_due(&self, now: Instant) -> impl Iterator<Item = &Slot> {
        self.due.range(..=(now, u32::MAX)).filter_map(|(_, index)| self.get(*index))
    }

    /// Whether a run that a list can tell of is due, and `enough` of them soon.
    pub(super) fn are_due_for_list(&self, now: Instant, soon: Instant, enough: usize) -> bool {
        let is_due = self.for_list.first().is_some_and(|(due, _)| *due <= now);
        is_due && self.are_soon_for_list(soon, enough)
    }

    /// Whether `enough` runs that a list can tell of are due soon.
    pub(super) fn are_soon_for_list(&self, soon: Instant, enough: usize) -> bool {
        self.for_list.range(..=(soon, u32::MAX)).take(enough).count() >= enough
    }

    /// Takes the runs out of the order that are due by then and that a list can tell of.
    pub(super) fn take_for_list(&mut self, soon: Instant) -> Vec<u32> {
        let taken: Vec<u32> = self.for_list.range(..=(soon, u32::MAX)).map(|(_, index)| *index).collect();
        for index in &taken {
            self.unschedule(*index);
        }
        taken
    }

    /// Has those of them that are due wait.
    pub(super) fn hold_for_list(&mut self, now: Instant, until: Instant) {
        for index in self.take_for_list(now) {
            self.schedule(index, until);
        }
    }

    /// From now on an answer about a run is one that came meanwhile.
    pub(super) fn forget_answers(&mut self) {
        self.all.values_mut().for_each(|slot| slot.answered_meanwhile = false);
    }

    /// The ids of all runs.
    pub(super) fn ids(&self) -> HashSet<RunId> {
        self.by_id.keys().cloned().collect()
    }

    /// Records the new state of a run.
    pub(super) fn set_state(&mut self, index: u32, state: RunState) {
        if let Some(slot) = self.all.get_mut(&index) {
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
        self.iter().filter(|(_, slot)| slot.is_active()).map(|(index, _)| index).collect()
    }

    /// Everything, for the report at the end.
    pub(super) fn into_final(self) -> Vec<FinalRun> {
        self.all
            .into_values()
            .map(|slot| FinalRun {
                polls: slot.polls,
                body: slot.body,
                trouble: slot.trouble,
                ..FinalRun::new(slot.watched)
            })
            .collect()
    }
}
