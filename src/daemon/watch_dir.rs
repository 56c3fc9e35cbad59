//! The watched directory, looked at by a thread of its own: a file in it whose name is a run id has that run watched.
//!
//! A thread, because every call on a directory can hang for as long as its file server does, and because one that hangs
//! must hold up nothing. Events say what comes at once; a listing finds what came without one (NFS, CIFS, overlayfs). The
//! path is what counts: a directory that takes the place of another is followed. Names are hostile, files are never
//! opened. `spool` decides what becomes of it.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::run::{RunId, printable};

/// How often the directory is listed, whatever events say.
pub(super) const LIST_EVERY: Duration = Duration::from_secs(30);

/// How often it is looked whether the path leads to the same directory still.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether a directory that is gone is back.
const MISSING_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Entries that are read in one listing. A directory that others may write to must not cost more.
const MOST_ENTRIES: usize = 200_000;

/// Names that are said between two listings because they are no ids.
const MOST_SAID: usize = 10;

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
    /// The names that were said to be no ids and are there.
    said: HashSet<OsString>,
    /// How many were said since the last listing.
    said_lately: usize,
    /// That there is too much in the directory was said.
    has_said_too_much: bool,
    listed_at: Option<Instant>,
    /// When it was last said that it cannot be looked at.
    failed_at: Option<Instant>,
}

/// The kernel's events of one directory.
struct Events {
    inotify: OwnedFd,
    /// The watch of the directory that the path led to last.
    watch: i32,
}

impl Looker {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            may_make: true,
            events: None,
            has_said: false,
            known: HashSet::new(),
            said: HashSet::new(),
            said_lately: 0,
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
        if is_another || self.listed_at.is_none_or(|at| at.elapsed() >= LIST_EVERY) {
            return self.list().map_or_else(|error| self.failed(&error), |seen| vec![seen]);
        }
        self.wait(CHECK_EVERY)
    }

    /// Sees to it that events are those of the directory that the path leads to; whether it is another than before.
    fn follow(&mut self) -> io::Result<bool> {
        if self.may_make {
            // 0700 from the start, whatever the umask.
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        }
        let new = match &self.events {
            Some(events) => add(&events.inotify, &self.dir).map(|watch| (watch, None)),
            None => init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
                .and_then(|inotify| add(&inotify, &self.dir).map(|watch| (watch, Some(inotify)))),
        };
        match (new, &mut self.events) {
            (Ok((watch, None)), Some(events)) => {
                // The same directory has the same watch.
                let is_another = watch != events.watch;
                if is_another {
                    // Its directory is gone, perhaps, and the watch with it.
                    let _ = remove_watch(&events.inotify, events.watch);
                }
                events.watch = watch;
                Ok(is_another)
            }
            (Ok((watch, Some(inotify))), _) => {
                self.events = Some(Events { inotify, watch });
                Ok(true)
            }
            (Err(Errno::NOENT | Errno::NOTDIR), _) => {
                Err(io::Error::new(io::ErrorKind::NotFound, "there is no such directory"))
            }
            (Err(error), _) => {
                self.events = None;
                if !std::mem::replace(&mut self.has_said, true) {
                    let every = crate::span::human(LIST_EVERY);
                    let dir = self.dir.display();
                    warn!("no events for {dir} ({error}): new files in it are found within {every}");
                }
                Ok(false)
            }
            (Ok((_, None)), None) => Ok(false),
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
        let mut others = Vec::new();
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
            if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                match run_of(&entry.file_name()) {
                    Name::Run(run) => drop(all.insert(run)),
                    Name::Nothing => {}
                    Name::Bad(why) => others.push((entry.file_name(), why)),
                }
            }
        }
        self.may_make = false;
        (self.listed_at, self.failed_at) = (Some(Instant::now()), None);
        self.say(others, true);
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
        // Its seconds are few.
        let bound = Timespec::try_from(bound).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // Broken off by a signal is as good as over.
        let _ = poll(&mut [PollFd::new(&events.inotify, PollFlags::IN)], Some(&bound));
        // Since it was moved away, events are of a directory that the path does not lead to, as far as is known.
        let (mut names, mut missed, mut moved) = (Vec::new(), false, false);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&events.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => missed = true,
                Ok(event) if event.wd() != events.watch => {}
                Ok(event) if event.events().contains(ReadFlags::MOVE_SELF) => moved = true,
                Ok(_) if moved => {}
                Ok(event) if event.events().contains(ReadFlags::ISDIR) => {}
                Ok(event) => {
                    names.extend(event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    debug!("cannot read events: {error}");
                    self.events = None;
                    return Vec::new();
                }
            }
        }
        if missed || moved {
            self.listed_at = None;
        }
        let (mut runs, mut others) = (Vec::new(), Vec::new());
        for name in names {
            match run_of(&name) {
                Name::Run(run) => runs.push(run),
                Name::Nothing => {}
                Name::Bad(why) => others.push((name, why)),
            }
        }
        self.say(others, false);
        self.known.extend(runs.iter().cloned());
        if runs.is_empty() { Vec::new() } else { vec![Seen::Came(runs)] }
    }

    /// Says of names that they are no ids, once each, and few at a time. `is_all` if these are all there are.
    fn say(&mut self, names: Vec<(OsString, String)>, is_all: bool) {
        let before = self.said_lately;
        let mut there = HashSet::new();
        for (name, why) in names {
            if !self.said.contains(&name) && !there.contains(&name) {
                self.said_lately += 1;
                if self.said_lately <= MOST_SAID {
                    warn!("a file in the watched directory is ignored: {why}");
                }
            }
            there.insert(name);
        }
        if before <= MOST_SAID && self.said_lately > MOST_SAID {
            warn!("more files in the watched directory are ignored: their names are no run ids");
        }
        if is_all {
            (self.said, self.said_lately) = (there, 0);
        } else {
            self.said.extend(there);
        }
    }
}

