//! A scheduler at work against a scripted API in memory, in virtual time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::api::{Answer, Listed, Listing, PollError, PollErrorKind, RunSource, Wanted};
use runwatch::poll::{
    Alerts, Command, Curve, FinalRun, Found, Mode, Policy, Scheduler, Settings, Update, Watched,
};
use runwatch::run::{DoubtKind, Ending, Patience, Progress, Run, RunChange, RunId, RunStatus, Subject};
use runwatch::store::{Outbox as _, Route, Routes, RunStore, SqliteStore};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub type Script = Box<dyn Fn(usize, Duration) -> Result<Run, PollError> + Send + Sync>;

/// An API in memory: each run is a function of (how often it was asked, time since the start).
pub struct Api {
    pub started: Instant,
    pub scripts: HashMap<RunId, Script>,
    pub asked: Mutex<Vec<(Duration, RunId)>>,
    pub reloads: AtomicUsize,
    pub in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
    pub latency: Duration,
    /// How long an answer about one run is, in bytes.
    pub body: usize,
    /// Without one there is no list.
    pub list: Option<ListScript>,
    pub list_latency: Duration,
    /// When lists were asked for.
    pub listed: Mutex<Vec<Duration>>,
}

/// What a list says, by how often it was asked for and the time since the start.
pub type ListScript = Box<dyn Fn(usize, Duration) -> Result<Vec<Listed>, PollError> + Send + Sync>;

impl Api {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            scripts: HashMap::new(),
            asked: Mutex::default(),
            reloads: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            latency: Duration::ZERO,
            body: 2,
            list: None,
            list_latency: Duration::ZERO,
            listed: Mutex::default(),
        }
    }

    pub fn with(
        mut self,
        id: &str,
        script: impl Fn(usize, Duration) -> Result<Run, PollError> + Send + Sync + 'static,
    ) -> Self {
        self.scripts.insert(id.parse().unwrap(), Box::new(script));
        self
    }

    pub fn with_list(
        mut self,
        list: impl Fn(usize, Duration) -> Result<Vec<Listed>, PollError> + Send + Sync + 'static,
    ) -> Self {
        self.list = Some(Box::new(list));
        self
    }

    /// When lists were asked for, in seconds.
    pub fn lists(&self) -> Vec<f64> {
        self.listed.lock().unwrap().iter().map(Duration::as_secs_f64).collect()
    }

    pub fn times(&self, id: &str) -> Vec<f64> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(_, asked)| asked.as_str() == id).map(|(at, _)| at.as_secs_f64()).collect()
    }
}

impl RunSource for Api {
    fn poll<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Answer, PollError>> {
        Box::pin(async move {
            let at = self.started.elapsed();
            let times = {
                let mut asked = self.asked.lock().unwrap();
                asked.push((at, id.clone()));
                asked.iter().filter(|(_, asked)| asked == id).count()
            };
            let in_flight = Counted::new(&self.in_flight, &self.most_in_flight);
            sleep(self.latency).await;
            drop(in_flight);
            let width = self.body;
            self.scripts[id](times, at).map(|run| Answer { run, body: format!("{:width$}", "{}").into() })
        })
    }

    fn list(&self, wanted: Wanted) -> BoxFuture<'_, Result<Listing, PollError>> {
        let at = self.started.elapsed();
        let times = {
            let mut listed = self.listed.lock().unwrap();
            listed.push(at);
            listed.len()
        };
        Box::pin(async move {
            let list = self
                .list
                .as_ref()
                .map_or_else(|| fails(PollErrorKind::Transient, None), |list| list(times, at));
            sleep(self.list_latency).await;
            let mut runs = list?;
            let (bytes, newest) = (runs.len() * 600, runs.iter().filter_map(|one| one.run.created_at).max());
            runs.retain_mut(|listed| wanted(listed));
            Ok(Listing { runs, bytes, newest, ..Listing::default() })
        })
    }

    fn reload_key(&self) -> BoxFuture<'_, Result<(), String>> {
        self.reloads.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

