//! Watching in the foreground: what `watch`, `wait` and `demo` share.
//!
//! Owns the end of a watch (all ended, enough ended, deadline, signal) and the bounded delivery after it. What is shown
//! is the [`View`]'s: it only receives.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::exit::Exit;
use super::out;
use super::signals::Signals;
use super::verdict::Cut;
use crate::api::RunSource;
use crate::app::{self, Ended, Plan, Running};
use crate::config::{Config, ConfiguredChannel};
use crate::notify::Message;
use crate::poll::{LAST_POLL, Update, Watched};
use crate::run::event::Payload;
use crate::run::{Change, Ending, Patience, RunId, RunState, Subject, Terminal};
use crate::store::{SqliteStore, Undelivered};

/// How long notifications are tried before the command ends.
const DELIVERY: Duration = Duration::from_secs(10);

/// Somebody who looks on. Never asked anything.
pub(super) trait View {
    /// Something happened.
    fn update(&mut self, update: &Update);
    /// When [`View::tick`] is wanted, should nothing happen before.
    fn next_tick(&self) -> Option<Instant>;
    /// That moment has come.
    fn tick(&mut self);
    /// Nothing more comes: leave the terminal clean.
    fn finish(&mut self);
}

/// When a watch is over, apart from its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndWhen {
    /// Every run has ended.
    All,
    /// One has.
    Any,
    /// Every run has ended, or one has and did not succeed.
    AllOrFirstBad,
}

/// A watch to be made.
pub(super) struct Watch<'a> {
    pub(super) config: &'a Config,
    pub(super) runs: &'a [RunId],
    pub(super) channels: Vec<ConfiguredChannel>,
    pub(super) end_when: EndWhen,
    pub(super) timeout: Option<Duration>,
    pub(super) keep_bodies: bool,
}

/// A watch that was made.
pub(super) struct Session {
    pub(super) ended: Ended,
    pub(super) cut: Cut,
}

impl Watch<'_> {
    /// Watches to the end. The error is an exit code whose reason has been shown.
    pub(super) async fn run(self, source: Arc<dyn RunSource>, view: &mut dyn View) -> Result<Session, Exit> {
        let began = Instant::now();
        let internal = |error: &dyn std::fmt::Display| {
            out::error(format_args!("internal error: {error}"));
            Exit::Internal
        };
        let mut signals = Signals::new().map_err(|error| internal(&error))?;
        let store = Arc::new(SqliteStore::in_memory().map_err(|error| internal(&error))?);
        let mut running = app::start(self.plan()?, source, store);
        let deadline = self.timeout.map(|timeout| began + timeout);
        let mut cut = self.until_over(&mut running, &mut signals, deadline, view).await;
        if cut == Cut::Deadline {
            running.last_poll(LAST_POLL).await;
            while let Ok(update) = running.updates.try_recv() {
                view.update(&update);
            }
        }
        view.finish();
        let ended = tokio::select! {
            ended = running.stop(DELIVERY, DELIVERY) => ended.map_err(|error| internal(&error))?,
            // Asked twice to stop, it stops.
            signal = signals.next() => return Err(signal),
        };
        if cut == Cut::Deadline && ended.runs.iter().all(|run| run.state.ended.is_some()) {
            cut = Cut::AllEnded;
        }
        for left in &ended.undelivered {
            out::error(could_not_deliver(left));
        }
        Ok(Session { ended, cut })
    }

    fn plan(&self) -> Result<Plan, Exit> {
        let poll = &self.config.poll;
        let patience = Patience {
            grace: poll.grace,
            unknown_after: Some(poll.unknown_status_after),
            refused_ends: true,
        };
        let channels: Result<Vec<_>, _> = self.channels.iter().map(app::channel).collect();
        let routes = app::routes(&self.channels);
        Ok(Plan {
            settings: app::poll_settings(self.config, routes, patience, self.keep_bodies),
            runs: self.watched(),
            channels: channels.map_err(super::setup::refuse)?,
        })
    }

    /// The runs asked for, each once, by the names that the configuration has for them.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        self.watched().into_iter().map(|watched| watched.subject).collect()
    }

    /// The runs asked for, each once, with the names and channels that the configuration has for them.
    fn watched(&self) -> Vec<Watched> {
        let now = crate::clock::wall();
        let mut seen = HashSet::new();
        let watched = |id: &RunId| {
            let configured = self.config.runs.iter().find(|run| run.id == *id);
            Watched {
                subject: Subject { id: id.clone(), name: configured.and_then(|run| run.name.clone()) },
                notify: configured.and_then(|run| run.notify.as_deref()).map(Into::into),
                state: RunState::new(now),
            }
        };
        self.runs.iter().filter(|id| seen.insert(*id)).map(watched).collect()
    }

    async fn until_over(
        &self,
        running: &mut Running,
        signals: &mut Signals,
        deadline: Option<Instant>,
        view: &mut dyn View,
    ) -> Cut {
        let distinct: HashSet<&RunId> = self.runs.iter().collect();
        let mut going = distinct.len();
        loop {
            let tick = view.next_tick();
            tokio::select! {
                update = running.updates.recv() => {
                    // The scheduler is gone: `stop` finds out why.
                    let Some(update) = update else { return Cut::AllEnded };
                    view.update(&update);
                    let Update::Run(run, Change::Ended) = &update else { continue };
                    going = going.saturating_sub(1);
                    let good = run.state.ended == Some(Ending::Finished(Terminal::Succeeded));
                    if going == 0 {
                        return Cut::AllEnded;
                    }
                    if self.end_when == EndWhen::Any || (self.end_when == EndWhen::AllOrFirstBad && !good) {
                        return Cut::EnoughEnded;
                    }
                }
                signal = signals.next() => return Cut::Signal(signal),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Cut::Deadline,
                () = sleep_until(tick.unwrap_or_else(Instant::now)), if tick.is_some() => view.tick(),
            }
        }
    }
}

fn could_not_deliver(left: &Undelivered) -> String {
    let what = serde_json::from_str::<Payload>(&left.payload)
        .map_or_else(|_| "an event".to_owned(), |payload| format!("\"{}\"", Message::of(&payload).title));
    let why = left.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    let tries = match left.attempts {
        1 => "1 attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    };
    format!("could not deliver {what} through `{}` ({tries}){why}", left.channel)
}
