//! When the list of all runs is fetched, and what is believed of it. Pure: the scheduler carries out the [`Step`]s.
//!
//! The list is fetched for one of two reasons:
//!
//! - in place of polls: a run is due, and so many others are due soon that one list costs less than a poll of each (`batch`
//!   says how many), and it is long enough since the last list. Until then the runs that are due wait, but none goes unseen for
//!   longer than the longest pause between two polls;
//! - to discover runs that nobody named, every so often, whether or not a run is due.
//!
//! It is not fetched while it is being fetched already, while a pause lasts (asked for by the API, or after a failure), while
//! every run is polled once more at a deadline, nor without request budget. A refused key is tried with polls alone. After a list it is the turn of a run.
//!
//! A list is believed in that a run goes on. An end, an unknown status and an absence are confirmed by polling the run itself.
//! So is, a few times, how many samples it has, which no list tells. Runs that are discovered are handed on.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Costs, Mode};
use super::schedule::{Pace, Policy};
use super::settings::Settings;
use super::slot::Stage;
use super::slots::Slots;
use super::update::Found;
use crate::api::{Listed, Listing, PollError, PollErrorKind, Wanted};
use crate::run::{Moment, Run, RunId, RunState, RunStatus};

/// After a list, at most this many runs are polled to learn how many samples they have.
const DETAILS: usize = 10;

/// A run that was polled this often and did not say how many samples it has does not know it.
const TRIES: u32 = 3;

/// A run that a list did not have is polled by itself for this long.
const UNLISTED: Duration = Duration::from_mins(10);

/// How long runs wait for the first list.
const PATIENCE: Duration = Duration::from_secs(5);

/// Minimum time between two lists, in all cases.
const SHORTEST: Duration = Duration::from_secs(1);

/// Lists are that far apart that no more than this many bytes of them are read in a second.
const BYTES_A_SECOND: f64 = 1e6;

/// After this many polls in a row that confirmed something, a list may be fetched.
const CONFIRMS: u32 = 3;

/// What a request is worth where nobody says, in seconds of delay.
const PRICE: f64 = 2.0;

/// This many failures in a row are more than a blip.
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

/// What the configuration says of lists.
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

/// What a decision needs to know of everything else, at one moment.
pub(super) struct View<'v> {
    /// The runs, in the order in which they are due.
    pub(super) slots: &'v Slots,
    /// When the budget has a request: now or later.
    pub(super) budget_at: Instant,
    /// Whether the API refuses the key.
    pub(super) key_refused: bool,
    /// Whether every run is being polled once more, as a deadline has passed.
    pub(super) last_look: bool,
    /// Whether a request may be sent that is likely to hang.
    pub(super) room_for_slow: bool,
    /// How many polls in a row confirmed what a list said.
    pub(super) confirmed: u32,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Poll the runs that wait for the list: it takes longer than lists do.
    StopWaiting,
    /// Have the runs that are due now wait until then, for a list that tells of them.
    Hold { until: Instant },
    /// Fetch the list. With `gather`, the runs that are due by then wait for it.
    Fetch { why: &'static str, gather: Option<Instant> },
    /// Hand on what was discovered.
    Found(Found),
    /// Poll a run by itself until then, as the list did not have it; `None` if it did.
    Unlisted { run: u32, until: Option<Instant> },
    /// Take what the list says of a run for an answer.
    Observe { run: u32, said: Box<Run> },
    /// Poll a run by itself, before others: what the list says of it is not believed.
    Confirm { run: u32 },
}

/// Where the lister stands.
#[derive(Debug)]
pub(super) struct Lister {
    rules: Rules,
    costs: Costs,
    under_way: bool,
    /// Since when it is, or was last.
    asked_at: Instant,
    /// Until then the runs that it was asked for wait for it.
    patient_until: Option<Instant>,
    /// Whether the next request is for a run, if one is due.
    runs_turn: bool,
    /// When runs are looked for next, if they are; `None` for at once.
    look_at: Option<Instant>,
    /// No list is fetched before, whatever happens: the API asked for that, or the last one cost it.
    not_before: Option<Instant>,
    /// Nor before then, since the last one failed.
    paused_until: Option<Instant>,
    /// Until then another list would not be worth its price.
    spaced_until: Option<Instant>,
    pace: Pace,
    /// Failures in a row, and since when.
    failures: u32,
    failing_since: Option<Moment>,
    /// Whether the API answered about a run meanwhile.
    others_answer: bool,
}

/// A list that could not be fetched.
#[derive(Debug)]
pub(super) struct Failure {
    /// How long the API is to be left alone.
    pub(super) hold: Duration,
    /// Whether runs answer, so that it is the list's own trouble.
    pub(super) others_answer: bool,
    /// Whether it is more than a blip.
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
            look_at: None,
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

