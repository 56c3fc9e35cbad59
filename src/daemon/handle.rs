//! The daemon as its verbs, its socket and its metrics see it: the parts that can be replaced, and the current
//! problems.
//!
//! Code that changes the watched runs must hold `changing`, so that records come before watching. The verbs are in
//! `verbs`.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::Reread;
use super::metrics::{Figures, SharedMetrics};
use super::reload::ReloadError;
use crate::config::Config;
use crate::control::{Answer, Run};
use crate::poll::{Command, Counters, RunView};
use crate::store::{Route, Routes, SqliteStore, StoreError, Watched};

/// Maximum time for the scheduler's reply. Without a reply it is stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A request to the daemon's loop.
pub enum Order {
    /// Read the configuration again. The reply is a summary, or the problems.
    Reload(oneshot::Sender<Result<String, ReloadError>>),
}

/// The daemon as others see it.
pub(super) struct Handle {
    pub(super) parts: RwLock<Parts>,
    pub(super) orders: mpsc::Sender<Order>,
    /// How to read the configuration's file again.
    pub(super) reread: Reread,
    pub(super) metrics: SharedMetrics,
    pub(super) counters: Arc<Counters>,
    pub(super) started_at: Timestamp,
    /// The state directory.
    pub(super) state_dir: PathBuf,
    /// The current problems by subject.
    pub(super) troubles: Mutex<HashMap<&'static str, String>>,
    /// The last figures, used if new ones do not come in time.
    pub(super) figures: Mutex<Figures>,
    /// Held while the watched runs are changed: data read during a change would be out of date.
    pub(super) changing: tokio::sync::Mutex<()>,
}

/// The parts that can be replaced while the daemon runs.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) store: Arc<SqliteStore>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) routes: watch::Receiver<Routes>,
    pub(super) api: Arc<str>,
    pub(super) requests_per_minute: u32,
    /// The configuration in use.
    pub(super) config: Arc<Config>,
    /// Whether the store is being replaced. Then nothing can be written.
    pub(super) suspended: bool,
}

/// Why a request was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The request is invalid.
    Bad(String),
    /// Its subject does not exist.
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
    /// The parts, even during a replacement.
    pub(super) fn parts_now(&self) -> Parts {
        self.parts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces some of the parts.
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

    /// The current problems that stop the daemon's work, without those that are only for information.
    pub(super) fn hindrances(&self) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let hindering = troubles.iter().filter(|(about, _)| !matches!(**about, "aside" | "configuration"));
        let mut hindering: Vec<String> = hindering.map(|(_, trouble)| trouble.clone()).collect();
        hindering.sort();
        hindering
    }

    /// The current problems.
    pub(super) fn troubles(&self) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let mut troubles: Vec<String> = troubles.values().cloned().collect();
        troubles.sort();
        troubles
    }

    /// The current problems by subject.
    pub(super) fn troubles_by_subject(&self) -> Vec<(&'static str, String)> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let mut troubles: Vec<_> =
            troubles.iter().map(|(about, trouble)| (*about, trouble.clone())).collect();
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

    /// Names a part that does not answer and that only a restart can fix, if any.
    pub(super) async fn stuck(&self) -> Option<&'static str> {
        let parts = self.parts_now();
        let (scheduler, store) =
            tokio::join!(self.ask(&parts, Command::Ping), timeout(PATIENCE, parts.store.answers()),);
        if scheduler.is_err() {
            Some("the scheduler does not answer")
        } else if store != Ok(true) && !parts.suspended {
            // While the store is being replaced, the old one is closed.
            Some("the store does not answer")
        } else {
            None
        }
    }

    pub(super) async fn ask<T>(
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

/// The channel of this name. The error lists the existing ones.
pub(super) fn known<'r>(routes: &'r Routes, name: &str) -> Result<&'r Route, Refusal> {
    routes.get(name).ok_or_else(|| {
        let known: Vec<&str> = routes.iter().map(|route| &*route.channel).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refusal::Bad(format!("there is no channel `{name}`; configured: {known}"))
    })
}

/// A run with the scheduler's counts, which may be newer than the store's.
pub(super) fn seen(run: Watched, view: &RunView) -> Run {
    let left = view.expected_end.map(|end| end.saturating_duration_since(tokio::time::Instant::now()));
    let trouble = view.trouble.as_ref().map(|trouble| trouble.message.to_string());
    let seen = Run::of(&Watched { state: view.state.clone(), ..run });
    Run { trouble, seconds_left: left.map(|left| left.as_secs()), ..seen }
}
