//! Asking about many runs at once, by the list of all of them.
//!
//! Owns what the list is believed in: that a run goes on. An end, a word nobody knows and an absence are confirmed by asking
//! about the run itself; so is, once, how many samples it has, which the list does not tell.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::scheduler::Scheduler;
use crate::api::{Answer, Listing, PollError, PollErrorKind};
use crate::clock;
use crate::run::{Moment, Run, RunId, RunStatus};

/// So many runs are asked about by themselves after a list, to learn how many samples they have.
const DETAILS: usize = 10;

/// No list is asked for sooner after another; and no more than this many bytes a second are spent on them.
const SHORTEST: Duration = Duration::from_secs(1);
const BYTES_A_SECOND: f64 = 1e6;

/// The pauses after a list that could not be had: the first, doubled up to the last. Runs are asked about by themselves then.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// Where the lister stands.
#[derive(Debug)]
pub(super) struct Lister {
    pub(super) under_way: bool,
    /// Whether a run that was to be confirmed may not have been asked about yet.
    owes: bool,
    not_before: Option<Instant>,
    /// After the next failure.
    pause: Duration,
}

impl Default for Lister {
    fn default() -> Self {
        Self { under_way: false, owes: false, not_before: None, pause: FIRST_PAUSE }
    }
}

impl Scheduler {
    /// Asks for the list in place of the runs that are due, where that is worth it.
    pub(super) fn list_if_worth(&mut self, now: Instant) {
        let waits = self.lister.under_way || self.lister.not_before.is_some_and(|at| at > now);
        // What a list left to be confirmed goes out before the next one.
        let owes = std::mem::take(&mut self.lister.owes);
        let spent = self.limiter.next_at(now) > now;
        self.lister.owes = owes && self.slots.iter_due(now).any(|slot| slot.confirm);
        if waits || self.lister.owes || spent || self.last_look.is_some() || self.refused_since.is_some() {
            return;
        }
        let Some(enough) = self.costs.list_from(self.settings.batch) else { return };
        if self.slots.due_for_list(now).take(enough).count() < enough || self.limiter.take(now).is_err() {
            return;
        }
        let due: Vec<u32> = self.slots.due_for_list(now).collect();
        for index in due {
            self.slots.unschedule(index);
            if let Some(slot) = self.slots.get_mut(index) {
                slot.listing = true;
            }
        }
        self.lister.under_way = true;
        let source = Arc::clone(&self.source);
        let watched: Arc<std::collections::HashSet<RunId>> = Arc::new(self.slots.ids());
        self.lists.spawn(async move { source.list(Arc::new(move |id| watched.contains(id))).await });
    }

    pub(super) fn listed(&mut self, done: Result<Result<Listing, PollError>, JoinError>) {
        self.lister.under_way = false;
        if done.as_ref().is_err_and(JoinError::is_cancelled) {
            return;
        }
        let now = clock::now();
        let listing =
            done.unwrap_or_else(|panic| Err(PollError::transient(format!("the list panicked: {panic}"))));
        self.settings.counters.count(listing.as_ref().err(), now.wall);
        match listing {
            Ok(listing) => self.read_list(listing, now),
            Err(error) => self.no_list(&error, now),
        }
    }

    fn read_list(&mut self, listing: Listing, now: Moment) {
        self.api_answered(now);
        self.api_is_of_use();
        self.costs.saw_list(listing.bytes);
        self.lister.pause = FIRST_PAUSE;
        if self.last_look.is_some() {
            // It came too early to count.
            return self.break_off_list();
        }
        let spent = Duration::from_secs_f64(listing.bytes as f64 / BYTES_A_SECOND);
        self.lister.not_before = Some(now.mono + spent.max(SHORTEST));
        let mut found: HashMap<RunId, Run> = listing.runs.into_iter().map(|one| (one.id, one.run)).collect();
        let unconfirmed = self.slots.iter().filter(|(_, slot)| slot.confirm).count();
        let mut details = DETAILS.saturating_sub(unconfirmed);
        for index in self.slots.active_runs() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let asked = std::mem::take(&mut slot.listing);
            let newer = std::mem::take(&mut slot.answered_meanwhile);
            // The list was not asked for these: only what is news to them counts, and what holds them back holds.
            if !asked && (newer || !slot.is_waiting() || slot.confirm || slot.trouble.is_some()) {
                continue;
            }
            let seen = found.remove(&slot.watched.subject.id);
            slot.unlisted = asked && seen.is_none();
            let has_ended = seen.as_ref().is_some_and(|run| run.status.terminal().is_some());
            let detailed = slot.polls >= 3 || slot.watched.state.progress.total.is_some();
            let goes_on = |run: &Run| matches!(run.status, RunStatus::Pending | RunStatus::Processing);
            match seen.filter(goes_on) {
                Some(run) if detailed || details == 0 => {
                    self.slots.unschedule(index);
                    self.observed(index, Answer { run, body: bytes::Bytes::new() }, now);
                }
                Some(_) => {
                    details -= 1;
                    self.confirm(index, now.mono);
                }
                // An absence concerns only those whose turn it is: a list may leave out what is there.
                None if asked || has_ended => {
                    self.confirm(index, now.mono);
                }
                None => {}
            }
        }
    }

    /// Breaks off a list that is being asked for: runs are asked about by themselves from now on.
    pub(super) fn break_off_list(&mut self) {
        // Dropped, so that not even what has come already is heard of.
        self.lists = JoinSet::new();
        self.lister.under_way = false;
        for index in self.slots.active_runs() {
            if self.slots.get_mut(index).is_some_and(|slot| std::mem::take(&mut slot.listing)) {
                self.slots.schedule(index, Instant::now());
            }
        }
    }

    /// Has a run asked about by itself, now.
    fn confirm(&mut self, index: u32, now: Instant) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.confirm = true;
            self.lister.owes = true;
            let due = slot.not_before.unwrap_or(now).max(now);
            self.slots.schedule(index, due);
        }
    }

    fn no_list(&mut self, error: &PollError, now: Moment) {
        let mut hold = error.retry_after.unwrap_or_default();
        if error.kind == PollErrorKind::Throttled {
            hold = error.retry_after.unwrap_or(FIRST_PAUSE);
            self.limiter.hold(now.mono + hold);
        }
        // Whatever is wrong with the list, the runs by themselves get their turn before it.
        self.lister.not_before = Some(now.mono + hold + self.lister.pause);
        self.lister.pause = (self.lister.pause * 2).min(LONGEST_PAUSE);
        for index in self.slots.active_runs() {
            if self.slots.get_mut(index).is_some_and(|slot| std::mem::take(&mut slot.listing)) {
                self.slots.schedule(index, now.mono);
            }
        }
    }
}
