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
    use crate::run::{Ending, Event, EventKind, Subject, Terminal};
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

    /// A run that ended at `ended`, with a warning at 100 whose delivery was settled at `settled`.
    async fn warned(store: &SqliteStore, id: &str, ended: Option<i64>, settled: Option<i64>) {
        let mut run = Watched::new(Subject { id: id.parse().unwrap(), name: None }, at(0));
        let (kind, now) = (EventKind::RunStalled, at(100));
        let warning = Event::of_warning("s", &run.subject, kind, &run.state, at(50), now);
        let channels = settled.map(|_| "ops".into()).into_iter().collect();
        let events = vec![(warning, channels)];
        store.commit(Commit { run: Some(run.clone()), events, moment: None }).await.unwrap();
        if let Some(settled) = settled {
            settle(store, settled, Outcome::Delivered).await;
        }
        if let Some(ended) = ended {
            run.state.ended = Some(Ending::Finished(Terminal::Failed));
            run.state.ended_at = Some(at(ended));
            store.commit(Commit { run: Some(run), ..Commit::default() }).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_event_is_as_old_as_its_last_delivery_and_the_end_of_its_run() {
        let store = SqliteStore::in_memory().unwrap();
        // What is before 500 is old.
        warned(&store, "old", Some(499), Some(499)).await;
        warned(&store, "delivered-late", Some(100), Some(500)).await;
        warned(&store, "ended-late", Some(500), Some(101)).await;
        warned(&store, "active", None, Some(101)).await;
        warned(&store, "old-for-nobody", Some(499), None).await;
        warned(&store, "late-for-nobody", Some(500), None).await;
        for (id, ended, event_at) in [("silent", 500, None), ("reported-late", 499, Some(500))] {
            let mut run = Watched::new(Subject { id: id.parse().unwrap(), name: None }, at(0));
            run.state.ended = Some(Ending::Gone);
            run.state.ended_at = Some(at(ended));
            let event = |now| {
                Event::of_warning("s", &run.subject, EventKind::RunStalled, &run.state, at(50), at(now))
            };
            let events = event_at.map(|now| (event(now), Vec::new())).into_iter().collect();
            store.commit(Commit { run: Some(run), events, moment: None }).await.unwrap();
        }
        assert_eq!(store.purge(Duration::from_secs(500), Kept::default(), at(1000)).await.unwrap(), 2);
        let mut left: Vec<_> =
            store.load().await.unwrap().iter().map(|run| run.subject.id.to_string()).collect();
        left.sort();
        assert_eq!(
            left,
            ["active", "delivered-late", "ended-late", "late-for-nobody", "reported-late", "silent"]
        );
        let mut with_events: Vec<_> = states(&store).await.into_iter().map(|(run, ..)| run).collect();
        with_events.sort();
        assert_eq!(with_events, ["active", "delivered-late", "ended-late"]);
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
