//! Joins polling and notifying, and stops them in order.
//!
//! `watch`, `wait`, `demo` and the daemon all use this. They differ in the store, in who receives the updates, and in
//! when they end. Supervises both halves and owns the order of the stop: the scheduler with its polls and commits, then
//! deliveries (within a limit), then the store. `lifeline` detects a half that ends by itself, and `channels` creates
//! the channels.

mod channels;
mod lifeline;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::api::{ApiSettings, RunSource};
use crate::clock;
use crate::config::Config;
use crate::notify::delivery::{Drain, Made};
use crate::notify::{AttemptReport, Channel, Dispatcher};
use crate::poll::{Command, FinalRun, OutagesTold, Scheduler, Settings, Update, Watched};
use crate::run::Patience;
use crate::store::{Outbox, Routes, RunStore, StoreError, Undelivered};

pub use channels::{channel, default_desktop, fingerprint, routes};

use lifeline::Lifelines;

/// Maximum time for each part of a stop, without the deliveries.
const PART_BOUND: Duration = Duration::from_secs(5);

/// The names of the halves in errors.
const SCHEDULER: &str = "the scheduler";
const DELIVERY: &str = "the delivery of notifications";

/// What to watch, and how.
pub struct Plan {
    /// The scheduler's settings.
    pub settings: Settings,
    /// The initial runs.
    pub runs: Vec<Watched>,
    /// The notification channels.
    pub channels: Vec<Channel>,
    /// When lasting outages were notified.
    pub outages_told: OutagesTold,
}

/// Polling and notifying, running.
pub struct Running {
    /// Updates as they happen.
    pub updates: mpsc::UnboundedReceiver<Update>,
    /// Delivery attempts as they finish.
    pub attempts: mpsc::UnboundedReceiver<AttemptReport>,
    /// Commands to the scheduler.
    pub commands: mpsc::Sender<Command>,
    /// New sets of channels.
    pub channels: mpsc::Sender<Vec<Channel>>,
    lifelines: Lifelines,
    scheduler: JoinHandle<Vec<FinalRun>>,
    stop_polling: CancellationToken,
    delivery: JoinHandle<()>,
    stop_delivering: CancellationToken,
    drain: Drain,
    /// Deliveries that were made but not recorded.
    pub made: Made,
    outbox: Arc<dyn Outbox>,
}

/// The results when both halves have ended.
#[derive(Debug)]
pub struct Ended {
    /// The final state of every run.
    pub runs: Vec<FinalRun>,
    /// Deliveries that were not made, or why that is unknown.
    pub undelivered: Result<Vec<Undelivered>, AppError>,
}

