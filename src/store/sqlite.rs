//! The SQLite store: opening, closing and replacing it.

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
use super::damage::check_pages;
use super::files::{self, PARTS, make, open_or_make, part, resolved};
use super::guard::Guard;
use super::queue::Queue;
use super::salvage::{Salvaged, salvage_open};
use super::schema::{NEW, bring_up_to_date, version};
use super::{StoreError, StoreErrorKind};
use crate::clock;

/// Runs and outbox in one SQLite database, on disk for a daemon and in memory for a command. Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    pub(super) queue: Queue,
    pub(super) filled: Arc<watch::Sender<u64>>,
    pub(super) allowed: Allowed,
    /// The database's path; empty for one in memory.
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

    /// A store that exists as long as the process.
    pub fn in_memory() -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(NEW)?;
        Ok(Self::on(Queue::here(connection), Path::new("")))
    }

    /// The current failure, if any. Changes when a failure begins, changes its kind, or ends after a successful write.
    pub fn health(&self) -> watch::Receiver<Option<StoreError>> {
        self.queue.health()
    }

    /// Wakes everyone who waits for changes of the outbox.
    pub fn wake(&self) {
        self.filled.send_modify(|count| *count += 1);
    }

    /// Whether the store's worker answers. Waits for writes in progress, so the caller should set a timeout.
    pub async fn answers(&self) -> bool {
        self.queue.answers().await
    }

    /// Writes everything into the one file and closes it. All later calls fail. Waits for writes in progress, so the
    /// caller should set a timeout.
    pub async fn close(&self) -> Result<(), StoreError> {
        let is_lost = self.health().borrow().as_ref().is_some_and(|error| error.kind.is_lasting());
        let close = move |connection: Connection| {
            if is_lost {
                leave_files(&connection);
                return (Ok(()), None);
            }
            // Closing does this too, but hides errors.
            let written = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
            let closed = connection.close().map_err(|(_, error)| error);
            (written.and(closed).map_err(StoreError::from), None)
        };
        self.queue.lend(close).await.unwrap_or(Ok(()))
    }

    /// Replaces this store, whose files are damaged or no longer at their path, with another. `begin` makes the other
    /// store and may block. If it succeeds, this store closes its files without changing them, and all later calls
    /// fail. `None` if it was closed already.
    pub async fn replace<T, E>(
        &self,
        begin: impl FnOnce(&Original<'_>) -> Result<T, E> + Send + 'static,
    ) -> Option<Result<T, E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let path = Arc::clone(&self.path);
        let replace = move |connection: Connection| {
            leave_files(&connection);
            let new = begin(&Original { connection: &connection, path: &path });
            let back = new.is_err().then_some(connection);
            (new, back)
        };
        self.queue.lend(replace).await
    }

    /// Copies all data, as it is between two transactions, into one file. The file has no name and is deleted when
    /// closed.
    pub async fn snapshot(&self) -> Result<File, StoreError> {
        self.queue.copy(self.path.to_path_buf()).await
    }

    /// Opens the store in a file, and makes the file for its owner only if it is missing. Blocks.
    ///
    /// Write-ahead log and `synchronous = FULL`: committed data survives a power cut. No other process can use the file
    /// while it is open. There is no shared-memory file, which a full disk could remove from under the process.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = resolved(path);
        make_ready(&path).map_err(|error| unusable(&error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(&path, flags)?;
        // Until the files have passed the checks, they must stay as they are.
        leave_files(&connection);
        // If another process has the file open, the caller decides whether to wait.
        connection.busy_timeout(Duration::ZERO)?;
        connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA wal_autocheckpoint = 0;",
        )?;
        version(&connection)?;
        check_pages(&connection)?;
        if let Err(error) = bring_up_to_date(&connection) {
            if !matches!(error.kind, StoreErrorKind::Full | StoreErrorKind::Io) {
                return Err(error);
            }
            // If the log of a killed process fills the disk, emptying it makes room.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
            bring_up_to_date(&connection)?;
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        // It comes from an older version or another program. Nobody has it open.
        let _ = std::fs::remove_file(part(&path, "-shm"));
        Ok(Self::on(Queue::on_thread(connection, Some(Guard::new(&path)))?, &path))
    }
}

/// The database being replaced.
pub struct Original<'c> {
    connection: &'c Connection,
    path: &'c Path,
}

impl Original<'_> {
    /// Copies everything that is still readable into a new file.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        make(path).map_err(|error| unusable_at(path, &error))?;
        copy(self.connection, path, || true).inspect_err(|_| drop(std::fs::remove_file(path)))
    }

    /// Copies the readable rows of a damaged database into a new file.
    pub fn salvage_to(&self, path: &Path) -> Result<Salvaged, StoreError> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        salvage_open(self.connection, self.path, path)
    }
}

/// Prevents SQLite from writing to the file when it is closed, and from deleting a log by a name that may belong to
/// another file by then.
pub(super) fn leave_files(connection: &Connection) {
    // Fails only for an unknown setting.
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

/// Makes the file if it is missing. Refuses anything but a file of ours, by whatever name SQLite would open it.
fn make_ready(path: &Path) -> io::Result<()> {
    set_orphans_aside(path, clock::wall())?;
    PARTS.iter().try_for_each(|suffix| files::check(&part(path, suffix)))?;
    // SQLite gives its other files the permissions of this one. Closed before SQLite opens it, because closing any
    // descriptor of a file drops the process's locks on it.
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

/// As [`unusable`], with the path in the message.
pub(super) fn unusable_at(path: &Path, error: &io::Error) -> StoreError {
    unusable(&files::named(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Ending;
    use crate::store::{Outbox as _, RunStore as _};

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
        // Reads work all the time and prove nothing.
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
        // As after a kill.
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