fn add(inotify: &OwnedFd, dir: &Path) -> rustix::io::Result<i32> {
    let what = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    // Its own end and its renaming wake the thread, which then looks where the path leads.
    let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
    add_watch(inotify, dir, what | itself)
}

/// What the name of a file says.
enum Name {
    /// It is a run's id.
    Run(RunId),
    /// It is hidden or unfinished (`.x`, `x~`, `x.tmp`, `x.part`).
    Nothing,
    /// It is no id; why.
    Bad(String),
}

fn run_of(name: &OsStr) -> Name {
    let Some(text) = name.to_str() else {
        return Name::Bad(format!("`{}` is not UTF-8", printable(&name.to_string_lossy(), 60)));
    };
    if text.starts_with('.') || [".tmp", ".part", "~"].iter().any(|end| text.ends_with(end)) {
        return Name::Nothing;
    }
    text.parse().map_or_else(|error: crate::run::RunIdError| Name::Bad(error.to_string()), Name::Run)
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
        std::fs::create_dir(spool.join("directory")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, spool.join("fifo"), 0o600.into()).unwrap();
        symlink("/nowhere", spool.join("link")).unwrap();
        let mut looker = Looker::new(&spool);
        assert_eq!(next(&mut looker), ["a", "fifo", "link"]);
        std::fs::create_dir(spool.join("directory-2")).unwrap();
        std::fs::rename(spool.join("b.tmp"), spool.join("b")).unwrap();
        assert_eq!(next(&mut looker), ["b"]);
        // A file that comes again is news, by an event; by a listing it is not.
        std::fs::remove_file(spool.join("b")).unwrap();
        touch(&spool, "b");
        assert_eq!(next(&mut looker), ["b"]);
        looker.listed_at = None;
        let Some(Seen::Listed { all, new }) = looker.round().pop() else { panic!("no listing") };
        assert_eq!((ids(&all), ids(&new)), (["a", "b", "fifo", "link"].map(String::from).to_vec(), vec![]));
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
        // As on a file system that has none: the event is lost.
        let inotify = &looker.events.as_ref().unwrap().inotify;
        rustix::io::read(inotify, &mut [0; 4096]).unwrap();
        tokio::time::advance(LIST_EVERY).await;
        assert_eq!(next(&mut looker), ["a"]);
    }

    #[test]
    fn what_is_no_id_is_said_once() {
        let Place { spool, _dir, .. } = place();
        std::fs::create_dir_all(&spool).unwrap();
        let mut looker = Looker::new(&spool);
        touch(&spool, "two words");
        std::fs::write(spool.join(OsStr::from_bytes(b"\xff\n::error::x")), "").unwrap();
        for _ in 0..2 {
            looker.listed_at = None;
            looker.list().unwrap();
            assert_eq!(looker.said.len(), 2);
        }
        std::fs::remove_file(spool.join("two words")).unwrap();
        looker.list().unwrap();
        assert_eq!((looker.said.len(), looker.said_lately), (1, 0), "it is forgotten with its file");
        // Whoever makes many of them fills no log.
        looker.round();
        for name in 0..5 * MOST_SAID {
            touch(&spool, &format!("no id {name}"));
            looker.wait(Duration::ZERO);
        }
        assert_eq!(looker.said_lately, 5 * MOST_SAID);
    }
}
