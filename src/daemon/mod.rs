//! The daemon: both halves on a durable store, and everything around them.
//!
//! `state` is the directory, `watching` the list, `handle` what can be asked of it (`routes` says how), `metrics` and
//! `service` whom it tells. This file owns the loop that joins them: what comes up, what is read again, what is told, and
//! the order of the end. The log is its only display.

mod handle;
mod metrics;
mod reload;
mod resume;
mod routes;
mod service;
mod state;
mod watch_dir;
mod watching;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use handle::Order;
pub use state::directory;

use handle::{Handle, Parts, ended_status};
use metrics::Metrics;
use resume::Resume;
use state::State;
use watch_dir::WatchDir;
use watching::{WatchList, watch_list};

use crate::api::ApiClient;
use crate::app::{self, AppError, Plan, Running};
use crate::clock;
use crate::config::{ChannelKind, Config, ConfiguredChannel};
use crate::control::{NewRun, serve_tcp, serve_unix};
use crate::notify::{Channel, session_bus};
use crate::poll::{Command, Counters, OUTAGE_TOLD, Settings, Update};
use crate::run::{Change, DoubtKind, Patience, RunId};
use crate::store::{Commit, Routes, RunStore as _, StoreError, StoreErrorKind, Watched};

/// How long deliveries under way are waited for when the daemon is asked to stop. Retries are the next start's.
const DELIVERY: Duration = Duration::from_secs(10);

/// Counts are written down this often: what a crash loses of them is read again.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// How often a store that fails is written to, to find out whether it still does.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// The moment, in the store, at which it was last found to fail.
const STORE_FAILED: &str = "store failed";

/// How long after something in the watched directory could not be added it is looked through again.
const RESCAN_AFTER: Duration = Duration::from_secs(30);

/// How long figures for the status line are waited for.
const STATS_PATIENCE: Duration = Duration::from_secs(2);

/// How soon a change is seen in the status line: several make one.
const STATUS_AFTER: Duration = Duration::from_millis(300);

/// How often what has been kept for long enough is looked for.
const PURGE_EVERY: Duration = Duration::from_hours(1);

/// Why a daemon cannot run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration, or what it points to: starting again mends nothing.
    #[error("{0}")]
    Config(String),
    /// Anything else.
    #[error("{0}")]
    Internal(String),
}

