//! The store on SQLite: opening it and bringing its schema up to date.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

use super::adopt::Allowed;
use super::aside::set_orphans_aside;
use super::copy::copy;
use super::damage::{check_pages, missing};
use super::files::{self, PARTS, make, open_or_make, part, resolved};
use super::guard::Guard;
use super::outbox;
use super::queue::Queue;
use super::{StoreError, StoreErrorKind};
use crate::clock;

/// The steps from nothing to the schema of today. The version of a file (`PRAGMA user_version`) is how many of them it
/// has taken. Files of every version are read for ever: steps are added, none is changed.
const STEPS: [&str; 4] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// All steps at once: a command that opens a store of its own has no time for one after the other, nor so many rows that an
/// index would be of use.
pub(super) const NEW: &str = include_str!("schema/new.sql");
const INDEXES: &str = include_str!("schema/indexes.sql");

/// Runs and outbox in one SQLite database, on disk for a daemon and in memory for a command. Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    pub(super) queue: Queue,
    pub(super) filled: Arc<watch::Sender<u64>>,
    pub(super) allowed: Allowed,
    /// Of the database; nothing in memory.
    path: Arc<Path>,
}

impl SqliteStore {
    fn on(queue: Queue, path: &Path) -> Self {
        Self {
            queue,
            filled: Arc::new(watch::Sender::new(0)),
            allowed: Allowed::default(),
            path: path.into(),
        }
    }

    /// A store that lives as long as the process.
    pub fn in_memory() -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(NEW)?;
        Ok(Self::on(Queue::here(connection), Path::new("")))
    }

    /// What it fails with at the moment, if it does: told when it begins, changes in kind, and ends, which is when
    /// something has been written.
    pub fn health(&self) -> watch::Receiver<Option<StoreError>> {
        self.queue.health()
    }

    /// Has everybody who waits for something in the outbox look again.
    pub fn wake(&self) {
        self.filled.send_modify(|count| *count += 1);
    }

    /// Whether whoever works for the store answers. Waits for what is being written: bound it.
    pub async fn answers(&self) -> bool {
        self.queue.answers().await
    }

    /// Writes everything into the one file and lets go of it. Every call fails from now on. Waits for what is being written:
    /// bound it.
    pub async fn close(&self) -> Result<(), StoreError> {
        let is_lost = self.health().borrow().as_ref().is_some_and(|error| error.kind.is_lasting());
        let close = move |connection: Connection| {
            if is_lost {
                leave_files(&connection);
                return (Ok(()), None);
            }
            // Closing does that too, but says nothing of what fails.
            let written = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
            let closed = connection.close().map_err(|(_, error)| error);
            (written.and(closed).map_err(StoreError::from), None)
        };
        self.queue.lend(close).await.unwrap_or(Ok(()))
    }

    /// Has another store take the place of this one, whose files are damaged or not at their path any more: `begin` makes it,
    /// where it may block. When that works, this one lets go of its files, which stay as they are, and every call fails from
    /// now on. `None` if it was closed already.
    pub async fn replace<T, E>(
        &self,
        begin: impl FnOnce(&Original<'_>) -> Result<T, E> + Send + 'static,
    ) -> Option<Result<T, E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let replace = move |connection: Connection| {
            leave_files(&connection);
            let new = begin(&Original(&connection));
            let back = new.is_err().then_some(connection);
            (new, back)
        };
        self.queue.lend(replace).await
    }

    /// Copies everything, as it is between two transactions, into one file. It has no name, and is gone when it is closed.
    pub async fn snapshot(&self) -> Result<File, StoreError> {
        self.queue.copy(self.path.to_path_buf()).await
    }

    /// The store in a file, made if it is not there, for its owner's eyes only. Blocks.
    ///
    /// Write-ahead log and `synchronous = FULL`: what was committed survives a power cut. Nobody else can use the file as long
    /// as it is open, and there is no file of shared memory, which a full disk could take away under the process.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = resolved(path);
        make_ready(&path).map_err(|error| unusable(&error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(&path, flags)?;
        // Until it has turned out to be sound, the files are to be left as they are.
        leave_files(&connection);
        // Somebody else who has it open keeps it: waiting is up to the caller.
        connection.busy_timeout(Duration::ZERO)?;
        connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA wal_autocheckpoint = 0;",
        )?;
        check_pages(&connection)?;
        if let Err(error) = bring_up_to_date(&connection) {
            if !matches!(error.kind, StoreErrorKind::Full | StoreErrorKind::Io) {
                return Err(error);
            }
            // Where the log of a killed process has all the room, emptying it makes some.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
            bring_up_to_date(&connection)?;
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        // An older version's, or another program's: nobody has it open.
        let _ = std::fs::remove_file(part(&path, "-shm"));
        Ok(Self::on(Queue::on_thread(connection, Some(Guard::new(&path)))?, &path))
    }
}

