//! Copies a database that is in use, by SQLite's own means: into one file that is whole by itself.

use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::damage::check_pages;
use super::files::resolved;
use super::{StoreError, StoreErrorKind};

/// Pages that are copied before anything else may be done: a few milliseconds' work.
const PAGES: i32 = 256;

/// Copies a database into a file that is there and empty. `go_on` is called every now and then and may write to the database;
/// it says whether to go on.
pub(super) fn copy(from: &Connection, to: &Path, mut go_on: impl FnMut() -> bool) -> Result<(), StoreError> {
    // Not to be created: whoever made it chose its permissions.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut copy = Connection::open_with_flags(resolved(to), flags)?;
    copy.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
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
    // A log of its own would be a second file.
    copy.query_row("PRAGMA journal_mode = DELETE", (), |_| Ok(()))?;
    check_pages(&copy)?;
    copy.close().map_err(|(_, error)| StoreError::from(error))
}
