//! The runs being watched and the order in which they are due: a few hundred bytes each, and no task.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

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

/// So many runs in a row are confirmed while others are due.
const CONFIRMS: u32 = 3;

/// One watched run.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and there are many slots")]
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
    /// To be asked about by itself next, before others, until it is answered: a list says that it has ended, or does not have it.
    pub(super) confirm: bool,
    /// Its last request hung: such runs get their share of the requests in flight, and no more.
    pub(super) slow: bool,
    /// When the poll under way was sent, or the last one.
    pub(super) sent_at: Instant,
    /// When it was last seen, by a poll or by a list; before that, when it was added.
    pub(super) seen_at: Instant,
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
        !self.confirm
            && self.not_before.is_none_or(|at| at <= then)
            && self.unlisted_until.is_none_or(|at| at <= then)
    }

    /// When it is due, if it waits for its turn.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
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
    /// Those that are to be confirmed: they go first.
    confirms: BTreeSet<(Instant, u32)>,
    /// Those whose last request hung.
    slow: BTreeSet<(Instant, u32)>,
    /// Of all of these, those that a list can tell of.
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
            slow: false,
            sent_at: now,
            seen_at: now,
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
            let lane = match (slot.slow, slot.confirm) {
                (true, _) => &mut self.slow,
                (false, true) => &mut self.confirms,
                (false, false) => &mut self.due,
            };
            lane.insert((due, index));
            if slot.can_be_listed(due) {
                self.for_list.insert((due, index));
            }
        }
    }

    /// Takes a run out of the order.
    pub(super) fn unschedule(&mut self, index: u32) {
        if let Some(due) = self.all.get_mut(&index).and_then(|slot| slot.due.take()) {
            for lane in [&mut self.due, &mut self.confirms, &mut self.slow] {
                lane.remove(&(due, index));
            }
            self.for_list.remove(&(due, index));
        }
    }

    /// When the next run is due; those whose requests hang count where there is room for one.
    pub(super) fn next_due(&self, room_for_slow: bool) -> Option<Instant> {
        let slow = self.slow.first().filter(|_| room_for_slow);
        [self.confirms.first(), self.due.first(), slow].into_iter().flatten().map(|(due, _)| *due).min()
    }

    /// The run whose turn it is, if one is due: one that is to be confirmed, unless `confirmed` of them went just before; else the
    /// one that has been due for the longest.
    pub(super) fn first_due(&self, now: Instant, room_for_slow: bool, confirmed: u32) -> Option<u32> {
        let first = |lane: &BTreeSet<(Instant, u32)>| lane.first().copied().filter(|(due, _)| *due <= now);
        let slow = first(&self.slow).filter(|_| room_for_slow);
        let other = [first(&self.due), slow].into_iter().flatten().min();
        let confirm = first(&self.confirms).filter(|_| confirmed < CONFIRMS || other.is_none());
        confirm.or(other).map(|(_, index)| index)
    }

    /// How many runs are waiting whose requests hang.
    pub(super) fn slow(&self) -> usize {
        self.slow.len()
    }

    /// Whether a run that is to be confirmed is due.
    pub(super) fn owes(&self, now: Instant) -> bool {
        self.confirms.first().is_some_and(|(due, _)| *due <= now)
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

    /// Has those of them that are due wait for a list, but none longer than it may go unseen.
    pub(super) fn hold_for_list(&mut self, now: Instant, until: Instant, longest: Duration) {
        for index in self.take_for_list(now) {
            let Some(slot) = self.get(index) else { continue };
            let unseen = slot.seen_at.checked_add(longest).unwrap_or(until);
            self.schedule(index, if unseen <= now { now } else { until.min(unseen) });
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
