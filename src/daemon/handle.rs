//! What the daemon can be asked to do, by the socket's requests and by files in the watched directory.
//!
//! Owns the order of what must be durable and what must be watched: a run is written down before it is watched, and taken
//! out of the watch before it is forgotten.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::metrics::{CONTENT_TYPE, Figures, SharedMetrics};
use crate::clock;
use crate::config;
use crate::control::{
    Added, AddedRun, Answer, Deliveries, NewRun, ReloadAnswer, ResendRequest, Run, Runs, Settled, Status,
};
use crate::poll::{Command, Counters, RunView};
use crate::run::{RunId, Subject};
use crate::store::{DeliveryFilter, Origin, Route, Routes, RunStore as _, SqliteStore, StoreError, Watched};

/// The scheduler answers within this, or it does not move.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long figures are waited for: a disk that hangs holds up these, and nothing else.
const FIGURES_PATIENCE: Duration = Duration::from_secs(2);

/// Something the loop is asked to do.
pub enum Order {
    /// Read the configuration again; the answer says what became of it.
    Reload(oneshot::Sender<Result<String, String>>),
}

/// The daemon as others see it.
pub(super) struct Handle {
    pub(super) parts: RwLock<Parts>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) metrics: SharedMetrics,
    pub(super) counters: Arc<Counters>,
    pub(super) started_at: Timestamp,
    /// What is wrong at the moment, by what it is about.
    pub(super) troubles: Mutex<HashMap<&'static str, String>>,
    /// The last figures there were, for when they cannot be had.
    pub(super) figures: Mutex<Figures>,
    /// Held by whoever changes what is watched: what was read meanwhile would be out of date.
    pub(super) changing: tokio::sync::Mutex<()>,
}

/// What can be exchanged while the daemon runs.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) store: Arc<SqliteStore>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) routes: Routes,
    pub(super) api: Arc<str>,
    pub(super) requests_per_minute: u32,
    /// The store is being replaced: nothing can be written.
    pub(super) suspended: bool,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It makes no sense.
    Bad(String),
    /// There is no such thing.
    NotFound(String),
    /// It cannot be done now.
    Unavailable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Bad(why) | Self::NotFound(why) | Self::Unavailable(why)) = self;
        f.write_str(why)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(format!("the store failed: {error}"))
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Bad(error) => Self::error(422, error),
            Refusal::NotFound(error) => Self::error(404, error),
            Refusal::Unavailable(error) => Self::error(503, error),
        }
    }
}

