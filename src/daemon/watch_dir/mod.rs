//! The watched directory, read by its own thread. A file in it whose name is a run id adds that run.
//!
//! Every call on a directory can hang as long as its file server does, so it needs a thread of its own. `events` report
//! new files at once. A listing finds files without an event (NFS, CIFS, overlayfs). Only the path matters: a directory
//! that replaces another one is used instead. Names may be hostile, and `entry` reads them. Files are never opened.
//! `spool` handles the results.

mod entry;
mod events;

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tracing::{debug, warn};

use self::entry::{Entry, Warnings};
use self::events::Events;
use crate::run::RunId;

/// Interval between listings, whatever the events say. The documentation promises this and `CHECK_EVERY`.
pub(super) const LIST_EVERY: Duration = Duration::from_secs(30);

/// Interval between checks that the path still leads to the same directory. Without events, the directory is listed at
/// this interval instead.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Interval between checks for a missing directory.
const MISSING_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of entries read in one listing, because others may be able to write to the directory.
const MOST_ENTRIES: usize = 200_000;

/// A report about the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A complete listing.
    Listed {
        /// Every run with a file.
        all: Vec<RunId>,
        /// Those with a new file.
        new: Vec<RunId>,
    },
    /// Runs with new files.
    Came(Vec<RunId>),
    /// The directory cannot be read; the reason.
    Failed(String),
}

/// Starts the thread. It ends when the receiver is dropped. It is never joined, because it may hang.
pub(super) fn start(dir: &Path, seen: UnboundedSender<Seen>) -> io::Result<()> {
    let mut reader = DirReader::new(dir);
    let work = move || while reader.round().into_iter().all(|one| seen.send(one).is_ok()) {};
    std::thread::Builder::new().name("watch-dir".to_owned()).spawn(work).map(drop)
}

/// Reads the directory.
struct DirReader {
    dir: PathBuf,
    /// Whether to make the directory. False once it has existed: then whoever removed it has to make it.
    may_make: bool,
    events: Option<Events>,
    /// Whether missing events were logged.
    has_said: bool,
    /// Runs that were reported and whose files exist.
    known: HashSet<RunId>,
    warnings: Warnings,
    /// Whether too many entries were logged.
    has_said_too_much: bool,
    listed_at: Option<Instant>,
    /// When the last failure was reported.
    failed_at: Option<Instant>,
}

