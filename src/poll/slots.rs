//! The watched runs, in the order in which they are due. A run takes a few hundred bytes and no task.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::schedule::Policy;
use super::slot::{Confirm, Slot, Stage};
use super::update::FinalRun;
use crate::run::{RunId, RunState, RunStatus};
use crate::store::Watched;

/// Maximum number of confirming polls in a row while other runs are due.
const CONFIRMS: u32 = 3;

/// The result of [`Slots::recall`].
#[derive(Debug, Default)]
pub(super) struct Recalled {
    /// Runs that are due now.
    pub(super) due: Vec<u32>,
    /// Runs with an older answer still being recorded.
    pub(super) recording: Vec<u32>,
    /// Polls to cancel.
    pub(super) tasks: Vec<AbortHandle>,
}

/// All watched runs.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Boxed, because a tree that is filled in order leaves half of each node empty.
    all: BTreeMap<u32, Box<Slot>>,
    /// The next run's index. Indexes are never reused, so a late result for a removed run is ignored.
    next: u32,
    by_id: HashMap<RunId, u32>,
    due: BTreeSet<(Instant, u32)>,
    /// Runs to confirm, which go first.
    confirms: BTreeSet<(Instant, u32)>,
    /// Runs whose last request was slow.
    slow: BTreeSet<(Instant, u32)>,
    /// Those of all waiting runs that a list may answer for.
    for_list: BTreeSet<(Instant, u32)>,
    active: usize,
    /// Runs to be removed once the write in progress ends, and who waits for that.
    leaving: BTreeMap<u32, Vec<oneshot::Sender<()>>>,
}