/// The database that is being replaced.
pub struct Original<'c>(&'c Connection);

impl Original<'_> {
    /// Copies everything that can still be read into a new file.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        make(path).map_err(|error| unusable(&error))?;
        copy(self.0, path, || true).inspect_err(|_| drop(std::fs::remove_file(path)))
    }
}

/// SQLite is not to write to the one file when it is closed, and delete another by a name that may be somebody else's by then.
fn leave_files(connection: &Connection) {
    // It fails for a setting that does not exist.
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

/// Makes the file if it is not there; refuses what is no file of ours, by whatever name SQLite would open it.
fn make_ready(path: &Path) -> io::Result<()> {
    set_orphans_aside(path, clock::wall())?;
    PARTS.iter().try_for_each(|suffix| files::check(&part(path, suffix)))?;
    // SQLite gives its other files the permissions of this one. Closed before it is opened again: whatever closes a file
    // loses the process its locks on it.
    open_or_make(path).map(drop)
}

pub(super) fn unusable(error: &io::Error) -> StoreError {
    use io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => StoreErrorKind::ReadOnly,
        Io::StorageFull => StoreErrorKind::Full,
        Io::InvalidInput | Io::IsADirectory | Io::NotADirectory => StoreErrorKind::Unusable,
        _ => StoreErrorKind::Io,
    };
    StoreError { kind, message: error.to_string() }
}

/// Has a sound file be as this version wants it. Where that was broken off, it can be done again.
fn bring_up_to_date(connection: &Connection) -> Result<(), StoreError> {
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    migrate(connection)?;
    missing(connection).map_or(Ok(()), Err)?;
    super::ids::normalise(connection)?;
    // Whoever held a lease is gone: there is one owner at a time.
    Ok(outbox::take_back(connection, clock::wall())?)
}

/// Takes the steps that a file has not taken, or refuses one from the future.
fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let version: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    let taken = usize::try_from(version).unwrap_or(usize::MAX);
    let Some(missing) = STEPS.get(taken..) else {
        return Err(StoreError {
            kind: StoreErrorKind::Newer,
            message: format!(
                "the state was written by a newer runwatch (schema {version}, this one knows up to {}); \
                 upgrade runwatch, or use another state directory",
                STEPS.len()
            ),
        });
    };
    let bring_to = |step, sql: &str| {
        connection.execute_batch(&format!("BEGIN; {sql} PRAGMA user_version = {step}; COMMIT;"))
    };
    if taken == 0 {
        return Ok(bring_to(STEPS.len(), &[NEW, INDEXES].concat())?);
    }
    Ok((taken + 1..).zip(missing).try_for_each(|(step, sql)| bring_to(step, sql))?)
}

#[cfg(test)]
mod tests {
    use rusqlite::types::Value;

    use super::*;
    use crate::run::{Ending, RunStatus, Terminal};
    use crate::store::Origin;
    use crate::store::{Outbox as _, RunStore as _};

    fn open_in(dir: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(&dir.path().join("runwatch.db")).unwrap()
    }

    /// A store that was written by an older version.
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
        // And once more, now that it is of today's version.
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
        // What is pending is in the order of its run now, but for what is told of a channel.
        let ordered = "SELECT count(*) FROM deliveries JOIN events ON events.id = event_id \
                       WHERE deliveries.run_id IS iif(payload ->> '$.type' = 'delivery.failed', NULL, events.run_id)";
        let ordered: i64 = store.queue.call(|db| db.query_row(ordered, (), |row| row.get(0))).await.unwrap();
        assert_eq!(ordered, 20);
        // The channel that was disabled is so under the way that its configuration is written down today, and only then.
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

