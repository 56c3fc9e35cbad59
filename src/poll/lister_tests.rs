//! Tests of the lister's decisions and of how it reads a list.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::schedule::Curve;
use super::*;
use crate::run::{Progress, Subject};
use crate::store::Watched;

const FIRST: &str = "runs are due";
const DISCOVERY: &str = "discovery is due";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// With these rules, three due runs are enough for a list once one was fetched, and lists are two seconds apart.
fn rules(batch: Mode, finds: bool) -> Rules {
    let curve = Curve { initial: seconds(1), multiplier: 1.5, max: seconds(60), jitter: 0.0 };
    let discovery =
        finds.then(|| Discovery { every: seconds(30), wanted: Arc::new(|_| true), generation: 7 });
    let policy = Policy { healthy: curve, error: curve, price: Some(1.0) };
    Rules { batch, requests_per_minute: 120, policy, discovery }
}

/// All inputs of a decision.
struct World {
    now: Instant,
    lister: Lister,
    slots: Slots,
}

impl World {
    /// With `runs` runs, all of them due.
    fn with(runs: u32, batch: Mode, finds: bool) -> Self {
        let now = Instant::now();
        let rules = rules(batch, finds);
        let mut slots = Slots::default();
        for n in 0..runs {
            let mut run = Watched::new(Subject { id: id(n), name: None }, Timestamp::UNIX_EPOCH);
            run.state.progress.total = Some(100);
            slots.add(run, &rules.policy, now);
        }
        Self { now, lister: Lister::new(rules, now), slots }
    }

    fn view(&self) -> View<'_> {
        View {
            slots: &self.slots,
            budget_at: self.now,
            key_refused: false,
            final_poll: false,
            room_for_slow: true,
            confirmed: 0,
        }
    }

    fn at(&self, after: u64) -> Instant {
        self.now + seconds(after)
    }

    fn decide(&self) -> Vec<Step> {
        self.lister.decide(self.now, &self.view())
    }

    /// Fetches a list for every due run.
    fn fetch(&mut self) {
        self.slots.gather_for_list(self.now);
        self.slots.forget_answers();
        self.lister.began(self.now);
    }

    fn read(&mut self, runs: Vec<Listed>) -> Vec<Step> {
        self.lister.ended();
        let listing = Listing { runs, bytes: 100, ..Listing::default() };
        self.lister.came(listing.bytes, self.now);
        self.lister.used(listing.bytes, self.now);
        self.lister.read(listing, self.now, &self.view())
    }
}

fn id(n: u32) -> RunId {
    format!("r{n}").parse().unwrap()
}

fn run(word: &str) -> Run {
    Run {
        status: RunStatus::parse(Some(word)),
        progress: Progress { completed: Some(1), failed: Some(0), total: None },
        created_at: None,
        completed_at: None,
        spec_id: None,
        details: None,
    }
}

fn listed(n: u32, word: &str) -> Listed {
    Listed { id: id(n), run: run(word) }
}

fn error(kind: PollErrorKind, retry_after: Option<u64>) -> PollError {
    PollError { kind, retry_after: retry_after.map(seconds), ..PollError::transient("x") }
}

#[test]
fn it_is_fetched_where_enough_runs_are_due() {
    let mut world = World::with(19, Mode::Auto, false);
    assert_eq!(world.decide(), [], "too few to find out what a list costs");
    world.lister.rules.batch = Mode::Always;
    let fetch = Step::Fetch { why: FIRST, gather: Some(world.at(2)) };
    assert_eq!(world.decide(), [fetch]);
    world.lister.rules.batch = Mode::Never;
    assert_eq!(world.decide(), []);
    let world = World::with(20, Mode::Auto, false);
    assert_eq!(world.decide(), [Step::Fetch { why: FIRST, gather: Some(world.at(2)) }]);
}

#[test]
fn nothing_is_fetched_without_budget_nor_at_a_deadline_nor_with_a_refused_key() {
    let world = World::with(20, Mode::Auto, false);
    for view in [
        View { budget_at: world.at(1), ..world.view() },
        View { final_poll: true, ..world.view() },
        View { key_refused: true, ..world.view() },
    ] {
        assert_eq!(world.lister.decide(world.now, &view), []);
    }
}

#[test]
fn runs_wait_for_the_list_that_is_under_way_until_it_takes_too_long() {
    let mut world = World::with(20, Mode::Auto, false);
    world.fetch();
    assert_eq!(world.decide(), [], "none is due any more");
    assert_eq!(world.lister.wake_at(world.now, &world.view()), Some(world.at(5)));
    for run in 0..20 {
        world.slots.schedule(run, world.now);
    }
    assert_eq!(world.decide(), [Step::Hold { until: world.at(5) }]);
    world.now += seconds(5);
    assert_eq!(world.decide(), [Step::StopWaiting]);
    world.lister.stop_waiting();
    assert_eq!(world.decide(), [], "it may come still, and no second one is fetched");
}

