//! A store that fails, works again, or turns out to be damaged while the daemon runs.

use std::sync::Arc;

use tracing::{error, info};

use super::setup::{announce, list, settings, store_failed};
use super::state::{State, StateError};
use super::{Daemon, DaemonError};
use crate::app::{self, Plan};
use crate::clock;
use crate::poll::OutagesTold;
use crate::store::{Commit, RunStore as _, StoreError, StoreErrorKind};

/// The moment, in the store, at which it was last found to fail.
const STORE_FAILED: &str = "store failed";

impl Daemon {
    /// The store fails, or works again. One that is damaged is replaced.
    pub(super) async fn store_trouble(&mut self, state: &mut State) -> Result<(), DaemonError> {
        let trouble = self.store_trouble.borrow_and_update().clone();
        self.handle.metrics.set_store_up(trouble.is_none());
        match trouble {
            Some(error) if error.kind.is_lasting() => {
                error!("the state has turned out to be damaged: {error}");
                self.begin_again(state, &error).await?;
            }
            Some(error) if error.kind == StoreErrorKind::Ended => {
                return Err(DaemonError::Internal(error.to_string()));
            }
            Some(error) => {
                error!("cannot record what was seen: {error}; still trying");
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

    /// Finds out whether a store that fails still does: writes to it, or tries again to replace it.
    pub(super) async fn probe(&mut self, state: &mut State) -> Result<(), DaemonError> {
        if self.store_trouble.has_changed().unwrap_or(false) {
            // It has not been said yet.
            return self.store_trouble(state).await;
        }
        let trouble = self.store_trouble.borrow().clone();
        if let Some(error) = trouble.filter(|error| error.kind.is_lasting()) {
            return self.begin_again(state, &error).await;
        }
        let store = self.handle.parts_now().store;
        let moment = Some((STORE_FAILED.into(), Some(clock::wall())));
        tokio::spawn(async move { store.commit(Commit { moment, ..Commit::default() }).await });
        Ok(())
    }

    /// Has the store look whether its files are still there. What it finds is heard of.
    pub(super) fn look_at_files(&self) {
        let store = self.handle.parts_now().store;
        tokio::spawn(async move { store.answers().await });
    }

    /// The store is damaged or its files are gone: begins another, and goes on from what is known here. As long as that does
    /// not work, both halves go on, and what they see is not recorded.
    async fn begin_again(&mut self, state: &mut State, error: &StoreError) -> Result<(), DaemonError> {
        // What is asked for meanwhile is refused: it would not be recorded.
        let handle = Arc::clone(&self.handle);
        handle.exchange(|parts| parts.suspended = true);
        let _changing = handle.changing.lock().await;
        if let Err(failed) = state.begin_again(error.kind).await {
            if matches!(failed, StateError::InUse(_)) {
                return Err(failed.into());
            }
            error!("{failed}; still trying");
            handle.set_trouble("store", Some(format!("cannot record what was seen: {error}; {failed}")));
            self.soon();
            return Ok(());
        }
        // Both halves stop on the old store; what they know is carried over.
        let known = self.running.abandon().await;
        let store = Arc::new(state.store.clone());
        let carried: Vec<_> = known.into_iter().map(|run| run.watched).collect();
        store.add(carried.clone()).await.map_err(|error| store_failed(&error))?;
        store.save(carried).await.map_err(|error| store_failed(&error))?;
        self.seen.carry_over(&store).await.map_err(|error| store_failed(&error))?;
        let list = list(&self.config, &store).await?;
        let channels = self.channels.iter().map(|channel| channel.name.clone()).collect();
        store.give_up_on_others(channels, clock::wall()).await.map_err(|error| store_failed(&error))?;
        let settings = settings(&self.config, &self.counters, &self.seen, self.routes.subscribe());
        announce(&self.config, &list, &self.routes.borrow());
        let channels = self.channels.clone();
        let plan = Plan { settings, runs: list.watched, channels, outages_told: OutagesTold::default() };
        self.running = app::start(plan, Arc::clone(&self.source) as _, Arc::clone(&store));
        self.store_trouble = store.health();
        handle.exchange(|parts| {
            parts.store = store;
            parts.commands = self.running.commands.clone();
            parts.suspended = false;
        });
        // The new scheduler finds out for itself what is wrong.
        for about in ["store", "api", "key", "discover"] {
            handle.set_trouble(about, None);
        }
        handle.metrics.set_store_up(true);
        handle.metrics.set_api_up(true);
        self.warn_of_what_was_set_aside(state);
        Ok(())
    }

    /// Keeps in sight that there is a damaged state somewhere.
    pub(super) fn warn_of_what_was_set_aside(&self, state: &State) {
        if let Some(aside) = &state.set_aside {
            self.handle.set_trouble("aside", Some(aside.to_string()));
        }
    }
}
