//! Removes old data so that the state does not grow for ever.

use std::time::Duration;

use jiff::Timestamp;

use super::row::micros;
use super::{SqliteStore, StoreError};
use crate::run::RunId;

/// What to keep, however old.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Runs that are still requested by name.
    pub runs: Vec<RunId>,
    /// Runs created after this, which discovery would take for new ones.
    pub created_after: Option<Timestamp>,
    /// Whether to keep removals of runs, which discovery may still list.
    pub removed: bool,
}

impl SqliteStore {
    /// Removes what ended longer ago than `keep`: events without pending deliveries, and runs without events. Keeps
    /// `kept`, so that it is not notified again. Returns the number of runs removed.
    pub async fn purge(&self, keep: Duration, kept: Kept, now: Timestamp) -> Result<usize, StoreError> {
        let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        let Kept { runs, created_after, removed } = kept;
        let created_after = created_after.map_or(i64::MAX, micros);
        let before = micros(now).saturating_sub(keep);
        let purge = move |db: &rusqlite::Connection| {
            db.execute_batch(
                "CREATE TEMP TABLE IF NOT EXISTS configured (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID; \
                 DELETE FROM temp.configured; \
                 CREATE TEMP TABLE IF NOT EXISTS old (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID; \
                 DELETE FROM temp.old;",
            )?;
            let mut insert = db.prepare_cached("INSERT OR IGNORE INTO temp.configured VALUES (?1)")?;
            runs.iter().try_for_each(|id| insert.execute([id.as_str()]).map(|_| ()))?;
            // An event is old if all its deliveries were settled long ago, and its run ended long ago or is not watched
            // any more.
            db.execute(
                "INSERT INTO temp.old SELECT id FROM events WHERE at < ?1 \
                 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = events.id \
                                 AND (state = 'pending' OR settled_at >= ?1)) \
                 AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = events.run_id \
                                 AND (ended IS NULL OR ended_at >= ?1))",
                [before],
            )?;
            if !removed {
                db.execute("DELETE FROM removed_runs WHERE at < ?1", [before])?;
            }
            db.execute("DELETE FROM deliveries WHERE event_id IN (SELECT id FROM temp.old)", ())?;
            db.execute("DELETE FROM events WHERE id IN (SELECT id FROM temp.old)", ())?;
            db.execute(
                "DELETE FROM runs WHERE ended NOT NULL AND ended_at < ?1 \
                 AND id NOT IN (SELECT id FROM temp.configured) \
                 AND NOT coalesce(created_at > ?2, 0) \
                 AND NOT EXISTS (SELECT 1 FROM events WHERE run_id = runs.id)",
                [before, created_after],
            )
        };
        self.queue.call(purge).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Ending, Subject, Terminal};
    use crate::store::testing::{at, end, settle, states};
    use crate::store::{Commit, Outcome, RunStore as _, Watched};

    #[tokio::test]
    async fn what_is_old_and_settled_is_purged_and_what_is_configured_stays_known() {
        let store = SqliteStore::in_memory().unwrap();
        for id in ["old", "configured"] {
            end(&store, id, 100).await;
        }
        settle(&store, 101, Outcome::Delivered).await;
        end(&store, "untold", 100).await;
        end(&store, "young", 1000).await;
        settle(&store, 999, Outcome::Retry { at: at(5000), error: "down".into() }).await;
        let wanted = Kept { runs: vec!["configured".parse().unwrap()], ..Kept::default() };
        let purged = store.purge(Duration::from_secs(500), wanted.clone(), at(1000)).await.unwrap();
        assert_eq!(purged, 1);
        let mut runs: Vec<_> =
            store.load().await.unwrap().iter().map(|run| run.subject.id.to_string()).collect();
        runs.sort();
        assert_eq!(runs, ["configured", "untold", "young"]);
        let mut told: Vec<_> = states(&store).await.into_iter().map(|(run, ..)| run).collect();
        told.sort();
        assert_eq!(told, ["untold", "young"], "with its deliveries");
        assert_eq!(store.purge(Duration::from_secs(500), wanted, at(1000)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_would_be_taken_for_new_stays_known() {
        let store = SqliteStore::in_memory().unwrap();
        for (id, created) in [("older", Some(50)), ("newest", Some(51)), ("unknown", None)] {
            let mut run = Watched::new(Subject { id: id.parse().unwrap(), name: None }, at(0));
            run.state.created_at = created.map(at);
            run.state.ended = Some(Ending::Finished(Terminal::Failed));
            run.state.ended_at = Some(at(60));
            store.commit(Commit { run: Some(run), ..Commit::default() }).await.unwrap();
        }
        let wanted = Kept { created_after: Some(at(50)), ..Kept::default() };
        assert_eq!(store.purge(Duration::from_secs(1), wanted, at(1000)).await.unwrap(), 2);
        let known = store.unknown(vec!["newest".parse().unwrap()], at(1000)).await.unwrap();
        assert_eq!(known, [], "it is in every list, and was told");
    }
}
