//! `add`: record runs, then watch them.
//!
//! Checks new runs. A run is durable before it is watched.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock;
use crate::config;
use crate::control::{Added, AddedRun, NewRun};
use crate::daemon::handle::{Handle, Parts, Refusal, known};
use crate::poll::Command;
use crate::run::Subject;
use crate::store::{Origin, Routes, RunStore as _, StoreError, Watched};

impl Handle {
    /// Adds runs to the watch list; durable when this returns.
    pub(in crate::daemon) async fn add(&self, runs: Vec<NewRun>) -> Result<Added, Refusal> {
        let _changing = self.changing.lock().await;
        let parts = self.parts()?;
        let now = clock::wall();
        let routes = parts.routes.borrow().clone();
        let watched = runs.into_iter().map(|run| watched(run, &routes, now));
        let added = parts.watch(watched.collect::<Result<_, _>>()?).await?;
        let answers = added.iter().map(|run| AddedRun {
            id: run.subject.id.clone(),
            finished: run.state.status.clone().filter(|_| run.state.ended.is_some()),
        });
        Ok(Added { runs: answers.collect() })
    }
}

impl Parts {
    /// Records runs, then watches the active ones. Returns them with their known state.
    pub(in crate::daemon) async fn watch(&self, runs: Vec<Watched>) -> Result<Vec<Watched>, StoreError> {
        let known = self.store.add(runs).await?;
        let going = known.iter().filter(|run| run.state.ended.is_none()).cloned().collect();
        // If the scheduler has ended, the daemon ends too, and its next start finds the runs in the store.
        let _ = self.commands.send(Command::Add(going)).await;
        Ok(known)
    }
}

fn watched(run: NewRun, routes: &Routes, now: Timestamp) -> Result<Watched, Refusal> {
    if let Some(error) = run.name.as_deref().and_then(config::name_error) {
        return Err(Refusal::Bad(format!(
            "the name of the run {} {error}; expected a short line of text",
            run.id
        )));
    }
    if run.deadline_seconds == Some(0) {
        return Err(Refusal::Bad(format!("the deadline of the run {} is zero", run.id)));
    }
    let notify = match &run.notify {
        None => None,
        Some(names) => {
            let names = names.iter().map(|name| known(routes, name).map(|route| route.channel.clone()));
            Some(names.collect::<Result<Vec<_>, _>>()?.into())
        }
    };
    let subject = Subject { id: run.id, name: run.name.map(Into::into) };
    let deadline = run.deadline_seconds.map(Duration::from_secs);
    Ok(Watched { notify, deadline, origin: Origin::Added, ..Watched::new(subject, now) })
}
