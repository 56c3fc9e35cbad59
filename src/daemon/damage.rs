//! Handles a store that fails, recovers, or turns out to be damaged while the daemon runs.

use std::sync::Arc;

use tracing::{error, info};

use super::setup::{announce, list, settings, store_failed};
use super::state::{State, StateError};
use super::{Daemon, DaemonError};
use crate::app::{self, Plan};
use crate::clock;
use crate::poll::OutagesTold;
use crate::store::{Commit, RunStore as _, StoreError, StoreErrorKind};

/// The store's key for the time of its last failure.
const STORE_FAILED: &str = "store failed";

impl Daemon {
    /// The store fails or works again. A damaged store is replaced.
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

    /// Checks a failing store: writes to it, or tries again to replace it.
    pub(super) async fn probe(&mut self, state: &mut State) -> Result<(), DaemonError> {
        if self.store_trouble.has_changed().unwrap_or(false) {
            // This failure was not handled yet.
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

    /// Asks the store to check its files. The result comes as a store error.
    pub(super) fn check_files(&self) {
        let store = self.handle.parts_now().store;
        tokio::spawn(async move { store.answers().await });
    }

    /// Replaces a store that is damaged or whose files are gone, and continues from the state in memory. Until that
    /// works, both halves run without recording what they see.
    async fn begin_again(&mut self, state: &mut State, error: &StoreError) -> Result<(), DaemonError> {
        // Requests during the replacement are refused, because they would not be recorded.
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
        // Both halves stop using the old store. The new store gets their state.
        let known = self.running.abandon().await;
        let store = Arc::new(state.store.clone());
        let carried: Vec<_> = known.into_iter().map(|run| run.watched).collect();
        store.add(carried.clone()).await.map_err(|error| store_failed(&error))?;
        store.save(carried).await.map_err(|error| store_failed(&error))?;
        let made = self.running.made.unrecorded();
        store.were_made(made, clock::wall()).await.map_err(|error| store_failed(&error))?;
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
        // The new scheduler detects these problems again if they last.
        for about in ["store", "api", "key", "discover"] {
            handle.set_trouble(about, None);
        }
        handle.metrics.set_store_up(true);
        handle.metrics.set_api_up(true);
        self.warn_of_what_was_set_aside(state);
        Ok(())
    }

    /// Logs and reports that a damaged state was set aside.
    pub(super) fn warn_of_what_was_set_aside(&self, state: &State) {
        if let Some(aside) = &state.set_aside {
            self.handle.set_trouble("aside", Some(aside.to_string()));
        }
    }
}
