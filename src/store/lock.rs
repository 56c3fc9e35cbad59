//! The lock of a state directory. Its holder writes a note into it.
//!
//! This lock only gives a good error message. SQLite's lock on the database is what prevents two daemons, even if this
//! file was deleted.

use std::fmt;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use jiff::Timestamp;

use super::files::{NO_SURPRISE, open_or_make};

/// The file's name in the directory.
const NAME: &str = "runwatch.lock";

/// The lock of a state directory. The kernel releases it when the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why a state directory cannot be locked.
#[derive(Debug)]
pub enum InUse {
    /// Another process holds the lock; its note.
    By(String),
    /// Locking failed.
    Error(io::Error),
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(who) => {
                write!(f, "it is in use by {who}; stop that one, or use another state directory")
            }
            Self::Error(error) => write!(f, "{NAME}: {error}"),
        }
    }
}

impl std::error::Error for InUse {}

impl Lock {
    /// Locks the directory, or returns who holds it. Blocks only as long as the file system.
    pub fn take(dir: &Path, now: Timestamp) -> Result<Self, InUse> {
        let mut file = open_or_make(&dir.join(NAME)).map_err(InUse::Error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(InUse::By(read_word(&mut file))),
            Err(TryLockError::Error(error)) => return Err(InUse::Error(error)),
        }
        // On a full disk the note is missing, but the lock works.
        let _ = write_word(&mut file, now);
        Ok(Self { file })
    }

    /// Whether the lock file is still in this directory.
    pub fn is_in(&self, dir: &Path) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let own = self.file.metadata().map(identity);
        let there = std::fs::symlink_metadata(dir.join(NAME)).map(identity);
        matches!((own, there), (Ok(own), Ok(there)) if own == there)
    }

    /// Who holds a directory, if anyone.
    pub fn holder(dir: &Path) -> Option<String> {
        // It may be another user's directory, and a pipe in it must not block.
        let mut options = File::options();
        let file = options.read(true).custom_flags(NO_SURPRISE).open(dir.join(NAME)).ok();
        let mut file = file.filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))?;
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| read_word(&mut file))
    }
}

fn read_word(file: &mut File) -> String {
    let mut who = String::new();
    // The holder may be writing its note at this moment.
    let _ = file.take(200).read_to_string(&mut who);
    let who = if who.trim().is_empty() { "another runwatch" } else { who.trim() };
    crate::run::printable(who, 200)
}

fn write_word(file: &mut File, now: Timestamp) -> io::Result<()> {
    if file.metadata()?.nlink() > 1 {
        // It has another hard link, so it may be another user's file.
        return Ok(());
    }
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("the runwatch of process {}, started {now:.0}\n", std::process::id()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time_and_the_other_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(Lock::holder(dir.path()), None);
        let first = Lock::take(dir.path(), now).unwrap();
        let refused = Lock::take(dir.path(), now).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(
            refused.contains(&format!("in use by the runwatch of process {pid}, started 20")),
            "{refused}"
        );
        assert!(Lock::holder(dir.path()).unwrap().contains(&pid.to_string()));
        drop(first);
        assert_eq!(Lock::holder(dir.path()), None);
        assert!(Lock::take(dir.path(), now).is_ok());
    }

    #[test]
    fn what_a_link_names_is_never_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let (lock, victim) = (dir.path().join(NAME), dir.path().join("victim"));
        std::fs::write(&victim, "theirs").unwrap();
        std::os::unix::fs::symlink(&victim, &lock).unwrap();
        let refused = Lock::take(dir.path(), now).unwrap_err().to_string();
        assert!(refused.contains("runwatch.lock: it is a symbolic link"), "{refused}");
        assert_eq!(Lock::holder(dir.path()), None);
        std::fs::remove_file(&lock).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(Lock::holder(dir.path()), None, "and a pipe is not waited for");
        std::fs::remove_file(&lock).unwrap();
        std::fs::hard_link(&victim, &lock).unwrap();
        drop(Lock::take(dir.path(), now).unwrap());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "theirs");
    }
}
