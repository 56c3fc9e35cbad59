//! Compares discovered runs with the known runs and with those that were removed from the watch.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::row::micros;
use super::{SqliteStore, StoreError};
use crate::run::RunId;

/// Minimum time between two updates of when a removed run was last listed.
const REMOVED_FRESH: Duration = Duration::from_mins(10);

impl SqliteStore {
    /// Returns those of the listed runs that are not known and were not removed. A removal is remembered while its run
    /// is listed.
    pub async fn unknown(&self, runs: Vec<RunId>, now: Timestamp) -> Result<Vec<RunId>, StoreError> {
        let unknown = move |db: &rusqlite::Connection| {
            let mut known = db.prepare_cached("SELECT 1 FROM runs WHERE id = ?1")?;
            let mut removed = db.prepare_cached("SELECT at FROM removed_runs WHERE id = ?1")?;
            let mut still_there = db.prepare_cached("UPDATE removed_runs SET at = ?2 WHERE id = ?1")?;
            let stale = micros(now - REMOVED_FRESH);
            let mut unknown = Vec::new();
            for run in runs {
                if known.exists([run.as_str()])? {
                    continue;
                }
                let at: Option<i64> = removed.query_row([run.as_str()], |row| row.get(0)).optional()?;
                match at {
                    None => unknown.push(run),
                    Some(at) if at < stale => drop(still_there.execute(params![run.as_str(), micros(now)])?),
                    Some(_) => {}
                }
            }
            Ok(unknown)
        };
        self.queue.call(unknown).await
    }

    /// Removes a run, so that it is not discovered again. Its pending deliveries are still made.
    pub async fn remove(&self, run: RunId, now: Timestamp) -> Result<(), StoreError> {
        let remove = move |db: &rusqlite::Connection| {
            db.prepare_cached("DELETE FROM runs WHERE id = ?1")?.execute([run.as_str()])?;
            db.prepare_cached("INSERT OR REPLACE INTO removed_runs (id, at) VALUES (?1, ?2)")?
                .execute(params![run.as_str(), micros(now)])?;
            Ok(())
        };
        self.queue.call(remove).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Ending, Subject};
    use crate::store::testing::{at, end};
    use crate::store::{Kept, RunStore as _, Watched};

    #[tokio::test]
    async fn what_is_known_or_was_removed_is_not_unknown() {
        let store = SqliteStore::in_memory().unwrap();
        let ids = |names: &[&str]| names.iter().map(|id| id.parse().unwrap()).collect::<Vec<RunId>>();
        end(&store, "known", 10).await;
        let mut lost = Watched::new(Subject { id: "lost".parse().unwrap(), name: None }, at(0));
        store.add(vec![lost.clone()]).await.unwrap();
        assert_eq!(store.unknown(ids(&["lost"]), at(20)).await.unwrap(), []);
        lost.state.ended = Some(Ending::Gone);
        store.save(vec![lost]).await.unwrap();
        assert_eq!(
            store.unknown(ids(&["lost"]), at(20)).await.unwrap(),
            [],
            "it would be given up again and again"
        );
        let removed = Watched::new(Subject { id: "removed".parse().unwrap(), name: None }, at(0));
        store.add(vec![removed.clone()]).await.unwrap();
        store.remove(removed.subject.id.clone(), at(20)).await.unwrap();
        assert_eq!(store.unknown(ids(&["known", "new", "removed"]), at(20)).await.unwrap(), ids(&["new"]));
        // Adding it again, or forgetting it, ends the removal.
        store.add(vec![removed.clone()]).await.unwrap();
        store.forget(vec![removed.subject.id.clone()]).await.unwrap();
        assert_eq!(store.unknown(ids(&["removed"]), at(26)).await.unwrap(), ids(&["removed"]));
        store.remove(removed.subject.id, at(20)).await.unwrap();
        let (keep, removed) = (Duration::from_secs(5), Kept { removed: true, ..Kept::default() });
        store.purge(keep, removed, at(26)).await.unwrap();
        assert_eq!(store.unknown(ids(&["removed"]), at(26)).await.unwrap(), [], "nobody has looked yet");
        store.purge(keep, Kept::default(), at(26)).await.unwrap();
        assert_eq!(store.unknown(ids(&["removed"]), at(26)).await.unwrap(), ids(&["removed"]));
    }

    #[tokio::test]
    async fn that_a_run_was_removed_is_remembered_for_as_long_as_it_is_there() {
        let store = SqliteStore::in_memory().unwrap();
        let (id, day): (RunId, i64) = ("removed".parse().unwrap(), 86_400);
        store.remove(id.clone(), at(0)).await.unwrap();
        for now in 1..4 {
            assert_eq!(store.unknown(vec![id.clone()], at(now * day)).await.unwrap(), []);
            store.purge(Duration::from_secs(100_000), Kept::default(), at(now * day + 1)).await.unwrap();
        }
    }
}
