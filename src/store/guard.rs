//! Checks that the files at the database's paths are still the ones that are open, and unchanged by others.
//!
//! Compares marks (device, inode, size, time of the last write). SQLite does not check this: it would write into
//! deleted files, and all of that would be lost at a restart. `batch` asks before every batch.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::files::part;

/// Minimum time between two full checks of files that another process writes to, because a check reads all data.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Guards the files of one database.
#[derive(Debug)]
pub(super) struct Guard {
    database: PathBuf,
    log: PathBuf,
    /// The mark after our last write, if the file existed.
    database_mark: Option<Mark>,
    log_mark: Option<Mark>,
    checked_at: Option<Instant>,
}

/// Identifies a file and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    file: (u64, u64),
    size: u64,
    written: (i64, i64),
}

/// The result of a check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Unchanged.
    Same,
    /// The open file is no longer at its path: data written to it is lost when the process ends.
    Moved(String),
    /// Another process wrote to the files: cached data may be wrong.
    Written,
}

impl Guard {
    /// For the open and sound database at this path.
    pub(super) fn new(database: &Path) -> Self {
        let mut guard = Self {
            database: database.to_owned(),
            log: part(database, "-wal"),
            database_mark: None,
            log_mark: None,
            checked_at: None,
        };
        guard.remember();
        guard
    }

    /// Accepts the current content of both files, after the log was written into the database.
    pub(super) fn remember(&mut self) {
        remember(&self.database, &mut self.database_mark);
        remember(&self.log, &mut self.log_mark);
    }

    /// Accepts the current content of the log, the only file that a commit writes. Returns its size in bytes.
    pub(super) fn remember_log(&mut self) -> u64 {
        remember(&self.log, &mut self.log_mark);
        self.log_mark.map_or(0, |mark| mark.size)
    }

    /// Free space for this user on the file system, in bytes; `None` if unknown.
    pub(super) fn room(&self) -> Option<u64> {
        let left = rustix::fs::statvfs(&self.log).ok()?;
        // Some file systems report no blocks.
        (left.f_blocks > 0).then(|| left.f_bavail.saturating_mul(left.f_frsize))
    }

    /// The check after a foreign write failed and has to be repeated.
    pub(super) fn check_again(&mut self) {
        self.checked_at = None;
    }

    /// Compares the files with their marks. A file that cannot be checked counts as unchanged.
    pub(super) fn check(&mut self) -> Found {
        let mut written = false;
        for (path, left) in [(&self.database, self.database_mark), (&self.log, self.log_mark)] {
            let Ok(now) = mark(path) else { continue };
            match (left, now) {
                (Some(_), None) => {
                    return Found::Moved(format!("{} has been removed or renamed", path.display()));
                }
                (Some(left), Some(now)) if left.file != now.file => {
                    return Found::Moved(format!("{} has been replaced by another file", path.display()));
                }
                (left, now) => written |= left != now,
            }
        }
        if !written || self.checked_at.is_some_and(|at| at.elapsed() < CHECK_EVERY) {
            return Found::Same;
        }
        self.checked_at = Some(Instant::now());
        Found::Written
    }
}

/// Does not accept a file that replaced another one; the next check has to find it.
fn remember(path: &Path, left: &mut Option<Mark>) {
    let now = mark(path).ok().flatten();
    if let Some(now) = now.filter(|now| left.is_none_or(|left| left.file == now.file)) {
        *left = Some(now);
    }
}

/// The mark of the file at a path; `None` if there is none.
fn mark(path: &Path) -> io::Result<Option<Mark>> {
    let of = |metadata: Metadata| Mark {
        file: (metadata.dev(), metadata.ino()),
        size: metadata.len(),
        written: (metadata.mtime(), metadata.mtime_nsec()),
    };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(of(metadata))),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_do_to_the_files_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (db, wal) = (path("db"), path("db-wal"));
        let fresh = || {
            std::fs::write(&db, "one").unwrap();
            std::fs::write(&wal, "two").unwrap();
            Guard::new(&db)
        };
        assert_eq!(fresh().check(), Found::Same);
        for file in [&db, &wal] {
            let mut guard = fresh();
            std::fs::remove_file(file).unwrap();
            assert!(matches!(guard.check(), Found::Moved(why) if why.contains("removed")));
            let mut guard = fresh();
            std::fs::rename(file, path("elsewhere")).unwrap();
            assert!(matches!(guard.check(), Found::Moved(_)));
            std::fs::copy(path("elsewhere"), file).unwrap();
            guard.remember();
            assert!(matches!(guard.check(), Found::Moved(why) if why.contains("replaced")));
            let mut guard = fresh();
            std::fs::write(file, "more than one").unwrap();
            assert_eq!(guard.check(), Found::Written);
            assert_eq!(guard.check(), Found::Same, "said once a minute");
            let mut guard = fresh();
            guard.checked_at = None;
            std::fs::write(file, "six").unwrap();
            let later = std::fs::File::options().write(true).open(file).unwrap();
            later.set_modified(std::fs::metadata(file).unwrap().modified().unwrap() + CHECK_EVERY).unwrap();
            assert_eq!(guard.check(), Found::Written, "of the same length");
            guard.checked_at = None;
            assert_eq!(guard.remember_log(), 3);
            assert_eq!(
                guard.check() == Found::Written,
                file == &db,
                "a commit does not write to the database"
            );
            guard.remember();
            guard.checked_at = None;
            assert_eq!(guard.check(), Found::Same);
        }
        let mut guard = fresh();
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(matches!(guard.check(), Found::Moved(_)));
    }
}
