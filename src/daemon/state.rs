//! The state directory of a daemon: where it is, who has it, and opening what is in it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::DaemonError;
use crate::clock;
use crate::config::Environment;
use crate::store::{Lock, SqliteStore, StoreErrorKind, set_aside};

/// A daemon's state: the right to it, and the store in it.
pub(super) struct State {
    dir: PathBuf,
    _lock: Lock,
    /// Where a damaged store was put, if one was found.
    pub(super) set_aside: Option<PathBuf>,
    pub(super) store: SqliteStore,
}

impl State {
    /// Takes the directory and opens the store; one that is damaged is set aside and a new one begun. Blocks.
    pub(super) fn open(dir: &Path) -> Result<Self, DaemonError> {
        let refuse = |error: &dyn std::fmt::Display| {
            DaemonError::Config(format!("cannot keep the state in {}: {error}", dir.display()))
        };
        // Others have no business with what is in there.
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir).map_err(|error| refuse(&error))?;
        let lock = Lock::take(dir, clock::wall()).map_err(|error| refuse(&error))?;
        let (store, set_aside) = open_store(dir)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock, set_aside, store })
    }

    /// Sets the store aside, which has turned out to be damaged, and begins a new one.
    pub(super) async fn begin_again(&mut self) -> Result<(), DaemonError> {
        let dir = self.dir.clone();
        let begin = move || {
            let aside = put_aside(&dir)?;
            Ok::<_, DaemonError>((open_store(&dir)?.0, aside))
        };
        let replaced = self.store.abandon(begin).await;
        let closed = || DaemonError::Internal("the store is closed".to_owned());
        let (store, aside) = replaced.ok_or_else(closed)??;
        (self.store, self.set_aside) = (store, Some(aside));
        Ok(())
    }
}

fn open_store(dir: &Path) -> Result<(SqliteStore, Option<PathBuf>), DaemonError> {
    let path = dir.join("runwatch.db");
    let opened = SqliteStore::open(&path);
    let (opened, aside) = match opened {
        Err(error) if error.kind == StoreErrorKind::Corrupt => {
            error!("{} is damaged: {error}", path.display());
            let aside = put_aside(dir)?;
            warn!("runs that were added by a command are only in there, too: see `runwatch add`");
            warn!(
                "so is which runs were removed: where runs are looked for, those that go on are found again"
            );
            (SqliteStore::open(&path), Some(aside))
        }
        opened => (opened, None),
    };
    let store = opened.map_err(|error| {
        let message = format!("cannot keep the state in {}: {error}", dir.display());
        match error.kind {
            StoreErrorKind::ReadOnly | StoreErrorKind::Newer => DaemonError::Config(message),
            // A full disk may have room again when the service manager tries the next time.
            _ => DaemonError::Internal(message),
        }
    })?;
    Ok((store, aside))
}

fn put_aside(dir: &Path) -> Result<PathBuf, DaemonError> {
    let path = dir.join("runwatch.db");
    let aside = set_aside(&path, clock::wall()).map_err(|error| {
        DaemonError::Internal(format!("{} is damaged and cannot be set aside: {error}", path.display()))
    })?;
    warn!(
        "it is kept as {}; what was still to be told is only in there, and so is which runs were removed: those that go \
         on are found again where runs are looked for",
        aside.display()
    );
    Ok(aside)
}

/// `state_dir`, else `$STATE_DIRECTORY` (systemd's; the first of several), else `$XDG_STATE_HOME/runwatch`, else
/// `~/.local/state/runwatch`.
pub fn directory(configured: Option<&Path>, env: Environment<'_>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let absolute = |value: String| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    configured
        .map(Path::to_owned)
        .or_else(|| set("STATE_DIRECTORY").and_then(|dirs| dirs.split(':').next().map(PathBuf::from)))
        .or_else(|| set("XDG_STATE_HOME").and_then(absolute).map(|home| home.join("runwatch")))
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/state/runwatch")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_where_the_example_says() {
        let find = |set: &[(&str, &str)], configured: Option<&str>| {
            let set: Vec<(String, String)> = set.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            let env =
                move |name: &str| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
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
    }
}