impl Slots {
    /// Adds a run, due at once unless it has ended. Returns `None` and changes nothing if the run is there already.
    pub(super) fn add(&mut self, watched: Watched, policy: &Policy, now: Instant) -> Option<u32> {
        let id = watched.subject.id.clone();
        if self.by_id.contains_key(&id) {
            return None;
        }
        let index = self.next;
        self.next = self.next.checked_add(1)?;
        self.by_id.insert(id, index);
        let slot = Slot::new(watched, policy, now);
        let active = slot.is_active();
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

    /// The index of a run.
    pub(super) fn find(&self, id: &RunId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// Every run.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.all.iter().map(|(index, slot)| (*index, &**slot))
    }

    /// Marks a run to be removed. The reply is sent then.
    pub(super) fn leave(&mut self, index: u32, reply: oneshot::Sender<()>) {
        self.leaving.entry(index).or_default().push(reply);
    }

    /// Whether a run is marked to be removed.
    pub(super) fn leaves(&self, index: u32) -> bool {
        self.leaving.contains_key(&index)
    }

    /// Removes a run. Returns it and those who wait for that.
    pub(super) fn remove(&mut self, index: u32) -> Option<(Slot, Vec<oneshot::Sender<()>>)> {
        let stage = self.get(index)?.stage.clone();
        self.enter(index, Stage::Ended);
        let mut slot = self.all.remove(&index)?;
        self.by_id.remove(&slot.watched.subject.id);
        if slot.is_active() {
            self.active -= 1;
        }
        slot.stage = stage;
        Some((*slot, self.leaving.remove(&index).unwrap_or_default()))
    }

    /// The runs that wait for their removal.
    pub(super) fn leaving(&self) -> Vec<u32> {
        self.leaving.keys().copied().collect()
    }

    /// The number of active runs.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Schedules a run's next poll for `due`.
    pub(super) fn schedule(&mut self, index: u32, due: Instant) {
        self.enter(index, Stage::Waiting { due });
        if let Some(slot) = self.all.get(&index) {
            let lane = match (slot.slow, slot.confirm.goes_first()) {
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

    /// Takes a run out of the queue while its answer is being judged and recorded.
    pub(super) fn hold(&mut self, index: u32) -> Option<&mut Slot> {
        self.enter(index, Stage::Recording);
        self.get_mut(index)
    }

    /// A poll of a run was sent by this task.
    pub(super) fn sent(&mut self, index: u32, task: AbortHandle) {
        self.enter(index, Stage::Polling { task });
    }

    /// Makes every run due, except those being recorded and those with a pause from the API. Returns them with their
    /// polls in flight.
    pub(super) fn recall(&mut self, now: Instant) -> Recalled {
        let mut recalled = Recalled::default();
        for index in self.active_runs() {
            let Some(slot) = self.get(index) else { continue };
            if slot.not_before.is_some_and(|at| at > now) {
                continue;
            }
            match &slot.stage {
                Stage::Recording => recalled.recording.push(index),
                stage => {
                    if let Stage::Polling { task } = stage {
                        recalled.tasks.push(task.clone());
                    }
                    self.schedule(index, now);
                    recalled.due.push(index);
                }
            }
        }
        recalled
    }

    /// Schedules a poll of a run before all others, as soon as the API and the store allow.
    pub(super) fn confirm(&mut self, index: u32, confirm: Confirm, now: Instant) {
        let Some(slot) = self.get_mut(index) else { return };
        slot.confirm = confirm;
        let at = [slot.not_before, slot.quiet_until].into_iter().flatten().fold(now, Instant::max);
        slot.log_next_poll("it confirms what the list says", at.saturating_duration_since(now));
        self.schedule(index, at);
    }

    /// Makes the runs due that wait for a list, because the list will not come.
    pub(super) fn recall_listing(&mut self, now: Instant) {
        for index in self.active_runs() {
            let Some(slot) = self.get(index).filter(|slot| matches!(slot.stage, Stage::Listing)) else {
                continue;
            };
            // Runs due soon were gathered too, and the API may want no poll of them yet.
            let at = slot.not_before.map_or(now, |at| at.max(now));
            self.schedule(index, at);
        }
    }

    /// Moves a run to another stage, and out of the queue if it was waiting.
    fn enter(&mut self, index: u32, stage: Stage) {
        let Some(slot) = self.all.get_mut(&index) else { return };
        if let Stage::Waiting { due } = std::mem::replace(&mut slot.stage, stage) {
            for lane in [&mut self.due, &mut self.confirms, &mut self.slow, &mut self.for_list] {
                lane.remove(&(due, index));
            }
        }
    }

    /// When the next run is due. `room_for_slow` includes slow runs.
    pub(super) fn next_due(&self, room_for_slow: bool) -> Option<Instant> {
        let slow = self.slow.first().filter(|_| room_for_slow);
        [self.confirms.first(), self.due.first(), slow].into_iter().flatten().map(|(due, _)| *due).min()
    }

    /// The run to poll now, if one is due. A run to confirm goes first, unless `confirmed` such polls were just sent.
    /// Otherwise it is the run that has been due longest.
    pub(super) fn first_due(&self, now: Instant, room_for_slow: bool, confirmed: u32) -> Option<u32> {
        let first = |lane: &BTreeSet<(Instant, u32)>| lane.first().copied().filter(|(due, _)| *due <= now);
        let slow = first(&self.slow).filter(|_| room_for_slow);
        let other = [first(&self.due), slow].into_iter().flatten().min();
        let confirm = first(&self.confirms).filter(|_| confirmed < CONFIRMS || other.is_none());
        confirm.or(other).map(|(_, index)| index)
    }

    /// The number of slow runs that are waiting.
    pub(super) fn slow(&self) -> usize {
        self.slow.len()
    }

    /// Whether a run to confirm is due.
    pub(super) fn owes(&self, now: Instant) -> bool {
        self.confirms.first().is_some_and(|(due, _)| *due <= now)
    }

    /// Whether a run that a list may answer for is due, and `enough` such runs are due soon.
    pub(super) fn are_due_for_list(&self, now: Instant, soon: Instant, enough: usize) -> bool {
        let is_due = self.for_list.first().is_some_and(|(due, _)| *due <= now);
        is_due && self.are_soon_for_list(soon, enough)
    }

    /// Whether `enough` runs that a list may answer for are due soon.
    pub(super) fn are_soon_for_list(&self, soon: Instant, enough: usize) -> bool {
        self.for_list.range(..=(soon, u32::MAX)).take(enough).count() >= enough
    }

    /// Moves the runs that are due by `soon` to waiting for the list, if the list may answer for them.
    pub(super) fn gather_for_list(&mut self, soon: Instant) {
        for index in self.listable_by(soon) {
            self.enter(index, Stage::Listing);
        }
    }

    /// The runs that are due by `then` and that a list may answer for.
    fn listable_by(&self, then: Instant) -> Vec<u32> {
        self.for_list.range(..=(then, u32::MAX)).map(|(_, index)| *index).collect()
    }

    /// Postpones the due ones of them until a list, but no run for longer than the longest pause.
    pub(super) fn hold_for_list(&mut self, now: Instant, until: Instant, longest: Duration) {
        for index in self.listable_by(now) {
            let Some(slot) = self.get(index) else { continue };
            let unseen = slot.seen_at.checked_add(longest).unwrap_or(until);
            self.schedule(index, if unseen <= now { now } else { until.min(unseen) });
        }
    }

    /// Forgets which polls were answered, because a new list fetch begins.
    pub(super) fn forget_answers(&mut self) {
        self.all.values_mut().for_each(|slot| slot.answered_meanwhile = false);
    }

    /// The ids of all runs.
    pub(super) fn ids(&self) -> HashSet<RunId> {
        self.by_id.keys().cloned().collect()
    }

    /// The number of active runs by status; `UNSEEN` where the API has not answered yet.
    pub(super) fn by_status(&self) -> BTreeMap<String, u64> {
        let mut runs = BTreeMap::new();
        for (_, slot) in self.iter().filter(|(_, slot)| slot.is_active()) {
            let status = slot.watched.state.status.as_ref().map_or("UNSEEN", RunStatus::as_str);
            // Not `entry`, which would allocate a string for every run.
            match runs.get_mut(status) {
                Some(count) => *count += 1,
                None => drop(runs.insert(status.to_owned(), 1)),
            }
        }
        runs
    }

    /// Stores the new state of a run.
    pub(super) fn set_state(&mut self, index: u32, state: RunState) {
        if let Some(slot) = self.all.get_mut(&index) {
            let was_active = slot.is_active();
            slot.watched.state = state;
            if was_active && !slot.is_active() {
                self.active -= 1;
                self.enter(index, Stage::Ended);
            }
        }
    }

    /// The active runs.
    pub(super) fn active_runs(&self) -> Vec<u32> {
        self.iter().filter(|(_, slot)| slot.is_active()).map(|(index, _)| index).collect()
    }

    /// All runs, for the final report.
    pub(super) fn into_final(self) -> Vec<FinalRun> {
        self.all
            .into_values()
            .map(|slot| FinalRun {
                polls: slot.polls,
                body: slot.body.map(|body| *body),
                trouble: slot.trouble.map(|trouble| *trouble),
                ..FinalRun::new(slot.watched)
            })
            .collect()
    }
}
