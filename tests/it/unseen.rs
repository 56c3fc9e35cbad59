//! No run is neglected: whatever the list does, and however many requests fail or hang, an active run is polled as
//! often as its schedule says, as long as the API answers about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use proptest::prelude::*;
use runwatch::api::{PollError, PollErrorKind};
use runwatch::poll::{Command, Curve, FinalRun, Mode, Policy, Scheduler, Settings};
use runwatch::run::{DoubtKind, Ending, Patience, RunId, Terminal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::scripted::{
    Api, Counted, Watch, doubt, fails, going, listed, seconds, settings, status, watched,
};

fn max_interval(max: u64, price: f64) -> Policy {
    let curve = |max| Curve { initial: seconds(1).min(max), multiplier: 1.5, max, jitter: 0.0 };
    let max = Duration::from_millis(max);
    Policy { healthy: curve(max), error: curve(seconds(60)), price: Some(price) }
}

/// So many runs that end at these seconds, and a list of them all.
fn ending(ends: Vec<u64>) -> Api {
    let now =
        |end: u64, at: Duration| if at < seconds(end) { going(1) } else { status("SUCCEEDED").unwrap() };
    let mut api = Api::new();
    for (n, end) in ends.iter().copied().enumerate() {
        api = api.with(&format!("r{n:03}"), move |_, at| Ok(now(end, at)));
    }
    api.with_list(move |_, at| {
        Ok(ends.iter().enumerate().map(|(n, end)| listed(&format!("r{n:03}"), now(*end, at))).collect())
    })
}

/// How late each end was noticed, in seconds, sorted.
async fn delays(watch: &mut Watch, ends: &[u64]) -> Vec<f64> {
    let mut late = Vec::new();
    for _ in ends {
        let run = loop {
            if let runwatch::poll::Update::Run(run, runwatch::run::RunChange::Ended) =
                watch.updates.recv().await.unwrap()
            {
                break run;
            }
        };
        let n: usize = run.subject.id.as_str()[1..].parse().unwrap();
        late.push(watch.api.started.elapsed().as_secs_f64() - ends[n] as f64);
    }
    late.sort_by(f64::total_cmp);
    late
}

#[tokio::test(start_paused = true)]
async fn the_longest_pause_binds_the_list() {
    let ends = vec![2; 50];
    let policy = max_interval(1000, 2.0);
    let settings = Settings { batch: Mode::Auto, policy, requests_per_minute: 6000, ..settings() };
    let mut watch = Watch::known(ending(ends.clone()), settings);
    let late = delays(&mut watch, &ends).await;
    assert!(late[49] < 2.5, "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn an_absurd_budget_makes_no_list_rare() {
    let ends: Vec<u64> = (0..200).map(|n| 12 + n % 7).collect();
    // By backoff, so that only the list decides how late an end is noticed.
    let policy = Policy { price: None, ..max_interval(60_000, 2.0) };
    let settings = Settings { batch: Mode::Auto, policy, requests_per_minute: 600_000, ..settings() };
    let mut watch = Watch::start(Api { body: 1000, ..ending(ends.clone()) }, settings);
    let late = delays(&mut watch, &ends).await;
    assert!(late[189] < 10.0, "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_list_showed_is_confirmed_before_all_else() {
    // A backlog of many runs, a small budget, and lists that come once only; every second answer about the one that ends is bad.
    let ids: Vec<String> = (0..100).map(|n| format!("r{n:03}")).collect();
    let mut api = Api::new();
    for id in &ids[..99] {
        api = api.with(id, |_, _| Ok(going(1)));
    }
    let api =
        api.with(
            "r099",
            |times, _| {
                if times <= 2 { fails(PollErrorKind::Transient, None) } else { status("FAILED") }
            },
        );
    let api = api.with_list(move |times, _| match times {
        1 => Ok(ids
            .iter()
            .map(|id| listed(id, if id == "r099" { status("FAILED").unwrap() } else { going(1) }))
            .collect()),
        _ => fails(PollErrorKind::Transient, None),
    });
    let mut watch = Watch::known(api, Settings { batch: Mode::Auto, ..settings() });
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Failed));
    let late = watch.api.started.elapsed();
    assert!(late < seconds(5), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_page_instead_of_a_confirmation_makes_it_wait_for_no_list() {
    let mut api = Api::new();
    let ids: Vec<String> = (0..40).map(|n| format!("r{n:03}")).collect();
    for id in &ids[..39] {
        api = api.with(id, |_, _| Ok(going(1)));
    }
    api = api.with("r039", |times, _| if times <= 2 { page() } else { status("FAILED") });
    // Lists that cost much, and come seldom.
    api.list_latency = seconds(10);
    let api = api.with_list(move |_, _| {
        let said = |id: &String| if id == "r039" { status("FAILED").unwrap() } else { going(1) };
        Ok(ids.iter().map(|id| listed(id, said(id))).collect())
    });
    let policy = max_interval(60_000, 2.0);
    let mut watch = Watch::known(api, Settings { batch: Mode::Always, policy, ..settings() });
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Failed));
    let asked = watch.api.times("r039");
    assert!(asked[2] - asked[0] < 5.0, "{asked:?}");
}

/// A page of something on the way.
fn page<T>() -> Result<T, PollError> {
    fails(PollErrorKind::Doubt(DoubtKind::NoSuchPage), None)
        .map_err(|error: PollError| PollError { is_page: true, ..error })
}

#[tokio::test(start_paused = true)]
async fn what_the_list_claims_against_the_api_itself_hastens_no_poll() {
    let mut api = Api::new().with("r039", |_, _| doubt(DoubtKind::Missing));
    let ids: Vec<String> = (0..40).map(|n| format!("r{n:03}")).collect();
    for id in &ids[..39] {
        api = api.with(id, |_, _| Ok(going(1)));
    }
    let api = api.with_list(move |_, _| {
        let said = |id: &String| if id == "r039" { status("FAILED").unwrap() } else { going(1) };
        Ok(ids.iter().map(|id| listed(id, said(id))).collect())
    });
    let patience = Patience { grace: seconds(3600), ..settings().patience };
    let policy = Policy { error: max_interval(60_000, 2.0).healthy, ..max_interval(4000, 2.0) };
    let settings =
        Settings { batch: Mode::Always, policy, patience, requests_per_minute: 6000, ..settings() };
    let watch = Watch::known(api, settings);
    sleep(seconds(300)).await;
    let (asked, lists) = (watch.api.times("r039"), watch.api.lists().len());
    assert!(lists > 30, "{lists}");
    assert!((5..20).contains(&asked.len()), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn runs_whose_requests_hang_do_not_starve_the_others() {
    let policy = Policy { price: None, ..max_interval(10_000, 2.0) };
    let (source, cancel, task) =
        Hanging::new(40, 20).watch(Settings { policy, requests_per_minute: 6000, ..settings() });
    let ids = source.answering.clone();
    sleep(seconds(2000)).await;
    cancel.cancel();
    task.await.unwrap();
    let count = |id: &str| source.inner.times(id).iter().filter(|at| **at > 400.0).count();
    for id in &ids {
        let asked = count(id);
        assert!(asked > 100, "{id} was asked about {asked} times in 1600 s");
    }
    let hung = (0..40).map(|n| count(&format!("hangs{n:02}"))).min().unwrap();
    assert!((2..100).contains(&hung), "and those are not forgotten: {hung}");
}

#[tokio::test(start_paused = true)]
async fn runs_whose_requests_hang_delay_no_first_poll_of_the_others() {
    let policy = Policy { price: None, ..max_interval(10_000, 2.0) };
    let settings = Settings { policy, requests_per_minute: 6000, ..settings() };
    let (source, cancel, task) = Hanging::new(40, 20).watch(settings);
    sleep(seconds(400)).await;
    cancel.cancel();
    task.await.unwrap();
    let first = |id: &String| source.inner.times(id)[0];
    let late = source.answering.iter().map(first).fold(0.0, f64::max);
    assert!(late < 6.0, "first polled after {late} s");
    assert!(source.most_in_flight.load(SeqCst) <= 8);
    // What a poll cut short could not learn is learned with the full time.
    for n in 0..40 {
        let polls = source.inner.times(&format!("hangs{n:02}")).len();
        assert!(polls >= 2, "{polls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_request_hangs_delays_the_others_by_no_more_than_a_moment_in_the_only_place() {
    for hanging in [1, 5] {
        let policy = Policy { price: None, ..max_interval(10_000, 2.0) };
        let settings = Settings { policy, max_in_flight: 1, requests_per_minute: 6000, ..settings() };
        let (source, cancel, task) = Hanging::new(hanging, 2).watch(settings);
        sleep(seconds(1000)).await;
        cancel.cancel();
        let ended = task.await.unwrap();
        for id in &source.answering {
            let asked = source.inner.times(id);
            let gap = asked.windows(2).map(|pair| pair[1] - pair[0]).fold(asked[0], f64::max);
            assert!(asked.len() > 80 && gap < 13.0, "{hanging}: {gap} s without a poll of {id}");
        }
        assert_eq!(source.most_in_flight.load(SeqCst), 1);
        for run in ended.iter().filter(|run| run.watched.subject.id.as_str().starts_with("hangs")) {
            assert!(run.polls > 10, "{hanging}: {} polls", run.polls);
            assert!(run.trouble.as_ref().is_some_and(|trouble| trouble.times > 1), "{:?}", run.trouble);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_answers_slowly_in_the_only_place_is_seen() {
    let policy = Policy { price: None, ..max_interval(20_000, 2.0) };
    let settings = Settings { policy, max_in_flight: 1, requests_per_minute: 6000, ..settings() };
    let mut hanging = Hanging::new(1, 2);
    hanging.latency = seconds(8);
    hanging.inner = hanging.inner.with("hangs00", |times, _| Ok(going(times as u64)));
    let (_, cancel, task) = hanging.watch(settings);
    sleep(seconds(1000)).await;
    cancel.cancel();
    let ended = task.await.unwrap();
    let slow = ended.iter().find(|run| run.watched.subject.id.as_str() == "hangs00").unwrap();
    assert!(slow.watched.state.status.is_some() && slow.trouble.is_none(), "{:?}", slow.trouble);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_slow_about_every_run_loses_few_polls() {
    let mut api = Api::new();
    for n in 0..100 {
        api = api.with(&format!("r{n:03}"), |times, _| Ok(going(times as u64)));
    }
    api.latency = seconds(3);
    let mut watch = Watch::start(api, Settings { requests_per_minute: 6000, ..settings() });
    let (mut answers, end) = (0, Instant::now() + seconds(600));
    while let Ok(Some(_)) = timeout(end.saturating_duration_since(Instant::now()), watch.updates.recv()).await
    {
        answers += 1;
    }
    let asked = watch.api.asked.lock().unwrap().len();
    assert!(answers > 0 && asked - answers <= 110, "{asked} polls, {answers} answers");
}

/// An API that never answers about some runs, within half a minute.
struct Hanging {
    inner: Api,
    answering: Vec<String>,
    /// How long the API takes for the other runs.
    latency: Duration,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Hanging {
    fn new(hanging: usize, answering: usize) -> Self {
        let mut inner = Api::new();
        for n in 0..hanging {
            inner = inner.with(&format!("hangs{n:02}"), |_, _| fails(PollErrorKind::Transient, None));
        }
        let answering: Vec<String> = (0..answering).map(|n| format!("r{n:02}")).collect();
        for id in &answering {
            inner = inner.with(id, |_, _| Ok(going(1)));
        }
        inner.latency = Duration::from_millis(10);
        let (in_flight, most_in_flight) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { inner, answering, latency: seconds(30), in_flight, most_in_flight }
    }

    /// Watches them all, those that hang first.
    fn watch(self, settings: Settings) -> (Arc<Self>, CancellationToken, JoinHandle<Vec<FinalRun>>) {
        let source = Arc::new(self);
        let store = Arc::new(runwatch::store::SqliteStore::in_memory().unwrap());
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        let (_, receiver) = tokio::sync::mpsc::channel::<Command>(1);
        let mut scheduler = Scheduler::new(settings, Arc::clone(&source) as _, store, sender, receiver);
        let mut ids: Vec<&RunId> = source.inner.scripts.keys().collect();
        ids.sort();
        for id in ids {
            scheduler.watch(watched(id.clone()));
        }
        let cancel = CancellationToken::new();
        (Arc::clone(&source), cancel.clone(), tokio::spawn(scheduler.run(cancel)))
    }
}

impl runwatch::api::RunSource for Hanging {
    fn poll<'a>(
        &'a self,
        id: &'a RunId,
    ) -> runwatch::BoxFuture<'a, Result<runwatch::api::Answer, runwatch::api::PollError>> {
        Box::pin(async move {
            let _in_flight = Counted::new(&self.in_flight, &self.most_in_flight);
            let answer = self.inner.poll(id).await;
            if id.as_str().starts_with("hangs") {
                sleep(self.latency).await;
            }
            answer
        })
    }

    fn reload_key(&self) -> runwatch::BoxFuture<'_, Result<(), String>> {
        self.inner.reload_key()
    }
}

/// A number that looks random, from a seed and where it is used.
fn chance(seed: u64, place: &str, times: usize) -> u64 {
    let mut hash = seed ^ 0x9e37_79b9_7f4a_7c15;
    for byte in place.bytes().chain(times.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
    (hash ^ (hash >> 31)) % 100
}

/// When each of a few runs was seen last, and the longest time that one went unseen while it was active.
async fn longest_unseen(seed: u64, bad: u64, batch: Mode, max: u64, price: f64, runs: usize) -> Duration {
    let mut api = Api::new();
    let ids: Vec<String> = (0..runs).map(|n| format!("r{n:02}")).collect();
    let fault = move |place: &str, times: usize| {
        let dice = chance(seed, place, times);
        (dice < bad).then(|| match dice % 3 {
            0 => fails(PollErrorKind::Throttled, Some(2)),
            _ => fails(PollErrorKind::Transient, None),
        })
    };
    for id in &ids {
        let place = id.clone();
        api = api.with(id, move |times, _| fault(&place, times).unwrap_or_else(|| Ok(going(times as u64))));
    }
    let in_list = ids.clone();
    api.list_latency = Duration::from_millis(seed % 3000);
    let api = api.with_list(move |times, _| {
        if let Some(error) = fault("list", times) {
            return error.map(|_| Vec::new());
        }
        // Some are left out, of some it says that they have ended, which they have not.
        let one = |id: &String| {
            let dice = chance(seed, id, times + 1000);
            let run = if dice < bad / 3 { status("SUCCEEDED").unwrap() } else { going(times as u64) };
            (dice < 95).then(|| listed(id, run))
        };
        Ok(in_list.iter().filter_map(one).collect())
    });
    let policy = max_interval(max, price);
    let policy =
        Policy { error: Curve { max: Duration::from_millis(max).max(seconds(1)), ..policy.error }, ..policy };
    // Enough for each by itself.
    let settings = Settings { batch, policy, requests_per_minute: 60_000, max_in_flight: 64, ..settings() };
    let mut watch = Watch::known(api, settings);
    let start = Instant::now();
    let mut looks: Vec<Instant> = vec![start; runs];
    let mut longest = Duration::ZERO;
    let end = start + seconds(600);
    while let Ok(Some(update)) =
        timeout(end.saturating_duration_since(Instant::now()), watch.updates.recv()).await
    {
        if let runwatch::poll::Update::Run(run, _) = update
            && run.trouble.is_none()
        {
            let n: usize = run.subject.id.as_str()[1..].parse().unwrap();
            longest = longest.max(looks[n].elapsed());
            looks[n] = Instant::now();
        }
    }
    watch.stop().await;
    looks.iter().map(Instant::elapsed).fold(longest, Duration::max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_no_run_goes_unseen_for_long(
        seed in any::<u64>(),
        bad in 0u64..40,
        batch in prop::sample::select(vec![Mode::Auto, Mode::Always, Mode::Never]),
        max in prop::sample::select(vec![900u64, 2000, 10_000]),
        price in prop::sample::select(vec![0.5, 2.0, 10.0]),
        runs in 1usize..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let longest = runtime.block_on(longest_unseen(seed, bad, batch, max, price, runs));
        // Far from the end the counts may double or treble the longest pause; each of a few failures in a row costs one more
        // pause, and the API may ask for two seconds each time.
        let pause = Duration::from_millis(max) * if price > 2.0 { 6 } else { 2 };
        let allowed = pause + (Duration::from_millis(max).max(seconds(1)) + seconds(2)) * 8;
        prop_assert!(longest <= allowed, "{longest:?} instead of {allowed:?}");
    }
}
