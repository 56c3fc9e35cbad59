//! Kernel events for one directory (inotify).

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::{Errno, Result};

/// Events for the directory at a path.
pub(super) struct Events {
    inotify: OwnedFd,
    /// The watch of the directory that was at the path last.
    watch: i32,
}

/// The content of some events.
#[derive(Default)]
pub(super) struct Batch {
    /// Names of new entries, except directories.
    pub(super) names: Vec<OsString>,
    /// Whether the directory must be listed to find all new entries.
    pub(super) must_list: bool,
}

impl Events {
    /// Watches the directory that is at the path now.
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let watch = add(&inotify, dir)?;
        Ok(Self { inotify, watch })
    }

    /// Watches the directory that is at the path now. Returns whether it is another one than before.
    pub(super) fn follow(&mut self, dir: &Path) -> Result<bool> {
        // The kernel returns the same watch for the same directory.
        let watch = add(&self.inotify, dir)?;
        let is_another = watch != self.watch;
        if is_another {
            // The directory, and the watch with it, may be gone.
            let _ = remove_watch(&self.inotify, self.watch);
        }
        self.watch = watch;
        Ok(is_another)
    }

    /// Waits until there are events, for `bound` at most, and reads them.
    pub(super) fn wait(&self, bound: Duration) -> Result<Batch> {
        // It is a few seconds, so the conversion does not fail.
        let bound = Timespec::try_from(bound).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // An interruption by a signal counts as a timeout.
        let _ = poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&bound));
        // After the directory was moved away, its events no longer belong to the path.
        let (mut batch, mut moved) = (Batch::default(), false);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => batch.must_list = true,
                Ok(event) if event.wd() != self.watch => {}
                Ok(event) if event.events().contains(ReadFlags::MOVE_SELF) => moved = true,
                Ok(_) if moved => {}
                Ok(event) if event.events().contains(ReadFlags::ISDIR) => {}
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    batch.names.extend(name);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        batch.must_list |= moved;
        Ok(batch)
    }

    /// Drops pending events, as on a file system without events.
    #[cfg(test)]
    pub(super) fn lose(&self) {
        rustix::io::read(&self.inotify, &mut [0; 4096]).unwrap();
    }
}

fn add(inotify: &OwnedFd, dir: &Path) -> Result<i32> {
    let what = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    // Deletion or renaming of the directory itself wakes the thread, which then checks the path.
    let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
    add_watch(inotify, dir, what | itself)
}
