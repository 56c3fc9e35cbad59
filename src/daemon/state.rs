//! The state directory of a daemon: its path, its lock, and opening the store in it.
//!
//! `state_dir` makes the directory and rejects one that others could tamper with. This file sets a damaged store aside
//! and starts a new one. It writes the store again if its files were removed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::DaemonError;
use super::state_dir::{self, Unfit};
use crate::clock;
use crate::store::{
    InUse, Lock, Original, Salvaged, SqliteStore, StoreError, StoreErrorKind, remove_own, roll_forward,
    salvage, set_aside,
};

/// The database's file name.
const DATABASE: &str = "runwatch.db";

/// The name of a new database until it replaces the old one.
const NEW: &str = "runwatch.db.new";

/// A daemon's state: the lock and the store.
pub(super) struct State {
    dir: PathBuf,
    lock: Lock,
    /// The files that were set aside, if any.
    pub(super) set_aside: Option<Aside>,
    pub(super) store: SqliteStore,
}

/// A file that was set aside.
#[derive(Debug, Clone)]
pub(super) struct Aside {
    what: &'static str,
    path: PathBuf,
}

impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is kept as {}", self.what, self.path.display())
    }
}

/// Why the state cannot be used.
#[derive(Debug)]
pub(super) enum StateError {
    /// Another process uses it.
    InUse(String),
    /// A person has to fix it.
    Unusable(String),
    /// A later attempt may work.
    Failed(String),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::InUse(why) | Self::Unusable(why) | Self::Failed(why)) = self;
        f.write_str(why)
    }
}

impl From<StateError> for DaemonError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::InUse(why) => Self::Busy(why),
            StateError::Unusable(why) => Self::Config(why),
            // A full disk may have room again when the service manager tries next time.
            StateError::Failed(why) => Self::Internal(why),
        }
    }
}

impl State {
    /// The state directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Locks the directory and opens the store. Sets a damaged store aside and starts a new one. Blocks.
    pub(super) fn open(dir: &Path) -> Result<Self, DaemonError> {
        prepare(dir)?;
        let lock = take(dir)?;
        let (store, set_aside) = open_store(dir)?;
        Ok(Self { dir: dir.to_owned(), lock, set_aside, store })
    }

    /// Replaces this store, which is damaged or whose files were removed, with a new one. An error changes nothing, so
    /// the call can be repeated.
    pub(super) async fn begin_again(&mut self, kind: StoreErrorKind) -> Result<(), StateError> {
        let (dir, has_lock) = (self.dir.clone(), self.lock.is_in(&self.dir));
        let begun = self.store.replace(move |original| {
            prepare(&dir)?;
            // The lock was lost with the directory.
            let lock = if has_lock { None } else { Some(take(&dir)?) };
            let aside = match kind {
                StoreErrorKind::Moved => write_anew(&dir, original)?,
                _ => renew(&dir, |new| original.salvage_to(new))?,
            };
            Ok((open_store(&dir)?, aside, lock))
        });
        let closed = || StateError::Failed("the store is closed".to_owned());
        let ((store, found_damaged), aside, lock) = begun.await.ok_or_else(closed)??;
        self.store = store;
        self.set_aside = found_damaged.or(aside).or(self.set_aside.take());
        if let Some(lock) = lock {
            self.lock = lock;
        }
        Ok(())
    }
}

fn cannot(dir: &Path, error: &dyn fmt::Display) -> String {
    format!("cannot keep the state in {}: {error}", dir.display())
}

fn prepare(dir: &Path) -> Result<(), StateError> {
    state_dir::prepare(dir).map_err(|error| match error {
        Unfit::Refused(_) => StateError::Unusable(cannot(dir, &error)),
        Unfit::Failed(_) => StateError::Failed(cannot(dir, &error)),
    })
}

/// Whether a later start may succeed.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    !matches!(error.kind(), Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::InvalidInput)
}

