//! Taking over a configuration: all that it changes in the store, in one transaction.
//!
//! Owns that a configuration is taken over as a whole or not at all, and which channels rows may be written for. What is to
//! become of a run is decided by the caller. Called by the daemon's start and reload.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::runs::{add_run, read_runs};
use super::{ChannelName, SqliteStore, StoreError, Watched};
use crate::run::RunId;

/// What a configuration asks of the store.
#[derive(Debug)]
pub struct Adoption {
    /// The runs that it names.
    pub runs: Vec<Watched>,
    /// Moments whose names begin like this are forgotten.
    pub forgotten_moments: Option<&'static str>,
    /// What is to become of a run; the flag says whether the configuration names it.
    pub fate: fn(&Watched, bool) -> Fate,
}

/// What is to become of a run that the store knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has ended, and stays known.
    Ended,
    /// It is watched.
    Watch,
    /// It was given up, and is watched again.
    WatchAgain,
    /// It is forgotten.
    Forget,
    /// It stays known, and is not watched.
    Leave,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Adopted {
    /// The runs to watch.
    pub watched: Vec<Watched>,
    /// How many have ended.
    pub ended: usize,
    /// The runs that were forgotten.
    pub forgotten: Vec<RunId>,
}

impl SqliteStore {
    /// Takes a configuration over. An error changes nothing.
    pub async fn adopt(&self, adoption: Adoption) -> Result<Adopted, StoreError> {
        self.queue.call(move |db| adopt(db, &adoption)).await
    }
}

fn adopt(db: &Connection, adoption: &Adoption) -> rusqlite::Result<Adopted> {
    let names: HashSet<&RunId> = adoption.runs.iter().map(|run| &run.subject.id).collect();
    for run in &adoption.runs {
        add_run(db, run)?;
    }
    let mut adopted = Adopted::default();
    for mut run in read_runs(db)? {
        match (adoption.fate)(&run, names.contains(&run.subject.id)) {
            Fate::Ended => adopted.ended += 1,
            Fate::Watch => adopted.watched.push(run),
            Fate::WatchAgain => {
                add_run(db, &run)?;
                run.state.watch_again();
                adopted.watched.push(run);
            }
            Fate::Forget => {
                db.prepare_cached("DELETE FROM runs WHERE id = ?1")?.execute([run.subject.id.as_str()])?;
                adopted.forgotten.push(run.subject.id);
            }
            Fate::Leave => {}
        }
    }
    if let Some(prefix) = adoption.forgotten_moments {
        db.execute("DELETE FROM moments WHERE substr(name, 1, length(?1)) = ?1", [prefix])?;
    }
    Ok(adopted)
}

/// The channels that rows may be written for; any until somebody says which. What was routed by an older configuration is
/// written after the newer one is in force, if it had to wait for the store's thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed(Arc<Mutex<Option<HashSet<ChannelName>>>>);

impl Allowed {
    pub(super) fn set(&self, channels: &[ChannelName]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(channels.iter().cloned().collect());
    }

    /// Those of these channels that rows may be written for.
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
        // The last step fails.
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