/// Counts a request in flight until it is dropped: a cancelled one does not go on.
pub struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub fn new(count: &'a AtomicUsize, most: &AtomicUsize) -> Self {
        most.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what a script answers")]
pub fn status(word: &str) -> Result<Run, PollError> {
    Ok(Run {
        status: RunStatus::parse(Some(word)),
        progress: Progress::default(),
        created_at: None,
        completed_at: None,
        spec_id: None,
        details: None,
    })
}

pub fn fails<T>(kind: PollErrorKind, retry_after: Option<u64>) -> Result<T, PollError> {
    let retry_after = retry_after.map(Duration::from_secs);
    let from_api = matches!(kind, PollErrorKind::Doubt(doubt) if doubt != DoubtKind::NoSuchPage);
    Err(PollError { kind, message: "as scripted".into(), from_api, is_page: false, retry_after })
}

pub fn doubt<T>(kind: DoubtKind) -> Result<T, PollError> {
    fails(PollErrorKind::Doubt(kind), None)
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn settings() -> Settings {
    let curve = |initial, multiplier, max| Curve {
        initial: seconds(initial),
        multiplier,
        max: seconds(max),
        jitter: 0.0,
    };
    Settings {
        policy: Policy { healthy: curve(1, 1.5, 60), error: curve(1, 2.0, 60), price: None },
        requests_per_minute: 120,
        max_in_flight: 8,
        patience: Patience { grace: seconds(60), unknown_after: Some(seconds(1800)), refused_ends: true },
        source: "test".into(),
        routes: Routes::default().fixed(),
        alerts: Alerts {
            stalled_after: None,
            overdue_after: None,
            unreachable_after: Some(seconds(900)),
            remind_every: seconds(3600),
        },
        batch: Mode::Never,
        discovery: None,
        keep_bodies: false,
        keep_ended: true,
        counters: Arc::default(),
        save_every: None,
    }
}

/// A run that nobody has asked about.
pub fn watched(id: RunId) -> Watched {
    Watched::new(Subject { id, name: None }, Timestamp::UNIX_EPOCH)
}

/// A scheduler at work.
pub struct Watch {
    pub api: Arc<Api>,
    pub store: Arc<SqliteStore>,
    pub updates: mpsc::UnboundedReceiver<Update>,
    pub commands: mpsc::Sender<Command>,
    pub cancel: CancellationToken,
    pub task: JoinHandle<Vec<FinalRun>>,
}

impl Watch {
    /// Watches every run that has a script.
    pub fn start(api: Api, settings: Settings) -> Self {
        let runs = api.scripts.keys().cloned().map(watched).collect();
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        Self::start_on(api, settings, runs, Arc::clone(&store) as _, store)
    }

    /// Watches every run that has a script, knowing how many samples it has, which no list tells.
    pub fn known(api: Api, settings: Settings) -> Self {
        let runs = api.scripts.keys().map(|id| {
            let mut run = watched(id.clone());
            run.state.progress.total = Some(100);
            run
        });
        let runs = runs.collect();
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        Self::start_on(api, settings, runs, Arc::clone(&store) as _, store)
    }

    /// Watches nothing to begin with.
    pub fn idle(api: Api, settings: Settings) -> Self {
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        Self::start_on(api, settings, Vec::new(), Arc::clone(&store) as _, store)
    }

    /// Watches these, recording to `recorder`.
    pub fn start_on(
        api: Api,
        settings: Settings,
        mut runs: Vec<Watched>,
        recorder: Arc<dyn RunStore>,
        store: Arc<SqliteStore>,
    ) -> Self {
        let api = Arc::new(api);
        let (sender, updates) = mpsc::unbounded_channel();
        let (commands, receiver) = mpsc::channel(1);
        let mut scheduler = Scheduler::new(settings, Arc::clone(&api) as _, recorder, sender, receiver);
        runs.sort_by(|a, b| a.subject.id.cmp(&b.subject.id));
        for run in runs {
            scheduler.watch(run);
        }
        let cancel = CancellationToken::new();
        let task = tokio::spawn(scheduler.run(cancel.clone()));
        Self { api, store, updates, commands, cancel, task }
    }

    /// Waits until a run has ended; gives how.
    pub async fn ended(&mut self) -> Ending {
        loop {
            if let Update::Run(run, RunChange::Ended) = self.updates.recv().await.unwrap() {
                return run.state.ended.unwrap();
            }
        }
    }

    pub async fn stop(self) -> (Vec<FinalRun>, Arc<Api>) {
        self.cancel.cancel();
        (self.task.await.unwrap(), self.api)
    }

    /// Has a command answered.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.unwrap();
        answer.await.unwrap()
    }

    /// What was found so far, by list: the runs, and when the newest of all was created.
    pub fn found(&mut self) -> Vec<(Vec<String>, Option<Timestamp>)> {
        let mut found = Vec::new();
        while let Ok(update) = self.updates.try_recv() {
            if let Update::Found(Found { runs, newest, .. }) = update {
                found.push((runs.iter().map(|listed| listed.id.to_string()).collect(), newest));
            }
        }
        found
    }

    /// The updates so far that are not about runs.
    pub fn notices(&mut self) -> Vec<&'static str> {
        let mut notices = Vec::new();
        while let Ok(update) = self.updates.try_recv() {
            match update {
                Update::Run(..)
                | Update::WatchList
                | Update::KeyAccepted
                | Update::Found(_)
                | Update::DiscoveryFailed(_) => {}
                Update::Doubt { .. } => notices.push("doubt"),
                Update::ApiDown(..) => notices.push("down"),
                Update::ApiUp(_) => notices.push("up"),
                Update::StoreFailed(_) => notices.push("store failed"),
                Update::StoreWell => notices.push("store well"),
            }
        }
        notices
    }
}

/// A script for one run in a list of many.
pub fn going(completed: u64) -> Run {
    Run {
        progress: Progress { completed: Some(completed), failed: Some(0), total: None },
        ..status("PROCESSING").unwrap()
    }
}

/// A run as a list has it.
pub fn listed(id: &str, run: Run) -> Listed {
    Listed { id: id.parse().unwrap(), run }
}

/// Channels of which one tells everything.
pub fn one_channel() -> watch::Receiver<Routes> {
    Routes::new([Route { channel: "ops".into(), events: None }]).fixed()
}

/// The types and reasons of what is still to be told, in order.
pub async fn to_be_told(store: &SqliteStore) -> Vec<(String, Option<String>)> {
    let told = store.undelivered().await.unwrap();
    let told = told.iter().map(|one| serde_json::from_str::<serde_json::Value>(&one.payload).unwrap());
    told.map(|one| {
        (one["type"].as_str().unwrap().to_owned(), one["data"]["reason"].as_str().map(str::to_owned))
    })
    .collect()
}