fn take(dir: &Path) -> Result<Lock, StateError> {
    Lock::take(dir, clock::wall()).map_err(|error| match error {
        InUse::By(_) => StateError::InUse(cannot(dir, &error)),
        InUse::Error(ref why) if is_passing(why) => StateError::Failed(cannot(dir, &error)),
        InUse::Error(_) => StateError::Unusable(cannot(dir, &error)),
    })
}

fn open_store(dir: &Path) -> Result<(SqliteStore, Option<Aside>), StateError> {
    let path = dir.join(DATABASE);
    // A kill may have left this undone: the database was set aside, and the new one is not in place.
    put_in_place(dir)?;
    remove_left_over(dir);
    let is_damaged = |opened: &Result<_, StoreError>| {
        let error = opened.as_ref().err().filter(|error| error.kind == StoreErrorKind::Corrupt)?;
        error!("{} is damaged: {error}", path.display());
        Some(())
    };
    let (mut opened, mut aside) = (SqliteStore::open(&path), None);
    if is_damaged(&opened).is_some() {
        aside = renew(dir, |new| salvage(&path, new))?;
        opened = SqliteStore::open(&path);
    }
    if is_damaged(&opened).is_some() {
        // The saved copy is damaged too.
        aside = put_aside(dir)?.or(aside);
        opened = SqliteStore::open(&path);
    }
    let store = opened.map_err(|error| refused(dir, &path, &error))?;
    Ok((store, aside))
}

/// What a store that cannot be opened means for a daemon.
fn refused(dir: &Path, path: &Path, error: &StoreError) -> StateError {
    let message = cannot(dir, error);
    match error.kind {
        StoreErrorKind::ReadOnly | StoreErrorKind::Newer => StateError::Unusable(message),
        StoreErrorKind::Unusable => StateError::Unusable(cannot(path, error)),
        StoreErrorKind::Busy => StateError::InUse(cannot(
            dir,
            &format!(
                "another process has {} open; stop that one (see `fuser {}`), or use another state directory",
                path.display(),
                path.display()
            ),
        )),
        _ => StateError::Failed(message),
    }
}

/// Sets a damaged store aside, if there is one.
fn put_aside(dir: &Path) -> Result<Option<Aside>, StateError> {
    let path = dir.join(DATABASE);
    let aside = set_aside(&path, "corrupt", clock::wall()).map_err(|error| {
        StateError::Failed(format!("{} is damaged and cannot be set aside: {error}", path.display()))
    })?;
    let aside = aside.map(|path| Aside { what: "a damaged state", path });
    if let Some(aside) = &aside {
        warn!("{aside}");
    }
    Ok(aside)
}

/// Sets a damaged store aside and replaces it with a new one that has every row that `salvage` can read.
fn renew(
    dir: &Path,
    salvage: impl FnOnce(&Path) -> Result<Salvaged, StoreError>,
) -> Result<Option<Aside>, StateError> {
    let salvaged = write_new(dir, salvage)?;
    let aside = put_aside(dir)?;
    put_in_place(dir)?;
    let lost = salvaged.as_ref().map_or(Some("everything".to_owned()), Salvaged::lost);
    if let Some(salvaged) = salvaged {
        warn!("saved from the damaged state: {salvaged}");
    }
    if let Some(lost) = lost {
        warn!(
            "could not be read in the damaged state: {lost}; add runs that are missing again (`runwatch add`), and \
             expect that some notifications are not sent, or sent twice"
        );
    }
    Ok(aside)
}

/// Handles store files that were removed or replaced but are still open: writes all their data into a new file, and
/// sets the replacement aside.
fn write_anew(dir: &Path, original: &Original<'_>) -> Result<Option<Aside>, StateError> {
    let path = dir.join(DATABASE);
    let written = write_new(dir, |new| original.copy_to(new))?;
    let aside = set_aside(&path, "replaced", clock::wall())
        .map_err(|error| StateError::Failed(cannot(dir, &error)))?;
    put_in_place(dir)?;
    if written.is_some() {
        warn!("all recorded data was written to a new {}", path.display());
    }
    let aside = aside.map(|path| Aside { what: "the file that replaced the state", path });
    if let Some(aside) = &aside {
        warn!("{aside}");
    }
    Ok(aside)
}

