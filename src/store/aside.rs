//! Sets a database aside that cannot be used any more: renames it with all its files, never deletes it.
//!
//! The database and its log must stay together even if the process is killed, because a database without its log
//! silently loses data. So the log has both names until the database has its new one.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::files::{PARTS, check, named, part};

/// Renames a database with all its files. Returns the new name, or `None` if there is no database. `why` is part of the
/// name.
pub fn set_aside(database: &Path, why: &str, now: Timestamp) -> io::Result<Option<PathBuf>> {
    if !is_there(database)? {
        set_orphans_aside(database, now)?;
        return Ok(None);
    }
    let aside = free_name(database, why, now)?;
    for suffix in PARTS {
        link(&part(database, suffix), &part(&aside, suffix))?;
    }
    // After this, the renamed files are complete.
    rename(database, &aside)?;
    for suffix in PARTS {
        unlink(&part(database, suffix), &part(&aside, suffix))?;
    }
    sync_dir(database);
    Ok(Some(aside))
}

/// Moves a complete new database to the place of one that was set aside, if the place is free. Also completes this
/// after a kill.
pub fn roll_forward(new: &Path, database: &Path, now: Timestamp) -> io::Result<()> {
    if is_there(database)? || !is_there(new)? {
        return Ok(());
    }
    // The new database must not use the old one's log.
    set_orphans_aside(database, now)?;
    rename(new, database)?;
    sync_dir(database);
    Ok(())
}

/// Removes a file if it is a regular file of this user. Returns whether it was there; an error if it is something else.
pub fn remove_own(path: &Path) -> io::Result<bool> {
    if !is_there(path)? {
        return Ok(false);
    }
    check(path)?;
    if std::fs::symlink_metadata(path)?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it belongs to another user"));
    }
    remove(path).map(|()| true)
}

/// Handles a log without its database: the process was killed while it set the database aside. The log is dropped if
/// the renamed database has it already, else it gets a name of its own. A new database must not use it.
pub(super) fn set_orphans_aside(database: &Path, now: Timestamp) -> io::Result<()> {
    if is_there(database)? {
        return Ok(());
    }
    for suffix in PARTS {
        let orphan = part(database, suffix);
        if !is_there(&orphan)? {
            continue;
        }
        if has_another_name(&orphan, database)? || suffix == "-shm" {
            remove(&orphan)?;
        } else {
            rename(&orphan, &part(&free_name(database, "orphan", now)?, suffix))?;
        }
    }
    Ok(())
}

/// Gives a file a second name, if it exists and the file system supports that.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(named(to, &error)),
        // Copies the file if the file system does not support links.
        Err(_) => std::fs::copy(from, to)
            .and_then(|_| File::open(to)?.sync_all())
            .map_err(|error| named(to, &error)),
    }
}

/// Removes a file's first name; it keeps the second.
fn unlink(first: &Path, second: &Path) -> io::Result<()> {
    if !is_there(second)? {
        return Ok(());
    }
    match std::fs::remove_file(first) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(first, &error)),
        _ => Ok(()),
    }
}

fn is_there(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(named(path, &error)),
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to).map_err(|error| named(from, &error))
}

fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path).map_err(|error| named(path, &error))
}

/// Whether a file has another name next to the database.
fn has_another_name(file: &Path, database: &Path) -> io::Result<bool> {
    let identity = |path: &Path| std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()));
    let (own, dir) = (identity(file)?, database.parent().unwrap_or(Path::new(".")));
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name() != file.file_name() && identity(&path).is_ok_and(|other| other == own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A free name. Two files within a second get different ones.
fn free_name(database: &Path, why: &str, now: Timestamp) -> io::Result<PathBuf> {
    let mark = now.strftime(&format!(".{why}-%Y%m%dT%H%M%SZ")).to_string();
    let is_free = |name: &PathBuf| {
        let mut names = PARTS.iter().map(|suffix| part(name, suffix)).chain([name.clone()]);
        names.all(|name| name.symlink_metadata().is_err())
    };
    (0..100)
        .map(|n| part(database, &if n == 0 { mark.clone() } else { format!("{mark}-{n}") }))
        .find(is_free)
        .ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Best effort, because the renames happen in order anyway.
fn sync_dir(database: &Path) {
    if let Some(dir) = database.parent() {
        let _ = File::open(dir).and_then(|dir| dir.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn write(database: &Path, text: &str) {
        std::fs::write(database, text).unwrap();
        for suffix in PARTS {
            std::fs::write(part(database, suffix), format!("{text}{suffix}")).unwrap();
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_set_aside_is_whole_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("runwatch.db");
        let mut asides = Vec::new();
        for round in ["one", "two"] {
            write(&database, round);
            let aside = set_aside(&database, "corrupt", now()).unwrap().unwrap();
            assert_eq!(std::fs::read_to_string(&aside).unwrap(), round);
            for suffix in PARTS {
                assert!(!part(&database, suffix).exists());
                let text = std::fs::read_to_string(part(&aside, suffix)).unwrap();
                assert_eq!(text, format!("{round}{suffix}"));
            }
            asides.push(aside);
        }
        assert_ne!(asides[0], asides[1]);
        assert_eq!(names(dir.path()).len(), 8);
        assert_eq!(set_aside(&database, "corrupt", now()).unwrap(), None, "nothing is there");
    }

    /// The steps of [`set_aside`], to stop after any of them.
    fn steps(database: &Path, aside: &Path) -> Vec<Box<dyn Fn() -> io::Result<()>>> {
        let mut steps: Vec<Box<dyn Fn() -> io::Result<()>>> = Vec::new();
        for suffix in PARTS {
            let (from, to) = (part(database, suffix), part(aside, suffix));
            steps.push(Box::new(move || link(&from, &to)));
        }
        let (from, to) = (database.to_owned(), aside.to_owned());
        steps.push(Box::new(move || std::fs::rename(&from, &to)));
        for suffix in PARTS {
            let (from, to) = (part(database, suffix), part(aside, suffix));
            steps.push(Box::new(move || unlink(&from, &to)));
        }
        steps
    }

    #[test]
    fn killed_after_any_step_a_database_has_its_own_log() {
        for done in 0..=7 {
            let dir = tempfile::tempdir().unwrap();
            let database = dir.path().join("runwatch.db");
            write(&database, "old");
            let aside = free_name(&database, "corrupt", now()).unwrap();
            let steps = steps(&database, &aside);
            assert_eq!(steps.len(), 7);
            steps.iter().take(done).for_each(|step| step().unwrap());
            // The next start finds the same damage, or makes a new database.
            set_orphans_aside(&database, now()).unwrap();
            let log = |database: &Path| std::fs::read_to_string(part(database, "-wal")).ok();
            if database.exists() {
                assert_eq!(log(&database).as_deref(), Some("old-wal"), "after {done} steps");
                let again = set_aside(&database, "corrupt", now()).unwrap().unwrap();
                assert_eq!(log(&again).as_deref(), Some("old-wal"), "after {done} steps");
            } else {
                assert_eq!(log(&aside).as_deref(), Some("old-wal"), "after {done} steps");
            }
            assert_eq!(log(&database), None, "a new database would take it for its own");
        }
    }

    #[test]
    fn a_log_without_a_database_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("runwatch.db");
        std::fs::write(part(&database, "-wal"), "lost").unwrap();
        std::fs::write(part(&database, "-shm"), "of no use").unwrap();
        set_orphans_aside(&database, now()).unwrap();
        assert_eq!(names(dir.path()), ["runwatch.db.orphan-20270115T080000Z-wal"]);
    }
}