/// A half of the program failed. Never a verdict on a run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A task ended that must not end by itself.
    #[error("{what} {how}; this is a bug in runwatch")]
    Ended {
        /// The task.
        what: &'static str,
        /// How it ended: by a panic, or otherwise.
        how: &'static str,
    },
    /// A task panicked.
    #[error("an internal task panicked: {0}")]
    Panic(#[from] JoinError),
    /// The store failed at the end.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// A part did not end in time.
    #[error("{0} did not end in time")]
    Stuck(&'static str),
}

/// Starts both halves. They run until [`Running::stop`].
pub fn start<S: RunStore + Outbox>(plan: Plan, source: Arc<dyn RunSource>, store: Arc<S>) -> Running {
    let (updates, receiver) = mpsc::unbounded_channel();
    let (commands, command_receiver) = mpsc::channel(16);
    let runs: Arc<dyn RunStore> = Arc::clone(&store) as _;
    let outbox: Arc<dyn Outbox> = store;
    let routes = plan.settings.routes.clone();
    let mut scheduler = Scheduler::new(plan.settings, source, runs, updates, command_receiver);
    scheduler.outages_were_told(plan.outages_told);
    for run in plan.runs {
        scheduler.watch(run);
    }
    let (reports, attempts) = mpsc::unbounded_channel();
    let (channels, changes) = mpsc::channel(1);
    let delivery = Dispatcher::new(Arc::clone(&outbox), plan.channels, routes, Arc::new(clock::wall))
        .reporting(reports)
        .changing(changes);
    let (stop_polling, stop_delivering) = (CancellationToken::new(), CancellationToken::new());
    let lifelines = Lifelines::new();
    Running {
        updates: receiver,
        attempts,
        commands,
        channels,
        drain: delivery.drain(),
        made: delivery.made(),
        scheduler: lifelines.spawn(SCHEDULER, scheduler.run(stop_polling.clone())),
        delivery: lifelines.spawn(DELIVERY, delivery.run(stop_delivering.clone())),
        lifelines,
        stop_polling,
        stop_delivering,
        outbox,
    }
}

impl Running {
    /// Waits until a half ends by itself; for ever if neither does. The process must end then, because one half alone
    /// is useless and does not show it.
    pub fn failed(&self) -> impl Future<Output = AppError> + use<> {
        self.lifelines.failed()
    }

    /// Polls every active run once more, and waits for that, for `bound` at most.
    pub async fn final_poll(&self, bound: Duration) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::FinalPoll(reply)).await.is_ok() {
            // A timeout counts as done.
            let _ = timeout(bound, done).await;
        }
    }

    /// Whether there are deliveries that can still be made.
    pub async fn is_delivering(&self) -> bool {
        let undelivered = self.outbox.undelivered().await.unwrap_or_default();
        undelivered.iter().any(|left| left.due_at.is_some())
    }

    /// Ends both halves without using the store, which has failed. Returns the state of every run.
    pub async fn abandon(&mut self) -> Vec<FinalRun> {
        self.lifelines.may_end();
        self.stop_polling.cancel();
        self.stop_delivering.cancel();
        let known = bounded(SCHEDULER, &mut self.scheduler).await;
        if let Err(error) = bounded(DELIVERY, &mut self.delivery).await {
            warn!("{error}");
        }
        known.unwrap_or_else(|error| {
            warn!("{error}");
            Vec::new()
        })
    }

    /// Stops both halves in order: no more polls, then deliveries for up to `bound`, or until `hurry` is cancelled.
    /// Does not wait for retries that are due later than `retries_for` from now. The total time is limited.
    pub async fn stop(
        mut self,
        retries_for: Duration,
        bound: Duration,
        hurry: CancellationToken,
    ) -> Result<Ended, AppError> {
        let failure = self.lifelines.failure();
        self.lifelines.may_end();
        self.stop_polling.cancel();
        // Even if one half failed, the other stops in order, so that recorded events are delivered.
        let runs = bounded(SCHEDULER, &mut self.scheduler).await;
        let now = Instant::now();
        // Not `send`, which does nothing before the workers have subscribed.
        self.drain.send_replace(Some(now + retries_for));
        let delivered = tokio::select! {
            ended = timeout_at(now + bound, &mut self.delivery) => ended.ok(),
            () = hurry.cancelled() => None,
        };
        if let Some(ended) = delivered {
            // The end of a half that ended by itself is already known.
            ended.or_else(|error| if failure.is_some() { Ok(()) } else { Err(error) })?;
        } else {
            self.stop_delivering.cancel();
            let ended = bounded(DELIVERY, &mut self.delivery).await;
            ended.or_else(|error| if failure.is_some() { Ok(()) } else { Err(error) })?;
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        let undelivered = match timeout(PART_BOUND, self.outbox.undelivered()).await {
            Ok(undelivered) => undelivered.map_err(AppError::from),
            Err(_) => Err(AppError::Stuck("the store")),
        };
        Ok(Ended { runs: runs?, undelivered })
    }
}

/// Waits for a task, up to a limit.
async fn bounded<T>(what: &'static str, task: &mut JoinHandle<T>) -> Result<T, AppError> {
    if let Ok(ended) = timeout(PART_BOUND, &mut *task).await {
        return Ok(ended?);
    }
    task.abort();
    Err(AppError::Stuck(what))
}

/// The API client's settings, from the configuration.
pub fn api_settings(config: &Config) -> ApiSettings {
    let (key, known) = (config.api.key.clone(), config.known.clone());
    ApiSettings {
        base_url: config.api.base_url.clone(),
        read_key: Arc::new(move || {
            let key = key.read()?;
            known.learn(|redactor| redactor.add(key.expose()));
            Ok(key)
        }),
        headers: config.api.headers.clone(),
        ca_file: config.api.ca_file.clone(),
        connect_timeout: config.api.connect_timeout,
        request_timeout: config.api.request_timeout,
    }
}

/// The API as the ids of its events name it.
pub fn source(config: &Config) -> std::sync::Arc<str> {
    config.api.base_url.as_str().trim_end_matches('/').into()
}

/// The scheduler's settings for a command, from the configuration. Keeps everything for the final report.
pub fn poll_settings(
    config: &Config,
    routes: watch::Receiver<Routes>,
    patience: Patience,
    keep_bodies: bool,
) -> Settings {
    let poll = &config.poll;
    Settings {
        policy: poll.policy,
        requests_per_minute: poll.requests_per_minute,
        max_in_flight: poll.max_in_flight as usize,
        patience,
        source: source(config),
        routes,
        alerts: config.alerts,
        batch: poll.batch,
        discovery: None,
        keep_bodies,
        keep_ended: true,
        counters: Arc::default(),
        save_every: None,
    }
}
