//! What is known of how long runs of a spec take: looked up in the store once for each spec, off the loop.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::prior::Prior;
use crate::run::{Ending, RunState, SpecId, Terminal};
use crate::store::{RunStore, StoreError, Took};

/// The guesses, and the look-ups under way.
pub(super) struct Histories {
    store: Arc<dyn RunStore>,
    /// `None` where nothing is known, or not yet.
    known: HashMap<SpecId, Option<Prior>>,
    lookups: JoinSet<(SpecId, Result<Vec<Took>, StoreError>)>,
}

impl Histories {
    pub(super) fn new(store: Arc<dyn RunStore>) -> Self {
        Self { store, known: HashMap::new(), lookups: JoinSet::new() }
    }

    /// What is known of runs like this one.
    pub(super) fn of(&self, state: &RunState) -> Option<&Prior> {
        self.known.get(&state.spec_id?)?.as_ref()
    }

    /// Looks up what earlier runs of its spec took, once.
    pub(super) fn learn(&mut self, state: &RunState) {
        let Some(spec) = state.spec_id.filter(|_| state.ended.is_none()) else { return };
        if self.known.contains_key(&spec) {
            return;
        }
        self.known.insert(spec, None);
        let store = Arc::clone(&self.store);
        self.lookups.spawn(async move { (spec, store.took(spec).await) });
    }

    /// A run is known to have ended: if it succeeded there is one more to learn from.
    pub(super) fn ended(&mut self, state: &RunState) {
        if let (Some(Ending::Finished(Terminal::Succeeded)), Some(spec)) = (state.ended, state.spec_id) {
            self.known.remove(&spec);
        }
    }

    /// Waits for the next look-up, and takes in what it brought; `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<()> {
        if let Ok((spec, took)) = self.lookups.join_next().await? {
            self.known.insert(spec, Prior::from(&took.unwrap_or_default()));
        }
        Some(())
    }
}
