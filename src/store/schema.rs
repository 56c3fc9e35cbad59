//! The database's schema: that of a new file, and the steps to upgrade an old one.

use rusqlite::Connection;

use super::damage::missing;
use super::{StoreError, StoreErrorKind, outbox};
use crate::clock;

/// The current version of the schema.
pub(super) const SCHEMA: usize = 4;

/// The steps from nothing to the current schema. A file's version (`PRAGMA user_version`) is the number of steps that
/// it has. Files of every version stay readable for ever, so steps are added and never changed.
const STEPS: [&str; SCHEMA] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// All steps at once. A command that opens its own store has no time for single steps, and too few rows for an index to
/// help.
pub(super) const NEW: &str = include_str!("schema/new.sql");
const INDEXES: &str = include_str!("schema/indexes.sql");

/// The statements that make the tables of a version, from 1.
pub(super) fn schema_of(version: usize) -> String {
    if version >= SCHEMA { [NEW, INDEXES].concat() } else { STEPS[..version].concat() }
}

/// Upgrades a sound file to the current version. Can be repeated after an interruption.
pub(super) fn bring_up_to_date(connection: &Connection) -> Result<(), StoreError> {
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    migrate(connection)?;
    missing(connection).map_or(Ok(()), Err)?;
    super::ids::normalise(connection)?;
    // Every lease holder is gone, because there is only one owner at a time.
    Ok(outbox::take_back(connection, clock::wall())?)
}

/// The number of steps that a file has. A newer file is refused, whatever else is wrong with it.
pub(super) fn version(connection: &Connection) -> Result<usize, StoreError> {
    let version: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    usize::try_from(version).ok().filter(|taken| *taken <= SCHEMA).ok_or_else(|| StoreError {
        kind: StoreErrorKind::Newer,
        message: format!(
            "the state was written by a newer runwatch (schema {version}, this one knows up to {SCHEMA}); \
             upgrade runwatch, or use another state directory"
        ),
    })
}

