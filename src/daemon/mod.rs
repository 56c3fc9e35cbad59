//! The daemon: polling and notifying on a durable store, and the parts around them.
//!
//! `state` is the directory, and `watching` is the list of runs. `setup` makes the parts. `handle` and `verbs` are the
//! commands, and `routes` maps requests to them. `metrics` and `service` report outside. This file owns the loop that
//! joins them, and the order of shutdown. The daemon shows nothing but its log.

mod busy;
mod damage;
mod discover;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handle;
mod listening;
mod metrics;
mod reload;
mod resume;
mod routes;
mod service;
mod setup;
mod spool;
mod state;
mod state_dir;
mod verbs;
mod watch_dir;
mod watching;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use handle::Order;
pub use reload::ReloadError;
pub use state::{database, directory};

use busy::patiently;
use discover::Seen;
use handle::{Handle, Parts};
use listening::Listening;
use metrics::Metrics;
use resume::Resume;
use service::Manager;
use setup::{announce, channels, client, list, settings, store_failed};
use spool::Spool;
use state::State;

use crate::api::ApiClient;
use crate::app::{self, AppError, Plan, Running};
use crate::clock;
use crate::config::Config;
use crate::notify::Channel;
use crate::poll::{Command, Counters, OutagesTold, Update};
use crate::run::{DoubtKind, RunChange, RunId};
use crate::store::{Routes, SqliteStore, StoreError};

/// Maximum wait for deliveries in flight when the daemon stops. The next start makes the retries.
const DELIVERY: Duration = Duration::from_secs(10);

/// Maximum time to write the state into one file at the end.
const CLOSE: Duration = Duration::from_secs(3);

/// Interval between writes to a store that fails, to detect its recovery.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Interval between checks that the state's files exist. Every commit checks that too.
const CHECK_FILES_EVERY: Duration = Duration::from_secs(10);

/// Delay of the status line after a change, so that several changes share one update.
const STATUS_AFTER: Duration = Duration::from_millis(300);

/// Interval between purges of expired records.
const PURGE_EVERY: Duration = Duration::from_hours(1);

/// Why a daemon cannot run, or ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration, or something that it names. A restart does not help.
    #[error("{0}")]
    Config(String),
    /// Something is in use and stayed so. A later start may work.
    #[error("{0}")]
    Busy(String),
    /// Anything else.
    #[error("{0}")]
    Internal(String),
}