    /// What is to be done about the list now, in this order.
    pub(super) fn decide(&self, now: Instant, view: &View<'_>) -> Vec<Step> {
        if self.patient_until.is_some_and(|at| at <= now) {
            return vec![Step::StopWaiting];
        }
        if view.budget_at > now || view.last_look {
            return Vec::new();
        }
        // Those that would be due before the next list are taken along, unless it is fetched to see whether it comes.
        let soon = now.checked_add(self.spacing()).unwrap_or(now);
        let enough = self.costs.list_from(self.rules.batch, self.rules.requests_per_minute);
        // A key that is refused is tried with the runs by themselves: it may be only one of them that it is refused for.
        let worth =
            !view.key_refused && enough.is_some_and(|enough| view.slots.are_due_for_list(now, soon, enough));
        // What is to be confirmed goes first, but not for ever.
        let owes = view.slots.owes(now) && view.confirmed < CONFIRMS;
        let held_until = if worth && self.failures == 0 { self.next_for_runs(now, owes) } else { None };
        let mut steps: Vec<Step> = held_until.map(|until| Step::Hold { until }).into_iter().collect();
        let waits = self.under_way || self.may_at().is_some_and(|at| at > now);
        let looks = self.is_looking(now, view) && self.look_at.is_none_or(|at| at <= now);
        let for_runs = worth && held_until.is_none() && !owes;
        if waits || !(for_runs || looks) {
            return steps;
        }
        // A list that is fetched anyhow is the one that runs wait for, if they do.
        let waited_for = || enough.is_some_and(|enough| view.slots.are_soon_for_list(soon, enough));
        let gathers = for_runs || (looks && !view.key_refused && waited_for());
        let why = if for_runs { "runs are due" } else { "runs are looked for" };
        steps.push(Step::Fetch { why, gather: (gathers && self.failures == 0).then_some(soon) });
        steps
    }

    /// When there is something to decide although no run is due.
    pub(super) fn wake_at(&self, now: Instant, view: &View<'_>) -> Option<Instant> {
        if self.under_way {
            return self.patient_until;
        }
        let at = self.look_at.max(self.may_at()).unwrap_or(now);
        (!view.last_look && self.is_looking(now, view)).then(|| at.max(view.budget_at))
    }

