//! `show`: one run, from the store and from the scheduler.
//!
//! The command gets the run's notifications from `deliveries`.

use crate::control::Run;
use crate::daemon::handle::{Handle, Refusal, seen};
use crate::poll::{Command, RunView};
use crate::run::RunId;

impl Handle {
    /// One run.
    pub(in crate::daemon) async fn run(&self, id: &RunId) -> Result<Run, Refusal> {
        let parts = self.parts()?;
        let unknown = || Refusal::NotFound(format!("the daemon does not know the run {id}"));
        let view: Option<RunView> = self.ask(&parts, |reply| Command::View(id.clone(), reply)).await?;
        let run = parts.store.run(id.clone()).await?.ok_or_else(unknown)?;
        Ok(view.map_or_else(|| Run::of(&run), |view| seen(run.clone(), &view)))
    }
}
