//! A store that fails, works again, or turns out to be damaged while the daemon runs.

use std::sync::Arc;

use tracing::{error, info};

use super::setup::{announce, list, settings, store_failed};
use super::state::State;
use super::{Daemon, DaemonError};
use crate::app::{self, Plan};
use crate::clock;
use crate::poll::{FinalRun, OutagesTold};
use crate::store::{Commit, RunStore as _, StoreError, StoreErrorKind};

/// The moment, in the store, at which it was last found to fail.
const STORE_FAILED: &str = "store failed";

impl Daemon {
    /// The store fails, or works again. One that is damaged is replaced.
    pub(super) async fn store_trouble(&mut self, state: &mut State) -> Result<(), DaemonError> {
        let trouble = self.store_trouble.borrow_and_update().clone();
        self.handle.metrics.set_store_up(trouble.is_none());
        match trouble {
            Some(error) if error.kind == StoreErrorKind::Corrupt => {
                self.begin_again(state, &error).await?;
            }
            Some(error) if error.kind == StoreErrorKind::Ended => {
                return Err(DaemonError::Internal(error.to_string()));
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

    /// Writes to a store that fails: if that works, it is heard of.
    pub(super) fn probe(&self) {
        let store = self.handle.parts_now().store;
        let moment = Some((STORE_FAILED.into(), Some(clock::wall())));
        tokio::spawn(async move { store.commit(Commit { moment, ..Commit::default() }).await });
    }

    /// The store is damaged: sets it aside and goes on from what is known here.
    async fn begin_again(&mut self, state: &mut State, error: &StoreError) -> Result<(), DaemonError> {
        error!("the state has turned out to be damaged: {error}");
        // What is asked for meanwhile is refused: it would be written into the damaged file.
        let handle = Arc::clone(&self.handle);
        handle.exchange(|parts| parts.suspended = true);
        let _changing = handle.changing.lock().await;
        // Both halves stop on the damaged store; what they know is carried over.
        let known = self.running.abandon().await;
        state.begin_again().await?;
        let store = Arc::new(state.store.clone());
        let carried: Vec<_> = known.into_iter().map(FinalRun::into_watched).collect();
        store.add(carried.clone()).await.map_err(|error| store_failed(&error))?;
        store.save(carried).await.map_err(|error| store_failed(&error))?;
        self.seen.carry_over(&store).await.map_err(|error| store_failed(&error))?;
        let list = list(&self.config, &store).await?;
        let settings = settings(&self.config, &self.counters, &self.seen, self.routes.subscribe());
        announce(&self.config, &list, &self.routes.borrow());
        let channels = self.channels.clone();
        let plan = Plan { settings, runs: list.going, channels, outages_told: OutagesTold::default() };
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
            let trouble = format!("a damaged state is kept as {}", aside.display());
            self.handle.set_trouble("aside", Some(trouble));
        }
    }
}
