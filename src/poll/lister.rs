//! Decides when to fetch the list of all runs, and how much of it to believe. Pure: the scheduler carries out the
//! [`Step`]s.
//!
//! There are two reasons to fetch the list:
//!
//! - It replaces polls. This needs a due run, and enough other runs due soon that one list costs less than a poll of
//!   each (see `batch`). It also needs enough time since the last list. Until then the due runs wait, but no run waits
//!   longer than the longest pause between two polls.
//! - It discovers runs that nobody named, at a fixed interval, whether or not a run is due.
//!
//! The list is not fetched while a fetch is in progress, during a pause (requested by the API, or after a failure),
//! during the final poll, or without request budget. While the API refuses the key, only polls are tried. After each
//! list, a due run is polled first.
//!
//! The list is enough to believe that a run is active. A poll confirms a finished run, an unknown status or a missing
//! run. No list contains the number of samples, so a few polls read that too. Discovered runs go to the caller.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Costs, Mode};
use super::schedule::{Pace, Policy};
use super::settings::Settings;
use super::slot::{Confirm, Stage};
use super::slots::Slots;
use super::update::Found;
use crate::api::{Listed, Listing, PollError, PollErrorKind, Wanted};
use crate::run::{Moment, Run, RunId, RunState, RunStatus};

/// After a list, poll at most this many runs for their number of samples.
const DETAILS: usize = 10;

/// After this many polls without a number of samples, stop asking for it.
const TRIES: u32 = 3;

/// After a list without a run, poll that run one by one for this long.
const UNLISTED: Duration = Duration::from_mins(10);

/// Maximum time that runs wait for the first list.
const PATIENCE: Duration = Duration::from_secs(5);

/// Minimum time between two lists, in all cases.
const SHORTEST: Duration = Duration::from_secs(1);

/// Maximum average rate of list reading, in bytes per second. It sets the minimum time between long lists.
const BYTES_A_SECOND: f64 = 1e6;

/// After this many confirming polls in a row, a list may be fetched.
const CONFIRMS: u32 = 3;

/// Price of a request if the configuration sets none, in seconds of delay.
const PRICE: f64 = 2.0;

/// Number of failures in a row from which a failing list is reported.
const TROUBLE_FROM: u32 = 2;

/// Discovery of runs that nobody named.
#[derive(Clone)]
pub struct Discovery {
    /// Interval between lists, whether or not the watched runs need one.
    pub every: Duration,
    /// Which runs to discover, watched or not.
    pub wanted: Wanted,
    /// Returned with the result, so that a caller that changed `wanted` knows which value the result belongs to.
    pub generation: u64,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").field("every", &self.every).finish_non_exhaustive()
    }
}

/// The configuration of lists.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    batch: Mode,
    requests_per_minute: u32,
    policy: Policy,
    discovery: Option<Discovery>,
}

impl Rules {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            batch: settings.batch,
            requests_per_minute: settings.requests_per_minute,
            policy: settings.policy,
            discovery: settings.discovery.clone(),
        }
    }
}

/// What a decision needs to know about the other parts, at one moment.
pub(super) struct View<'v> {
    /// The runs, in the order in which they are due.
    pub(super) slots: &'v Slots,
    /// When the budget allows a request: now or later.
    pub(super) budget_at: Instant,
    /// Whether the API refuses the key.
    pub(super) key_refused: bool,
    /// Whether the final poll is in progress, because a deadline passed.
    pub(super) final_poll: bool,
    /// Whether a request to a slow run may be sent.
    pub(super) room_for_slow: bool,
    /// Number of polls in a row that confirmed what a list said.
    pub(super) confirmed: u32,
}

/// What the scheduler has to do.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Poll the runs that wait for the list, because it is late.
    StopWaiting,
    /// Let the due runs wait for a list until then.
    Hold { until: Instant },
    /// Fetch the list. With `gather`, the runs due by then wait for it.
    Fetch { why: &'static str, gather: Option<Instant> },
    /// Report what was discovered.
    Found(Found),
    /// Poll a run one by one until then, because the list does not contain it. `None` if the list contains it.
    Unlisted { run: u32, until: Option<Instant> },
    /// Use the list's entry as an answer for the run.
    Observe { run: u32, said: Box<Run> },
    /// Poll a run next to confirm what the list says.
    Confirm { run: u32, confirm: Confirm },
}

