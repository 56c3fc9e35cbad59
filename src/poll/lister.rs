//! Asking about many runs at once, by the list of all of them, and looking for runs that nobody named.
//!
//! Owns when the list is asked for, and what it is believed in: that a run goes on. An end, a word nobody knows and an absence
//! are confirmed by asking about the run itself; so is, once, how many samples it has, which the list does not tell. What is
//! found is handed on: whoever has it watched writes it down first.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::outage::Outage;
use super::poller::with_fresh_key;
use super::schedule::{Pace, Policy};
use super::scheduler::Scheduler;
use super::slot::Stage;
use super::update::{Found, Update};
use crate::api::{Answer, Listed, Listing, PollError, PollErrorKind, Wanted};
use crate::clock;
use crate::run::{Moment, Run, RunId, RunState, RunStatus};

/// So many runs are asked about by themselves after a list, to learn how many samples they have; and each so many times, for
/// what does not say it then does not know it.
const DETAILS: usize = 10;
const TRIES: u32 = 3;

/// A run that a list did not have is asked about by itself for so long.
const UNLISTED: Duration = Duration::from_mins(10);

/// How long the first list is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// No list is asked for sooner after another; and no more than this many bytes a second are spent on them.
const SHORTEST: Duration = Duration::from_secs(1);
const BYTES_A_SECOND: f64 = 1e6;

/// After so many runs in a row that were to be confirmed, a list may be asked for.
const CONFIRMS: u32 = 3;

/// What a request is worth where nobody says, in seconds of delay.
const PRICE: f64 = 2.0;

/// Who asked, where it was no run.
const LIST: u32 = u32::MAX;

/// So many lists in a row without an answer are more than a blip.
const TROUBLE_FROM: u32 = 2;

/// Looking for runs that nobody named.
#[derive(Clone)]
pub struct Discovery {
    /// A list is read this often, whether or not the watched runs need one.
    pub every: Duration,
    /// Which runs are looked for, whether or not they are watched already.
    pub wanted: Wanted,
    /// Told with what is found, so that whoever changed what is wanted knows which it was.
    pub generation: u64,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").field("every", &self.every).finish_non_exhaustive()
    }
}

/// Where the lister stands.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Lister {
    pub(super) under_way: bool,
    /// Since when it is, or was last.
    asked_at: Instant,
    /// Until then the runs that it was asked for wait for it.
    patient_until: Option<Instant>,
    /// Whether the next request is for a run, if one is due.
    pub(super) runs_turn: bool,
    /// When runs are looked for next, if they are; `None` for at once.
    pub(super) look_at: Option<Instant>,
    /// Whether a run that was to be confirmed may not have been asked about yet.
    owes: bool,
    /// No list is asked for before, whatever happens: the API asked for that, or the last one cost it.
    not_before: Option<Instant>,
    /// Nor before then, since the last one could not be had.
    paused_until: Option<Instant>,
    /// Until then another list would not be worth its price.
    spaced_until: Option<Instant>,
    pace: Pace,
    /// Lists in a row that could not be had, and since when.
    failures: u32,
    failing_since: Option<Moment>,
    /// Whether the API answered about a run meanwhile.
    pub(super) others_answer: bool,
}

impl Lister {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            under_way: false,
            asked_at: Instant::now(),
            patient_until: None,
            runs_turn: false,
            look_at: None,
            owes: false,
            not_before: None,
            paused_until: None,
            spaced_until: None,
            pace: Pace::new(policy),
            failures: 0,
            failing_since: None,
            others_answer: false,
        }
    }

    /// Whether the last one could not be had.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// When another list may be asked for; `None` for at once.
    fn may_at(&self) -> Option<Instant> {
        self.not_before.max(self.paused_until)
    }
}

