//! The state directory of a daemon: where it is, who has it, and opening what is in it.
//!
//! `state_dir` makes the directory and refuses one that others could tamper with. A store that is damaged is set aside here and
//! a new one begun; one whose files were taken away is written anew.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::DaemonError;
use super::state_dir::{self, Unfit};
use crate::clock;
use crate::store::{
    InUse, Lock, Original, Salvaged, SqliteStore, StoreError, StoreErrorKind, roll_forward, salvage,
    set_aside,
};

/// The database's name in the directory.
const DATABASE: &str = "runwatch.db";

/// The name of a database that is to take its place.
const NEW: &str = "runwatch.db.new";

/// A daemon's state: the right to it, and the store in it.
pub(super) struct State {
    dir: PathBuf,
    lock: Lock,
    /// Where what was there was put, if anything was.
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
    /// Somebody else uses it.
    InUse(String),
    /// It takes a person to change that.
    Unusable(String),
    /// It may work later.
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
            // A full disk may have room again when the service manager tries the next time.
            StateError::Failed(why) => Self::Internal(why),
        }
    }
}

impl State {
    /// Where it is kept.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the directory and opens the store; one that is damaged is set aside and a new one begun. Blocks.
    pub(super) fn open(dir: &Path) -> Result<Self, DaemonError> {
        prepare(dir)?;
        let lock = take(dir)?;
        let (store, set_aside) = open_store(dir)?;
        Ok(Self { dir: dir.to_owned(), lock, set_aside, store })
    }

    /// Has a new store take the place of this one, which is damaged, or whose files are not at their path any more. An error
    /// changes nothing: it can be tried again.
    pub(super) async fn begin_again(&mut self, kind: StoreErrorKind) -> Result<(), StateError> {
        let (dir, has_lock) = (self.dir.clone(), self.lock.is_in(&self.dir));
        let begun = self.store.replace(move |original| {
            prepare(&dir)?;
            // It went with the directory.
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

/// Whether a later start may find it otherwise.
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
    // What a kill has left undone: the database was set aside, and the new one is not at its place.
    put_in_place(dir)?;
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
        // What was saved of it is no better.
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

/// Sets a damaged store aside, if one is there.
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

/// Sets a damaged store aside and puts a new one in its place that has every row `salvage` can read.
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

/// The files of a store were taken away or replaced, and are still open: all that is in them is written into a new file. What
/// has taken their place is set aside.
fn write_anew(dir: &Path, original: &Original<'_>) -> Result<Option<Aside>, StateError> {
    let path = dir.join(DATABASE);
    let written = write_new(dir, |new| original.copy_to(new))?;
    let aside = set_aside(&path, "replaced", clock::wall())
        .map_err(|error| StateError::Failed(cannot(dir, &error)))?;
    put_in_place(dir)?;
    if written.is_some() {
        warn!("everything that was recorded has been written into a new {}", path.display());
    }
    let aside = aside.map(|path| Aside { what: "the file that took the place of the state", path });
    if let Some(aside) = &aside {
        warn!("{aside}");
    }
    Ok(aside)
}

/// Writes what there is into a new file, which gets its name when it is whole; `None` if nothing can be read.
fn write_new<T>(
    dir: &Path,
    write: impl FnOnce(&Path) -> Result<T, StoreError>,
) -> Result<Option<T>, StateError> {
    let (part, new) = (dir.join(format!("{DATABASE}.part")), dir.join(NEW));
    let failed = |error: &dyn fmt::Display| StateError::Failed(cannot(dir, error));
    for left_over in [&part, &new] {
        match std::fs::remove_file(left_over) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
            _ => {}
        }
    }
    match write(&part) {
        Ok(written) => {
            std::fs::rename(&part, &new).map_err(|error| failed(&error))?;
            Ok(Some(written))
        }
        Err(error) if error.kind == StoreErrorKind::Corrupt => {
            error!("what was in the state cannot be saved: {error}; beginning a new one from what is known");
            Ok(None)
        }
        Err(error) => Err(failed(&error)),
    }
}

/// Gives a new store that is whole its place, if there is one, and nothing has the place.
fn put_in_place(dir: &Path) -> Result<(), StateError> {
    roll_forward(&dir.join(NEW), &dir.join(DATABASE), clock::wall())
        .map_err(|error| StateError::Failed(cannot(dir, &error)))
}

/// `state_dir`, else `$STATE_DIRECTORY` (systemd's; the first of several), else `$XDG_STATE_HOME/runwatch`, else
/// `~/.local/state/runwatch`.
///
/// Paths need not be UTF-8: one that is not would name another directory if it were changed to be.
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
