//! Discovery on the built binary: which runs are discovered, notified or ignored.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::{Home, ask, stop};
use crate::support::stub::{Stub, error};
use crate::support::until::until;
use crate::support::world::{Course, Point, Temper, World};

/// An account, a daemon that looks for its runs, and who is told.
struct Account {
    world: World,
    home: Home,
    taken: Receiver<()>,
}

impl Account {
    /// With this in `[discover]`.
    fn looking(discover: &str) -> Self {
        let (sender, taken) = channel();
        let world = World::start(move |point| {
            if point == Point::Taken {
                sender.send(()).ok();
            }
        });
        let home = Home::at(&world.url());
        let account = Self { world, home, taken };
        account.configure(discover);
        account
    }

    fn configure(&self, discover: &str) {
        let webhook = format!("[[notify.webhook]]\nurl = \"{}\"\nunsigned = true\n", self.world.url());
        self.home.configure(&format!("{webhook}{discover}"));
    }

    /// Waits until so many different events have come; gives them, as `run kind`. One that was being told when the daemon was
    /// killed may come twice, under the same id.
    #[track_caller]
    fn told(&self, events: usize) -> Vec<String> {
        loop {
            let told: BTreeMap<String, String> = self
                .world
                .receipts()
                .into_iter()
                .map(|event| (event.id, format!("{} {}", event.run, event.kind)))
                .collect();
            if told.len() >= events {
                let mut told: Vec<String> = told.into_values().collect();
                told.sort();
                return told;
            }
            self.taken.recv_timeout(Duration::from_secs(20)).expect("an event");
        }
    }
}

/// A run that was created on this day of the last thirty.
fn created(day: u32, words: &[&'static str]) -> Course {
    let at = jiff::Timestamp::now() - Duration::from_hours(u64::from(30 - day) * 24);
    Course::through(words).with("created_at", at.to_string())
}

const GOING: &[&str] = &["PROCESSING", "PROCESSING", "SUCCEEDED"];
const LOOK: &str = "[discover]\ninterval = \"1s\"\n";

#[test]
fn every_run_that_goes_on_is_found_and_told_of_once_and_the_past_is_not() {
    let account = Account::looking(LOOK);
    account.world.set_course("going", created(1, GOING));
    account.world.set_course("past", created(2, &["FAILED"]));
    let daemon = account.home.start();
    assert_eq!(account.told(1), ["going run.succeeded"]);
    // One that begins later, and one that has come and gone before anybody looked.
    account.world.set_course("later", created(3, GOING));
    account.world.set_course("short", created(4, &["FAILED"]));
    assert_eq!(account.told(3), ["going run.succeeded", "later run.succeeded", "short run.failed"]);
    daemon.signal(Signal::KILL);
    daemon.wait();
    // While nobody looks.
    account.world.set_course("meanwhile", created(5, &["CANCELED"]));
    let daemon = account.home.start();
    assert_eq!(
        account.told(4),
        ["going run.succeeded", "later run.succeeded", "meanwhile run.canceled", "short run.failed"]
    );
    let listed = account.home.run(&["list", "--all", "--output", "json"]).json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 4, "what is past is not even known: {listed}");
    let log = stop(daemon);
    assert!(log.contains("found") && log.contains("meanwhile"), "{log}");
}

#[test]
fn an_entry_that_is_too_large_is_logged_and_hides_no_watched_run() {
    let account = Account::looking(LOOK);
    let notes = "x".repeat(70_000);
    account.world.set_course("large", created(1, GOING).with("notes", notes));
    let daemon = account.home.start();
    account.world.set_course("small", created(2, GOING));
    assert_eq!(account.told(1), ["small run.succeeded"]);
    assert_eq!(account.home.run(&["add", "large"]).code, Some(0));
    assert_eq!(account.told(2), ["large run.succeeded", "small run.succeeded"]);
    let log = stop(daemon);
    let line = "the run large, is larger than 64 KiB";
    assert_eq!(log.matches(line).count(), 1, "the same is not said again: {log}");
}

#[test]
fn globs_choose_and_the_past_is_told_since_when_it_is_asked_for() {
    let account = Account::looking(&format!(
        "{LOOK}spec_name = \"nightly-*\"\ncreated_by_email = [\"ana@*\", \"ben@*\"]\nannounce_past = \"1d\"\n"
    ));
    let ago = |hours: u32| {
        let at = jiff::Timestamp::now() - Duration::from_hours(u64::from(hours));
        move |course: Course| course.with("completed_at", at.to_string())
    };
    let spec = |spec: &'static str, by: &'static str, course: Course| {
        course.with("spec_name", spec).with("created_by_email", by)
    };
    for (id, course) in [
        ("a", spec("nightly-a", "Ana@example.com", created(1, GOING))),
        ("b", spec("nightly-b", "ben@example.com", ago(2)(created(2, &["FAILED"])))),
        ("long-ago", spec("nightly-b", "ben@example.com", ago(30)(created(2, &["FAILED"])))),
        ("weekly", spec("weekly", "ana@example.com", created(3, GOING))),
        ("nobodys", spec("nightly-a", "cy@example.com", created(4, GOING))),
    ] {
        account.world.set_course(id, course);
    }
    let daemon = account.home.start();
    assert_eq!(account.told(2), ["a run.succeeded", "b run.failed"]);
    // Another start tells nothing of it again; there is something to wait for.
    stop(daemon);
    account.world.set_course("c", spec("nightly-c", "ana@example.com", created(5, GOING)));
    let daemon = account.home.start();
    assert_eq!(account.told(3), ["a run.succeeded", "b run.failed", "c run.succeeded"]);
    stop(daemon);
    assert_eq!(account.world.receipts().len(), 3, "each once");
}