/// Runs the missing steps.
fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let taken = version(connection)?;
    let bring_to = |step, sql: &str| {
        connection.execute_batch(&format!("BEGIN; {sql} PRAGMA user_version = {step}; COMMIT;"))
    };
    if taken == 0 {
        return Ok(bring_to(SCHEMA, &schema_of(SCHEMA))?);
    }
    let missing = (taken + 1..).zip(STEPS.into_iter().skip(taken));
    Ok(missing.into_iter().try_for_each(|(step, sql)| bring_to(step, sql))?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::types::Value;

    use super::*;
    use crate::run::{Ending, RunStatus, Terminal};
    use crate::store::{Origin, Outbox as _, RunStore as _, SqliteStore};

    fn open_in(dir: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(&dir.path().join("runwatch.db")).unwrap()
    }

    /// A store that an older version wrote.
    fn fixture(name: &str) -> (tempfile::TempDir, SqliteStore) {
        let dir = tempfile::tempdir().unwrap();
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/state");
        std::fs::copy(Path::new(fixtures).join(name), dir.path().join("runwatch.db")).unwrap();
        let store = open_in(&dir);
        (dir, store)
    }

    #[test]
    fn a_new_store_is_as_one_that_took_every_step() {
        let schema = |sql: &[&str]| {
            let db = Connection::open_in_memory().unwrap();
            db.execute_batch(&sql.concat()).unwrap();
            let mut columns = db
                .prepare(
                    "SELECT tables.name, tables.strict, tables.wr, columns.cid, columns.name, columns.type, \
                     columns.\"notnull\", columns.dflt_value, columns.pk FROM pragma_table_list AS tables \
                     JOIN pragma_table_info(tables.name) AS columns WHERE tables.schema = 'main' ORDER BY 1, 4",
                )
                .unwrap();
            let columns: Vec<String> = columns
                .query_map((), |row| (0..9).map(|at| row.get::<_, Value>(at)).collect::<Result<Vec<_>, _>>())
                .unwrap()
                .map(|row| format!("{:?}", row.unwrap()))
                .collect();
            let mut indexes = db
                .prepare("SELECT coalesce(sql, name) FROM sqlite_schema WHERE type = 'index' ORDER BY 1")
                .unwrap();
            let indexes: Result<Vec<String>, _> = indexes.query_map((), |row| row.get(0)).unwrap().collect();
            (columns, indexes.unwrap())
        };
        assert_eq!(schema(&[NEW, INDEXES]), schema(&STEPS));
        assert!(schema(&[NEW]).0.len() > 40);
    }

    #[tokio::test]
    async fn a_file_of_version_1_is_read_for_ever() {
        let (dir, store) = fixture("v1.db");
        let runs = store.load().await.unwrap();
        assert!(!runs.is_empty());
        for run in &runs {
            assert!(run.notify.is_none() && run.deadline.is_none() && run.origin == Origin::Configured);
            assert_eq!(run.state.ended.is_some(), run.state.ended_at.is_some(), "{run:?}");
        }
        let ended: Vec<_> = runs.iter().filter_map(|run| run.state.ended).collect();
        assert!(ended.contains(&Ending::Finished(Terminal::Failed)), "{ended:?}");
        assert!(runs.iter().any(|run| run.state.status == Some(RunStatus::Processing)));
        assert!(!store.undelivered().await.unwrap().is_empty(), "what was to be told still is");
        // And again, now that it has the current version.
        drop(store);
        assert_eq!(open_in(&dir).load().await.unwrap(), runs);
    }

    #[tokio::test]
    async fn a_file_of_version_2_is_read_for_ever() {
        let (dir, store) = fixture("v2.db");
        let runs = store.load().await.unwrap();
        let mut ids: Vec<_> = runs.iter().map(|run| run.subject.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["added", "bad", "done", "missing", "slow"]);
        let added = runs.iter().find(|run| run.subject.id.as_str() == "added").unwrap();
        assert_eq!(added.notify.as_deref(), Some(&["log".into()][..]));
        assert!(added.origin == Origin::Added && added.deadline == Some(std::time::Duration::from_hours(2)));
        assert_eq!(runs.iter().filter(|run| run.state.ended.is_some()).count(), 2);
        assert_eq!(store.undelivered().await.unwrap().len(), 6);
        let fingerprint = "b348f719cb32957acc21a5819d6f0514";
        assert!(store.disabled(&"gone".into(), fingerprint).await.unwrap().is_some());
        drop(store);
        assert_eq!(open_in(&dir).load().await.unwrap(), runs);
    }

    #[tokio::test]
    async fn a_file_of_version_3_is_read_for_ever() {
        let (dir, store) = fixture("v3.db");
        let left = store.undelivered().await.unwrap();
        assert_eq!(left.iter().filter(|left| left.due_at.is_some()).count(), 8);
        assert!(left.iter().filter(|left| left.due_at.is_some()).all(|left| left.attempts == 2));
        // Pending deliveries follow the order of their run, except those about a channel.
        let ordered = "SELECT count(*) FROM deliveries JOIN events ON events.id = event_id \
                       WHERE deliveries.run_id IS iif(payload ->> '$.type' = 'delivery.failed', NULL, events.run_id)";
        let ordered: i64 = store.queue.call(|db| db.query_row(ordered, (), |row| row.get(0))).await.unwrap();
        assert_eq!(ordered, 20);
        // The disabled channel stays disabled under today's fingerprint of the same configuration, and only under that.
        let was = ["b53091473204773427fc1b589574b5fb".to_owned()];
        let at = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        assert!(store.open(&"gone".into(), "new", &was, at).await.unwrap().is_some());
        assert!(store.open(&"gone".into(), "another", &["other".to_owned()], at).await.unwrap().is_none());
        let runs = store.load().await.unwrap();
        drop(store);
        assert_eq!(open_in(&dir).load().await.unwrap(), runs);
    }

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runwatch.db");
        drop(SqliteStore::open(&path).unwrap());
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        let Err(error) = SqliteStore::open(&path) else { panic!("opened") };
        assert_eq!(error.kind, StoreErrorKind::Newer);
        assert!(error.message.contains("schema 99") && error.message.contains("upgrade"), "{error}");
    }
}