    /// What follows from a list that came. [`Lister::came`] and [`Lister::used`] were called before.
    pub(super) fn read(&self, mut listing: Listing, now: Instant, view: &View<'_>) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(look) = &self.rules.discovery {
            let new = |listed: &mut Listed| view.slots.find(&listed.id).is_none() && (look.wanted)(listed);
            let runs = listing.runs.extract_if(.., new).collect();
            steps.push(Step::Found(Found { runs, newest: listing.newest, generation: look.generation }));
        }
        let took = now.saturating_duration_since(self.asked_at);
        let unconfirmed = view.slots.iter().filter(|(_, slot)| slot.confirm).count();
        let mut details = DETAILS.saturating_sub(unconfirmed);
        let mut found: HashMap<RunId, Run> = listing.runs.into_iter().map(|one| (one.id, one.run)).collect();
        for (run, slot) in view.slots.iter().filter(|(_, slot)| slot.is_active()) {
            let asked = matches!(slot.stage, Stage::Listing);
            // The list was not fetched for these: only what is news to them counts, and what holds them back holds.
            if !asked && (slot.answered_meanwhile || slot.due().is_none() || slot.confirm) {
                continue;
            }
            let is_due = slot.due().is_some_and(|at| at <= now);
            let id = &slot.watched.subject.id;
            // What failed by itself is polled when it is due, unless there is news of an end.
            if !asked && slot.trouble.is_some() && !is_due && found.get(id).is_none_or(goes_on) {
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
            match seen.filter(goes_on) {
                Some(_) if !detailed && details > 0 => {
                    details -= 1;
                    steps.push(Step::Confirm { run });
                }
                Some(said) => steps.push(Step::Observe { run, said: Box::new(said) }),
                // An absence concerns only those whose turn it is: a list may leave out what is there.
                None if asked || has_ended => steps.push(Step::Confirm { run }),
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
        self.look_at = self.rules.discovery.as_ref().and_then(|look| now.checked_add(look.every));
    }

    /// The fetch has ended, one way or the other.
    pub(super) fn ended(&mut self) {
        self.under_way = false;
        self.patient_until = None;
    }

    /// A list came, of so many bytes.
    pub(super) fn came(&mut self, bytes: usize, now: Instant) {
        self.costs.saw_list(bytes, now.saturating_duration_since(self.asked_at));
        self.forget_failures();
    }

    /// What a list of so many bytes says is used: when the next one may come.
    pub(super) fn used(&mut self, bytes: usize, now: Instant) {
        let spent = Duration::from_secs_f64(bytes as f64 / BYTES_A_SECOND);
        self.not_before = Some(now + spent.max(SHORTEST));
        self.spaced_until = Some(now + self.spacing());
    }

    /// The list could not be fetched; `alone` if no run is polled. A pause follows.
    pub(super) fn failed(&mut self, error: &PollError, alone: bool, now: Instant) -> Failure {
        let throttled = error.kind == PollErrorKind::Throttled;
        let pause = self.pace.after_error(&self.rules.policy, None);
        let hold = error.retry_after.unwrap_or(if throttled { pause } else { Duration::ZERO });
        // As much time as it has cost the runs is theirs.
        let theirs = if throttled && !alone { hold } else { Duration::ZERO };
        let wait = hold.max(pause) + theirs;
        tracing::debug!(
            why = "the list could not be fetched",
            "next list in {} at the soonest",
            crate::span::human(wait)
        );
        // Whatever is wrong with the list, the runs by themselves get their turn before it.
        self.look_at = None;
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

    /// Since when lists have failed while the API is of use.
    pub(super) fn failing_since(&mut self, api_is_out: bool, now: Moment) -> Option<Moment> {
        if api_is_out {
            self.failing_since = None;
            return None;
        }
        Some(*self.failing_since.get_or_insert(now))
    }

    /// Nobody waits for the list any more.
    pub(super) fn stop_waiting(&mut self) {
        self.patient_until = None;
    }

    /// The fetch was broken off, and others may be wanted: it may begin again at once, but not sooner than lists may.
    pub(super) fn broken_off(&mut self) {
        if std::mem::take(&mut self.under_way) {
            self.not_before = self.not_before.max(Some(self.asked_at + SHORTEST));
        }
        (self.look_at, self.paused_until) = (None, None);
        self.stop_waiting();
    }

    /// Other rules from now on. Whatever was wrong with lists is past.
    pub(super) fn reconfigure(&mut self, rules: Rules) {
        self.rules = rules;
        self.broken_off();
        self.forget_failures();
    }

    /// A run is polled: the next list may be fetched.
    pub(super) fn polled(&mut self) {
        self.runs_turn = false;
    }

    /// An answer about a run came, of so many bytes.
    pub(super) fn run_answered(&mut self, bytes: usize) {
        self.others_answer |= self.failures > 0;
        if bytes > 0 {
            self.costs.saw_run(bytes);
        }
    }

    /// Whether the list is being fetched.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    fn forget_failures(&mut self) {
        self.pace = Pace::new(&self.rules.policy);
        (self.failures, self.failing_since) = (0, None);
        self.others_answer = false;
    }

    /// When another list may be fetched; `None` for at once.
    fn may_at(&self) -> Option<Instant> {
        self.not_before.max(self.paused_until)
    }

    /// Until when runs that are due wait for a list that brings them; `None` if it may be fetched now.
    fn next_for_runs(&self, now: Instant, owes: bool) -> Option<Instant> {
        let later = |at: Option<Instant>| at.filter(|at| *at > now);
        if self.under_way {
            // Out of patience with it, they are polled by themselves.
            return later(self.patient_until);
        }
        // What the last one left to be confirmed goes out before the next.
        let owes = owes.then(|| now + SHORTEST);
        later(self.spaced_until.max(self.may_at())).or(owes)
    }

    /// Whether runs are looked for, and it is not the turn of those that are due: a small budget is for both.
    fn is_looking(&self, now: Instant, view: &View<'_>) -> bool {
        let due = || view.slots.next_due(view.room_for_slow).is_some_and(|at| at <= now);
        self.rules.discovery.is_some() && !(self.runs_turn && due())
    }

    /// How far apart lists are worth their price.
    fn spacing(&self) -> Duration {
        let price = self.rules.policy.price.unwrap_or(PRICE);
        let spacing = self.costs.spacing(price, self.rules.requests_per_minute);
        // The longest pause between two looks at a run binds the list too.
        spacing.min(self.rules.policy.healthy.max).max(SHORTEST)
    }

    /// How long runs wait for a list at the most: they go unseen meanwhile.
    fn patience(&self) -> Duration {
        (self.rules.policy.healthy.max / 2).max(SHORTEST)
    }
}

/// Whether the list says that a run goes on.
fn goes_on(run: &Run) -> bool {
    matches!(run.status, RunStatus::Pending | RunStatus::Processing)
}

/// Whether a list that took so long says of a run what is known already. Counts that are old by then would make the run look
/// slower than it is.
fn is_no_news(run: &Run, state: &RunState, took: Duration) -> bool {
    let known = state.progress;
    let same_counts = (run.progress.completed, run.progress.failed) == (known.completed, known.failed);
    state.status.as_ref() == Some(&run.status) && (same_counts || took > SHORTEST)
}

#[cfg(test)]
#[path = "lister_tests.rs"]
mod tests;