impl DirReader {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            may_make: true,
            events: None,
            has_said: false,
            known: HashSet::new(),
            warnings: Warnings::default(),
            has_said_too_much: false,
            listed_at: None,
            failed_at: None,
        }
    }

    /// Lists the directory if needed, or waits for events. Returns the reports.
    fn round(&mut self) -> Vec<Seen> {
        let is_another = match self.follow() {
            Ok(is_another) => is_another,
            Err(error) => return self.failed(&error),
        };
        let every = if self.events.is_some() { LIST_EVERY } else { CHECK_EVERY };
        let next = self.listed_at.map_or(Duration::ZERO, |at| every.saturating_sub(at.elapsed()));
        if is_another || next.is_zero() {
            return self.list().map_or_else(|error| self.failed(&error), |seen| vec![seen]);
        }
        self.wait(next.min(CHECK_EVERY))
    }

    /// Watches the directory that is at the path now. Returns whether it is another one than before.
    fn follow(&mut self) -> io::Result<bool> {
        if self.may_make {
            // Mode 0700 from the start, whatever the umask.
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        }
        let followed = match &mut self.events {
            Some(events) => events.follow(&self.dir),
            None => Events::of(&self.dir).map(|events| {
                self.events = Some(events);
                true
            }),
        };
        match followed {
            Ok(is_another) => Ok(is_another),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                Err(io::Error::new(io::ErrorKind::NotFound, "there is no such directory"))
            }
            Err(error) => {
                self.events = None;
                if !std::mem::replace(&mut self.has_said, true) {
                    let every = crate::span::human(CHECK_EVERY);
                    let dir = self.dir.display();
                    warn!("no events for {dir} ({error}): new files in it are found within {every}");
                }
                Ok(false)
            }
        }
    }

    /// Reports the error if it is new, or was last reported a while ago. Otherwise pauses.
    fn failed(&mut self, error: &io::Error) -> Vec<Seen> {
        self.listed_at = None;
        if self.failed_at.is_some() {
            std::thread::sleep(MISSING_CHECK_EVERY);
        }
        if self.failed_at.is_some_and(|at| at.elapsed() < LIST_EVERY) {
            return Vec::new();
        }
        self.failed_at = Some(Instant::now());
        vec![Seen::Failed(error.to_string())]
    }

    /// Lists the directory.
    fn list(&mut self) -> io::Result<Seen> {
        let mut all = HashSet::new();
        let mut ignored = Vec::new();
        let mut count = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            count += 1;
            if count > MOST_ENTRIES {
                if !std::mem::replace(&mut self.has_said_too_much, true) {
                    warn!("{} has more than {MOST_ENTRIES} entries: the rest is ignored", self.dir.display());
                }
                break;
            }
            // An entry that is gone is not a file any more.
            let Ok(kind) = entry.file_type() else { continue };
            match entry::read(&self.dir, &entry.file_name(), Some(kind)) {
                Entry::Run(run) => drop(all.insert(run)),
                Entry::Nothing => {}
                Entry::Ignored(why) => ignored.push((entry.file_name(), why)),
            }
        }
        self.may_make = false;
        (self.listed_at, self.failed_at) = (Some(Instant::now()), None);
        self.warnings.warn(ignored, true);
        let new = all.difference(&self.known).cloned().collect();
        self.known = all;
        Ok(Seen::Listed { all: self.known.iter().cloned().collect(), new })
    }

    /// Waits for events, for `bound` at most. Returns their runs.
    fn wait(&mut self, bound: Duration) -> Vec<Seen> {
        let Some(events) = &self.events else {
            std::thread::sleep(bound);
            return Vec::new();
        };
        let batch = match events.wait(bound) {
            Ok(batch) => batch,
            Err(error) => {
                debug!("cannot read events: {error}");
                self.events = None;
                return Vec::new();
            }
        };
        if batch.must_list {
            self.listed_at = None;
        }
        let (mut runs, mut ignored) = (Vec::new(), Vec::new());
        for name in batch.names {
            let kind = std::fs::symlink_metadata(self.dir.join(&name)).ok().map(|entry| entry.file_type());
            match entry::read(&self.dir, &name, kind) {
                Entry::Run(run) => runs.push(run),
                Entry::Nothing => {}
                Entry::Ignored(why) => ignored.push((name, why)),
            }
        }
        self.warnings.warn(ignored, false);
        self.known.extend(runs.iter().cloned());
        if runs.is_empty() { Vec::new() } else { vec![Seen::Came(runs)] }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn ids(runs: &[RunId]) -> Vec<String> {
        let mut ids: Vec<String> = runs.iter().map(ToString::to_string).collect();
        ids.sort();
        ids
    }

    /// Runs rounds until something new is found. Returns the new ids in order.
    fn next(reader: &mut DirReader) -> Vec<String> {
        for _ in 0..100 {
            for seen in reader.round() {
                match seen {
                    Seen::Came(runs) | Seen::Listed { new: runs, .. } if !runs.is_empty() => {
                        return ids(&runs);
                    }
                    Seen::Failed(error) => panic!("{error}"),
                    _ => {}
                }
            }
        }
        panic!("nothing comes")
    }

    fn touch(dir: &Path, name: &str) {
        std::fs::write(dir.join(name), "").unwrap();
    }

    struct Place {
        _dir: tempfile::TempDir,
        spool: PathBuf,
        other: PathBuf,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let (spool, other) = (dir.path().join("below/spool"), dir.path().join("other"));
        Place { _dir: dir, spool, other }
    }

    #[test]
    fn files_that_were_there_and_files_that_come() {
        let Place { spool, _dir, .. } = place();
        std::fs::create_dir_all(&spool).unwrap();
        for name in ["a", ".hidden", "b.tmp", "two words"] {
            touch(&spool, name);
        }
        let fifo = |name| rustix::fs::mkfifoat(rustix::fs::CWD, spool.join(name), 0o600.into()).unwrap();
        std::fs::create_dir(spool.join("directory")).unwrap();
        fifo("fifo");
        symlink("/nowhere", spool.join("link")).unwrap();
        let mut reader = DirReader::new(&spool);
        assert_eq!(next(&mut reader), ["a"]);
        std::fs::create_dir(spool.join("directory-2")).unwrap();
        fifo("fifo-2");
        symlink("/nowhere", spool.join("link-2")).unwrap();
        std::fs::rename(spool.join("b.tmp"), spool.join("b")).unwrap();
        assert_eq!(next(&mut reader), ["b"]);
        // A file that appears again is new for an event, but not for a listing.
        std::fs::remove_file(spool.join("b")).unwrap();
        touch(&spool, "b");
        assert_eq!(next(&mut reader), ["b"]);
        reader.listed_at = None;
        let Some(Seen::Listed { all, new }) = reader.round().pop() else { panic!("no listing") };
        assert_eq!((ids(&all), ids(&new)), (["a", "b"].map(String::from).to_vec(), vec![]));
    }

    #[test]
    fn it_is_made_for_its_owner_alone_and_only_once() {
        let Place { spool, _dir, .. } = place();
        let mut reader = DirReader::new(&spool);
        reader.round();
        for dir in [&spool, spool.parent().unwrap()] {
            assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::remove_dir(&spool).unwrap();
        assert_eq!(reader.round(), [Seen::Failed("there is no such directory".to_owned())]);
        assert_eq!(reader.round(), [], "it is said once in a while");
        assert!(!spool.exists(), "whoever took it away may make it anew");
        std::fs::create_dir(&spool).unwrap();
        touch(&spool, "a");
        assert_eq!(next(&mut reader), ["a"]);
        touch(&spool, "b");
        assert_eq!(next(&mut reader), ["b"]);
    }

    #[test]
    fn a_directory_that_takes_the_place_of_another_is_followed() {
        let Place { spool, other, _dir } = place();
        let mut reader = DirReader::new(&spool);
        reader.round();
        // Renamed and made again.
        std::fs::rename(&spool, &other).unwrap();
        std::fs::create_dir(&spool).unwrap();
        touch(&other, "old");
        touch(&spool, "a");
        assert_eq!(next(&mut reader), ["a"]);
        touch(&other, "old-2");
        touch(&spool, "b");
        assert_eq!(next(&mut reader), ["b"]);
        // Moved back, with its current content.
        std::fs::remove_dir_all(&spool).unwrap();
        std::fs::rename(&other, &spool).unwrap();
        assert_eq!(next(&mut reader), ["old", "old-2"]);
    }

    #[test]
    fn a_link_that_is_swapped_is_followed_wherever_it_is_in_the_path() {
        let Place { spool, other, _dir } = place();
        let root = other.parent().unwrap();
        for release in ["1", "2"] {
            std::fs::create_dir_all(root.join(release).join("spool")).unwrap();
        }
        symlink("1", root.join("current")).unwrap();
        let mut reader = DirReader::new(&root.join("current/spool"));
        reader.round();
        touch(&root.join("2/spool"), "a");
        symlink("2", root.join("new")).unwrap();
        std::fs::rename(root.join("new"), root.join("current")).unwrap();
        assert_eq!(next(&mut reader), ["a"]);
        touch(&root.join("2/spool"), "b");
        assert_eq!(next(&mut reader), ["b"]);
        drop(spool);
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_a_listing_finds_what_came() {
        let Place { spool, _dir, .. } = place();
        let mut reader = DirReader::new(&spool);
        reader.round();
        touch(&spool, "a");
        // As on a file system without events.
        reader.events.as_ref().unwrap().lose();
        tokio::time::advance(LIST_EVERY).await;
        assert_eq!(next(&mut reader), ["a"]);
    }
}