/// The lister's state.
#[derive(Debug)]
pub(super) struct Lister {
    rules: Rules,
    costs: Costs,
    under_way: bool,
    /// When the current or last fetch began.
    asked_at: Instant,
    /// The runs that this fetch is for wait until then.
    patient_until: Option<Instant>,
    /// Whether the next request is a poll, if a run is due.
    runs_turn: bool,
    /// When the next discovery is due, if enabled; `None` for at once.
    discover_at: Option<Instant>,
    /// No list is fetched before this: the API asked for a pause, or the last list used the byte budget.
    not_before: Option<Instant>,
    /// No list is fetched before this, because the last one failed.
    paused_until: Option<Instant>,
    /// No list is fetched before this, because it would not pay off.
    spaced_until: Option<Instant>,
    pace: Pace,
    /// Failures in a row, and since when.
    failures: u32,
    failing_since: Option<Moment>,
    /// Whether polls were answered since the last list.
    others_answer: bool,
}

/// A failed fetch of the list.
#[derive(Debug)]
pub(super) struct Failure {
    /// How long to send no requests.
    pub(super) hold: Duration,
    /// Whether polls are answered, so that only the list fails.
    pub(super) others_answer: bool,
    /// Whether it failed often enough to report.
    pub(super) is_trouble: bool,
}