#[test]
fn what_was_removed_is_left_alone_until_it_is_added() {
    let account = Account::looking("");
    account.world.set_course("unwanted", created(1, &["PROCESSING"]));
    account.world.set_course("wanted", created(2, &["PROCESSING"]));
    let daemon = account.home.start();
    account.configure(LOOK);
    assert_eq!(account.home.run(&["reload"]).code, Some(0));
    account.home.wait_for("STATUS=2 runs, 0 finished");
    assert_eq!(account.home.run(&["remove", "unwanted"]).code, Some(0));
    // When the next new run is there, the one that was removed has been passed over.
    account.world.set_course("new", created(3, &["FAILED"]));
    assert_eq!(account.told(1), ["new run.failed"]);
    account.world.set_course("unwanted", created(1, &["FAILED"]));
    let listed = account.home.run(&["list", "--all"]).stdout;
    assert!(!listed.contains("unwanted") && listed.contains("\nwanted"), "{listed}");
    assert_eq!(account.home.run(&["add", "unwanted"]).code, Some(0));
    assert_eq!(account.told(2), ["new run.failed", "unwanted run.failed"]);
    stop(daemon);
}

#[test]
fn an_account_without_runs_is_looked_through_too() {
    let account = Account::looking(&format!("{LOOK}notify = [\"webhook\"]\n"));
    let daemon = account.home.start();
    // The first look has found nothing, and knows it.
    let metric = "runwatch_polls_total{outcome=\"answered\"}";
    let answered = || {
        let (_, metrics) = ask(&account.home.socket(), "GET /metrics");
        metrics.lines().any(|line| line.starts_with(metric) && !line.ends_with(" 0"))
    };
    until("an answer of the list", answered);
    let now = jiff::Timestamp::now().to_string();
    account.world.set_course("first", Course::through(&["SUCCEEDED"]).with("created_at", now));
    account.world.set_course("past", created(1, &["SUCCEEDED"]));
    assert_eq!(account.told(1), ["first run.succeeded"]);
    stop(daemon);
}

#[test]
fn an_api_without_a_list_is_said_at_once_and_forgotten_when_it_has_one() {
    let account = Account::looking(&format!("{LOOK}[[run]]\nid = \"named\"\n"));
    account.world.set_course("named", created(1, &["PROCESSING"]));
    account.world.set_temper(Temper { list_missing: true, ..Temper::default() });
    let daemon = account.home.start();
    account.home.wait_for("new runs cannot be discovered");
    let (code, troubles) = ask(&account.home.socket(), "GET /readyz");
    assert!(code == 503 && troubles.contains("new runs cannot be discovered"), "{code} {troubles}");
    let (_, status) = ask(&account.home.socket(), "GET /v1/status");
    assert!(status.contains("new runs cannot be discovered"), "{status}");
    account.world.set_temper(Temper::default());
    while account.home.wait_for("STATUS=1 run").contains("cannot be discovered") {}
    assert_eq!(ask(&account.home.socket(), "GET /readyz").0, 200);
    let log = stop(daemon);
    assert!(
        log.contains("discovering runs every 1s") && log.contains("new runs cannot be discovered"),
        "{log}"
    );
}

#[test]
fn a_found_run_says_where_it_is_from() {
    let account = Account::looking(LOOK);
    account.world.set_course("r", created(1, &["PROCESSING"]));
    let daemon = account.home.start();
    account.home.wait_for("STATUS=1 run, 0 finished");
    let shown = |home: &Home| home.run(&["show", "r"]).stdout;
    assert!(shown(&account.home).contains("from       [discover]"), "{}", shown(&account.home));
    assert_eq!(account.home.run(&["add", "r"]).code, Some(0));
    assert!(shown(&account.home).contains("from       runwatch add"), "{}", shown(&account.home));
    stop(daemon);
}

#[test]
fn the_first_look_at_another_api_is_a_first_look() {
    let account = Account::looking(LOOK);
    account.world.set_course("r", created(1, &["FAILED"]));
    account.world.set_course("new", created(3, GOING));
    let daemon = account.home.start();
    assert_eq!(account.told(1), ["new run.succeeded"]);
    stop(daemon);
    // Of this one all is younger, and past.
    let other = World::start(|_| {});
    other.set_course("theirs", created(20, &["FAILED"]));
    other.set_course("going", created(21, GOING));
    let account = Account { home: account.home.with_api(&other.url()), ..account };
    let daemon = account.home.start();
    assert_eq!(account.told(2), ["going run.succeeded", "new run.succeeded"]);
    stop(daemon);
}

#[test]
fn a_list_that_cannot_be_had_is_said_where_people_look() {
    let api = Stub::then_forever([], error(500));
    let home = Home::new(&api);
    home.configure("[discover]\n");
    let daemon = home.start();
    home.wait_for("API unreachable");
    let doctor = home.run(&["doctor"]);
    assert_eq!(doctor.code, Some(78), "{doctor:?}");
    assert!(doctor.stdout.contains("WRONG   discover"), "{doctor:?}");
    daemon.signal(Signal::KILL);
    daemon.wait();
}