impl Scheduler {
    /// Asks for the list, where it is time to look for runs, or worth it in place of the runs that are due by themselves.
    pub(super) fn list_if_due(&mut self, now: Instant) {
        if self.lister.patient_until.is_some_and(|at| at <= now) {
            self.go_on_without_list(now);
        }
        // What is to be confirmed goes first, but not for ever.
        self.lister.owes = self.slots.owes(now) && self.confirmed < CONFIRMS;
        if self.limiter.next_at(now) > now || self.last_look.is_some() {
            return;
        }
        // Those that would be due before the next list are taken along, unless it is asked for to see whether it comes.
        let soon = now.checked_add(self.list_spacing()).unwrap_or(now);
        let enough = self.costs.list_from(self.settings.batch, self.settings.requests_per_minute);
        // A key that is refused is tried with the runs by themselves: it may be only one of them that it is refused for.
        let worth = !self.outages.is_key_refused()
            && enough.is_some_and(|enough| self.slots.are_due_for_list(now, soon, enough));
        let held_until = if worth && self.lister.failures == 0 { self.next_list_for_runs(now) } else { None };
        if let Some(until) = held_until {
            self.slots.hold_for_list(now, until, self.settings.policy.healthy.max);
        }
        let waits = self.lister.under_way || self.lister.may_at().is_some_and(|at| at > now);
        let looks = self.is_looking() && self.lister.look_at.is_none_or(|at| at <= now);
        let for_runs = worth && held_until.is_none() && !self.lister.owes;
        if waits || !(for_runs || looks) || self.limiter.take(now).is_err() {
            return;
        }
        // A list that is asked for anyhow is the one that runs wait for, if they do.
        let waited_for = || enough.is_some_and(|enough| self.slots.are_soon_for_list(soon, enough));
        let why = if for_runs { "runs are due" } else { "runs are looked for" };
        tracing::debug!(
            why,
            due_within = crate::span::human(self.list_spacing()),
            "fetching the list of runs"
        );
        let gathers = for_runs || (looks && !self.outages.is_key_refused() && waited_for());
        if gathers && self.lister.failures == 0 {
            self.slots.gather_for_list(soon);
        }
        self.slots.forget_answers();
        self.lister.asked_at = now;
        self.lister.patient_until = now.checked_add(
            self.costs.list_took().unwrap_or(PATIENCE).max(self.list_spacing()).min(self.patience()),
        );
        self.lister.runs_turn = true;
        self.lister.under_way = true;
        self.lister.look_at = self.settings.discovery.as_ref().and_then(|look| now.checked_add(look.every));
        let source = Arc::clone(&self.source);
        let watched: HashSet<RunId> = self.slots.ids();
        let discovery = self.settings.discovery.clone();
        let wanted = move |listed: &mut Listed| {
            if watched.contains(&listed.id) {
                // Told of nobody: of many runs it would be much.
                listed.run.details = None;
                return true;
            }
            discovery.as_ref().is_some_and(|look| (look.wanted)(listed))
        };
        self.lists.spawn(async move {
            let listed = source.list(Arc::new(wanted)).await;
            with_fresh_key(&*source, listed).await
        });
    }

    /// When the list wants something done although no run is due.
    pub(super) fn list_at(&self, now: Instant) -> Option<Instant> {
        if self.lister.under_way {
            return self.lister.patient_until;
        }
        let at = self.lister.look_at.max(self.lister.may_at()).unwrap_or(now);
        (self.last_look.is_none() && self.is_looking()).then(|| at.max(self.limiter.next_at(now)))
    }

    /// Until when runs that are due wait for a list that brings them; `None` if it may be asked for now.
    fn next_list_for_runs(&self, now: Instant) -> Option<Instant> {
        let later = |at: Option<Instant>| at.filter(|at| *at > now);
        if self.lister.under_way {
            // Out of patience with it, they are asked about by themselves.
            return later(self.lister.patient_until);
        }
        // What the last one left to be confirmed goes out before the next.
        let owes = self.lister.owes.then(|| now + SHORTEST);
        later(self.lister.spaced_until.max(self.lister.may_at())).or(owes)
    }

    /// Whether runs are looked for, and it is not the turn of those that are due: a small budget is for both.
    fn is_looking(&self) -> bool {
        let runs_turn = self.lister.runs_turn
            && self.slots.next_due(self.room_for_slow()).is_some_and(|at| at <= Instant::now());
        self.settings.discovery.is_some() && !runs_turn
    }

