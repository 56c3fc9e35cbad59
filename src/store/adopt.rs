//! Applies a configuration to the store in one transaction.
//!
//! A configuration is applied as a whole or not at all. Also decides for which channels rows may be written. The caller
//! decides what happens to each run. Used when the daemon starts or reloads.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::runs::{add_run, read_runs};
use super::{ChannelName, SqliteStore, StoreError, Watched};
use crate::run::RunId;

/// A configuration's changes to the store.
#[derive(Debug)]
pub struct Adoption {
    /// The runs that it names.
    pub runs: Vec<Watched>,
    /// Deletes stored times whose keys have this prefix.
    pub forgotten_moments: Option<&'static str>,
    /// What to do with a stored run. The flag says whether the configuration names it.
    pub fate: fn(&Watched, bool) -> Fate,
}

/// What to do with a stored run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has ended; keep it.
    Ended,
    /// Watch it.
    Watch,
    /// It was given up; watch it again.
    WatchAgain,
    /// Forget it.
    Forget,
    /// Keep it, but do not watch it.
    Leave,
}

/// The result.
#[derive(Debug, Default)]
pub struct Adopted {
    /// The runs to watch.
    pub watched: Vec<Watched>,
    /// The number of ended runs.
    pub ended: usize,
    /// The runs that were forgotten.
    pub forgotten: Vec<RunId>,
}

impl SqliteStore {
    /// Applies a configuration. An error changes nothing.
    pub async fn adopt(&self, adoption: Adoption) -> Result<Adopted, StoreError> {
        self.queue.call(move |db| adopt(db, &adoption)).await
    }
}

fn adopt(db: &Connection, adoption: &Adoption) -> rusqlite::Result<Adopted> {
    let names: HashSet<&RunId> = adoption.runs.iter().map(|run| &run.subject.id).collect();
    for run in &adoption.runs {
        add_run(db, run)?;
    }
    // With room for all, because a list of many runs that grows leaves memory behind that the allocator keeps.
    let mut adopted = Adopted { watched: Vec::with_capacity(names.len()), ..Adopted::default() };
    let mut again = Vec::new();
    read_runs(db, |mut run| {
        let name = names.get(&run.subject.id);
        if let Some(id) = name {
            // One copy of the id, instead of one for the configuration and one for the scheduler.
            run.subject.id = RunId::clone(id);
        }
        match (adoption.fate)(&run, name.is_some()) {
            Fate::Ended => adopted.ended += 1,
            Fate::Watch => adopted.watched.push(run),
            Fate::WatchAgain => again.push(run),
            Fate::Forget => adopted.forgotten.push(run.subject.id),
            Fate::Leave => {}
        }
    })?;
    for mut run in again {
        add_run(db, &run)?;
        run.state.watch_again();
        adopted.watched.push(run);
    }
    for id in &adopted.forgotten {
        db.prepare_cached("DELETE FROM runs WHERE id = ?1")?.execute([id.as_str()])?;
    }
    if let Some(prefix) = adoption.forgotten_moments {
        db.execute("DELETE FROM moments WHERE substr(name, 1, length(?1)) = ?1", [prefix])?;
    }
    Ok(adopted)
}

/// The channels for which rows may be written; any before the first configuration. A commit that waited for the store's
/// thread may have been routed by an older configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed(Arc<Mutex<Option<HashSet<ChannelName>>>>);

impl Allowed {
    pub(super) fn set(&self, channels: &[ChannelName]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(channels.iter().cloned().collect());
    }

    /// Those of these channels that are allowed.
    pub(super) fn of(&self, channels: &[ChannelName]) -> Vec<ChannelName> {
        let allowed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_allowed = |name: &&ChannelName| allowed.as_ref().is_none_or(|allowed| allowed.contains(*name));
        channels.iter().filter(is_allowed).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::run::Subject;
    use crate::store::RunStore as _;

    fn run(id: &str) -> Watched {
        Watched::new(Subject { id: id.parse().unwrap(), name: None }, Timestamp::UNIX_EPOCH)
    }

    fn ids(runs: &[Watched]) -> Vec<&str> {
        runs.iter().map(|run| run.subject.id.as_str()).collect()
    }

    #[tokio::test]
    async fn a_step_that_fails_changes_nothing() {
        let store = SqliteStore::in_memory().unwrap();
        store.add(vec![run("old")]).await.unwrap();
        // Makes the last step fail.
        let fail = "CREATE TRIGGER fail BEFORE DELETE ON moments BEGIN SELECT RAISE(ABORT, 'no'); END; \
                    INSERT INTO moments (name, at) VALUES ('x', 1)";
        store.queue.call(move |db| db.execute_batch(fail)).await.unwrap();
        let fate = |_: &Watched, named| if named { Fate::Watch } else { Fate::Forget };
        let adoption = Adoption { runs: vec![run("new")], forgotten_moments: Some("x"), fate };
        store.adopt(adoption).await.unwrap_err();
        assert_eq!(ids(&store.load().await.unwrap()), ["old"]);
    }

    #[test]
    fn rows_are_written_for_configured_channels_only() {
        let allowed = Allowed::default();
        let names: Vec<ChannelName> = vec!["a".into(), "b".into()];
        assert_eq!(allowed.of(&names), names);
        allowed.set(&names[..1]);
        assert_eq!(allowed.of(&names), names[..1]);
    }
}
