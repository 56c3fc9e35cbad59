//! Which entries of the watched directory are runs, and warnings about the others.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use tracing::warn;

use crate::run::{RunId, RunIdError, printable};

/// Maximum number of separate warnings about entries between two listings.
const WARNED_ONE_BY_ONE: usize = 10;

/// The meaning of an entry.
pub(super) enum Entry {
    /// It is a file, and its name is a run's id.
    Run(RunId),
    /// A directory, or a hidden or unfinished file (`.x`, `x~`, `x.tmp`, `x.part`).
    Nothing,
    /// An entry that is ignored unexpectedly; the reason.
    Ignored(String),
}

/// Reads an entry. `kind` is its own type (for a link, that of the link). It is `None` for an entry that is gone: an
/// entry that just was a file counts.
pub(super) fn read(dir: &Path, name: &OsStr, kind: Option<FileType>) -> Entry {
    let shown = || printable(&name.to_string_lossy(), 60);
    if kind.is_some_and(|kind| kind.is_dir()) {
        return Entry::Nothing;
    }
    let Some(text) = name.to_str() else { return Entry::Ignored(format!("`{}` is not UTF-8", shown())) };
    if text.starts_with('.') || [".tmp", ".part", "~"].iter().any(|end| text.ends_with(end)) {
        return Entry::Nothing;
    }
    if let Some(what) = kind.and_then(|kind| other_than_a_file(kind, &dir.join(name))) {
        return Entry::Ignored(format!("`{}` is {what}, not a file", shown()));
    }
    text.parse().map_or_else(|error: RunIdError| Entry::Ignored(error.to_string()), Entry::Run)
}

/// What the entry is, if it is neither a file nor a link to one: the same rule as `test -f` in a shell.
fn other_than_a_file(kind: FileType, path: &Path) -> Option<&'static str> {
    if kind.is_symlink() {
        return match std::fs::metadata(path) {
            Ok(target) if target.is_file() => None,
            Ok(_) => Some("a link to something else"),
            Err(_) => Some("a link to nothing"),
        };
    }
    match () {
        () if kind.is_file() => None,
        () if kind.is_fifo() => Some("a FIFO"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

/// Warns about ignored entries, once each and a few at a time, so that users with write access cannot fill the log.
#[derive(Default)]
pub(super) struct Warnings {
    /// Existing entries with a warning.
    warned: HashSet<OsString>,
    /// The number of warnings since the last listing.
    lately: usize,
}

impl Warnings {
    /// Warns about ignored entries. `is_all` is true for a complete listing.
    pub(super) fn warn(&mut self, ignored: Vec<(OsString, String)>, is_all: bool) {
        let before = self.lately;
        let mut there = HashSet::new();
        for (name, why) in ignored {
            if !self.warned.contains(&name) && !there.contains(&name) {
                self.lately += 1;
                if self.lately <= WARNED_ONE_BY_ONE {
                    warn!("an entry of the watched directory is ignored: {why}");
                }
            }
            there.insert(name);
        }
        if before <= WARNED_ONE_BY_ONE && self.lately > WARNED_ONE_BY_ONE {
            warn!(
                "more entries of the watched directory are ignored: they are not files, or their names are not run ids"
            );
        }
        if is_all {
            (self.warned, self.lately) = (there, 0);
        } else {
            self.warned.extend(there);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn read_in(dir: &Path, name: &str) -> Result<String, String> {
        let kind = std::fs::symlink_metadata(dir.join(name)).ok().map(|entry| entry.file_type());
        match read(dir, OsStr::new(name), kind) {
            Entry::Run(run) => Ok(run.to_string()),
            Entry::Nothing => Err(String::new()),
            Entry::Ignored(why) => Err(why),
        }
    }

    #[test]
    fn a_file_or_a_link_to_one_is_a_run_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for name in ["file", " spaces ", "line\n", ".hidden", "x.tmp", "x.part", "x~"] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        std::fs::create_dir(dir.join("directory")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo"), 0o600.into()).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
        for (name, target) in [
            ("to-file", "file"),
            ("to-nothing", "nowhere"),
            ("to-directory", "directory"),
            ("to-itself", "to-itself"),
        ] {
            symlink(target, dir.join(name)).unwrap();
        }
        for (name, run) in [
            ("file", "file"),
            ("to-file", "to-file"),
            (" spaces ", "spaces"),
            ("line\n", "line"),
            ("gone", "gone"),
        ] {
            assert_eq!(read_in(dir, name).as_deref(), Ok(run));
        }
        for name in ["directory", ".hidden", "x.tmp", "x.part", "x~"] {
            assert_eq!(read_in(dir, name), Err(String::new()), "{name}");
        }
        for (name, why) in [
            ("fifo", "`fifo` is a FIFO, not a file"),
            ("socket", "`socket` is a socket, not a file"),
            ("to-nothing", "`to-nothing` is a link to nothing, not a file"),
            ("to-directory", "`to-directory` is a link to something else, not a file"),
            ("to-itself", "`to-itself` is a link to nothing, not a file"),
        ] {
            assert_eq!(read_in(dir, name).unwrap_err(), why);
        }
        let null = read(
            Path::new("/dev"),
            OsStr::new("null"),
            Some(std::fs::metadata("/dev/null").unwrap().file_type()),
        );
        assert!(matches!(null, Entry::Ignored(why) if why == "`null` is a device, not a file"));
    }

    #[test]
    fn every_entry_is_warned_of_once_and_few_at_a_time() {
        let ignored =
            |names: &[&str]| names.iter().map(|name| (OsString::from(name), String::new())).collect();
        let mut warnings = Warnings::default();
        warnings.warn(ignored(&["a", "b"]), true);
        warnings.warn(ignored(&["a", "b"]), false);
        assert_eq!((warnings.warned.len(), warnings.lately), (2, 0));
        warnings.warn(ignored(&["b"]), true);
        assert_eq!((warnings.warned.len(), warnings.lately), (1, 0), "it is forgotten with its file");
        for number in 0..5 * WARNED_ONE_BY_ONE {
            warnings.warn(ignored(&[&format!("no id {number}")]), false);
        }
        assert_eq!(warnings.lately, 5 * WARNED_ONE_BY_ONE);
    }
}
