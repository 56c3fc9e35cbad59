//! The daemon: both halves on a durable store, and everything around them.
//!
//! `state` is the directory, `watching` the list, `setup` makes the parts, `handle` and `verbs` are what can be asked
//! (`routes` says how), `metrics` and `service` are who is told. This file owns the loop that joins them, and the order of
//! the end. The log is its only display.

mod busy;
mod damage;
mod discover;
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
use crate::run::{Change, DoubtKind, RunId};
use crate::store::{Routes, SqliteStore, StoreError};

/// How long deliveries under way are waited for when the daemon is asked to stop. Retries are the next start's.
const DELIVERY: Duration = Duration::from_secs(10);

/// How long the state may take to be written into one file at the end.
const CLOSE: Duration = Duration::from_secs(3);

/// How often a store that fails is written to, to find out whether it still does.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// How often the files of the state are looked for. Every commit does that, too.
const LOOK_EVERY: Duration = Duration::from_secs(10);

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
    /// What the daemon needs is in use, and stayed so: starting again later may work.
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

/// The configuration's file, to be read again.
#[derive(Clone)]
pub struct Reread {
    /// Which one.
    pub file: Option<PathBuf>,
    /// Reads it; the error is every problem with it, as it is to be shown.
    pub read: Arc<dyn Fn() -> Result<Config, String> + Send + Sync>,
}

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
    let Some(mut state) = patiently(&stop, async || State::open(&state_dir)).await? else { return Ok(()) };
    let counters = Arc::new(Counters::default());
    let mut daemon = Daemon::start(config, &state, Arc::clone(&counters), orders, reread.clone()).await?;
    let listening = Listening::open(&socket, &daemon.config.daemon, &daemon.handle, &stop).await?;
    let Some(mut listening) = listening else { return end(daemon, &state, None).await };
    let mut spool = Spool::open(daemon.config.daemon.watch_dir.clone(), Arc::clone(&daemon.handle)).await;
    let mut resume =
        Resume::new().inspect_err(|error| warn!("a resumed machine will not be noticed: {error}")).ok();
    let every = service::sign_of_life_every();
    let ticks = |every| {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut sign_of_life = ticks(every.unwrap_or(Duration::from_hours(1)));
    let (mut purge, mut probe, mut look) = (ticks(PURGE_EVERY), ticks(PROBE_EVERY), ticks(LOOK_EVERY));
    daemon.manager.ready(&daemon.status().await);
    let broken = loop {
        let status_at = daemon.status_at;
        let failed = daemon.running.failed();
        tokio::select! {
            () = stop.cancelled() => break None,
            // No half lives on alone, and nobody could ask a daemon without its socket.
            error = failed => break Some(error.to_string()),
            update = daemon.running.updates.recv() => match update {
                Some(update) => daemon.updated(update),
                // The scheduler is gone: `stop` finds out why.
                None => break Some("the scheduler has ended".to_owned()),
            },
            Ok(()) = daemon.store_trouble.changed() => daemon.store_trouble(&mut state).await?,
            _ = probe.tick(), if daemon.store_trouble.borrow().is_some() => daemon.probe(&mut state).await?,
            _ = look.tick() => {
                daemon.look_at_files();
                listening.look();
            }
            found = listening.next() => match found {
                Some(found) => if listening.take(found) { daemon.soon() },
                None => break Some("the server of the socket ended by itself".to_owned()),
            },
            Some(told) = daemon.running.told.recv() => {
                daemon.handle.metrics.told(&told);
                daemon.soon();
            }
            Some(Order::Reload(reply)) = ordered.recv() => {
                daemon.manager.reloading();
                let reloaded = daemon.reload(&reread, &stop).await;
                if let Err(problems) = &reloaded {
                    error!("the configuration is refused, and the old one kept:\n{problems}");
                }
                // The status line says it as well: a reload by SIGHUP has no answer.
                let refused = "the last configuration is refused (see the log)";
                daemon.handle.set_trouble("configuration", reloaded.is_err().then(|| refused.to_owned()));
                daemon.handle.metrics.set_config_accepted(reloaded.is_ok());
                daemon.manager.ready(&daemon.status().await);
                // Whoever asked may have gone.
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
        error!("{broken}: stopping, to be started again by whoever watches over this process");
    }
    end(daemon, &state, broken).await
}

/// Ends in order: polls, deliveries (bounded), store.
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

/// Leaves the state in one file. One that cannot be closed in time is whole all the same: the log beside it belongs to it.
async fn close(store: &SqliteStore) {
    let why = match timeout(CLOSE, store.close()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it takes longer than {}", crate::span::human(CLOSE)),
    };
    warn!("cannot write the state into one file: {why}; runwatch.db-wal belongs to it until the next start");
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
    /// Who is told what: everybody else holds a receiver of this.
    routes: watch::Sender<Routes>,
    handle: Arc<Handle>,
    /// The service manager.
    manager: Manager,
    /// Of the runs that were looked through.
    seen: Seen,
    /// What was found is being written down.
    finding: Option<JoinHandle<()>>,
    /// When the status line is to be told anew.
    status_at: Option<Instant>,
    /// What is wrong with the store.
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
        info!("the machine has slept for {}; asking about everything", crate::span::human(slept));
        // The connections of before lead nowhere any more, and would be waited for.
        if let Ok(source) = client(&self.config) {
            self.source = source;
        }
        let settings = Box::new(settings(&self.config, &self.counters, &self.seen, self.routes.subscribe()));
        let source = Arc::clone(&self.source) as _;
        // A scheduler that is gone is found out about elsewhere.
        let _ = self.running.commands.send(Command::Reconfigure(settings, source)).await;
        let _ = self.running.commands.send(Command::Resumed).await;
    }

    /// Tells the service manager that all is well, if the scheduler and the store answer.
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

    /// Forgets what ended long ago. `wanted` are runs that are still asked for and would be told again; where they are not
    /// known, nothing is forgotten.
    fn purge(&self, wanted: Option<Vec<RunId>>) {
        let Some(wanted) = wanted else { return };
        let store = self.handle.parts_now().store;
        let keep = self.config.daemon.keep;
        let wanted = self.config.runs.iter().map(|run| run.id.clone()).chain(wanted).collect();
        let mut kept = self.seen.kept(wanted);
        // Only a list would find them again.
        kept.removed &= self.config.discover.is_some();
        tokio::spawn(async move {
            match store.purge(keep, kept, clock::wall()).await {
                Ok(0) => {}
                Ok(runs) => info!(runs, "forgot what ended long ago"),
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
        if self.manager.is_there() {
            self.manager.status(&self.status().await);
        }
    }

    /// `3 runs, 1 finished, 0 deliveries pending`, and what is wrong.
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

    /// Logs, counts and remembers what has happened.
    fn updated(&mut self, update: Update) {
        let words = crate::words::notice(&update).unwrap_or_default();
        match update {
            Update::Run(run, change) if change >= Change::Status => {
                let run_id = run.subject.id.as_str();
                let run_name = run.subject.name.as_deref();
                let status = run.state.status.as_ref().map(crate::run::RunStatus::as_str);
                info!(run_id, run_name, status, "{} {}", run.subject.label(), crate::words::standing(&run));
            }
            // The store tells of itself, whoever found out.
            Update::Run(..) | Update::StoreWell | Update::StoreFailed(_) => return,
            Update::WatchList => {}
            Update::Found(found) => return self.found(found),
            // One from before a reload that turned it off.
            Update::LookFailed(_) if self.config.discover.is_none() => {}
            Update::LookFailed(_) => {
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
