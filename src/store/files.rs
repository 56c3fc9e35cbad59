//! The state directory: one owner at a time, and what becomes of a file that is damaged.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

/// The right to a state directory, for as long as this lives. The kernel takes it back when the process ends, however.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a state directory cannot be taken.
#[derive(Debug)]
pub enum InUse {
    /// By somebody else, who has left a word about themselves.
    By(String),
    /// Not even asked.
    Error(io::Error),
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(who) => {
                write!(f, "it is in use by {who}; stop that one, or use another state directory")
            }
            Self::Error(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for InUse {}

impl Lock {
    /// Takes the directory, or tells who has it. Blocks for no longer than a file system does.
    pub fn take(dir: &Path, now: Timestamp) -> Result<Self, InUse> {
        let path = dir.join("runwatch.lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(InUse::Error)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut who = String::new();
                // Whoever has it may be writing just now.
                let _ = file.take(200).read_to_string(&mut who);
                let who = if who.trim().is_empty() { "another runwatch" } else { who.trim() };
                return Err(InUse::By(crate::run::printable(who, 200)));
            }
            Err(error) => return Err(InUse::Error(error.into())),
        }
        let word = format!("the runwatch of process {}, started {now:.0}\n", std::process::id());
        // On a full disk the word is missing; the lock holds.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(word.as_bytes()));
        Ok(Self { _file: file })
    }
}

/// Renames a damaged database with everything that belongs to it; gives the new name. Nothing is ever deleted.
pub fn set_aside(database: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let name = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mark = now.strftime(".corrupt-%Y%m%dT%H%M%SZ").to_string();
    // Two in one second are two files.
    let aside = (0..100)
        .map(|n| name(&if n == 0 { mark.clone() } else { format!("{mark}-{n}") }))
        .find(|aside| !aside.exists())
        .ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
    for part in ["-wal", "-shm"] {
        let mut to = aside.as_os_str().to_owned();
        to.push(part);
        match std::fs::rename(name(part), PathBuf::from(to)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(database, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time_and_the_other_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let first = Lock::take(dir.path(), now).unwrap();
        let refused = Lock::take(dir.path(), now).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(
            refused.contains(&format!("in use by the runwatch of process {pid}, started 20")),
            "{refused}"
        );
        drop(first);
        assert!(Lock::take(dir.path(), now).is_ok());
    }

    #[test]
    fn what_is_set_aside_is_whole_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let database = dir.path().join("runwatch.db");
        let mut names = Vec::new();
        for round in ["one", "two"] {
            std::fs::write(&database, round).unwrap();
            std::fs::write(dir.path().join("runwatch.db-wal"), round).unwrap();
            let aside = set_aside(&database, now).unwrap();
            assert!(!database.exists());
            assert_eq!(std::fs::read_to_string(&aside).unwrap(), round);
            let mut wal = aside.clone().into_os_string();
            wal.push("-wal");
            assert_eq!(std::fs::read_to_string(wal).unwrap(), round);
            names.push(aside);
        }
        assert_ne!(names[0], names[1]);
    }
}
