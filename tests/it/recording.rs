//! The scheduler's writes on a slow store: writes for a run keep their order, and failed writes cause no poll that the
//! API asked not to get.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::api::PollErrorKind;
use runwatch::poll::{Alerts, Command, Settings, Watched};
use runwatch::run::{DoubtKind, Progress, Run, RunId, SpecId};
use runwatch::store::{Commit, MomentName, RunDuration, RunStore, SqliteStore, StoreError, StoreErrorKind};
use tokio::time::sleep;

use crate::support::scripted::{Api, Watch, fails, one_channel, seconds, settings, status, watched};

/// A store of which every write takes another while, so that what comes later may be done sooner.
struct Slow {
    inner: Arc<SqliteStore>,
    writes: AtomicU64,
    /// The counts of each run as they were written, in the order in which that was done.
    written: Mutex<HashMap<RunId, Vec<u64>>>,
    failing: AtomicUsize,
}

impl Slow {
    fn new(inner: &Arc<SqliteStore>, failing: usize) -> Self {
        let inner = Arc::clone(inner);
        Self {
            inner,
            writes: AtomicU64::new(0),
            written: Mutex::default(),
            failing: AtomicUsize::new(failing),
        }
    }

    async fn wait(&self) -> Result<(), StoreError> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(number * 7919 % 9000)).await;
        let left = self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(StoreError { kind: StoreErrorKind::Full, message: "disk full".into() }),
            Err(_) => Ok(()),
        }
    }

    fn note(&self, run: &Watched) {
        let counts = run.state.progress.completed.unwrap_or(0);
        self.written.lock().unwrap().entry(run.subject.id.clone()).or_default().push(counts);
    }
}

impl RunStore for Slow {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        self.inner.load()
    }

    fn moment(&self, name: MomentName) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        self.inner.moment(name)
    }

    fn durations(&self, spec: SpecId) -> BoxFuture<'_, Result<Vec<RunDuration>, StoreError>> {
        self.inner.durations(spec)
    }

    fn add(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        self.inner.add(runs)
    }

    fn save(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.wait().await?;
            for run in &runs {
                self.note(run);
            }
            self.inner.save(runs).await
        })
    }

    fn forget(&self, runs: Vec<RunId>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.forget(runs)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.wait().await?;
            if let Some(run) = &commit.run {
                self.note(run);
            }
            self.inner.commit(commit).await
        })
    }
}

/// Runs whose counts grow all the time, and whose status moves now and then.
fn busy(runs: usize) -> Api {
    let mut api = Api::new();
    for n in 0..runs {
        api = api.with(&format!("r{n}"), move |times, _| {
            let word = if (times + n) % 5 < 3 { "PROCESSING" } else { "PENDING" };
            let progress = Progress { completed: Some(times as u64), failed: None, total: None };
            status(word).map(|run| Run { progress, ..run })
        });
    }
    api
}

fn start(api: Api, slow: &Arc<Slow>, settings: Settings) -> Watch {
    let runs = api.scripts.keys().cloned().map(watched).collect();
    Watch::start_on(api, settings, runs, Arc::clone(slow) as _, Arc::clone(&slow.inner))
}

#[tokio::test(start_paused = true)]
async fn a_save_never_overwrites_a_newer_commit() {
    for failing in [0, 20] {
        let inner = Arc::new(SqliteStore::in_memory().unwrap());
        let slow = Arc::new(Slow::new(&inner, failing));
        // Warnings change nothing in what is polled, but in what is recorded.
        let alerts = Alerts {
            overdue_after: Some(seconds(1)),
            remind_every: Duration::from_nanos(1),
            ..settings().alerts
        };
        let settings = Settings { save_every: Some(seconds(4)), alerts, ..settings() };
        let watch = start(busy(6), &slow, Settings { requests_per_minute: 6000, ..settings });
        sleep(seconds(3000)).await;
        let (runs, _) = watch.stop().await;
        for (id, counts) in slow.written.lock().unwrap().iter() {
            assert!(counts.is_sorted(), "{id}: {counts:?}");
        }
        for run in inner.load().await.unwrap() {
            let known = runs.iter().find(|known| known.watched.subject.id == run.subject.id).unwrap();
            assert_eq!(run.state.progress, known.watched.state.progress, "all is written at the end");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_that_failed_is_made_again() {
    let inner = Arc::new(SqliteStore::in_memory().unwrap());
    let slow = Arc::new(Slow::new(&inner, 0));
    let counted = |times: usize, _| {
        let progress = Progress { completed: Some(times.min(4) as u64), failed: None, total: None };
        status("PROCESSING").map(|run| Run { progress, ..run })
    };
    let watch =
        start(Api::new().with("r", counted), &slow, Settings { save_every: Some(seconds(30)), ..settings() });
    sleep(seconds(20)).await;
    slow.failing.store(1, Ordering::SeqCst);
    // Nothing moves any more: nobody but the recorder knows that something is to be written.
    sleep(seconds(100)).await;
    assert_eq!(inner.load().await.unwrap()[0].state.progress.completed, Some(4));
    drop(watch);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_about_a_run_after_its_removal_was_answered() {
    let inner = Arc::new(SqliteStore::in_memory().unwrap());
    let slow = Arc::new(Slow::new(&inner, 0));
    let watch = start(busy(3), &slow, Settings { save_every: Some(seconds(3)), ..settings() });
    for (n, wait) in [(0, 7), (1, 31), (2, 90)] {
        sleep(seconds(wait)).await;
        let id: RunId = format!("r{n}").parse().unwrap();
        watch.ask(|reply| Command::Remove(id.clone(), reply)).await;
        let before = slow.written.lock().unwrap().get(&id).map(Vec::len);
        sleep(seconds(60)).await;
        assert_eq!(slow.written.lock().unwrap().get(&id).map(Vec::len), before, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_failed_does_not_forget_what_the_api_asked_for() {
    let inner = Arc::new(SqliteStore::in_memory().unwrap());
    let slow = Arc::new(Slow::new(&inner, 3));
    // Long overdue, so that the refusal is something to record.
    let api = Api::new().with("r", |times, _| match times {
        1 => fails(PollErrorKind::Doubt(DoubtKind::Rejected), Some(300)),
        _ => status("PROCESSING"),
    });
    let alerts = Alerts { overdue_after: Some(seconds(1)), ..settings().alerts };
    let watch = start(api, &slow, Settings { alerts, routes: one_channel(), ..settings() });
    sleep(seconds(299)).await;
    assert_eq!(watch.api.times("r"), [0.0]);
    sleep(seconds(30)).await;
    assert!(watch.api.times("r")[1] >= 300.0, "{:?}", watch.api.times("r"));
}