impl Lister {
    pub(super) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            costs: Costs::default(),
            under_way: false,
            asked_at: now,
            patient_until: None,
            runs_turn: false,
            discover_at: None,
            not_before: None,
            paused_until: None,
            spaced_until: None,
            pace: Pace::new(&rules.policy),
            failures: 0,
            failing_since: None,
            others_answer: false,
            rules,
        }
    }

    /// The steps that are due now, in order.
    pub(super) fn decide(&self, now: Instant, view: &View<'_>) -> Vec<Step> {
        if self.patient_until.is_some_and(|at| at <= now) {
            return vec![Step::StopWaiting];
        }
        if view.budget_at > now || view.final_poll {
            return Vec::new();
        }
        // Includes the runs that would be due before the next list. A list that is a retry after a failure includes
        // none.
        let soon = now.checked_add(self.spacing()).unwrap_or(now);
        let enough = self.costs.list_from(self.rules.batch, self.rules.requests_per_minute);
        // The API may refuse the key for a single run only, so a refused key is tried with polls.
        let worth =
            !view.key_refused && enough.is_some_and(|enough| view.slots.are_due_for_list(now, soon, enough));
        // Confirming polls go first, up to a limit.
        let owes = view.slots.owes(now) && view.confirmed < CONFIRMS;
        let held_until = if worth && self.failures == 0 { self.next_for_runs(now, owes) } else { None };
        let mut steps: Vec<Step> = held_until.map(|until| Step::Hold { until }).into_iter().collect();
        let waits = self.under_way || self.may_at().is_some_and(|at| at > now);
        let discovers = self.is_discovery_due(now, view) && self.discover_at.is_none_or(|at| at <= now);
        let for_runs = worth && held_until.is_none() && !owes;
        if waits || !(for_runs || discovers) {
            return steps;
        }
        // Due runs also wait for a list that is fetched for discovery.
        let waited_for = || enough.is_some_and(|enough| view.slots.are_soon_for_list(soon, enough));
        let gathers = for_runs || (discovers && !view.key_refused && waited_for());
        let why = if for_runs { "runs are due" } else { "discovery is due" };
        steps.push(Step::Fetch { why, gather: (gathers && self.failures == 0).then_some(soon) });
        steps
    }

    /// When the next decision is due even if no run is.
    pub(super) fn wake_at(&self, now: Instant, view: &View<'_>) -> Option<Instant> {
        if self.under_way {
            return self.patient_until;
        }
        let at = self.discover_at.max(self.may_at()).unwrap_or(now);
        (!view.final_poll && self.is_discovery_due(now, view)).then(|| at.max(view.budget_at))
    }

    /// The steps that follow from a fetched list. Call [`Lister::came`] and [`Lister::used`] before.
    pub(super) fn read(&self, mut listing: Listing, now: Instant, view: &View<'_>) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(discovery) = &self.rules.discovery {
            let new =
                |listed: &mut Listed| view.slots.find(&listed.id).is_none() && (discovery.wanted)(listed);
            let runs = listing.runs.extract_if(.., new).collect();
            steps.push(Step::Found(Found { runs, newest: listing.newest, generation: discovery.generation }));
        }
        let took = now.saturating_duration_since(self.asked_at);
        let unconfirmed = view.slots.iter().filter(|(_, slot)| slot.confirm.goes_first()).count();
        let mut details = DETAILS.saturating_sub(unconfirmed);
        let mut found: HashMap<RunId, Run> = listing.runs.into_iter().map(|one| (one.id, one.run)).collect();
        for (run, slot) in view.slots.iter().filter(|(_, slot)| slot.is_active()) {
            let asked = matches!(slot.stage, Stage::Listing);
            // The list was not fetched for this run: use only news about it, and respect its pauses.
            if !asked && (slot.answered_meanwhile || slot.due().is_none() || slot.confirm.goes_first()) {
                continue;
            }
            let is_due = slot.due().is_some_and(|at| at <= now);
            let id = &slot.watched.subject.id;
            // A run with failing polls is polled when it is due, unless the list says that it has finished. If the
            // API itself disputes that, the polls keep their backoff.
            let is_disputed = slot.confirm == Confirm::Disputed;
            let nothing_new = || is_disputed || found.get(id).is_none_or(is_active);
            if !asked && slot.trouble.is_some() && !is_due && nothing_new() {
                continue;
            }
            let seen = found.remove(id);
            let until = if seen.is_none() { now.checked_add(UNLISTED) } else { None };
            if (asked || seen.is_some()) && slot.unlisted_until != until {
                steps.push(Step::Unlisted { run, until });
            }
            let state = &slot.watched.state;
            if !asked && !is_due && seen.as_ref().is_some_and(|seen| is_no_news(seen, state, took)) {
                continue;
            }
            let detailed = slot.polls >= TRIES || state.progress.total.is_some();
            let has_ended = seen.as_ref().is_some_and(|seen| seen.status.terminal().is_some());
            match seen.filter(is_active) {
                Some(_) if !detailed && details > 0 => {
                    details -= 1;
                    steps.push(Step::Confirm { run, confirm: Confirm::Details });
                }
                Some(said) => steps.push(Step::Observe { run, said: Box::new(said) }),
                // A list can miss a run that exists. Confirm only a run that is due or finished.
                None if has_ended => steps.push(Step::Confirm { run, confirm: Confirm::End }),
                None if asked => steps.push(Step::Confirm { run, confirm: Confirm::Details }),
                None => {}
            }
        }
        steps
    }

    /// A fetch has begun.
    pub(super) fn began(&mut self, now: Instant) {
        self.asked_at = now;
        let patience = self.costs.list_took().unwrap_or(PATIENCE).max(self.spacing()).min(self.patience());
        self.patient_until = now.checked_add(patience);
        self.runs_turn = true;
        self.under_way = true;
        self.discover_at =
            self.rules.discovery.as_ref().and_then(|discovery| now.checked_add(discovery.every));
    }

    /// The fetch is over, whether it succeeded or not.
    pub(super) fn ended(&mut self) {
        self.under_way = false;
        self.patient_until = None;
    }

    /// A list of `bytes` bytes came.
    pub(super) fn came(&mut self, bytes: usize, now: Instant) {
        self.costs.saw_list(bytes, now.saturating_duration_since(self.asked_at));
        self.forget_failures();
    }

    /// The answer of `bytes` bytes is used. Sets when the next list may be fetched.
    pub(super) fn used(&mut self, bytes: usize, now: Instant) {
        let spent = Duration::from_secs_f64(bytes as f64 / BYTES_A_SECOND);
        self.not_before = Some(now + spent.max(SHORTEST));
        self.spaced_until = Some(now + self.spacing());
    }

    /// The fetch failed. `alone` is true if no run is polled. A pause follows.
    pub(super) fn failed(&mut self, error: &PollError, alone: bool, now: Instant) -> Failure {
        let throttled = error.kind == PollErrorKind::Throttled;
        let pause = self.pace.after_error(&self.rules.policy, None);
        let hold = error.retry_after.unwrap_or(if throttled { pause } else { Duration::ZERO });
        // The polls get as much time as the failed list cost them.
        let theirs = if throttled && !alone { hold } else { Duration::ZERO };
        let wait = hold.max(pause) + theirs;
        tracing::debug!(
            why = "the list could not be fetched",
            "next list in {} at the soonest",
            crate::span::human(wait)
        );
        // Polls go before the next list, whatever is wrong with it.
        self.discover_at = None;
        self.not_before = Some(now + hold);
        self.paused_until = Some(now + wait);
        self.failures = self.failures.saturating_add(1);
        let may_pass = throttled || error.kind == PollErrorKind::Transient;
        Failure {
            hold,
            others_answer: self.others_answer,
            is_trouble: !may_pass || self.failures >= TROUBLE_FROM,
        }
    }

    /// Since when lists have failed although the API answers.
    pub(super) fn failing_since(&mut self, api_is_out: bool, now: Moment) -> Option<Moment> {
        if api_is_out {
            self.failing_since = None;
            return None;
        }
        Some(*self.failing_since.get_or_insert(now))
    }

    /// No run waits for the list any more.
    pub(super) fn stop_waiting(&mut self) {
        self.patient_until = None;
    }

    /// The fetch was cancelled. It may start again at once, subject to the minimum time between lists.
    pub(super) fn broken_off(&mut self) {
        if std::mem::take(&mut self.under_way) {
            self.not_before = self.not_before.max(Some(self.asked_at + SHORTEST));
        }
        (self.discover_at, self.paused_until) = (None, None);
        self.stop_waiting();
    }

    /// Uses these rules from now on and clears earlier failures.
    pub(super) fn reconfigure(&mut self, rules: Rules) {
        self.rules = rules;
        self.broken_off();
        self.forget_failures();
    }

    /// A run was polled, so the next list may be fetched.
    pub(super) fn polled(&mut self) {
        self.runs_turn = false;
    }

    /// A poll was answered with `bytes` bytes.
    pub(super) fn run_answered(&mut self, bytes: usize) {
        self.others_answer |= self.failures > 0;
        if bytes > 0 {
            self.costs.saw_run(bytes);
        }
    }

    /// Whether a fetch is in progress.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    fn forget_failures(&mut self) {
        self.pace = Pace::new(&self.rules.policy);
        (self.failures, self.failing_since) = (0, None);
        self.others_answer = false;
    }

    /// When the next list may be fetched; `None` for at once.
    fn may_at(&self) -> Option<Instant> {
        self.not_before.max(self.paused_until)
    }

    /// Until when due runs wait for a list; `None` if the list may be fetched now.
    fn next_for_runs(&self, now: Instant, owes: bool) -> Option<Instant> {
        let later = |at: Option<Instant>| at.filter(|at| *at > now);
        if self.under_way {
            // The list is late, so the runs are polled.
            return later(self.patient_until);
        }
        // The confirming polls that the last list caused go before the next list.
        let owes = owes.then(|| now + SHORTEST);
        later(self.spaced_until.max(self.may_at())).or(owes)
    }

    /// Whether discovery is due and it is not the turn of a due run. A small budget is shared by both.
    fn is_discovery_due(&self, now: Instant, view: &View<'_>) -> bool {
        let due = || view.slots.next_due(view.room_for_slow).is_some_and(|at| at <= now);
        self.rules.discovery.is_some() && !(self.runs_turn && due())
    }

    /// Minimum time between two lists that pays off.
    fn spacing(&self) -> Duration {
        let price = self.rules.policy.price.unwrap_or(PRICE);
        let spacing = self.costs.spacing(price, self.rules.requests_per_minute);
        // The longest pause between two polls is also a limit for lists.
        spacing.min(self.rules.policy.healthy.max).max(SHORTEST)
    }

    /// Maximum time that runs wait for a list. They are not polled meanwhile.
    fn patience(&self) -> Duration {
        (self.rules.policy.healthy.max / 2).max(SHORTEST)
    }
}

/// Whether the list says that a run is active.
fn is_active(run: &Run) -> bool {
    matches!(run.status, RunStatus::Pending | RunStatus::Processing)
}

/// Whether a list that took `took` says nothing new about a run. A slow list has old counts, which would make the run
/// look slower than it is.
fn is_no_news(run: &Run, state: &RunState, took: Duration) -> bool {
    let known = state.progress;
    let same_counts = (run.progress.completed, run.progress.failed) == (known.completed, known.failed);
    state.status.as_ref() == Some(&run.status) && (same_counts || took > SHORTEST)
}

#[cfg(test)]
#[path = "lister_tests.rs"]
mod tests;