impl Handle {
    /// The parts as they are, also while one is being replaced.
    pub(super) fn parts_now(&self) -> Parts {
        self.parts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Exchanges some of the parts.
    pub(super) fn exchange(&self, change: impl FnOnce(&mut Parts)) {
        change(&mut self.parts.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The parts, unless one is being replaced.
    pub(super) fn parts(&self) -> Result<Parts, Refusal> {
        let parts = self.parts_now();
        if parts.suspended {
            return Err(Refusal::Unavailable(
                "the state is being replaced; try again in a moment".to_owned(),
            ));
        }
        Ok(parts)
    }

    /// Has runs watched; durable when this returns.
    pub(super) async fn add(&self, runs: Vec<NewRun>) -> Result<Added, Refusal> {
        let _changing = self.changing.lock().await;
        let parts = self.parts()?;
        let now = clock::wall();
        let watched = runs.into_iter().map(|run| watched(run, &parts.routes, now));
        let added = parts.watch(watched.collect::<Result<_, _>>()?).await?;
        let answers = added.iter().map(|run| AddedRun {
            id: run.subject.id.clone(),
            finished: run.state.status.clone().filter(|_| run.state.ended.is_some()),
        });
        Ok(Added { runs: answers.collect() })
    }

    /// Has a run watched no more; what is still to be told of it is told.
    pub(super) async fn remove(&self, id: &RunId) -> Result<Run, Refusal> {
        let _changing = self.changing.lock().await;
        let run = self.run(id).await?;
        let parts = self.parts()?;
        parts.stop_watching(id).await;
        parts.store.remove(id.clone(), clock::wall()).await?;
        Ok(run)
    }

    /// Every run that is known.
    pub(super) async fn runs(&self) -> Result<Runs, Refusal> {
        let parts = self.parts()?;
        let mut views: HashMap<RunId, RunView> = self
            .ask(&parts, Command::Snapshot)
            .await?
            .into_iter()
            .map(|view: RunView| (view.subject.id.clone(), view))
            .collect();
        let run = |run: Watched| match views.remove(&run.subject.id) {
            Some(view) => seen(run, &view),
            None => Run::of(&run),
        };
        let mut runs: Vec<Run> = parts.store.load().await?.into_iter().map(run).collect();
        runs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Runs { runs })
    }

    /// One run.
    pub(super) async fn run(&self, id: &RunId) -> Result<Run, Refusal> {
        let parts = self.parts()?;
        let unknown = || Refusal::NotFound(format!("the daemon does not know the run {id}"));
        let view: Option<RunView> = self.ask(&parts, |reply| Command::View(id.clone(), reply)).await?;
        let run = parts.store.run(id.clone()).await?.ok_or_else(unknown)?;
        Ok(view.map_or_else(|| Run::of(&run), |view| seen(run.clone(), &view)))
    }

    pub(super) async fn deliveries(&self, filter: DeliveryFilter, limit: u32) -> Result<Deliveries, Refusal> {
        Ok(Deliveries { deliveries: self.parts()?.store.deliveries(filter, limit).await? })
    }

    pub(super) async fn retry(&self, filter: DeliveryFilter) -> Result<Settled, Refusal> {
        Ok(Settled { deliveries: self.parts()?.store.retry(filter, clock::wall()).await? })
    }

    pub(super) async fn resend(&self, request: ResendRequest) -> Result<Settled, Refusal> {
        let parts = self.parts()?;
        let anew = request.channels.is_some();
        let channels: Vec<Route> = match request.channels {
            None => parts.routes.iter().cloned().collect(),
            Some(names) => {
                names.iter().map(|name| known(&parts.routes, name).cloned()).collect::<Result<_, _>>()?
            }
        };
        let deliveries = parts.store.resend(request.since, channels, anew, clock::wall()).await?;
        Ok(Settled { deliveries })
    }

    pub(super) async fn reload(&self) -> Result<ReloadAnswer, Refusal> {
        let (reply, answer) = oneshot::channel();
        let gone = || Refusal::Unavailable("the daemon is stopping".to_owned());
        self.orders.send(Order::Reload(reply)).await.map_err(|_| gone())?;
        let message = answer.await.map_err(|_| gone())?.map_err(Refusal::Bad)?;
        Ok(ReloadAnswer { message })
    }

    pub(super) async fn status(&self) -> Status {
        let parts = self.parts_now();
        let figures = self.figures().await;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            api: parts.api.to_string(),
            going: figures.standing.runs.values().sum(),
            ended: figures.ended.iter().map(|(_, count)| count.unsigned_abs()).sum(),
            deliveries_pending: figures.outbox.iter().map(|stats| stats.pending).sum(),
            troubles: self.troubles(),
        }
    }

    /// What is wrong at the moment that keeps it from its work: not what only has to be known.
    pub(super) fn hindrances(&self) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let hindering = troubles.iter().filter(|(about, _)| !matches!(**about, "aside" | "configuration"));
        let mut hindering: Vec<String> = hindering.map(|(_, trouble)| trouble.clone()).collect();
        hindering.sort();
        hindering
    }