    /// How far apart lists are worth their price.
    fn list_spacing(&self) -> Duration {
        let price = self.settings.policy.price.unwrap_or(PRICE);
        let spacing = self.costs.spacing(price, self.settings.requests_per_minute);
        // The longest pause between two looks at a run binds the list too.
        spacing.min(self.settings.policy.healthy.max).max(SHORTEST)
    }

    /// How long runs wait for a list at the most: they go unseen meanwhile.
    fn patience(&self) -> Duration {
        (self.settings.policy.healthy.max / 2).max(SHORTEST)
    }

    /// The list takes longer than lists do: the runs that wait for it are asked about by themselves.
    fn go_on_without_list(&mut self, now: Instant) {
        self.lister.patient_until = None;
        self.slots.recall_listing(now);
    }

    pub(super) fn listed(&mut self, done: Result<Result<Listing, PollError>, JoinError>) {
        self.lister.under_way = false;
        self.lister.patient_until = None;
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

    fn read_list(&mut self, mut listing: Listing, now: Moment) {
        if self.slots.active() == 0 {
            // Where there are runs, it is they who say whether the API is of use: a list brings no end.
            let notices = self.outages.answered(now);
            self.carry_out(notices, now);
        }
        self.throttle.answered(LIST);
        let took = now.mono.saturating_duration_since(self.lister.asked_at);
        self.costs.saw_list(listing.bytes, took);
        self.forget_failures();
        let over = self.outages.over(Outage::List);
        self.carry_out(over, now);
        if self.last_look.is_some() {
            // It came too early to count.
            return self.break_off_list();
        }
        let spent = Duration::from_secs_f64(listing.bytes as f64 / BYTES_A_SECOND);
        self.lister.not_before = Some(now.mono + spent.max(SHORTEST));
        self.lister.spaced_until = Some(now.mono + self.list_spacing());
        if let Some(look) = &self.settings.discovery {
            let new = |listed: &mut Listed| self.slots.find(&listed.id).is_none() && (look.wanted)(listed);
            let runs = listing.runs.extract_if(.., new).collect();
            let (newest, generation) = (listing.newest, look.generation);
            self.tell(Update::Found(Found { runs, newest, generation }));
        }
        let unconfirmed = self.slots.iter().filter(|(_, slot)| slot.confirm).count();
        let mut details = DETAILS.saturating_sub(unconfirmed);
        let mut found: HashMap<RunId, Run> = listing.runs.into_iter().map(|one| (one.id, one.run)).collect();
        for index in self.slots.active_runs() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let asked = matches!(slot.stage, Stage::Listing);
            let newer = std::mem::take(&mut slot.answered_meanwhile);
            // The list was not asked for these: only what is news to them counts, and what holds them back holds.
            if !asked && (newer || slot.due().is_none() || slot.confirm) {
                continue;
            }
            let is_due = slot.due().is_some_and(|at| at <= now.mono);
            let says_end = found
                .get(&slot.watched.subject.id)
                .is_some_and(|run| !matches!(run.status, RunStatus::Pending | RunStatus::Processing));
            // What failed by itself is asked about when it is due, unless there is news of an end.
            if !asked && slot.trouble.is_some() && !is_due && !says_end {
                continue;
            }
            let seen = found.remove(&slot.watched.subject.id);
            if asked || seen.is_some() {
                slot.unlisted_until = if seen.is_none() { now.mono.checked_add(UNLISTED) } else { None };
            }
            if !asked
                && !is_due
                && seen.as_ref().is_some_and(|run| is_no_news(run, &slot.watched.state, took))
            {
                continue;
            }
            let detailed = slot.polls >= TRIES || slot.watched.state.progress.total.is_some();
            let has_ended = seen.as_ref().is_some_and(|run| run.status.terminal().is_some());
            let goes_on = |run: &Run| matches!(run.status, RunStatus::Pending | RunStatus::Processing);
            match seen.filter(goes_on) {
                Some(_) if !detailed && details > 0 => {
                    details -= 1;
                    self.confirm(index, now.mono);
                }
                Some(run) => {
                    self.slots.hold(index);
                    self.observed(index, Answer { run, body: bytes::Bytes::new() }, now);
                }
                // An absence concerns only those whose turn it is: a list may leave out what is there.
                None if asked || has_ended => {
                    self.confirm(index, now.mono);
                }
                None => {}
            }
        }
    }

