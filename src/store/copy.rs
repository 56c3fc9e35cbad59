//! Copies a database, in use or not, into one file that is whole by itself.
//!
//! One in use is copied by SQLite's own means, by the thread that has it open. One that nobody uses is copied as the files it
//! consists of, so that nothing is changed in a directory that may be somebody else's. Every copy is checked.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, fcntl_lock};

use super::damage::check_pages;
use super::files::{NO_SURPRISE, make, part, resolved};
use super::sqlite::unusable;
use super::{StoreError, StoreErrorKind};

/// Pages that are copied before anything else may be done: a few milliseconds' work.
const PAGES: i32 = 256;

/// Copies a database into a file that is there and empty. `go_on` is called every now and then and may write to the database;
/// it says whether to go on.
pub(super) fn copy(from: &Connection, to: &Path, mut go_on: impl FnMut() -> bool) -> Result<(), StoreError> {
    let mut copy = open(to)?;
    let backup = Backup::new(from, &mut copy)?;
    loop {
        match backup.step(PAGES)? {
            StepResult::Done => break,
            StepResult::More if go_on() => {}
            StepResult::More => {
                return Err(StoreError::internal("the copy was broken off: the daemon is stopping"));
            }
            // Nobody else may use either: not to be waited for.
            _ => {
                let message = format!("{} is in use", to.display());
                return Err(StoreError { kind: StoreErrorKind::Busy, message });
            }
        }
    }
    drop(backup);
    finish(copy)
}

/// Copies a database into a file beside it that has no name any more when this returns, and is gone when it is closed.
pub(super) fn snapshot(
    from: &Connection,
    database: &Path,
    go_on: impl FnMut() -> bool,
) -> Result<File, StoreError> {
    let to = part(database, ".backup");
    remove(&to)?;
    let copied = make(&to).map_err(|error| unusable(&error)).and_then(|file| {
        drop(file);
        copy(from, &to, go_on)?;
        File::open(&to).map_err(|error| unusable(&error))
    });
    remove(&to)?;
    copied
}

/// Copies a database that nobody has open into a file that is there and empty. One that somebody has open is refused.
///
/// Blocks; nothing in the directory of the database is changed. Not for a process that has the database open itself: these
/// locks are a process's, and closing any file of it gives them up.
pub fn copy_unused(database: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| unusable(&error);
    let open_file = |path: &Path| OpenOptions::new().read(true).custom_flags(NO_SURPRISE).open(path);
    let file = open_file(database).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        let message = format!("{} is no file", database.display());
        return Err(StoreError { kind: StoreErrorKind::Unusable, message });
    }
    // SQLite's lock is one of these. It is held until the file is closed.
    fcntl_lock(&file, FlockOperation::NonBlockingLockShared).map_err(|error| match error {
        rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN => {
            let message = format!("{} is in use by another process", database.display());
            StoreError { kind: StoreErrorKind::Busy, message }
        }
        error => unusable(&error.into()),
    })?;
    let copied = copy_files(&file, database, to).map_err(failed).and_then(|()| {
        let copy = open(to)?;
        finish(copy)
    });
    if copied.is_err() {
        for suffix in LOGS {
            let _ = remove(&part(to, suffix));
        }
    }
    copied
}

/// Whether a file is a copy that was made here: one database, whole by itself, with the tables of ours. Blocks.
pub fn is_copy(path: &Path) -> bool {
    // By these, SQLite has no other file to look for.
    const ROLLBACK_JOURNAL: [u8; 2] = [1, 1];
    let mut header = [0; 100];
    let opened = OpenOptions::new().read(true).custom_flags(NO_SURPRISE).open(path);
    let is_read = opened.and_then(|mut file| file.read_exact(&mut header)).is_ok();
    if !is_read || !header.starts_with(b"SQLite format 3\0") || header[18..20] != ROLLBACK_JOURNAL {
        return false;
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('runs', 'events', 'deliveries')";
    Connection::open_with_flags(resolved(path), flags)
        .and_then(|db| db.query_row(tables, (), |row| row.get::<_, i64>(0)))
        .is_ok_and(|tables| tables == 3)
}

/// What is beside a database and belongs to what is in it.
const LOGS: [&str; 2] = ["-wal", "-journal"];

fn copy_files(mut database: &File, path: &Path, to: &Path) -> io::Result<()> {
    let mut copy = OpenOptions::new().write(true).custom_flags(NO_SURPRISE).open(to)?;
    io::copy(&mut database, &mut copy)?;
    for suffix in LOGS {
        match OpenOptions::new().read(true).custom_flags(NO_SURPRISE).open(part(path, suffix)) {
            Ok(mut log) => drop(io::copy(&mut log, &mut make(&part(to, suffix))?)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Not to be created: whoever made it chose its permissions.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(resolved(path), flags)?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    Ok(connection)
}

/// Writes everything into the one file, and looks whether it is sound.
fn finish(copy: Connection) -> Result<(), StoreError> {
    copy.query_row("PRAGMA journal_mode = DELETE", (), |_| Ok(()))?;
    check_pages(&copy)?;
    copy.close().map_err(|(_, error)| StoreError::from(error))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(&error)),
        _ => Ok(()),
    }
}
