//! The watched directory, looked at by a thread of its own: a file in it whose name is a run id has that run watched.
//!
//! A thread, because every call on a directory can hang for as long as its file server does, and because one that hangs
//! must hold up nothing. `events` say what comes at once; a listing finds what came without one (NFS, CIFS, overlayfs). The
//! path is what counts: a directory that takes the place of another is followed. Names are hostile, and `entry` reads them;
//! files are never opened. `spool` decides what becomes of it.

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

/// How often the directory is listed, whatever events say. The documentation promises it, and `CHECK_EVERY`.
pub(super) const LIST_EVERY: Duration = Duration::from_secs(30);

/// How often it is checked whether the path leads to the same directory still. Where there are no events, it is listed this
/// often: nothing else would tell.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether a directory that is gone is back.
const MISSING_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Entries that are read in one listing. A directory that others may write to must not cost more.
const MOST_ENTRIES: usize = 200_000;

/// What was seen in the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// All that is there, and those of it that are new.
    Listed {
        /// Every run with a file.
        all: Vec<RunId>,
        /// Those that were not there before.
        new: Vec<RunId>,
    },
    /// Files that came.
    Came(Vec<RunId>),
    /// The directory cannot be looked at; why.
    Failed(String),
}

/// Starts the thread. It ends when nobody receives any more, and is never joined: it may hang.
pub(super) fn start(dir: &Path, seen: UnboundedSender<Seen>) -> io::Result<()> {
    let mut looker = Looker::new(dir);
    let work = move || while looker.round().into_iter().all(|one| seen.send(one).is_ok()) {};
    std::thread::Builder::new().name("watch-dir".to_owned()).spawn(work).map(drop)
}

/// Looks at the directory.
struct Looker {
    dir: PathBuf,
    /// Makes the directory. Only until it was there: later it is made by whoever took it away.
    may_make: bool,
    events: Option<Events>,
    /// Events were not to be had, and that was said.
    has_said: bool,
    /// The runs that were handed over and whose files are there.
    known: HashSet<RunId>,
    warnings: Warnings,
    /// That there is too much in the directory was said.
    has_said_too_much: bool,
    listed_at: Option<Instant>,
    /// When it was last said that it cannot be looked at.
    failed_at: Option<Instant>,
}

impl Looker {
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

    /// Lists what has to be listed, or waits for something to happen; gives what was seen.
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

    /// Sees to it that events are those of the directory that the path leads to; whether it is another than before.
    fn follow(&mut self) -> io::Result<bool> {
        if self.may_make {
            // 0700 from the start, whatever the umask.
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

    /// The trouble, if it is news or was last said a while ago. Pauses if it is no news.
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

    /// Everything in the directory.
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
            // One that has gone meanwhile is no file any more.
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

    /// Waits for events, this long at most; gives the runs they are about.
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

    /// Goes on until something new is seen; gives the ids of it, in order.
    fn next(looker: &mut Looker) -> Vec<String> {
        for _ in 0..100 {
            for seen in looker.round() {
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
        let mut looker = Looker::new(&spool);
        assert_eq!(next(&mut looker), ["a"]);
        std::fs::create_dir(spool.join("directory-2")).unwrap();
        fifo("fifo-2");
        symlink("/nowhere", spool.join("link-2")).unwrap();
        std::fs::rename(spool.join("b.tmp"), spool.join("b")).unwrap();
        assert_eq!(next(&mut looker), ["b"]);
        // A file that comes again is news, by an event; by a listing it is not.
        std::fs::remove_file(spool.join("b")).unwrap();
        touch(&spool, "b");
        assert_eq!(next(&mut looker), ["b"]);
        looker.listed_at = None;
        let Some(Seen::Listed { all, new }) = looker.round().pop() else { panic!("no listing") };
        assert_eq!((ids(&all), ids(&new)), (["a", "b"].map(String::from).to_vec(), vec![]));
    }

    #[test]
    fn it_is_made_for_its_owner_alone_and_only_once() {
        let Place { spool, _dir, .. } = place();
        let mut looker = Looker::new(&spool);
        looker.round();
        for dir in [&spool, spool.parent().unwrap()] {
            assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::remove_dir(&spool).unwrap();
        assert_eq!(looker.round(), [Seen::Failed("there is no such directory".to_owned())]);
        assert_eq!(looker.round(), [], "it is said once in a while");
        assert!(!spool.exists(), "whoever took it away may make it anew");
        std::fs::create_dir(&spool).unwrap();
        touch(&spool, "a");
        assert_eq!(next(&mut looker), ["a"]);
        touch(&spool, "b");
        assert_eq!(next(&mut looker), ["b"]);
    }

    #[test]
    fn a_directory_that_takes_the_place_of_another_is_followed() {
        let Place { spool, other, _dir } = place();
        let mut looker = Looker::new(&spool);
        looker.round();
        // Renamed and made anew.
        std::fs::rename(&spool, &other).unwrap();
        std::fs::create_dir(&spool).unwrap();
        touch(&other, "old");
        touch(&spool, "a");
        assert_eq!(next(&mut looker), ["a"]);
        touch(&other, "old-2");
        touch(&spool, "b");
        assert_eq!(next(&mut looker), ["b"]);
        // Back again, with what is in it by now.
        std::fs::remove_dir_all(&spool).unwrap();
        std::fs::rename(&other, &spool).unwrap();
        assert_eq!(next(&mut looker), ["old", "old-2"]);
    }

    #[test]
    fn a_link_that_is_swapped_is_followed_wherever_it_is_in_the_path() {
        let Place { spool, other, _dir } = place();
        let root = other.parent().unwrap();
        for release in ["1", "2"] {
            std::fs::create_dir_all(root.join(release).join("spool")).unwrap();
        }
        symlink("1", root.join("current")).unwrap();
        let mut looker = Looker::new(&root.join("current/spool"));
        looker.round();
        touch(&root.join("2/spool"), "a");
        symlink("2", root.join("new")).unwrap();
        std::fs::rename(root.join("new"), root.join("current")).unwrap();
        assert_eq!(next(&mut looker), ["a"]);
        touch(&root.join("2/spool"), "b");
        assert_eq!(next(&mut looker), ["b"]);
        drop(spool);
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_a_listing_finds_what_came() {
        let Place { spool, _dir, .. } = place();
        let mut looker = Looker::new(&spool);
        looker.round();
        touch(&spool, "a");
        // As on a file system that has none.
        looker.events.as_ref().unwrap().lose();
        tokio::time::advance(LIST_EVERY).await;
        assert_eq!(next(&mut looker), ["a"]);
    }
}
