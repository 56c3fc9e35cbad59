//! Copies a database, in use or not, into one complete file.
//!
//! A database in use is copied by SQLite, on the thread that has it open. One that nobody uses is copied as plain
//! files, so that nothing changes in a directory that may be another user's. Every copy is checked.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, fcntl_lock};

use super::damage::check_pages;
use super::files::{NO_SURPRISE, make, named, part, resolved};
use super::sqlite::{unusable, unusable_at};
use super::{StoreError, StoreErrorKind};

/// Number of pages to copy at a time, which takes a few milliseconds. Other calls run in between.
const PAGES: i32 = 256;

/// Copies a database into an existing, empty file. Calls `go_on` regularly, which may write to the database and returns
/// whether to continue.
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
            // No other process may use either file, so waiting makes no sense.
            _ => {
                let message = format!("{} is in use", to.display());
                return Err(StoreError { kind: StoreErrorKind::Busy, message });
            }
        }
    }
    drop(backup);
    finish(copy)
}

/// Copies a database into a file next to it that has no name when this returns, and is deleted when closed.
pub(super) fn snapshot(
    from: &Connection,
    database: &Path,
    go_on: impl FnMut() -> bool,
) -> Result<File, StoreError> {
    let to = part(database, ".backup");
    remove(&to)?;
    let copied = make(&to).map_err(|error| unusable_at(&to, &error)).and_then(|file| {
        drop(file);
        copy(from, &to, go_on)?;
        File::open(&to).map_err(|error| unusable_at(&to, &error))
    });
    remove(&to)?;
    copied
}

/// Copies a database that no process has open into an existing, empty file. Refuses one that is open.
///
/// Blocks. Changes nothing in the database's directory. Must not be called in a process that has the database open,
/// because closing any descriptor of the file drops that process's locks.
pub fn copy_unused(database: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| unusable_at(database, &error);
    let open_file = |path: &Path| OpenOptions::new().read(true).custom_flags(NO_SURPRISE).open(path);
    let file = open_file(database).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        let message = format!("{} is not a file", database.display());
        return Err(StoreError { kind: StoreErrorKind::Unusable, message });
    }
    // One of SQLite's own locks. Held until the file is closed.
    fcntl_lock(&file, FlockOperation::NonBlockingLockShared).map_err(|error| match error {
        rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN => {
            let message = format!("{} is in use by another process", database.display());
            StoreError { kind: StoreErrorKind::Busy, message }
        }
        error => failed(error.into()),
    })?;
    let copied = copy_files(&file, database, to).map_err(|error| unusable(&error)).and_then(|()| {
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

/// Whether a file is a copy made here: one complete database with runwatch's tables. Blocks.
pub fn is_copy(path: &Path) -> bool {
    // With this header, SQLite uses no other file.
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

/// The other files that may have part of a database's data.
const LOGS: [&str; 2] = ["-wal", "-journal"];

fn copy_files(mut database: &File, path: &Path, to: &Path) -> io::Result<()> {
    let writing = |error: io::Error| named(to, &error);
    let mut copy = OpenOptions::new().write(true).custom_flags(NO_SURPRISE).open(to).map_err(writing)?;
    io::copy(&mut database, &mut copy).map_err(writing)?;
    for suffix in LOGS {
        let (from, to) = (part(path, suffix), part(to, suffix));
        match OpenOptions::new().read(true).custom_flags(NO_SURPRISE).open(&from) {
            Ok(mut log) => {
                let mut copy = make(&to).map_err(|error| named(&to, &error))?;
                io::copy(&mut log, &mut copy).map_err(|error| named(&from, &error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(&from, &error)),
        }
    }
    Ok(())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Does not create the file, because its maker chose the permissions.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(resolved(path), flags)?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    Ok(connection)
}

/// Writes everything into the one file, and checks it.
fn finish(copy: Connection) -> Result<(), StoreError> {
    copy.query_row("PRAGMA journal_mode = DELETE", (), |_| Ok(()))?;
    check_pages(&copy)?;
    copy.close().map_err(|(_, error)| StoreError::from(error))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable_at(path, &error)),
        _ => Ok(()),
    }
}