    /// Whatever was wrong with lists is past.
    fn forget_failures(&mut self) {
        self.lister.pace = Pace::new(&self.settings.policy);
        (self.lister.failures, self.lister.failing_since) = (0, None);
        self.lister.others_answer = false;
    }

    /// Other runs are looked for from now on, or none, or elsewhere.
    pub(super) fn look_anew(&mut self) {
        self.break_off_list();
        self.forget_failures();
        if self.settings.discovery.is_none() {
            let now = clock::now();
            let over = if self.nobody_polls() {
                self.outages.nobody_polls(now)
            } else {
                self.outages.over(Outage::List).into_iter().collect()
            };
            self.carry_out(over, now);
        }
    }

    /// Breaks off a list that is being asked for: runs are asked about by themselves from now on.
    pub(super) fn break_off_list(&mut self) {
        // Dropped, so that not even what has come already is heard of.
        self.lists = JoinSet::new();
        if std::mem::take(&mut self.lister.under_way) {
            self.lister.not_before = self.lister.not_before.max(Some(self.lister.asked_at + SHORTEST));
        }
        (self.lister.look_at, self.lister.paused_until) = (None, None);
        self.go_on_without_list(Instant::now());
    }

    /// Has a run asked about by itself, now.
    fn confirm(&mut self, index: u32, now: Instant) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.confirm = true;
            tracing::debug!(
                run_id = slot.watched.subject.id.as_str(),
                why = "the list does not settle it",
                "polling it by itself"
            );
            self.lister.owes = true;
            // Of most it is known already that they have ended.
            let at = slot.not_before.map_or(now, |at| at.max(now));
            self.slots.schedule(index, at);
        }
    }

    fn no_list(&mut self, error: &PollError, now: Moment) {
        let throttled = error.kind == PollErrorKind::Throttled;
        let pause = self.lister.pace.after_error(&self.settings.policy, None);
        let hold = error.retry_after.unwrap_or(if throttled { pause } else { Duration::ZERO });
        let alone = self.slots.active() == 0;
        let is_outage = !(self.lister.others_answer && error.kind == PollErrorKind::Transient);
        if alone && is_outage {
            // Nobody else asks: what the API is worth shows here.
            self.api_failed(LIST, error, hold, now);
        } else if throttled {
            self.throttled(LIST, now.mono + hold, now.mono);
        } else {
            self.throttle.answered(LIST);
        }
        // Whatever is wrong with the list, the runs by themselves get their turn before it.
        self.lister.look_at = None;
        self.lister.not_before = Some(now.mono + hold);
        // As much time as it has cost the runs is theirs.
        let theirs = if throttled && !alone { hold } else { Duration::ZERO };
        self.lister.paused_until = Some(now.mono + hold.max(pause) + theirs);
        let wait = crate::span::human(hold.max(pause) + theirs);
        tracing::debug!(why = "the list could not be fetched", "next list in {wait} at the soonest");
        self.lister.failures = self.lister.failures.saturating_add(1);
        if self.settings.discovery.is_some() {
            let may_pass = throttled || error.kind == PollErrorKind::Transient;
            if !may_pass || self.lister.failures >= TROUBLE_FROM {
                self.tell(Update::LookFailed(error.message.clone()));
            }
            // New runs go unseen, however well the watched ones are; an API that is of no use at all is told of as such.
            if self.outages.is_api_out() {
                self.lister.failing_since = None;
            } else {
                let since = *self.lister.failing_since.get_or_insert(now);
                let alerts = self.settings.alerts;
                let lasts = self.outages.lasts(Outage::List, "list_failed", since, &alerts, now);
                self.carry_out(lasts, now);
            }
        }
        self.go_on_without_list(now.mono);
    }
}

/// Whether a list that took so long says of a run what is known already. Counts that are old by then would make the run look
/// slower than it is.
fn is_no_news(run: &Run, state: &RunState, took: Duration) -> bool {
    let known = state.progress;
    let same_counts = (run.progress.completed, run.progress.failed) == (known.completed, known.failed);
    state.status.as_ref() == Some(&run.status) && (same_counts || took > SHORTEST)
}
