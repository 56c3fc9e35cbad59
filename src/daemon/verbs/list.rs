//! `list`: every known run, from the store and from the scheduler.
//!
//! The scheduler's counts are newer than the store's and replace them.

use std::collections::HashMap;

use crate::control::{Run, Runs};
use crate::daemon::handle::{Handle, Refusal, seen};
use crate::poll::{Command, RunView};
use crate::run::RunId;
use crate::store::{RunStore as _, Watched};

impl Handle {
    /// Every known run.
    pub(in crate::daemon) async fn runs(&self) -> Result<Runs, Refusal> {
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
}