    /// What is wrong at the moment.
    pub(super) fn troubles(&self) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let mut troubles: Vec<String> = troubles.values().cloned().collect();
        troubles.sort();
        troubles
    }

    pub(super) fn is_in_trouble(&self, about: &'static str) -> bool {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).contains_key(about)
    }

    pub(super) fn set_trouble(&self, about: &'static str, trouble: Option<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => drop(troubles.insert(about, trouble)),
            None => drop(troubles.remove(about)),
        }
    }

    /// How it stands; what cannot be found out in time is as it last was.
    async fn figures(&self) -> Figures {
        let parts = self.parts_now();
        let store = &parts.store;
        let (standing, ended, outbox) = tokio::join!(
            timeout(FIGURES_PATIENCE, self.ask(&parts, Command::Standing)),
            timeout(FIGURES_PATIENCE, store.ended_by_status()),
            timeout(FIGURES_PATIENCE, store.stats()),
        );
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(standing)) = standing {
            figures.standing = standing;
        }
        if let Ok(Ok(ended)) = ended {
            figures.ended = ended;
        }
        if let Ok(Ok(outbox)) = outbox {
            figures.outbox = outbox;
        }
        figures.clone()
    }

    /// What Prometheus reads.
    pub(super) async fn metrics(&self) -> Answer {
        let budget = self.parts_now().requests_per_minute;
        let figures = self.figures().await;
        match self.metrics.render(&self.counters, &figures, budget) {
            Ok(text) => Answer::text(200, CONTENT_TYPE, text),
            Err(error) => Answer::error(500, error.to_string()),
        }
    }

    /// Whether the scheduler moves.
    pub(super) async fn is_alive(&self) -> bool {
        self.ask(&self.parts_now(), Command::Ping).await.is_ok()
    }

    async fn ask<T>(
        &self,
        parts: &Parts,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            parts.commands.send(command(reply)).await.ok()?;
            answer.await.ok()
        };
        let answer = timeout(PATIENCE, ask).await.ok().flatten();
        answer.ok_or_else(|| Refusal::Unavailable("the scheduler does not answer".to_owned()))
    }
}

impl Parts {
    /// Writes down runs, and then watches those that go on. Gives them with what is known of them.
    pub(super) async fn watch(&self, runs: Vec<Watched>) -> Result<Vec<Watched>, StoreError> {
        let known = self.store.add(runs).await?;
        let going = known.iter().filter(|run| run.state.ended.is_none()).cloned().collect();
        // A scheduler that is gone takes the daemon along: the next start finds the runs in the store.
        let _ = self.commands.send(Command::Add(going)).await;
        Ok(known)
    }

    /// Has the scheduler let go of a run. Not watched is as good as let go.
    pub(super) async fn stop_watching(&self, id: &RunId) {
        let (reply, done) = oneshot::channel();
        let _ = self.commands.send(Command::Remove(id.clone(), reply)).await;
        let _ = timeout(PATIENCE, done).await;
    }
}

fn watched(run: NewRun, routes: &Routes, now: Timestamp) -> Result<Watched, Refusal> {
    if let Some(error) = run.name.as_deref().and_then(config::name_error) {
        return Err(Refusal::Bad(format!(
            "the name of the run {} {error}; expected a short line of text",
            run.id
        )));
    }
    if run.deadline_seconds == Some(0) {
        return Err(Refusal::Bad(format!("the deadline of the run {} is zero", run.id)));
    }
    let notify = match &run.notify {
        None => None,
        Some(names) => {
            let names = names.iter().map(|name| known(routes, name).map(|route| route.channel.clone()));
            Some(names.collect::<Result<Vec<_>, _>>()?.into())
        }
    };
    let subject = Subject { id: run.id, name: run.name.map(Into::into) };
    let deadline = run.deadline_seconds.map(Duration::from_secs);
    Ok(Watched { notify, deadline, origin: Origin::Added, ..Watched::new(subject, now) })
}

fn known<'r>(routes: &'r Routes, name: &str) -> Result<&'r Route, Refusal> {
    routes.get(name).ok_or_else(|| {
        let known: Vec<&str> = routes.iter().map(|route| &*route.channel).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refusal::Bad(format!("there is no channel `{name}`; configured: {known}"))
    })
}

/// A run as it is now: the store may be behind by some counts.
fn seen(run: Watched, view: &RunView) -> Run {
    let left = view.expected_end.map(|end| end.saturating_duration_since(tokio::time::Instant::now()));
    let trouble = view.trouble.as_ref().map(|trouble| trouble.message.to_string());
    let seen = Run::of(&Watched { state: view.state.clone(), ..run });
    Run { trouble, seconds_left: left.map(|left| left.as_secs()), ..seen }
}
