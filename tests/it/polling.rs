//! The scheduler against a scripted API in memory, in virtual time: when it polls, and which answers it believes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::api::PollErrorKind;
use runwatch::poll::{Command, Curve, Policy, Settings, Update, Watched};
use runwatch::run::{DoubtKind, Ending, Progress, Run, RunId, SpecId, Subject, Terminal};
use runwatch::store::{
    Commit, MomentName, Outbox as _, RunDuration, RunStore, SqliteStore, StoreError, StoreErrorKind,
};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::support::scripted::{Api, Watch, doubt, fails, one_channel, seconds, settings, status, watched};

#[tokio::test(start_paused = true)]
async fn no_transient_error_ends_a_watch() {
    // Ten hours of it, then the end.
    let api = Api::new().with("r", |times, at| match at.as_secs() {
        0..36_000 if times.is_multiple_of(7) => fails(PollErrorKind::Throttled, None),
        0..36_000 => fails(PollErrorKind::Transient, None),
        _ => status("SUCCEEDED"),
    });
    let mut watch = Watch::start(api, settings());
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Succeeded));
    let (runs, api) = watch.stop().await;
    assert!(runs[0].polls > 500, "{}", runs[0].polls);
    let times = api.times("r");
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(longest <= 60.0, "capped at the longest interval: {longest}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_each_way() {
    let api = Api::new().with("r", |_, at| match at.as_secs() {
        10..200 => fails(PollErrorKind::Transient, None),
        0..400 => status("PROCESSING"),
        _ => status("SUCCEEDED"),
    });
    let mut watch = Watch::start(api, settings());
    // Looks at the notices when the run has ended.
    loop {
        sleep(seconds(600)).await;
        if watch.api.started.elapsed() > seconds(500) {
            break;
        }
    }
    assert_eq!(watch.notices(), ["down", "up"]);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_a_floor() {
    let api = Api::new().with("r", |times, _| match times {
        1 => status("PROCESSING"),
        2 => fails(PollErrorKind::Transient, Some(300)),
        3 => fails(PollErrorKind::Throttled, Some(40)),
        _ => status("SUCCEEDED"),
    });
    let mut watch = Watch::start(api, settings());
    watch.ended().await;
    assert_eq!(watch.stop().await.1.times("r"), [0.0, 1.0, 301.0, 341.0]);
}

#[tokio::test(start_paused = true)]
async fn an_id_never_seen_is_called_wrong_when_the_grace_ends_to_the_second() {
    let mut watch = Watch::start(Api::new().with("r", |_, _| doubt(DoubtKind::Missing)), settings());
    assert_eq!(watch.ended().await, Ending::NeverFound);
    let (_, api) = watch.stop().await;
    assert_eq!(api.times("r").last(), Some(&60.0));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_appears_within_the_grace_is_watched() {
    let api = Api::new().with("r", |_, at| match at.as_secs() {
        0..45 => doubt(DoubtKind::Missing),
        _ => status("SUCCEEDED"),
    });
    assert_eq!(Watch::start(api, settings()).ended().await, Ending::Finished(Terminal::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_status_is_borne_for_half_an_hour_and_warned_of_once() {
    let mut watch = Watch::start(Api::new().with("r", |_, _| status("PAUSED")), settings());
    sleep(seconds(1790)).await;
    assert_eq!(watch.notices(), ["doubt"]);
    assert_eq!(watch.ended().await, Ending::Unknowable);
    assert_eq!(watch.stop().await.1.times("r").last(), Some(&1800.0));
}

#[tokio::test(start_paused = true)]
async fn the_key_is_read_again_once() {
    let refused = || doubt(DoubtKind::KeyRefused);
    let rotated = Api::new().with("r", move |times, _| match times {
        1 | 3 => status("PROCESSING"),
        2 => refused(),
        _ => status("SUCCEEDED"),
    });
    let mut watch = Watch::start(rotated, settings());
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Succeeded));
    assert_eq!(watch.api.reloads.load(Ordering::SeqCst), 1);
    let refusing = Api::new().with("r", move |_, _| refused());
    let mut watch = Watch::start(refusing, settings());
    assert_eq!(watch.ended().await, Ending::KeyRefused);
    assert_eq!(watch.stop().await.0[0].polls, 2);
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_kept_and_shared_fairly() {
    let mut api = Api::new();
    for n in 0..50 {
        api = api.with(&format!("r{n:02}"), |_, _| status("PROCESSING"));
    }
    let watch = Watch::start(api, settings());
    sleep(seconds(600)).await;
    let (runs, api) = watch.stop().await;
    let asked: Vec<f64> = api.asked.lock().unwrap().iter().map(|(at, _)| at.as_secs_f64()).collect();
    for from in 0..9 {
        let from = f64::from(from) * 60.0;
        let count = asked.iter().filter(|at| (from..from + 60.0).contains(at)).count();
        assert!(
            count <= 130,
            "{count} requests in the minute from {from} s; 120 and a burst of 10 are allowed"
        );
    }
    let first = asked.iter().filter(|at| **at < 60.0).count();
    assert!(first >= 115, "the budget is used: {first} requests in the first minute");
    let polls: Vec<u32> = runs.iter().map(|run| run.polls).collect();
    let (least, most) = (polls.iter().min().unwrap(), polls.iter().max().unwrap());
    assert!(most - least <= 2, "between {least} and {most} polls a run");
}

#[tokio::test(start_paused = true)]
async fn no_more_polls_are_in_flight_than_allowed() {
    let mut api = Api::new();
    api.latency = seconds(5);
    for n in 0..40 {
        api = api.with(&format!("r{n:02}"), |_, _| status("PROCESSING"));
    }
    let watch = Watch::start(api, Settings { max_in_flight: 3, requests_per_minute: 6000, ..settings() });
    sleep(seconds(120)).await;
    assert_eq!(watch.stop().await.1.most_in_flight.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn one_last_poll_comes_exactly_when_it_is_asked_for() {
    // "held" was told to stay away, which counts for more.
    let api = Api::new()
        .with("done", |times, _| status(if times < 11 { "PROCESSING" } else { "SUCCEEDED" }))
        .with("going", |_, _| status("PROCESSING"))
        .with("held", |_, _| fails(PollErrorKind::Transient, Some(3000)));
    let watch = Watch::start(api, settings());
    sleep(seconds(100)).await;
    let (reply, looked) = oneshot::channel();
    watch.commands.send(Command::FinalPoll(reply)).await.unwrap();
    looked.await.unwrap();
    assert_eq!(watch.api.started.elapsed(), seconds(100));
    let (_, api) = watch.stop().await;
    for (id, last) in [("done", 100.0), ("going", 100.0), ("held", 0.0)] {
        assert_eq!(api.times(id).last(), Some(&last), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_poll_waits_for_no_budget() {
    let ids: Vec<String> = (0..20).map(|n| format!("r{n:02}")).collect();
    let api = ids.iter().fold(Api::new(), |api, id| api.with(id, |_, _| status("PROCESSING")));
    let watch = Watch::start(api, Settings { requests_per_minute: 6, ..settings() });
    sleep(seconds(600)).await;
    watch.ask(Command::FinalPoll).await;
    assert_eq!(watch.api.started.elapsed(), seconds(600));
    let (_, api) = watch.stop().await;
    assert!(ids.iter().all(|id| api.times(id).last() == Some(&600.0)), "every run is polled at the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_began_before_the_deadline_is_not_the_last() {
    let mut api = Api::new().with("r", |times, _| status(if times == 1 { "PROCESSING" } else { "FAILED" }));
    api.latency = seconds(8);
    let watch = Watch::start(api, settings());
    sleep(seconds(5)).await;
    let (reply, looked) = oneshot::channel();
    watch.commands.send(Command::FinalPoll(reply)).await.unwrap();
    looked.await.unwrap();
    let (runs, api) = watch.stop().await;
    assert_eq!(api.times("r"), [0.0, 5.0], "the one under way is broken off");
    assert_eq!(runs[0].watched.state.ended, Some(Ending::Finished(Terminal::Failed)));
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_budget_in_any_minute() {
    let mut api = Api::new();
    let ids: Vec<String> = (0..500).map(|n| format!("r{n}")).collect();
    for id in &ids {
        api = api.with(id, |_, _| status("PROCESSING"));
    }
    let watch = Watch::start(api, Settings { requests_per_minute: 120, ..settings() });
    sleep(seconds(600)).await;
    let (_, api) = watch.stop().await;
    let asked: Vec<f64> = api.asked.lock().unwrap().iter().map(|(at, _)| at.as_secs_f64()).collect();
    for (first, at) in asked.iter().enumerate() {
        let in_a_minute = asked[first..].iter().take_while(|later| **later < at + 60.0).count();
        assert!(in_a_minute <= 120, "{in_a_minute} from {at} s on");
    }
    assert!(asked.len() > 1000, "and not much less");
}

/// A store that fails for a while.
struct Failing {
    inner: Arc<SqliteStore>,
    failures: AtomicUsize,
}

impl RunStore for Failing {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        self.inner.load()
    }

    fn moment(&self, name: MomentName) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        self.inner.moment(name)
    }

    fn add(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        self.inner.add(runs)
    }

    fn save(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.save(runs)
    }

    fn forget(&self, runs: Vec<RunId>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.forget(runs)
    }

    fn durations(&self, spec: SpecId) -> BoxFuture<'_, Result<Vec<RunDuration>, StoreError>> {
        self.inner.durations(spec)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            let error = StoreError { kind: StoreErrorKind::Full, message: "disk full".into() };
            return Box::pin(async { Err(error) });
        }
        self.inner.commit(commit)
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_believed_and_not_lost() {
    let inner = Arc::new(SqliteStore::in_memory().unwrap());
    let failing = Failing { inner: Arc::clone(&inner), failures: AtomicUsize::new(5) };
    let api = Api::new().with("r", |_, _| status("FAILED"));
    let settings = Settings { routes: one_channel(), ..settings() };
    let mut watch =
        Watch::start_on(api, settings, vec![watched("r".parse().unwrap())], Arc::new(failing), inner);
    assert_eq!(watch.updates.recv().await.map(|update| matches!(update, Update::StoreFailed(_))), Some(true));
    assert_eq!(watch.store.undelivered().await.unwrap(), [], "nothing is to be told that was not recorded");
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Failed));
    assert_eq!(watch.store.undelivered().await.unwrap().len(), 1);
    assert_eq!(watch.store.load().await.unwrap()[0].state.ended, Some(Ending::Finished(Terminal::Failed)));
    assert_eq!(watch.stop().await.0[0].polls, 6);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_ended_is_never_asked_about_again() {
    let api = Api::new().with("r", |_, _| status("CANCELED")).with("s", |_, _| status("PROCESSING"));
    let mut watch = Watch::start(api, settings());
    watch.ended().await;
    sleep(seconds(3600)).await;
    assert_eq!(watch.stop().await.1.times("r"), [0.0]);
}

#[tokio::test(start_paused = true)]
async fn runs_are_added_and_taken_out_while_it_runs() {
    let api = Api::new().with("a", |_, _| status("PROCESSING")).with("b", |_, _| status("PROCESSING"));
    let watch = Watch::start(api, settings());
    sleep(seconds(10)).await;
    let b: RunId = "b".parse().unwrap();
    let (reply, removed) = oneshot::channel();
    watch.commands.send(Command::Remove(b.clone(), reply)).await.unwrap();
    removed.await.unwrap();
    let asked = watch.api.times("b").len();
    sleep(seconds(600)).await;
    assert_eq!(watch.api.times("b").len(), asked, "not asked about any more");
    let again = Watched::new(Subject { id: b.clone(), name: Some("again".into()) }, Timestamp::UNIX_EPOCH);
    watch.commands.send(Command::Add(vec![again])).await.unwrap();
    sleep(seconds(1)).await;
    assert_eq!(watch.api.times("b").len(), asked + 1, "asked about at once");
    let (reply, views) = oneshot::channel();
    watch.commands.send(Command::Snapshot(reply)).await.unwrap();
    let views = views.await.unwrap();
    assert!(views.iter().any(|view| view.subject.label() == "again"));
    // Nothing comes back for one that is not watched.
    let (reply, removed) = oneshot::channel();
    watch.commands.send(Command::Remove("nobody".parse().unwrap(), reply)).await.unwrap();
    assert!(removed.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_resumed_machine_asks_about_everything_within_the_budget() {
    let mut api = Api::new();
    let ids: Vec<String> = (0..30).map(|n| format!("r{n:02}")).collect();
    for id in &ids {
        api = api.with(id, |_, _| status("PROCESSING"));
    }
    let held = |times: usize, _| {
        if times == 1 { fails(PollErrorKind::Transient, Some(3000)) } else { status("PROCESSING") }
    };
    let watch = Watch::start(api.with("held", held), settings());
    sleep(seconds(900)).await;
    watch.commands.send(Command::Resumed).await.unwrap();
    sleep(seconds(30)).await;
    for id in &ids {
        let last = *watch.api.times(id).last().unwrap();
        assert!(last >= 900.0, "{id} was asked about at {last} last");
    }
    assert_eq!(watch.api.times("held").len(), 1, "what the API asked for holds");
}

#[tokio::test(start_paused = true)]
async fn another_request_budget_holds_from_the_reload_on() {
    let mut api = Api::new();
    for n in 0..50 {
        api = api.with(&format!("r{n:02}"), |_, _| status("PROCESSING"));
    }
    let watch = Watch::start(api, Settings { requests_per_minute: 6, ..settings() });
    let mut before = 0;
    for (requests_per_minute, allowed) in [(6, 40..=61), (600, 400..=6000), (6, 40..=61)] {
        let settings = Box::new(Settings { requests_per_minute, ..settings() });
        watch.commands.send(Command::Reconfigure(settings, Arc::clone(&watch.api) as _)).await.unwrap();
        sleep(seconds(600)).await;
        let asked = watch.api.asked.lock().unwrap().len();
        let sent = asked - std::mem::replace(&mut before, asked);
        assert!(allowed.contains(&sent), "{sent} in ten minutes of {requests_per_minute} a minute");
    }
}

#[tokio::test(start_paused = true)]
async fn counts_are_written_down_every_so_often_and_at_the_end() {
    let api = Api::new().with("r", |times, _| {
        let completed = Some(times as u64);
        status("PROCESSING")
            .map(|run| Run { progress: Progress { completed, failed: None, total: None }, ..run })
    });
    let watch = Watch::start(api, Settings { save_every: Some(seconds(30)), ..settings() });
    let stored = async |watch: &Watch| watch.store.load().await.unwrap()[0].state.progress.completed;
    sleep(seconds(20)).await;
    assert_eq!(stored(&watch).await, Some(1), "with the change of status");
    sleep(seconds(20)).await;
    assert!(stored(&watch).await > Some(3));
    sleep(seconds(70)).await;
    let store = Arc::clone(&watch.store);
    let (runs, _) = watch.stop().await;
    assert_eq!(store.load().await.unwrap()[0].state.progress, runs[0].watched.state.progress);
}

#[tokio::test(start_paused = true)]
async fn other_settings_hold_from_now_on() {
    let api = Api::new().with("r", |_, _| status("PROCESSING"));
    let watch = Watch::start(api, settings());
    sleep(seconds(600)).await;
    let before = watch.api.times("r").len();
    let curve = Curve { initial: seconds(5), multiplier: 1.0, max: seconds(5), jitter: 0.0 };
    let quicker = Settings { policy: Policy { healthy: curve, error: curve, price: None }, ..settings() };
    let elsewhere = Arc::new(Api::new().with("r", |_, _| status("PROCESSING")));
    watch.commands.send(Command::Reconfigure(Box::new(quicker), Arc::clone(&elsewhere) as _)).await.unwrap();
    sleep(seconds(600)).await;
    assert_eq!(watch.api.times("r").len(), before, "the API of before is left alone");
    assert!(elsewhere.times("r").len() > 100);
}

#[tokio::test(start_paused = true)]
async fn the_counts_say_when_to_ask() {
    // 600 samples at one a second, and over.
    let counted = |_, at: Duration| {
        let completed = at.as_secs().min(600);
        let word = if at >= seconds(601) { "SUCCEEDED" } else { "PROCESSING" };
        status(word).map(|run| Run {
            progress: Progress { completed: Some(completed), failed: Some(0), total: Some(600) },
            ..run
        })
    };
    let mut polls = Vec::new();
    for price in [None, Some(2.0)] {
        let policy = Policy { price, ..settings().policy };
        let mut watch = Watch::start(Api::new().with("r", counted), Settings { policy, ..settings() });
        assert_eq!(watch.ended().await, Ending::Finished(Terminal::Succeeded));
        let late = watch.api.started.elapsed().saturating_sub(seconds(601));
        let (runs, _) = watch.stop().await;
        polls.push((runs[0].polls, late));
    }
    let [(plainly, late_plainly), (aimed, late_aimed)] = polls[..] else { panic!("two policies") };
    assert!(aimed <= plainly, "{aimed} requests instead of {plainly}");
    assert!(
        late_aimed < seconds(5) && late_aimed < late_plainly,
        "{late_aimed:?} late instead of {late_plainly:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_earlier_runs_of_the_spec_took_says_when_to_ask() {
    let spec_id = SpecId::parse("3c90c3cc-0d44-4b50-8888-8dd25736052a");
    // The wall clock stands still in here: by it, the run was created ten minutes ago, which is what the others took.
    let created = Timestamp::now() - seconds(600);
    let mut times = Vec::new();
    for earlier in [0, 8] {
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        for number in 0..earlier {
            let mut run = watched(format!("earlier-{number}").parse().unwrap());
            run.state.ended = Some(Ending::Finished(Terminal::Succeeded));
            run.state.spec_id = spec_id;
            run.state.created_at = Some(created - seconds(3600));
            run.state.completed_at = Some(created - seconds(3000));
            store.commit(Commit { run: Some(run), ..Commit::default() }).await.unwrap();
        }
        let api = Api::new().with("r", move |_, _| {
            status("PROCESSING").map(|run| Run { spec_id, created_at: Some(created), ..run })
        });
        let policy = Policy { price: Some(2.0), ..settings().policy };
        let runs = vec![watched("r".parse().unwrap())];
        let watch =
            Watch::start_on(api, Settings { policy, ..settings() }, runs, Arc::clone(&store) as _, store);
        sleep(seconds(600)).await;
        times.push(watch.stop().await.1.times("r"));
    }
    let longest = |times: &[f64]| times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(longest(&times[0]) > 40.0, "of a run of ten minutes, little is known: {:?}", times[0]);
    assert!(longest(&times[1]) < 30.0, "the end may come any moment: {:?}", times[1]);
}
