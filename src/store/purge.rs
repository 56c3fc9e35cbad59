//! How the state is kept from growing for ever.

use std::time::Duration;

use jiff::Timestamp;

use super::row::micros;
use super::{SqliteStore, StoreError};
use crate::run::RunId;

impl SqliteStore {
    /// Forgets what ended longer ago than `keep`: events that have nothing pending, and runs that have no events left.
    /// A run in `configured` stays known, so that it is not announced again. Gives how many runs were forgotten.
    pub async fn purge(
        &self,
        keep: Duration,
        configured: Vec<RunId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        let before = micros(now).saturating_sub(keep);
        let purge = move |db: &rusqlite::Connection| {
            db.execute_batch(
                "CREATE TEMP TABLE IF NOT EXISTS configured (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID; \
                 DELETE FROM temp.configured; \
                 CREATE TEMP TABLE IF NOT EXISTS old (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID; \
                 DELETE FROM temp.old;",
            )?;
            let mut insert = db.prepare_cached("INSERT OR IGNORE INTO temp.configured VALUES (?1)")?;
            configured.iter().try_for_each(|id| insert.execute([id.as_str()]).map(|_| ()))?;
            // Old is what nobody waits for any more: all its deliveries are settled, and its run has long ended or is
            // not watched any more.
            db.execute(
                "INSERT INTO temp.old SELECT id FROM events WHERE at < ?1 \
                 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = events.id \
                                 AND (state = 'pending' OR settled_at >= ?1)) \
                 AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = events.run_id \
                                 AND (ended IS NULL OR ended_at >= ?1))",
                [before],
            )?;
            db.execute("DELETE FROM removed_runs WHERE at < ?1", [before])?;
            db.execute("DELETE FROM deliveries WHERE event_id IN (SELECT id FROM temp.old)", ())?;
            db.execute("DELETE FROM events WHERE id IN (SELECT id FROM temp.old)", ())?;
            db.execute(
                "DELETE FROM runs WHERE ended NOT NULL AND ended_at < ?1 \
                 AND id NOT IN (SELECT id FROM temp.configured) \
                 AND NOT EXISTS (SELECT 1 FROM events WHERE run_id = runs.id)",
                [before],
            )
        };
        self.queue.call(purge).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{at, end, settle, states};
    use crate::store::{Outcome, RunStore as _};

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
        let configured = vec!["configured".parse().unwrap()];
        let purged = store.purge(Duration::from_secs(500), configured.clone(), at(1000)).await.unwrap();
        assert_eq!(purged, 1);
        let mut runs: Vec<_> =
            store.load().await.unwrap().iter().map(|run| run.subject.id.to_string()).collect();
        runs.sort();
        assert_eq!(runs, ["configured", "untold", "young"]);
        let mut told: Vec<_> = states(&store).await.into_iter().map(|(run, ..)| run).collect();
        told.sort();
        assert_eq!(told, ["untold", "young"], "with its deliveries");
        assert_eq!(store.purge(Duration::from_secs(500), configured, at(1000)).await.unwrap(), 0);
    }
}