impl From<AppError> for DaemonError {
    fn from(error: AppError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// How to read the configuration's file again.
#[derive(Clone)]
pub struct Reread {
    /// Which one.
    pub file: Option<PathBuf>,
    /// Reads it. The error has every problem, ready to be shown.
    pub read: Arc<dyn Fn() -> Result<Config, String> + Send + Sync>,
}

/// The inputs of a daemon.
pub struct Setup {
    /// The initial configuration.
    pub config: Config,
    /// Reads the configuration again.
    pub reread: Reread,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The path of the socket.
    pub socket: PathBuf,
    /// Requests to the loop from outside.
    pub orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
}

/// Runs until `stop` is cancelled, then stops in order: polls, deliveries (within a limit), store.
pub async fn run(setup: Setup, stop: CancellationToken) -> Result<(), DaemonError> {
    let Setup { config, reread, state_dir, socket, orders: (orders, mut ordered) } = setup;
    let Some(mut state) = patiently(&stop, async || State::open(&state_dir)).await? else { return Ok(()) };
    let counters = Arc::new(Counters::default());
    let mut daemon = Daemon::start(config, &state, Arc::clone(&counters), orders, reread.clone()).await?;
    let listening = Listening::open(&socket, &daemon.config.daemon, &daemon.handle, &stop).await?;
    let Some(mut listening) = listening else { return end(daemon, &state, None).await };
    let mut spool = Spool::open(daemon.config.daemon.watch_dir.clone(), Arc::clone(&daemon.handle)).await;
    let mut resume =
        Resume::new().inspect_err(|error| warn!("cannot detect when the machine resumes: {error}")).ok();
    let every = service::sign_of_life_every();
    let ticks = |every| {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut sign_of_life = ticks(every.unwrap_or(Duration::from_hours(1)));
    let (mut purge, mut probe, mut check) =
        (ticks(PURGE_EVERY), ticks(PROBE_EVERY), ticks(CHECK_FILES_EVERY));
    daemon.manager.ready(&daemon.status().await);
    let broken = loop {
        let status_at = daemon.status_at;
        let failed = daemon.running.failed();
        tokio::select! {
            () = stop.cancelled() => break None,
            // If one part ends, the daemon ends, and nobody could control a daemon without its socket.
            error = failed => break Some(error.to_string()),
            update = daemon.running.updates.recv() => match update {
                Some(update) => daemon.updated(update),
                // The scheduler has ended. `stop` finds out why.
                None => break Some("the scheduler has ended".to_owned()),
            },
            Ok(()) = daemon.store_trouble.changed() => daemon.store_trouble(&mut state).await?,
            _ = probe.tick(), if daemon.store_trouble.borrow().is_some() => daemon.probe(&mut state).await?,
            _ = check.tick() => {
                daemon.check_files();
                listening.check();
            }
            found = listening.next() => match found {
                Some(found) => if listening.take(found) { daemon.soon() },
                None => break Some("the server of the socket ended by itself".to_owned()),
            },
            Some(attempt) = daemon.running.attempts.recv() => {
                daemon.handle.metrics.count_attempt(&attempt);
                daemon.soon();
            }
            Some(Order::Reload(reply)) = ordered.recv() => {
                daemon.manager.reloading();
                let reloaded = daemon.reload(&reread, &stop).await;
                // Also in the status line, because a reload by SIGHUP has no reply.
                let trouble = match &reloaded {
                    Ok(_) => None,
                    Err(ReloadError::Refused(problems)) => {
                        error!("the configuration is refused, and the old one kept:\n{problems}");
                        Some("the last configuration is refused (see the log)")
                    }
                    Err(ReloadError::Failed(why) | ReloadError::Shortage(why)) => {
                        error!("the configuration was not read again, and the one in use is kept: {why}");
                        Some("the last reload failed (see the log)")
                    }
                };
                daemon.handle.set_trouble("configuration", trouble.map(str::to_owned));
                daemon.handle.metrics.set_config_accepted(reloaded.is_ok());
                daemon.manager.ready(&daemon.status().await);
                // The receiver may be gone.
                let _ = reply.send(reloaded);
            }
            came = spool.next() => {
                if spool.take(came) {
                    daemon.soon();
                }
            }
            slept = next_resume(&mut resume) => daemon.resumed(slept).await,
            _ = sign_of_life.tick(), if every.is_some() => daemon.give_sign_of_life(every),
            _ = purge.tick() => daemon.purge(spool.runs()),
            () = sleep_until(status_at.unwrap_or_else(Instant::now)), if status_at.is_some() => daemon.tell_status().await,
        }
    };
    if let Some(broken) = &broken {
        error!("{broken}: stopping, so that the service manager restarts the daemon");
    }
    end(daemon, &state, broken).await
}

/// Stops in order: polls, deliveries (within a limit), store.
async fn end(daemon: Daemon, state: &State, broken: Option<String>) -> Result<(), DaemonError> {
    info!("stopping");
    daemon.manager.stopping();
    let Daemon { running, .. } = daemon;
    let ended = running.stop(Duration::ZERO, DELIVERY, CancellationToken::new()).await;
    close(&state.store).await;
    let ended = ended?;
    let pending = ended.undelivered?.iter().filter(|left| left.due_at.is_some()).count();
    info!(deliveries_pending = pending, "stopped");
    broken.map_or(Ok(()), |broken| Err(DaemonError::Internal(broken)))
}

/// Writes the state into one file. A store that cannot be closed in time is complete together with its log file.
async fn close(store: &SqliteStore) {
    let why = match timeout(CLOSE, store.close()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it took longer than {}", crate::span::human(CLOSE)),
    };
    warn!("cannot write the state into one file: {why}; runwatch.db-wal belongs to it until the next start");
}

async fn next_resume(resume: &mut Option<Resume>) -> Duration {
    match resume {
        Some(resume) => resume.next().await,
        None => std::future::pending().await,
    }
}

/// A running daemon.
struct Daemon {
    config: Config,
    running: Running,
    source: Arc<ApiClient>,
    counters: Arc<Counters>,
    /// The channels with their settings. Unchanged channels are kept after a reload.
    channels: Vec<Channel>,
    /// Which channels get which events. The other parts have a receiver of this.
    routes: watch::Sender<Routes>,
    handle: Arc<Handle>,
    /// The service manager.
    manager: Manager,
    /// What discovery has seen.
    seen: Seen,
    /// The task that records discovered runs.
    finding: Option<JoinHandle<()>>,
    /// When to update the status line.
    status_at: Option<Instant>,
    /// The store's error, if it fails.
    store_trouble: watch::Receiver<Option<StoreError>>,
}

impl Daemon {
    async fn start(
        config: Config,
        state: &State,
        counters: Arc<Counters>,
        orders: mpsc::Sender<Order>,
        reread: Reread,
    ) -> Result<Self, DaemonError> {
        let source = client(&config)?;
        let channels = channels(&config)?;
        let store = Arc::new(state.store.clone());
        let list = list(&config, &store).await?;
        let seen = Seen::load(&config, &store, 0).await.map_err(|error| store_failed(&error))?;
        let routes = watch::Sender::new(setup::routes(&config));
        let settings = settings(&config, &counters, &seen, routes.subscribe());
        announce(&config, &list, &routes.borrow());
        let outages_told = OutagesTold::load(&*store).await.map_err(|error| store_failed(&error))?;
        let metrics = Metrics::new().map_err(|error| DaemonError::Internal(error.to_string()))?;
        let store_trouble = store.health();
        let names: Vec<_> = channels.iter().map(|channel| channel.name.clone()).collect();
        metrics.set_channels(names.clone());
        store.give_up_on_others(names, clock::wall()).await.map_err(|error| store_failed(&error))?;
        let plan = Plan { settings, runs: list.watched, channels: channels.clone(), outages_told };
        let running = app::start(plan, Arc::clone(&source) as _, Arc::clone(&store));
        let handle = Handle {
            parts: RwLock::new(Parts {
                store,
                commands: running.commands.clone(),
                routes: routes.subscribe(),
                api: config.api.base_url.as_str().into(),
                requests_per_minute: config.poll.requests_per_minute,
                config: Arc::new(config.clone()),
                suspended: false,
            }),
            orders,
            reread,
            metrics: Arc::new(metrics),
            counters: Arc::clone(&counters),
            started_at: clock::wall(),
            state_dir: state.dir().to_owned(),
            troubles: Mutex::default(),
            figures: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        };
        let handle = Arc::new(handle);
        let status_at = Some(Instant::now());
        let daemon = Self {
            config,
            running,
            source,
            counters,
            channels,
            routes,
            handle,
            manager: Manager::of_environment(),
            seen,
            finding: None,
            status_at,
            store_trouble,
        };
        daemon.warn_of_what_was_set_aside(state);
        Ok(daemon)
    }

    async fn resumed(&mut self, slept: Duration) {
        info!("the machine was suspended for {}; polling every run", crate::span::human(slept));
        // The old connections are dead after a suspension, and requests on them would only time out.
        if let Ok(source) = client(&self.config) {
            self.source = source;
        }
        let settings = Box::new(settings(&self.config, &self.counters, &self.seen, self.routes.subscribe()));
        let source = Arc::clone(&self.source) as _;
        // A scheduler that has ended is noticed elsewhere.
        let _ = self.running.commands.send(Command::Reconfigure(settings, source)).await;
        let _ = self.running.commands.send(Command::Resumed).await;
    }

    /// Sends the service manager a watchdog message, if the scheduler and the store answer.
    fn give_sign_of_life(&self, every: Option<Duration>) {
        let handle = Arc::clone(&self.handle);
        let manager = self.manager.clone();
        let patience = every.unwrap_or_default();
        tokio::spawn(async move {
            match timeout(patience, handle.stuck()).await {
                Ok(None) => manager.alive(),
                stuck => error!("{}", stuck.ok().flatten().unwrap_or("the daemon does not answer")),
            }
        });
    }

    /// Removes finished runs that are old. `wanted` are runs that are still requested and would be notified again if
    /// removed. If they are not known, nothing is removed.
    fn purge(&self, wanted: Option<Vec<RunId>>) {
        let Some(wanted) = wanted else { return };
        let store = self.handle.parts_now().store;
        let keep = self.config.daemon.keep;
        let wanted = self.config.runs.iter().map(|run| run.id.clone()).chain(wanted).collect();
        let mut kept = self.seen.kept(wanted);
        // Without discovery, nothing adds removed runs again.
        kept.removed &= self.config.discover.is_some();
        tokio::spawn(async move {
            match store.purge(keep, kept, clock::wall()).await {
                Ok(0) => {}
                Ok(runs) => info!(runs, "removed old runs from the state"),
                Err(error) => warn!("cannot purge the state: {error}"),
            }
        });
    }

    /// Schedules an update of the status line.
    fn soon(&mut self) {
        self.status_at.get_or_insert_with(|| Instant::now() + STATUS_AFTER);
    }

    async fn tell_status(&mut self) {
        self.status_at = None;
        if self.manager.is_there() {
            self.manager.status(&self.status().await);
        }
    }

    /// `3 runs, 1 finished, 0 deliveries pending`, and the problems.
    async fn status(&self) -> String {
        let status = self.handle.status().await;
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

    /// Logs and counts an update, and records problems.
    fn updated(&mut self, update: Update) {
        let words = crate::words::notice(&update).unwrap_or_default();
        match update {
            Update::Run(run, change) if change >= RunChange::Status => {
                let run_id = run.subject.id.as_str();
                let run_name = run.subject.name.as_deref();
                let status = run.state.status.as_ref().map(crate::run::RunStatus::as_str);
                info!(run_id, run_name, status, "{} {}", run.subject.label(), crate::words::standing(&run));
            }
            // The store reports its own failures.
            Update::Run(..) | Update::StoreWell | Update::StoreFailed(_) => return,
            Update::WatchList => {}
            Update::Found(found) => return self.found(found),
            // A result from before a reload that disabled discovery.
            Update::DiscoveryFailed(_) if self.config.discover.is_none() => {}
            Update::DiscoveryFailed(_) => {
                if !self.handle.is_in_trouble("discover") {
                    warn!("{words}");
                }
                self.handle.set_trouble("discover", Some(words));
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
                if kind == DoubtKind::KeyRefused {
                    self.handle.set_trouble("key", Some("the API refuses the key".to_owned()));
                }
            }
        }
        self.soon();
    }
}
