//! `remove`: stop watching a run, then forget it.
//!
//! The order matters: a poll in flight must not bring back a forgotten run.

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::info;

use crate::clock;
use crate::control::Run;
use crate::daemon::handle::{Handle, PATIENCE, Parts, Refusal};
use crate::poll::Command;
use crate::run::RunId;

impl Handle {
    /// Stops watching a run. Its pending deliveries are still sent.
    pub(in crate::daemon) async fn remove(&self, id: &RunId) -> Result<Run, Refusal> {
        let _changing = self.changing.lock().await;
        let run = self.run(id).await?;
        let parts = self.parts()?;
        parts.stop_watching(id).await;
        parts.store.remove(id.clone(), clock::wall()).await?;
        info!(
            run_id = id.as_str(),
            run_name = run.name.as_deref(),
            "removed from the watch list by a command"
        );
        Ok(run)
    }
}

impl Parts {
    /// Stops polling a run. Does nothing if it is not polled.
    pub(in crate::daemon) async fn stop_watching(&self, id: &RunId) {
        let (reply, done) = oneshot::channel();
        let _ = self.commands.send(Command::Remove(id.clone(), reply)).await;
        let _ = timeout(PATIENCE, done).await;
    }
}