impl From<AppError> for DaemonError {
    fn from(error: AppError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// Reads the configuration anew; the error is every problem with it, as it is to be shown.
pub type Reread = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What a daemon needs to begin.
pub struct Setup {
    /// The configuration it begins with.
    pub config: Config,
    /// Reads another one.
    pub reread: Reread,
    /// Where the state is kept.
    pub state_dir: PathBuf,
    /// Where the socket is to be.
    pub socket: PathBuf,
    /// What the loop is asked to do from outside.
    pub orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
}

/// Runs until `stop` is cancelled, then ends in order: polls, deliveries (bounded), store.
pub async fn run(setup: Setup, stop: CancellationToken) -> Result<(), DaemonError> {
    let Setup { config, reread, state_dir, socket, orders: (orders, mut ordered) } = setup;
    let mut state = State::open(&state_dir)?;
    let counters = Arc::new(Counters::default());
    let mut daemon = Daemon::start(config, &state, Arc::clone(&counters), orders).await?;
    let _servers = daemon.serve(&socket).await?;
    let mut spool = daemon.open_spool().await;
    let mut resume =
        Resume::new().inspect_err(|error| warn!("a resumed machine will not be noticed: {error}")).ok();
    let every = service::sign_of_life_every();
    let mut sign_of_life = interval(every.unwrap_or(Duration::from_hours(1)));
    sign_of_life.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purge = interval(PURGE_EVERY);
    purge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probe = interval(PROBE_EVERY);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    service::ready(&daemon.status());
    let broken = loop {
        let status_at = daemon.status_at;
        tokio::select! {
            () = stop.cancelled() => break None,
            update = daemon.running.updates.recv() => match update {
                Some(update) => daemon.updated(&update),
                // The scheduler is gone: `stop` finds out why.
                None => break Some("the scheduler has ended".to_owned()),
            },
            Ok(()) = daemon.store_trouble.changed() => daemon.store_trouble(&mut state).await?,
            _ = probe.tick(), if daemon.store_trouble.borrow().is_some() => daemon.probe(),
            Some(told) = daemon.running.told.recv() => {
                daemon.handle.metrics.told(&told);
                daemon.soon();
            }
            Some(Order::Reload(reply)) = ordered.recv() => {
                service::reloading();
                let reloaded = daemon.reload(&reread).await;
                if let Err(problems) = &reloaded {
                    error!("the configuration is refused, and the old one kept:\n{problems}");
                }
                // The service manager has no word for a reload that was refused: the status line says it.
                let refused = "the last configuration is refused (see the log)";
                daemon.handle.set_trouble("configuration", reloaded.is_err().then(|| refused.to_owned()));
                service::ready(&daemon.status());
                // Whoever asked may have gone.
                let _ = reply.send(reloaded);
            }
            runs = next_files(&mut spool) => daemon.files_came(runs, &mut spool).await,
            () = sleep_until(daemon.rescan_at.unwrap_or_else(Instant::now)), if daemon.rescan_at.is_some() => {
                daemon.rescan(&mut spool).await;
            }
            slept = next_resume(&mut resume) => daemon.resumed(slept).await,
            _ = sign_of_life.tick(), if every.is_some() => daemon.give_sign_of_life(every),
            _ = purge.tick() => daemon.purge(spool.as_ref()),
            () = sleep_until(status_at.unwrap_or_else(Instant::now)), if status_at.is_some() => daemon.tell_status().await,
        }
    };
    info!("stopping");
    service::stopping();
    let Daemon { running, .. } = daemon;
    let ended = running.stop(Duration::ZERO, DELIVERY, CancellationToken::new()).await?;
    let pending = ended.undelivered?.iter().filter(|left| left.due_at.is_some()).count();
    info!(deliveries_pending = pending, "stopped");
    broken.map_or(Ok(()), |broken| Err(DaemonError::Internal(broken)))
}

async fn next_files(spool: &mut Option<WatchDir>) -> std::io::Result<Vec<RunId>> {
    match spool {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn next_resume(resume: &mut Option<Resume>) -> Duration {
    match resume {
        Some(resume) => resume.next().await,
        None => std::future::pending().await,
    }
}

/// A daemon at work.
struct Daemon {
    config: Config,
    running: Running,
    source: Arc<ApiClient>,
    counters: Arc<Counters>,
    /// The channels with what they were made from: those that stay the same are not made again.
    channels: Vec<Channel>,
    handle: Arc<Handle>,
    /// When the status line is to be told anew.
    status_at: Option<Instant>,
    /// What is wrong with the store.
    store_trouble: watch::Receiver<Option<StoreError>>,
    /// When the watched directory is to be looked through again, because something in it could not be added.
    rescan_at: Option<Instant>,
}

impl Daemon {
    async fn start(
        config: Config,
        state: &State,
        counters: Arc<Counters>,
        orders: mpsc::Sender<Order>,
    ) -> Result<Self, DaemonError> {
        let source = client(&config)?;
        let channels = channels(&config)?;
        let store = Arc::new(state.store.clone());
        let list = list(&config, &store).await?;
        announce(&config, &list);
        let outage_told_at = store.moment(OUTAGE_TOLD).await.map_err(|error| store_failed(&error))?;
        let metrics = Metrics::new().map_err(|error| DaemonError::Internal(error.to_string()))?;
        let ended = ended_by_status(&store).await?;
        let going = AtomicU64::new(list.going.len() as u64);
        let store_trouble = store.health();
        let names = channels.iter().map(|channel| channel.name.clone()).collect();
        store.give_up_on_others(names, clock::wall()).await.map_err(|error| store_failed(&error))?;
        let plan = Plan {
            settings: settings(&config, &counters),
            runs: list.going,
            channels: channels.clone(),
            outage_told_at,
        };
        let running = app::start(plan, Arc::clone(&source) as _, Arc::clone(&store));
        let handle = Handle {
            parts: RwLock::new(Parts {
                store,
                commands: running.commands.clone(),
                routes: app::routes(&config.channels, []),
                api: config.api.base_url.as_str().into(),
                requests_per_minute: config.poll.requests_per_minute,
                suspended: false,
            }),
            orders,
            metrics: Arc::new(metrics),
            counters: Arc::clone(&counters),
            started_at: clock::wall(),
            troubles: Mutex::default(),
            ended: Mutex::new(ended),
            going,
            pending: AtomicI64::new(0),
            changing: tokio::sync::Mutex::new(()),
            recount: AtomicBool::new(false),
        };
        if let Some(aside) = &state.set_aside {
            handle.set_trouble("aside", Some(format!("a damaged state is kept as {}", aside.display())));
        }
        let handle = Arc::new(handle);
        let status_at = Some(Instant::now());
        let rescan_at = None;
        Ok(Self { config, running, source, counters, channels, handle, status_at, store_trouble, rescan_at })
    }

    /// The store fails, or works again. One that is damaged is replaced.
    async fn store_trouble(&mut self, state: &mut State) -> Result<(), DaemonError> {
        let trouble = self.store_trouble.borrow_and_update().clone();
        self.handle.metrics.set_store_up(trouble.is_none());
        match trouble {
            Some(error) if error.kind == StoreErrorKind::Corrupt => {
                return self.begin_again(state, &error).await;
            }
            Some(error) => {
                error!("cannot record what was seen: {error}; trying on");
                self.handle.set_trouble("store", Some(format!("cannot record what was seen: {error}")));
            }
            None => {
                info!("recording works again");
                self.handle.set_trouble("store", None);
                self.handle.parts_now().store.wake();
            }
        }
        self.soon();
        Ok(())
    }

    /// The store is damaged: sets it aside and goes on from what is known here.
    async fn begin_again(&mut self, state: &mut State, error: &StoreError) -> Result<(), DaemonError> {
        error!("the state has turned out to be damaged: {error}");
        // What is asked for meanwhile is refused: it would be written into the damaged file.
        let handle = Arc::clone(&self.handle);
        self.exchange(|parts, _| parts.suspended = true);
        let _changing = handle.changing.lock().await;
        // Both halves stop on the damaged store; what they know is carried over.
        let nowhere = crate::store::SqliteStore::in_memory().map_err(|error| store_failed(&error))?;
        let nothing = Plan {
            settings: settings(&self.config, &self.counters),
            runs: Vec::new(),
            channels: Vec::new(),
            outage_told_at: None,
        };
        let idle = app::start(nothing, Arc::clone(&self.source) as _, Arc::new(nowhere));
        let old = std::mem::replace(&mut self.running, idle);
        let runs = old.abandon().await;
        state.begin_again()?;
        let store = Arc::new(state.store.clone());
        let carried: Vec<_> = runs.into_iter().map(crate::poll::FinalRun::into_watched).collect();
        store.add(carried.clone()).await.map_err(|error| store_failed(&error))?;
        store.save(carried).await.map_err(|error| store_failed(&error))?;
        let list = list(&self.config, &store).await?;
        announce(&self.config, &list);
        self.handle.going.store(list.going.len() as u64, Ordering::Relaxed);
        *self.handle.ended.lock().unwrap_or_else(PoisonError::into_inner) = ended_by_status(&store).await?;
        let plan = Plan {
            settings: settings(&self.config, &self.counters),
            runs: list.going,
            channels: self.channels.clone(),
            outage_told_at: None,
        };
        let running = app::start(plan, Arc::clone(&self.source) as _, Arc::clone(&store));
        let idle = std::mem::replace(&mut self.running, running);
        tokio::spawn(idle.stop(Duration::ZERO, Duration::ZERO, CancellationToken::new()));
        self.store_trouble = store.health();
        self.exchange(|parts, running| {
            parts.store = store;
            parts.commands = running.commands.clone();
            parts.suspended = false;
        });
        // The new scheduler finds out for itself what is wrong.
        for about in ["store", "api", "key"] {
            self.handle.set_trouble(about, None);
        }
        self.handle.metrics.set_store_up(true);
        self.handle.metrics.set_api_up(true);
        if let Some(aside) = &state.set_aside {
            let trouble = format!("a damaged state is kept as {}", aside.display());
            self.handle.set_trouble("aside", Some(trouble));
        }
        self.soon();
        Ok(())
    }

    /// Writes to a store that fails: if that works, it is heard of.
    fn probe(&self) {
        let store = self.handle.parts_now().store;
        let moment = Some((STORE_FAILED, Some(clock::wall())));
        tokio::spawn(async move { store.commit(Commit { moment, ..Commit::default() }).await });
    }

    fn exchange(&self, change: impl FnOnce(&mut Parts, &Running)) {
        let mut parts = self.handle.parts.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts, &self.running);
    }

    /// Opens the socket, and the port for metrics if there is to be one.
    async fn serve(&self, path: &Path) -> Result<Vec<crate::control::Server>, DaemonError> {
        let mode = if self.config.daemon.socket_for_group { 0o660 } else { 0o600 };
        let serve = Arc::new(routes::Socket(Arc::clone(&self.handle)));
        let server = serve_unix(path, mode, serve)
            .map_err(|error| DaemonError::Config(format!("cannot listen on {}: {error}", path.display())))?;
        info!(socket = %path.display(), "listening");
        let mut servers = vec![server];
        if let Some(address) = self.config.daemon.listen {
            let serve = Arc::new(routes::Port(Arc::clone(&self.handle)));
            let (server, address) = serve_tcp(address, serve).await.map_err(|error| {
                DaemonError::Config(format!(
                    "cannot listen on {address}: {error}; choose another `listen` in [daemon]"
                ))
            })?;
            info!("serving metrics on http://{address}/metrics");
            servers.push(server);
        }
        Ok(servers)
    }

    /// Begins to watch the directory for files, with those that are there already.
    async fn open_spool(&mut self) -> Option<WatchDir> {
        let dir = self.config.daemon.watch_dir.clone()?;
        let opened = WatchDir::new(&dir).and_then(|watch| watch.scan().map(|runs| (watch, runs)));
        match opened {
            Ok((watch, runs)) => {
                info!(dir = %dir.display(), "watching for files");
                self.handle.set_trouble("watch_dir", None);
                self.add_files(runs).await;
                Some(watch)
            }
            Err(error) => {
                let trouble = format!("cannot watch the directory {}: {error}", dir.display());
                error!("{trouble}");
                self.handle.set_trouble("watch_dir", Some(trouble));
                self.rescan_at = Some(Instant::now() + RESCAN_AFTER);
                None
            }
        }
    }

    async fn files_came(&mut self, came: std::io::Result<Vec<RunId>>, spool: &mut Option<WatchDir>) {
        match came {
            Ok(runs) => self.add_files(runs).await,
            Err(error) => {
                warn!("the watched directory cannot be watched any more: {error}");
                *spool = self.open_spool().await;
                self.soon();
            }
        }
    }

    /// Looks through the watched directory again.
    async fn rescan(&mut self, spool: &mut Option<WatchDir>) {
        self.rescan_at = None;
        *spool = self.open_spool().await;
        self.soon();
    }

    async fn add_files(&mut self, runs: Vec<RunId>) {
        if runs.is_empty() {
            return;
        }
        let new =
            runs.iter().map(|id| NewRun { id: id.clone(), name: None, notify: None, deadline_seconds: None });
        match self.handle.add(new.collect()).await {
            Ok(added) => {
                for run in added.runs.iter().filter(|run| run.finished.is_none()) {
                    info!(run_id = run.id.as_str(), "watched for a file");
                }
            }
            Err(refusal) => {
                let again = crate::span::human(RESCAN_AFTER);
                error!("cannot add what the watched directory has, trying again in {again}: {refusal:?}");
                self.rescan_at = Some(Instant::now() + RESCAN_AFTER);
            }
        }
    }

    async fn resumed(&mut self, slept: Duration) {
        info!("the machine has slept for {}; asking about everything", crate::span::human(slept));
        // The connections of before lead nowhere any more, and would be waited for.
        if let Ok(source) = client(&self.config) {
            self.source = source;
        }
        let settings = Box::new(settings(&self.config, &self.counters));
        let source = Arc::clone(&self.source) as _;
        // A scheduler that is gone is found out about elsewhere.
        let _ = self.running.commands.send(Command::Reconfigure(settings, source)).await;
        let _ = self.running.commands.send(Command::Resumed).await;
    }

    /// Tells the service manager that all is well, if the scheduler moves.
    fn give_sign_of_life(&self, every: Option<Duration>) {
        let handle = Arc::clone(&self.handle);
        let patience = every.unwrap_or_default();
        tokio::spawn(async move {
            if timeout(patience, handle.is_alive()).await == Ok(true) {
                service::alive();
            } else {
                error!("the scheduler does not move");
            }
        });
    }

    fn purge(&self, spool: Option<&WatchDir>) {
        let store = self.handle.parts_now().store;
        let keep = self.config.daemon.keep;
        let mut configured: Vec<RunId> = self.config.runs.iter().map(|run| run.id.clone()).collect();
        // A file that is still there names a run that is still wanted, and would be told again.
        configured.extend(spool.and_then(|watch| watch.scan().ok()).unwrap_or_default());
        let handle = Arc::clone(&self.handle);
        tokio::spawn(async move {
            match store.purge(keep, configured, clock::wall()).await {
                Ok(0) => {}
                Ok(runs) => {
                    info!(runs, "forgot what ended long ago");
                    if let Ok(ended) = ended_by_status(&store).await {
                        *handle.ended.lock().unwrap_or_else(PoisonError::into_inner) = ended;
                    }
                }
                Err(error) => warn!("cannot purge the state: {error}"),
            }
        });
    }

    /// Has the status line told before long.
    fn soon(&mut self) {
        self.status_at.get_or_insert_with(|| Instant::now() + STATUS_AFTER);
    }

    async fn tell_status(&mut self) {
        self.status_at = None;
        let store = self.handle.parts_now().store;
        // A disk that hangs holds up the figures, and nothing else.
        if let Ok(Ok(stats)) = timeout(STATS_PATIENCE, store.stats()).await {
            let pending = stats.iter().map(|stats| stats.pending).sum();
            self.handle.pending.store(pending, Ordering::Relaxed);
        }
        if self.handle.recount.swap(false, Ordering::Relaxed)
            && let Ok(Ok(ended)) = timeout(STATS_PATIENCE, store.ended_by_status()).await
        {
            *self.handle.ended.lock().unwrap_or_else(PoisonError::into_inner) = ended.into_iter().collect();
        }
        service::status(&self.status());
    }

    /// `3 runs, 1 finished, 0 deliveries pending`, and what is wrong.
    fn status(&self) -> String {
        let status = self.handle.status();
        let runs = status.going + status.ended;
        let plural = |count: u64, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let mut parts = vec![
            plural(runs, "run"),
            format!("{} finished", status.ended),
            format!(
                "{} pending",
                plural(status.deliveries_pending.unsigned_abs(), "delivery")
                    .replace("deliverys", "deliveries")
            ),
        ];
        parts.extend(status.troubles);
        parts.join(", ")
    }

    /// Logs, counts and remembers what has happened.
    fn updated(&mut self, update: &Update) {
        let words = crate::words::notice(update).unwrap_or_default();
        match update {
            Update::Run(run, change) if *change >= Change::Status => {
                let run_id = run.subject.id.as_str();
                let run_name = run.subject.name.as_deref();
                let status = run.state.status.as_ref().map(crate::run::RunStatus::as_str);
                info!(run_id, run_name, status, "{} {}", run.subject.label(), crate::words::standing(run));
                if *change == Change::Ended {
                    let mut ended = self.handle.ended.lock().unwrap_or_else(PoisonError::into_inner);
                    *ended.entry(ended_status(&run.state)).or_default() += 1;
                    self.handle.going.fetch_sub(1, Ordering::Relaxed);
                }
            }
            // The store tells of itself, whoever found out.
            Update::Run(..) | Update::StoreWell | Update::StoreFailed(_) => return,
            Update::Added(new) => {
                self.handle.going.fetch_add(*new, Ordering::Relaxed);
            }
            Update::Removed => {
                self.handle.going.fetch_sub(1, Ordering::Relaxed);
            }
            Update::ApiUp(_) => {
                info!("{words}");
                self.handle.metrics.set_api_up(true);
                self.handle.set_trouble("api", None);
            }
            Update::ApiDown(..) => {
                warn!("{words}");
                self.handle.metrics.set_api_up(false);
                self.handle.set_trouble("api", Some(words));
            }
            Update::KeyAccepted => {
                info!("{words}");
                self.handle.set_trouble("key", None);
            }
            Update::Doubt { subject, kind, .. } => {
                warn!(run_id = subject.id.as_str(), "{words}");
                if *kind == DoubtKind::KeyRefused {
                    self.handle.set_trouble("key", Some("the API refuses the key".to_owned()));
                }
            }
        }
        self.soon();
    }
}

fn client(config: &Config) -> Result<Arc<ApiClient>, DaemonError> {
    let client = ApiClient::new(&app::api_settings(config));
    client.map(Arc::new).map_err(|error| DaemonError::Config(error.to_string()))
}

fn channels(config: &Config) -> Result<Vec<Channel>, DaemonError> {
    let build = |channel: &ConfiguredChannel| app::channel(channel, &config.retry_delays);
    let channels: Result<_, _> = config.channels.iter().map(build).collect();
    channels.map_err(|error| DaemonError::Config(error.to_string()))
}

fn settings(config: &Config, counters: &Arc<Counters>) -> Settings {
    let patience = Patience { grace: config.poll.grace, unknown_after: None, refused_ends: false };
    let settings = app::poll_settings(config, app::routes(&config.channels, []), patience, false);
    Settings { keep_ended: false, save_every: Some(SAVE_EVERY), counters: Arc::clone(counters), ..settings }
}

async fn list(config: &Config, store: &crate::store::SqliteStore) -> Result<WatchList, DaemonError> {
    watch_list(config, store).await.map_err(|error| store_failed(&error))
}

async fn ended_by_status(store: &crate::store::SqliteStore) -> Result<HashMap<String, i64>, DaemonError> {
    let counts = store.ended_by_status().await.map_err(|error| store_failed(&error))?;
    Ok(counts.into_iter().collect())
}

fn store_failed(error: &crate::store::StoreError) -> DaemonError {
    DaemonError::Internal(format!("the store failed: {error}"))
}

/// Says which runs are to be told to channels that are not there.
fn warn_of_unknown_channels(runs: &[Watched], routes: &Routes) {
    for run in runs {
        let gone: Vec<&str> = run
            .notify
            .iter()
            .flat_map(|names| names.iter())
            .map(|name| &**name)
            .filter(|name| !routes.has(name))
            .collect();
        if !gone.is_empty() {
            let run_id = run.subject.id.as_str();
            warn!(
                run_id,
                "it is to be told to channels that are not configured: {}; told to all if none is left",
                gone.join(", ")
            );
        }
    }
}

fn announce(config: &Config, list: &WatchList) {
    info!(
        runs = list.going.len(),
        ended = list.ended,
        channels = config.channels.len(),
        api = config.api.base_url.as_str(),
        "watching"
    );
    warn_of_unknown_channels(&list.going, &app::routes(&config.channels, []));
    for id in &list.dropped {
        info!(run_id = id.as_str(), "not watched any more: it is not in the configuration");
    }
    if config.channels.is_empty() {
        warn!("no channel is configured: nobody will be told; add a [[notify.…]] table");
    }
    let desktop = config.channels.iter().any(|channel| matches!(channel.kind, ChannelKind::Desktop { .. }));
    if desktop && session_bus().is_none() {
        warn!(
            "a desktop channel is configured, and there is no session bus to show it on; a system service has \
             none: run the daemon as a user service (systemd/user/runwatch.service)"
        );
    }
}