#[test]
fn the_next_list_waits_until_it_is_worth_its_price() {
    let mut world = World::with(3, Mode::Always, false);
    world.fetch();
    world.read((0..3).map(|n| listed(n, "PROCESSING")).collect());
    world.slots.recall_listing(world.now);
    let until = world.lister.spaced_until.unwrap();
    assert!(until > world.at(1), "a list is worth more than the shortest time between two");
    assert_eq!(world.decide(), [Step::Hold { until }]);
    world.now = until;
    let gather = Some(until + world.lister.spacing());
    assert_eq!(world.decide(), [Step::Fetch { why: FIRST, gather }]);
}

#[test]
fn what_is_to_be_confirmed_goes_before_the_next_list_but_not_for_ever() {
    let mut world = World::with(3, Mode::Always, false);
    world.slots.confirm(0, Confirm::End, world.now);
    assert_eq!(world.decide(), [Step::Hold { until: world.at(1) }]);
    let view = View { confirmed: CONFIRMS, ..world.view() };
    let fetch = Step::Fetch { why: FIRST, gather: Some(world.at(2)) };
    assert_eq!(world.lister.decide(world.now, &view), [fetch]);
}

#[test]
fn runs_are_looked_for_every_so_often_in_turn_with_polls() {
    let mut world = World::with(1, Mode::Auto, true);
    assert_eq!(world.decide(), [Step::Fetch { why: DISCOVERY, gather: None }]);
    world.lister.began(world.now);
    world.read(Vec::new());
    assert_eq!(world.decide(), []);
    world.now += seconds(30);
    assert_eq!(world.decide(), [], "it is the run's turn");
    world.lister.polled();
    assert_eq!(world.decide(), [Step::Fetch { why: DISCOVERY, gather: None }]);
    assert_eq!(world.lister.wake_at(world.now, &world.view()), Some(world.now));
}

#[test]
fn after_a_failure_it_pauses_and_nobody_waits_for_it() {
    let mut world = World::with(20, Mode::Auto, false);
    world.lister.began(world.now);
    world.lister.ended();
    let failure = world.lister.failed(&error(PollErrorKind::Throttled, Some(40)), false, world.now);
    assert_eq!((failure.hold, failure.is_trouble), (seconds(40), false));
    assert_eq!(world.decide(), [], "runs are polled by themselves");
    world.now += seconds(79);
    assert_eq!(world.decide(), [], "as much time again is the runs'");
    world.now += seconds(1);
    assert_eq!(world.decide(), [Step::Fetch { why: FIRST, gather: None }], "to see whether it comes");
    let failure = world.lister.failed(&error(PollErrorKind::Transient, None), false, world.now);
    assert!(failure.is_trouble, "two are no blip");
}

#[test]
fn a_list_is_believed_in_that_a_run_goes_on_and_in_nothing_else() {
    let mut world = World::with(4, Mode::Always, false);
    world.fetch();
    let unlisted = world.now.checked_add(UNLISTED);
    let steps = world.read(vec![listed(0, "PROCESSING"), listed(1, "FAILED"), listed(2, "PAUSED")]);
    assert_eq!(
        steps,
        [
            Step::Observe { run: 0, said: Box::new(run("PROCESSING")) },
            Step::Confirm { run: 1, confirm: Confirm::End },
            Step::Confirm { run: 2, confirm: Confirm::Details },
            Step::Unlisted { run: 3, until: unlisted },
            Step::Confirm { run: 3, confirm: Confirm::Details },
        ]
    );
}

#[test]
fn of_runs_that_it_was_not_fetched_for_only_news_counts() {
    let mut world = World::with(6, Mode::Always, false);
    for run in 0..6 {
        world.slots.schedule(run, world.at(50));
    }
    world.lister.began(world.now);
    world.slots.get_mut(4).unwrap().answered_meanwhile = true;
    let known = world.slots.get_mut(5).unwrap();
    known.watched.state.status = Some(RunStatus::Processing);
    known.watched.state.progress.completed = Some(1);
    known.watched.state.progress.failed = Some(0);
    // 3 is not in the list, which can miss a run that exists.
    let words = [(0, "PROCESSING"), (1, "SUCCEEDED"), (2, "PAUSED"), (4, "FAILED"), (5, "PROCESSING")];
    let steps = world.read(words.into_iter().map(|(n, word)| listed(n, word)).collect());
    let observed = Step::Observe { run: 0, said: Box::new(run("PROCESSING")) };
    assert_eq!(steps, [observed, Step::Confirm { run: 1, confirm: Confirm::End }]);
}

#[test]
fn how_many_samples_there_are_is_asked_of_a_few_runs_after_each_list() {
    let mut world = World::with(20, Mode::Always, false);
    for run in 0..20 {
        world.slots.get_mut(run).unwrap().watched.state.progress.total = None;
    }
    world.fetch();
    let steps = world.read((0..20).map(|n| listed(n, "PROCESSING")).collect());
    let confirmed = steps.iter().filter(|step| matches!(step, Step::Confirm { .. })).count();
    assert_eq!((confirmed, steps.len()), (DETAILS, 20));
}

#[test]
fn what_nobody_watches_is_handed_on() {
    let mut world = World::with(1, Mode::Never, true);
    world.lister.began(world.now);
    world.slots.schedule(0, world.at(50));
    let steps = world.read(vec![listed(0, "PROCESSING"), listed(9, "PENDING")]);
    let found = Found { runs: vec![listed(9, "PENDING")], newest: None, generation: 7 };
    assert_eq!(steps[0], Step::Found(found));
}
