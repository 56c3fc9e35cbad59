//! How long earlier runs of a spec took. Reads the store once per spec, outside the scheduler's loop.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::prior::Prior;
use crate::run::{Ending, RunState, SpecId, Terminal};
use crate::store::{RunDuration, RunStore, StoreError};

/// The estimates, and the reads in progress.
pub(super) struct Histories {
    store: Arc<dyn RunStore>,
    /// `None` if the spec has no history, or it is not read yet.
    known: HashMap<SpecId, Option<Prior>>,
    lookups: JoinSet<(SpecId, Result<Vec<RunDuration>, StoreError>)>,
}

impl Histories {
    pub(super) fn new(store: Arc<dyn RunStore>) -> Self {
        Self { store, known: HashMap::new(), lookups: JoinSet::new() }
    }

    /// The estimate for runs of the same spec.
    pub(super) fn of(&self, state: &RunState) -> Option<&Prior> {
        self.known.get(&state.spec_id?)?.as_ref()
    }

    /// Starts to read how long earlier runs of the same spec took, once.
    pub(super) fn learn(&mut self, state: &RunState) {
        let Some(spec) = state.spec_id.filter(|_| state.ended.is_none()) else { return };
        if self.known.contains_key(&spec) {
            return;
        }
        self.known.insert(spec, None);
        let store = Arc::clone(&self.store);
        self.lookups.spawn(async move { (spec, store.durations(spec).await) });
    }

    /// A run has finished. If it succeeded, the history has one more entry and is read again.
    pub(super) fn ended(&mut self, state: &RunState) {
        if let (Some(Ending::Finished(Terminal::Succeeded)), Some(spec)) = (state.ended, state.spec_id) {
            self.known.remove(&spec);
        }
    }

    /// Waits for the next read and stores its result. `None` if no read is in progress.
    pub(super) async fn next(&mut self) -> Option<()> {
        if let Ok((spec, took)) = self.lookups.join_next().await? {
            self.known.insert(spec, Prior::from(&took.unwrap_or_default()));
        }
        Some(())
    }
}