    #[test]
    fn damage_is_found_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runwatch.db");
        std::fs::write(
            &path,
            "this is no database, and longer than the header of one would be: far more than 100 bytes\n",
        )
        .unwrap();
        let Err(error) = SqliteStore::open(&path) else { panic!("opened") };
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
    }

    #[test]
    fn what_is_committed_survives_a_power_cut_and_is_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runwatch.db");
        let store = SqliteStore::open(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pragma = |name: &'static str| {
            let value = store.queue.call(move |db| {
                db.query_row(&format!("PRAGMA {name}"), (), |row| row.get::<_, rusqlite::types::Value>(0))
            });
            format!("{:?}", runtime.block_on(value).unwrap())
        };
        assert_eq!(pragma("synchronous"), "Integer(2)", "FULL");
        assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{file:?}");
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_said_as_such_until_something_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("runwatch.db")).unwrap();
        let health = store.health();
        let kind = || health.borrow().as_ref().map(|error| error.kind);
        let limit = |pages: u32| {
            store
                .queue
                .call(move |db| db.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(())))
        };
        let fill = || {
            store
                .queue
                .call(|db| db.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(99999))"))
        };
        limit(1).await.unwrap();
        assert_eq!(fill().await.unwrap_err().kind, StoreErrorKind::Full);
        assert_eq!(kind(), Some(StoreErrorKind::Full));
        // Reading works all the while, and proves nothing.
        assert!(store.load().await.unwrap().is_empty());
        assert_eq!(kind(), Some(StoreErrorKind::Full));
        limit(9999).await.unwrap();
        fill().await.unwrap();
        assert_eq!(kind(), None);
    }

    #[tokio::test]
    async fn a_store_that_is_closed_leaves_its_files_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runwatch.db");
        let store = SqliteStore::open(&path).unwrap();
        let wal = || std::fs::read(dir.path().join("runwatch.db-wal")).unwrap();
        let (db, log) = (std::fs::read(&path).unwrap(), wal());
        store.replace(|_| Ok::<_, ()>(())).await.unwrap().unwrap();
        assert_eq!(store.load().await.unwrap_err().message, "the store is closed");
        drop(store);
        assert!(db == std::fs::read(&path).unwrap() && log == wal() && !log.is_empty());
    }

    #[tokio::test]
    async fn what_is_missing_at_run_time_is_damage_and_nothing_is_written_any_more() {
        for sql in
            ["DROP TABLE moments", "ALTER TABLE moments RENAME COLUMN at TO since", "DROP TABLE removed_runs"]
        {
            let dir = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(&dir.path().join("runwatch.db")).unwrap();
            store.queue.call(move |db| db.execute_batch(sql)).await.unwrap();
            let at = jiff::Timestamp::UNIX_EPOCH;
            let moment = crate::store::Commit { moment: Some(("m".into(), Some(at))), ..Default::default() };
            let _ = store.commit(moment.clone()).await;
            let _ = store.unknown(vec!["r".parse().unwrap()], at).await;
            let health = store.health().borrow().clone().unwrap();
            assert_eq!(health.kind, StoreErrorKind::Corrupt, "{sql}: {health}");
            assert_eq!(store.commit(moment).await.unwrap_err(), health, "{sql}");
            assert_eq!(store.load().await.unwrap_err(), health, "{sql}");
        }
    }

    #[tokio::test]
    async fn what_only_passes_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("runwatch.db")).unwrap();
        let mistake = store.queue.call(|db| db.execute_batch("SELECT nonsense")).await.unwrap_err();
        assert_eq!(mistake.kind, StoreErrorKind::Other);
        assert_eq!(store.health().borrow().as_ref().unwrap().kind, StoreErrorKind::Other);
        store.remove("r".parse().unwrap(), jiff::Timestamp::UNIX_EPOCH).await.unwrap();
        assert!(store.health().borrow().is_none());
    }

    #[tokio::test]
    async fn a_store_is_closed_into_one_file_and_nobody_else_may_use_it_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runwatch.db");
        std::fs::write(part(&path, "-shm"), "of an older version").unwrap();
        let store = SqliteStore::open(&path).unwrap();
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["runwatch.db", "runwatch.db-wal"], "no shared memory");
        let Err(second) = SqliteStore::open(&path) else { panic!("opened twice") };
        assert_eq!(second.kind, StoreErrorKind::Busy);
        store.close().await.unwrap();
        assert_eq!(names(), ["runwatch.db"]);
        assert_eq!(store.close().await, Ok(()), "once more is no harm");
        assert!(SqliteStore::open(&path).is_ok());
    }

    #[tokio::test]
    async fn a_copy_is_whole_while_the_store_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("runwatch.db")).unwrap();
        let run = |n: u32| {
            let subject = crate::run::Subject { id: format!("run-{n}").parse().unwrap(), name: None };
            crate::store::Watched::new(subject, jiff::Timestamp::UNIX_EPOCH)
        };
        store.add((0..20_000).map(run).collect()).await.unwrap();
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            for n in 0..100 {
                writer.add(vec![run(100_000 + n)]).await.unwrap();
            }
        });
        let mut snapshot = store.snapshot().await.unwrap();
        writing.await.unwrap();
        let to = dir.path().join("copy");
        std::io::copy(&mut snapshot, &mut std::fs::File::create(&to).unwrap()).unwrap();
        let copied = SqliteStore::open(&to).unwrap().load().await.unwrap().len();
        assert!((20_000..=20_100).contains(&copied), "{copied}");
        assert_eq!(store.load().await.unwrap().len(), 20_100);
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_str().unwrap().contains("backup")), "it has no name");
    }

    #[tokio::test]
    async fn a_database_that_nobody_uses_is_copied_with_its_log_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runwatch.db");
        let store = SqliteStore::open(&path).unwrap();
        let subject = crate::run::Subject { id: "r1".parse().unwrap(), name: None };
        let run = crate::store::Watched::new(subject, jiff::Timestamp::UNIX_EPOCH);
        store.add(vec![run.clone()]).await.unwrap();
        let copy_as = |name: &str| {
            let to = dir.path().join(name);
            drop(make(&to).unwrap());
            (crate::store::copy_unused(&path, &to), to)
        };
        // As a kill leaves it.
        store.replace(|_| Ok::<_, ()>(())).await.unwrap().unwrap();
        let files = || (std::fs::read(&path).unwrap(), std::fs::read(part(&path, "-wal")).unwrap());
        let before = files();
        let (copied, to) = copy_as("copy");
        copied.unwrap();
        assert!(files() == before && !before.1.is_empty());
        assert!(!part(&to, "-wal").exists());
        assert_eq!(SqliteStore::open(&to).unwrap().load().await.unwrap(), [run]);
        std::fs::write(&path, b"damaged".repeat(1000)).unwrap();
        std::fs::remove_file(part(&path, "-wal")).unwrap();
        assert_eq!(copy_as("damaged").0.unwrap_err().kind, StoreErrorKind::Corrupt);
    }

    #[tokio::test]
    async fn a_lease_ends_with_its_owner() {
        use crate::run::{Event, RunState, Subject};
        use crate::store::{ChannelName, Claim, Commit, Owner, Watched};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runwatch.db");
        let store = SqliteStore::open(&path).unwrap();
        let at = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let subject = Subject { id: "r1".parse().unwrap(), name: None };
        let event = Event::of_ending("s", &subject, Ending::Gone, &RunState::new(at), None, at);
        let ops: ChannelName = "ops".into();
        let events = vec![(event, vec![ops.clone()])];
        store.commit(Commit { run: Some(Watched::new(subject, at)), events, moment: None }).await.unwrap();
        let (hour, me, next) = (std::time::Duration::from_hours(1), Owner("a".into()), Owner("b".into()));
        let claim = |owner| Claim { channel: &ops, owner, now: at, lease: hour, limit: 9, in_hand: &[] };
        assert_eq!(store.claim(claim(&me)).await.unwrap().len(), 1);
        drop(store);
        let store = SqliteStore::open(&path).unwrap();
        let again = store.claim(claim(&next)).await.unwrap();
        assert_eq!(again.len(), 1, "a killed daemon's attempt is taken up at once");
        assert_eq!(again[0].attempt, 1, "nothing was recorded of the first");
    }
}