/// Writes the available data into a new file, which gets its final name once complete. `None` if nothing can be read.
fn write_new<T>(
    dir: &Path,
    write: impl FnOnce(&Path) -> Result<T, StoreError>,
) -> Result<Option<T>, StateError> {
    let (part, new) = (dir.join(format!("{DATABASE}.part")), dir.join(NEW));
    let failed = |error: &dyn fmt::Display| StateError::Failed(cannot(dir, error));
    for left_over in [&part, &new] {
        match std::fs::remove_file(left_over) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(&format!("{}: {error}", left_over.display())));
            }
            _ => {}
        }
    }
    match write(&part) {
        Ok(written) => {
            std::fs::rename(&part, &new).map_err(|error| failed(&format!("{}: {error}", new.display())))?;
            Ok(Some(written))
        }
        Err(error) if error.kind == StoreErrorKind::Corrupt => {
            error!("cannot save the data of the state: {error}; starting a new state from memory");
            Ok(None)
        }
        Err(error) => Err(failed(&error)),
    }
}

/// Removes new stores that a kill left beside a database that is in place. Leaves files that are not ours alone.
fn remove_left_over(dir: &Path) {
    for path in [dir.join(NEW), dir.join(format!("{DATABASE}.part"))] {
        match remove_own(&path) {
            Ok(true) => warn!("removed {}, which an interrupted replacement left", path.display()),
            Ok(false) => {}
            Err(error) => warn!("cannot remove {}, which is not in use: {error}", path.display()),
        }
    }
}

/// Moves a complete new store into place, if there is one and the place is free.
fn put_in_place(dir: &Path) -> Result<(), StateError> {
    roll_forward(&dir.join(NEW), &dir.join(DATABASE), clock::wall())
        .map_err(|error| StateError::Failed(cannot(dir, &error)))
}

/// `state_dir`, else `$STATE_DIRECTORY` (set by systemd; the first of several), else `$XDG_STATE_HOME/runwatch`, else
/// `~/.local/state/runwatch`.
///
/// Paths need not be UTF-8. Converting one to UTF-8 could name another directory.
pub fn directory(configured: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    configured
        .map(Path::to_owned)
        .or_else(|| set("STATE_DIRECTORY").and_then(|dirs| first_of(&dirs)))
        .or_else(|| set("XDG_STATE_HOME").and_then(absolute).map(|home| home.join("runwatch")))
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/state/runwatch")))
}

/// The database in a state directory.
pub fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// The first of the paths that systemd lists.
fn first_of(paths: &OsStr) -> Option<PathBuf> {
    let first = paths.as_bytes().split(|byte| *byte == b':').next()?;
    Some(PathBuf::from(OsStr::from_bytes(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_where_the_example_says() {
        let find = |set: &[(&str, &str)], configured: Option<&str>| {
            let set: Vec<(String, String)> = set.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            let env =
                move |name: &str| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.into());
            directory(configured.map(Path::new), &env).map(|path| path.display().to_string())
        };
        let all = [("STATE_DIRECTORY", "/s:/t"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(find(&all, Some("/c")).as_deref(), Some("/c"));
        assert_eq!(find(&all, None).as_deref(), Some("/s"));
        assert_eq!(find(&all[1..], None).as_deref(), Some("/x/runwatch"));
        assert_eq!(
            find(&[("XDG_STATE_HOME", "rel"), ("HOME", "/h")], None).as_deref(),
            Some("/h/.local/state/runwatch")
        );
        assert_eq!(find(&[], None), None);
        let odd = OsStr::from_bytes(b"/st\xff\xfe:/t");
        let found = directory(None, &|name| (name == "STATE_DIRECTORY").then(|| odd.to_owned()));
        assert_eq!(found.unwrap().as_os_str().as_bytes(), b"/st\xff\xfe");
    }
}
